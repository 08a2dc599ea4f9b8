//! Shuffles, votes, reductions, atomics, matrices, barriers with numbers, and the driver-independent parts of a launch.

mod common;
#[path = "common/table.rs"]
mod table;
use common::*;
use half::{bf16, f16};
use table::Bits::W;
use table::{mixed, run_lanes};

fn lanes(text: &str, values: &[[u64; 3]; 32]) -> Vec<u64> {
    run_lanes(text, W, &[W, W], values)
}

#[test]
fn shuffles() {
    let values = mixed(1);
    let a: Vec<u64> = values.iter().map(|v| v[0] & 0xffff_ffff).collect();
    for by in [0usize, 1, 5, 16, 31] {
        for width in [32usize, 16, 8] {
            let segment = |l: usize| l / width * width;
            let high = (32 - width) << 8;
            let go = |mode: &str, clamp: usize, source: &dyn Fn(usize) -> Option<usize>| {
                let got = lanes(&format!("shfl.sync.{mode}.b32 %d|%p, %a, {by}, {}, -1;", high | clamp), &values);
                let want: Vec<u64> = (0..32).map(|l| a[source(l).unwrap_or(l)]).collect();
                assert_eq!(got, want, "{mode} by {by} of {width}");
            };
            go("up", 0, &|l| (l >= segment(l) + by).then(|| l - by));
            go("down", 31, &|l| (l + by < segment(l) + width).then(|| l + by));
            go("bfly", 31, &|l| ((l ^ by) < segment(l) + width).then_some(l ^ by));
            go("idx", 31, &|l| Some(segment(l) + by % width));
        }
    }
}

#[test]
fn votes_matches_and_reductions() {
    let mut values = mixed(2);
    values.iter_mut().enumerate().for_each(|(i, v)| v[0] = [3, 9, 0xffff_fff0][i * 7 % 3]);
    let a: Vec<u32> = values.iter().map(|v| v[0] as u32).collect();
    let ballot = a.iter().enumerate().fold(0u64, |m, (l, &v)| m | ((v == 9) as u64) << l);
    let vote = |text: &str| lanes(&format!("setp.eq.u32 %p, %a, 9;\n{text}"), &values);
    assert_eq!(vote("vote.sync.ballot.b32 %d, %p, -1;"), vec![ballot; 32]);
    assert_eq!(vote("vote.sync.ballot.b32 %d, !%p, -1;"), vec![!ballot & 0xffff_ffff; 32]);
    assert_eq!(vote("vote.sync.any.pred %q, %p, -1;\nselp.b32 %d, 1, 0, %q;"), vec![1; 32]);
    assert_eq!(vote("vote.sync.all.pred %q, %p, -1;\nselp.b32 %d, 1, 0, %q;"), vec![0; 32]);
    assert_eq!(vote("vote.sync.uni.pred %q, %p, -1;\nselp.b32 %d, 1, 0, %q;"), vec![0; 32]);
    let same = |l: usize| (0..32).filter(|&k| a[k] == a[l]).fold(0u64, |m, k| m | 1 << k);
    assert_eq!(lanes("match.any.sync.b32 %d, %a, -1;", &values), (0..32).map(same).collect::<Vec<_>>());
    assert_eq!(lanes("match.all.sync.b32 %d|%p, %a, -1;", &values), vec![0; 32]);
    assert_eq!(lanes("activemask.b32 %d;", &values), vec![0xffff_ffff; 32]);
    let reduce = |op: &str, f: fn(u32, u32) -> u32| {
        let want = a.iter().copied().reduce(f).unwrap() as u64;
        assert_eq!(lanes(&format!("redux.sync.{op} %d, %a, -1;"), &values), vec![want; 32], "{op}");
    };
    reduce("add.u32", u32::wrapping_add);
    reduce("min.u32", u32::min);
    reduce("max.u32", u32::max);
    reduce("min.s32", |x, y| (x as i32).min(y as i32) as u32);
    reduce("max.s32", |x, y| (x as i32).max(y as i32) as u32);
    reduce("and.b32", |x, y| x & y);
    reduce("or.b32", |x, y| x | y);
    reduce("xor.b32", |x, y| x ^ y);
}

fn header(params: &str, body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k({params})\n{{\n.reg .pred %p<4>;\n.reg .b16 %h<4>;\n.reg .b32 %r<24>;\n\
         .reg .f32 %f<8>;\n.reg .b64 %rd<12>;\n.shared .align 16 .b8 sh[2048];\nmov.u32 %r1, %tid.x;\n{body}\nret;\n}}\n"
    )
}

/// From the old value and the operand to the new value.
type Change<'a> = &'a dyn Fn(u64, u64) -> u64;

#[test]
fn atomics_of_every_kind_on_every_space() {
    let add_f32 = |o: u64, x: u64| (f32::from_bits(o as u32) + f32::from_bits(x as u32)).to_bits() as u64;
    let cases: [(&str, u64, Change); 12] = [
        ("add.u32", 5, &|o, x| (o + x) & 0xffff_ffff),
        ("min.s32", 7, &|o, x| (o as i32).min(x as i32) as u32 as u64),
        ("max.u32", 7, &|o, x| o.max(x)),
        ("inc.u32", 3, &|o, x| if o >= x { 0 } else { o + 1 }),
        ("dec.u32", 3, &|o, x| if o == 0 || o > x { x } else { o - 1 }),
        ("and.b32", 0xff, &|o, x| o & x),
        ("or.b32", 0xf0, &|o, x| o | x),
        ("xor.b32", 0xff, &|o, x| o ^ x),
        ("exch.b32", 1, &|_, x| x),
        ("add.f32", 1.5f32.to_bits() as u64, &add_f32),
        ("add.u64", 1 << 40, &|o, x| o.wrapping_add(x)),
        ("max.s64", 3, &|o, x| (o as i64).max(x as i64) as u64),
    ];
    for (op, start, model) in cases {
        let (bits, reg) = if op.ends_with("64") { (64, "rd") } else { (32, "r") };
        let value =
            if op == "add.f32" { "cvt.rn.f32.u32 %f1, %r1;\nmov.b32 %r2, %f1;" } else { "add.u32 %r2, %r1, 2;" };
        for space in ["global", "shared", "generic"] {
            let (load, at, name) = match space {
                "global" => ("", "%rd2", ".global"),
                "shared" => (
                    "setp.eq.u32 %p1, %r1, 0;\nmov.u64 %rd4, sh;\nld.global.b64 %rd5, [%rd2];\n@%p1 st.shared.b64 [%rd4], %rd5;\nbar.sync 0;",
                    "%rd4",
                    ".shared",
                ),
                _ => ("", "%rd1", ""),
            };
            let end = if space == "shared" {
                "bar.sync 0;\nld.shared.b64 %rd5, [%rd4];\n@%p1 st.global.b64 [%rd2], %rd5;"
            } else {
                ""
            };
            let body = format!(
                "ld.param.u64 %rd1, [p];\ncvta.to.global.u64 %rd2, %rd1;\n{load}\n{value}\ncvt.u64.u32 %rd3, %r2;\nmov.b64 {{%r2, _}}, %rd3;\n\
                                atom{name}.{op} %{reg}7, [{at}], %{reg}{};\n{end}",
                if bits == 64 { 3 } else { 2 }
            );
            let cell = Buffer::of(&[start]);
            clean(&load_module(&header(".param .u64 p", &body)), "k", config(1, 20), &[Arg::Ptr(&cell)]);
            let operand = |l: u64| if op == "add.f32" { (l as f32).to_bits() as u64 } else { l + 2 };
            let want = (0..20).fold(start, |o, l| model(o, operand(l)));
            assert_eq!(cell.read::<u64>()[0], want, "{op} in {space} memory");
        }
    }
}

fn load_module(text: &str) -> std::sync::Arc<vgpu::ptx::Module> {
    load(text)
}

#[test]
fn compare_and_swap_adds_to_halves_of_words() {
    // What atomicAdd of a bf16x2 is at sm_80: a loop of lanes that fail and try again.
    let body = "ld.param.u64 %rd1, [p];\nld.global.u32 %r2, [%rd1];\nagain:\nadd.u32 %r3, %r2, 65537;\n\
                atom.global.cas.b32 %r4, [%rd1], %r2, %r3;\nsetp.ne.u32 %p1, %r4, %r2;\nmov.u32 %r2, %r4;\n@%p1 bra again;";
    let cell = Buffer::of(&[7u32]);
    clean(&load_module(&header(".param .u64 p", body)), "k", config(3, 40), &[Arg::Ptr(&cell)]);
    assert_eq!(cell.read::<u32>()[0], 7 + 120 * 65537);
}

/// One `mma` of 32 lanes whose registers are given, against a product of matrices laid out as the PTX ISA says.
#[test]
fn products_of_matrices() {
    for (shape, input, k) in [
        ("m16n8k16", "bf16", 16),
        ("m16n8k16", "f16", 16),
        ("m16n8k8", "bf16", 8),
        ("m16n8k8", "f16", 8),
        ("m16n8k8", "tf32", 8),
        ("m16n8k4", "tf32", 4),
    ] {
        let wide = input == "tf32";
        let per_word = if wide { 1 } else { 2 };
        let (na, nb) = (16 * k / 32 / per_word, 8 * k / 32 / per_word);
        let list = |from: usize, n: usize| (from..from + n).map(|i| format!("%r{i}")).collect::<Vec<_>>().join(", ");
        let mut body = String::from("ld.param.u64 %rd1, [p];\nmad.wide.u32 %rd1, %r1, 64, %rd1;\n");
        for i in 0..na + nb + 4 {
            body += &format!("ld.global.u32 %r{}, [%rd1+{}];\n", 2 + i, 4 * i);
        }
        body += &format!(
            "mma.sync.aligned.{shape}.row.col.f32.{input}.{input}.f32 {{{}}}, {{{}}}, {{{}}}, {{{}}};\n",
            list(16, 4),
            list(2, na),
            list(2 + na, nb),
            list(2 + na + nb, 4)
        );
        for i in 0..4 {
            body += &format!("st.global.u32 [%rd1+{}], %r{};\n", 4 * i, 16 + i);
        }
        let mut random = Random(k as u64);
        let mut small = || (random.bits() % 9) as f32 - 4.0;
        let a: Vec<Vec<f32>> = (0..16).map(|_| (0..k).map(|_| small()).collect()).collect();
        let b: Vec<Vec<f32>> = (0..k).map(|_| (0..8).map(|_| small()).collect()).collect();
        let bits = |x: f32| match input {
            "bf16" => bf16::from_f32(x).to_bits() as u32,
            "f16" => f16::from_f32(x).to_bits() as u32,
            _ => x.to_bits() | 0x1abc, // the low bits of a tf32 are ignored
        };
        let mut memory = vec![0u32; 32 * 16];
        for lane in 0..32 {
            let (g, t) = (lane / 4, lane % 4);
            let word = &mut memory[lane * 16..];
            for i in 0..na {
                let row = g + 8 * (i % 2);
                word[i] = if wide {
                    bits(a[row][t + 4 * (i / 2)])
                } else {
                    let column = 2 * t + 8 * (i / 2);
                    bits(a[row][column]) | bits(a[row][column + 1]) << 16
                };
            }
            for i in 0..nb {
                word[na + i] = if wide {
                    bits(b[t + 4 * i][g])
                } else {
                    bits(b[2 * t + 8 * i][g]) | bits(b[2 * t + 8 * i + 1][g]) << 16
                };
            }
            for i in 0..4 {
                word[na + nb + i] = (lane as f32).to_bits();
            }
        }
        let buffer = Buffer::of(&memory);
        clean(&load_module(&header(".param .u64 p", &body)), "k", config(1, 32), &[Arg::Ptr(&buffer)]);
        let got = buffer.read::<f32>();
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
                let want: f32 = lane as f32 + (0..k).map(|l| a[row][l] * b[l][column]).sum::<f32>();
                assert_eq!(got[lane * 16 + i], want, "{shape} {input}: element {row}, {column}");
            }
        }
    }
}

#[test]
fn matrices_from_shared_memory_and_back() {
    for trans in ["", ".trans"] {
        let body = format!(
            "ld.param.u64 %rd1, [p];\nmul.wide.u32 %rd2, %r1, 16;\nadd.u64 %rd3, %rd1, %rd2;\nld.global.v4.u32 {{%r2,%r3,%r4,%r5}}, [%rd3];\n\
             mov.u32 %r6, sh;\nshl.b32 %r7, %r1, 4;\nadd.u32 %r6, %r6, %r7;\nst.shared.v4.u32 [%r6], {{%r2,%r3,%r4,%r5}};\nbar.warp.sync -1;\n\
             ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r8,%r9,%r10,%r11}}, [%r6];\n\
             stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r6+512], {{%r8,%r9,%r10,%r11}};\nbar.warp.sync -1;\n\
             ld.shared.v4.u32 {{%r2,%r3,%r4,%r5}}, [%r6+512];\nst.global.v4.u32 [%rd3], {{%r2,%r3,%r4,%r5}};"
        );
        let values: Vec<u16> = (0..256).collect();
        let buffer = Buffer::of(&values);
        clean(&load_module(&header(".param .u64 p", &body)), "k", config(1, 32), &[Arg::Ptr(&buffer)]);
        let want: Vec<u16> =
            (0..256).map(|i| if trans.is_empty() { i } else { i / 64 * 64 + i % 8 * 8 + i % 64 / 8 }).collect();
        assert_eq!(buffer.read::<u16>(), want, "{trans}");
    }
}

#[test]
fn barriers_with_numbers_and_reductions() {
    // 64 threads: the first warp produces, the second consumes; then all count and vote.
    let body = "ld.param.u64 %rd1, [p];\nmul.wide.u32 %rd2, %r1, 4;\nadd.u64 %rd3, %rd1, %rd2;\nmov.u32 %r2, sh;\nand.b32 %r3, %r1, 31;\nshl.b32 %r3, %r3, 2;\n\
                add.u32 %r2, %r2, %r3;\nsetp.lt.u32 %p1, %r1, 32;\nmov.u32 %r4, 0;\n@!%p1 bra consume;\nst.shared.u32 [%r2], %r1;\nbar.arrive 3, 64;\nbra on;\n\
                consume:\nbar.sync 3, 64;\nld.shared.u32 %r4, [%r2];\non:\nsetp.gt.u32 %p2, %r1, 9;\nbar.red.popc.u32 %r5, 0, %p2;\n\
                bar.red.and.pred %p3, 0, %p2;\nselp.b32 %r6, 1000, 0, %p3;\nadd.u32 %r4, %r4, %r5;\nadd.u32 %r4, %r4, %r6;\nst.global.u32 [%rd3], %r4;";
    let buffer = Buffer::of(&[0u32; 64]);
    clean(&load_module(&header(".param .u64 p", body)), "k", config(1, 64), &[Arg::Ptr(&buffer)]);
    let want: Vec<u32> = (0..64).map(|t| 54 + u32::saturating_sub(t, 32)).collect();
    assert_eq!(buffer.read::<u32>(), want);
}

#[test]
fn places_of_threads_in_three_dimensions_and_dynamic_memory() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.extern .shared .align 16 .b8 dyn[];\n.visible .entry k(.param .u64 p)\n{\n.reg .b32 %r<12>;\n.reg .b64 %rd<4>;\n\
        ld.param.u64 %rd1, [p];\nmov.u32 %r1, %ctaid.z;\nmov.u32 %r2, %nctaid.y;\nmov.u32 %r3, %ctaid.y;\nmad.lo.u32 %r1, %r1, %r2, %r3;\nmov.u32 %r2, %nctaid.x;\nmov.u32 %r3, %ctaid.x;\nmad.lo.u32 %r1, %r1, %r2, %r3;\n\
        mov.u32 %r2, %ntid.z;\nmov.u32 %r3, %tid.z;\nmad.lo.u32 %r1, %r1, %r2, %r3;\nmov.u32 %r2, %ntid.y;\nmov.u32 %r3, %tid.y;\nmad.lo.u32 %r1, %r1, %r2, %r3;\nmov.u32 %r2, %ntid.x;\nmov.u32 %r3, %tid.x;\nmad.lo.u32 %r1, %r1, %r2, %r3;\n\
        mov.u32 %r5, dyn;\nst.shared.u32 [%r5+60], %r2;\nbar.sync 0;\nld.shared.u32 %r6, [dyn+60];\nmul.wide.u32 %rd2, %r1, 4;\nadd.u64 %rd1, %rd1, %rd2;\nadd.u32 %r1, %r1, %r6;\nst.global.u32 [%rd1], %r1;\nret;\n}\n";
    let buffer = Buffer::of(&[0u32; 360]);
    let shape = Config { grid: [2, 3, 2], block: [5, 2, 3], shared: 64 };
    clean(&load_module(text), "k", shape, &[Arg::Ptr(&buffer)]);
    assert_eq!(buffer.read::<u32>(), (0..360).map(|i| i + 5).collect::<Vec<u32>>());
}
