//! Integer, bit, comparison and movement instructions against models written another way.

mod common;
#[path = "common/table.rs"]
mod table;
use table::Bits::{D, H, W};
use table::check;

#[test]
fn arithmetic() {
    let s = |v: u64| v as u32 as i32 as i64;
    check("add.s32 %d, %a, %b;", W, &[W, W], |a, b, _| a + b);
    check("add.u16 %d, %a, %b;", H, &[H, H], |a, b, _| a + b);
    check("add.s64 %d, %a, %b;", D, &[D, D], |a, b, _| a.wrapping_add(b));
    check("sub.s32 %d, %a, %b;", W, &[W, W], |a, b, _| a.wrapping_sub(b));
    check("sub.s64 %d, %a, -5;", D, &[D], |a, _, _| a.wrapping_add(5));
    check("mul.lo.s32 %d, %a, %b;", W, &[W, W], |a, b, _| a.wrapping_mul(b));
    check("mul.lo.s64 %d, %a, %b;", D, &[D, D], |a, b, _| a.wrapping_mul(b));
    check("mul.lo.s16 %d, %a, %b;", H, &[H, H], |a, b, _| a * b);
    check("mul.hi.u32 %d, %a, %b;", W, &[W, W], |a, b, _| (a * b) >> 32);
    check("mul.hi.s32 %d, %a, %b;", W, &[W, W], |a, b, _| ((s(a) * s(b)) >> 32) as u64);
    check("mul.hi.u64 %d, %a, %b;", D, &[D, D], |a, b, _| ((a as u128 * b as u128) >> 64) as u64);
    check("mul.hi.s64 %d, %a, %b;", D, &[D, D], |a, b, _| ((a as i64 as i128 * b as i64 as i128) >> 64) as u64);
    check("mul.wide.u32 %d, %a, %b;", D, &[W, W], |a, b, _| a * b);
    check("mul.wide.s32 %d, %a, %b;", D, &[W, W], |a, b, _| (s(a) * s(b)) as u64);
    check("mul.wide.u16 %d, %a, %b;", W, &[H, H], |a, b, _| a * b);
    check("mul.wide.s16 %d, %a, %b;", W, &[H, H], |a, b, _| (a as i16 as i64 * b as i16 as i64) as u64);
    check("mad.lo.s32 %d, %a, %b, %c;", W, &[W, W, W], |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check("mad.hi.u32 %d, %a, %b, %c;", W, &[W, W, W], |a, b, c| ((a * b) >> 32) + c);
    check("mad.wide.u32 %d, %a, %b, %c;", D, &[W, W, D], |a, b, c| (a * b).wrapping_add(c));
    check("mad.wide.s32 %d, %a, %b, %c;", D, &[W, W, D], |a, b, c| ((s(a) * s(b)) as u64).wrapping_add(c));
    check("div.u32 %d, %a, %b;", W, &[W, W], |a, b, _| a.checked_div(b).unwrap_or(u64::MAX));
    check("div.s32 %d, %a, %b;", W, &[W, W], |a, b, _| s(a).checked_div(s(b)).unwrap_or(-1) as u64);
    check("rem.u32 %d, %a, %b;", W, &[W, W], |a, b, _| a.checked_rem(b).unwrap_or(a));
    check("rem.s64 %d, %a, %b;", D, &[D, D], |a, b, _| match b as i64 {
        0 => a,
        -1 => 0,
        b => (a as i64 % b) as u64,
    });
    check("min.s32 %d, %a, %b;", W, &[W, W], |a, b, _| s(a).min(s(b)) as u64);
    check("max.u32 %d, %a, %b;", W, &[W, W], |a, b, _| a.max(b));
    check("max.s64 %d, %a, %b;", D, &[D, D], |a, b, _| (a as i64).max(b as i64) as u64);
    check("abs.s32 %d, %a;", W, &[W], |a, _, _| s(a).unsigned_abs());
    check("neg.s32 %d, %a;", W, &[W], |a, _, _| (-s(a)) as u64);
    check("neg.s64 %d, %a;", D, &[D], |a, _, _| (a as i64).wrapping_neg() as u64);
    check("sad.u32 %d, %a, %b, %c;", W, &[W, W, W], |a, b, c| a.abs_diff(b) + c);
}

#[test]
fn shifts_and_logic() {
    check("shl.b32 %d, %a, %b;", W, &[W, W], |a, n, _| if n > 31 { 0 } else { a << n });
    check("shl.b64 %d, %a, %b;", D, &[D, W], |a, n, _| if n > 63 { 0 } else { a << n });
    check("shr.u32 %d, %a, %b;", W, &[W, W], |a, n, _| if n > 31 { 0 } else { a >> n });
    check("shr.s32 %d, %a, %b;", W, &[W, W], |a, n, _| (a as u32 as i32 as i64 >> n.min(40)) as u64);
    check("shr.s64 %d, %a, %b;", D, &[D, W], |a, n, _| (a as i64 as i128 >> n.min(100)) as u64);
    check("shr.u64 %d, %a, %b;", D, &[D, W], |a, n, _| if n > 63 { 0 } else { a >> n });
    check("shr.u16 %d, %a, %b;", H, &[H, W], |a, n, _| if n > 15 { 0 } else { a >> n });
    check("and.b32 %d, %a, %b;", W, &[W, W], |a, b, _| a & b);
    check("or.b64 %d, %a, %b;", D, &[D, D], |a, b, _| a | b);
    check("xor.b16 %d, %a, %b;", H, &[H, H], |a, b, _| a ^ b);
    check("not.b32 %d, %a;", W, &[W], |a, _, _| !a);
    check("cnot.b32 %d, %a;", W, &[W], |a, _, _| (a == 0) as u64);
    for table in [0x00, 0x80, 0x96, 0xe8, 0xca, 0x3f, 0xff, 0x17u64] {
        check(&format!("lop3.b32 %d, %a, %b, %c, {table};"), W, &[W, W, W], |a, b, c| {
            (0..32).fold(0, |out, i| out | (table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i)
        });
    }
    let wide = |a: u64, b: u64| (b as u128) << 32 | a as u128;
    check("shf.l.wrap.b32 %d, %a, %b, %c;", W, &[W, W, W], |a, b, n| (wide(a, b) << (n % 32) >> 32) as u64);
    check("shf.l.clamp.b32 %d, %a, %b, %c;", W, &[W, W, W], |a, b, n| (wide(a, b) << n.min(32) >> 32) as u64);
    check("shf.r.wrap.b32 %d, %a, %b, %c;", W, &[W, W, W], |a, b, n| (wide(a, b) >> (n % 32)) as u64);
    check("shf.r.clamp.b32 %d, %a, %b, %c;", W, &[W, W, W], |a, b, n| (wide(a, b) >> n.min(32)) as u64);
}

#[test]
fn bits() {
    let digits = |a: u64, n: usize| format!("{a:0n$b}");
    check("popc.b32 %d, %a;", W, &[W], move |a, _, _| digits(a, 32).matches('1').count() as u64);
    check("popc.b64 %d, %a;", W, &[D], move |a, _, _| digits(a, 64).matches('1').count() as u64);
    check("clz.b32 %d, %a;", W, &[W], move |a, _, _| digits(a, 32).find('1').unwrap_or(32) as u64);
    check("clz.b64 %d, %a;", W, &[D], move |a, _, _| digits(a, 64).find('1').unwrap_or(64) as u64);
    check("brev.b32 %d, %a;", W, &[W], |a, _, _| (0..32).fold(0, |r, i| r | (a >> i & 1) << (31 - i)));
    check("brev.b64 %d, %a;", D, &[D], |a, _, _| (0..64).fold(0, |r, i| r | (a >> i & 1) << (63 - i)));
    check("bfind.u32 %d, %a;", W, &[W], |a, _, _| (0..32).rev().find(|i| a >> i & 1 == 1).unwrap_or(u64::MAX));
    check("bfind.s32 %d, %a;", W, &[W], |a, _, _| (0..32).rev().find(|i| a >> i & 1 != a >> 31).unwrap_or(u64::MAX));
    check("bfind.shiftamt.u32 %d, %a;", W, &[W], |a, _, _| {
        (0..32).find(|i| a >> (31 - i) & 1 == 1).unwrap_or(u64::MAX)
    });
    check("bfind.u64 %d, %a;", W, &[D], |a, _, _| (0..64).rev().find(|i| a >> i & 1 == 1).unwrap_or(u64::MAX));
    let field = |bits: u64, signed: bool| {
        move |a: u64, pos: u64, len: u64| {
            let (pos, len) = (pos & 255, len & 255);
            let sign = if !signed || len == 0 { 0 } else { a >> (pos + len - 1).min(bits - 1) & 1 };
            (0..bits).fold(0, |d, i| {
                let bit = if i < len && pos + i < bits { a >> (pos + i) & 1 } else { sign };
                d | bit << i
            })
        }
    };
    check("bfe.u32 %d, %a, %b, %c;", W, &[W, W, W], field(32, false));
    check("bfe.s32 %d, %a, %b, %c;", W, &[W, W, W], field(32, true));
    check("bfe.u64 %d, %a, %b, %c;", D, &[D, W, W], field(64, false));
    check("bfe.s64 %d, %a, %b, %c;", D, &[D, W, W], field(64, true));
    for (pos, len) in [(0u64, 8u64), (4, 12), (28, 8), (31, 1), (32, 4), (0, 32), (5, 0), (16, 255)] {
        let put = move |bits: u64| {
            move |a: u64, b: u64, _: u64| {
                (0..bits).fold(0, |d, i| {
                    let inside = i >= pos && i < pos + len;
                    d | (if inside { a >> (i - pos) & 1 } else { b >> i & 1 }) << i
                })
            }
        };
        check(&format!("bfi.b32 %d, %a, %b, {pos}, {len};"), W, &[W, W], put(32));
        check(&format!("bfi.b64 %d, %a, %b, {pos}, {len};"), D, &[D, D], put(64));
    }
    check("prmt.b32 %d, %a, %b, %c;", W, &[W, W, W], |a, b, c| {
        let bytes: Vec<u8> = [(a as u32).to_le_bytes(), (b as u32).to_le_bytes()].concat();
        (0..4).fold(0, |d, i| {
            let s = (c >> (4 * i) & 15) as usize;
            let byte = bytes[s & 7];
            let byte = if s & 8 == 0 {
                byte
            } else if byte & 0x80 != 0 {
                0xff
            } else {
                0
            };
            d | (byte as u64) << (8 * i)
        })
    });
}

#[test]
fn comparisons_and_choices() {
    let pick = |p: bool, a: u64, b: u64| if p { a } else { b };
    check("setp.lt.s32 %p, %a, %b;\nselp.b32 %d, %a, %b, %p;", W, &[W, W], |a, b, _| pick((a as i32) < b as i32, a, b));
    check("setp.hs.u32 %p, %a, %b;\nselp.b32 %d, 1, 0, %p;", W, &[W, W], |a, b, _| (a >= b) as u64);
    check("setp.ne.s64 %p, %a, %b;\nselp.b64 %d, %a, 3, %p;", D, &[D, D], |a, b, _| pick(a != b, a, 3));
    check("setp.gt.u16 %p, %a, %b;\nselp.b16 %d, %a, %b, %p;", H, &[H, H], |a, b, _| a.max(b));
    check("setp.eq.u32 %p|%q, %a, %b;\nselp.b32 %d, 1, 0, %q;", W, &[W, W], |a, b, _| (a != b) as u64);
    let both = "setp.lt.u32 %q, %b, %c;\nsetp.lt.MODE.u32 %p, %a, %b, NOT%q;\nselp.b32 %d, 1, 0, %p;";
    for (mode, not) in [("and", ""), ("or", ""), ("xor", ""), ("and", "!"), ("xor", "!")] {
        check(&both.replace("MODE", mode).replace("NOT", not), W, &[W, W, W], |a, b, c| {
            let (x, y) = (a < b, (b < c) != (not == "!"));
            (match mode {
                "and" => x && y,
                "or" => x || y,
                _ => x != y,
            }) as u64
        });
    }
    check("slct.b32.s32 %d, %a, %b, %c;", W, &[W, W, W], |a, b, c| pick(c as i32 >= 0, a, b));
    check(
        "setp.lt.u32 %p, %a, %b;\nnot.pred %q, %p;\nxor.pred %p, %p, %q;\nselp.b32 %d, 1, 0, %p;",
        W,
        &[W, W],
        |_, _, _| 1,
    );
    check(
        "setp.lt.u32 %p, %a, %b;\nmov.u32 %d, 7;\n@%p mov.u32 %d, 8;\n@!%p add.u32 %d, %d, 2;",
        W,
        &[W, W],
        |a, b, _| pick(a < b, 8, 9),
    );
}

#[test]
fn moves_and_integer_conversions() {
    check("mov.b64 %d, {%a, %b};", D, &[W, W], |a, b, _| a | b << 32);
    check("mov.b64 {%r1, %d}, %a;", W, &[D], |a, _, _| a >> 32);
    check("mov.b32 %d, {%a, %b};", W, &[H, H], |a, b, _| a | b << 16);
    check("mov.b32 {%d, _}, %a;", H, &[W], |a, _, _| a);
    check("cvt.u32.u16 %d, %a;", W, &[H], |a, _, _| a);
    check("cvt.s32.s16 %d, %a;", W, &[H], |a, _, _| a as i16 as u64);
    check("cvt.s64.s32 %d, %a;", D, &[W], |a, _, _| a as i32 as u64);
    check("cvt.u64.u32 %d, %a;", D, &[W], |a, _, _| a);
    check("cvt.u32.u64 %d, %a;", W, &[D], |a, _, _| a);
    check("cvt.s32.s8 %d, %a;", W, &[W], |a, _, _| a as i8 as u64);
    check("cvt.u16.u8 %d, %a;", H, &[H], |a, _, _| a & 255);
    check("cvt.sat.u8.s32 %d, %a;", W, &[W], |a, _, _| (a as i32).clamp(0, 255) as u64);
    check("cvt.sat.s32.s64 %d, %a;", W, &[D], |a, _, _| (a as i64).clamp(i32::MIN as i64, i32::MAX as i64) as u64);
}
