//! Floating-point instructions against models: plain Rust where that is the definition, exact neighbours for directed
//! rounding, the `half` crate for 16 bits.

mod common;
#[path = "common/table.rs"]
mod table;
use common::Random;
use half::{bf16, f16};
use table::Bits::{D, H, W};
use table::{check, check_with};

fn f(a: u64) -> f32 {
    f32::from_bits(a as u32)
}
fn d(a: u64) -> f64 {
    f64::from_bits(a)
}
type Ternary<'a> = &'a dyn Fn(f64, f64, f64) -> f64;
type Test = fn(f32, f32) -> bool;

/// Bits of a result, of which any NaN is as good as another.
fn w(x: f32) -> u64 {
    x.to_bits() as u64
}

/// Floats of moderate size, so that results are neither all NaN nor all infinite.
fn singles(seed: u64) -> [[u64; 3]; 32] {
    let mut random = Random(seed + 100);
    std::array::from_fn(|_| {
        std::array::from_fn(|_| match random.bits() % 5 {
            0 => w([0.0, -0.0, 1.0, -2.5, f32::INFINITY, f32::MAX, 1e-40, -3e-41, 0.3][(random.bits() % 9) as usize]),
            1 => w(random.unit() * 1e30),
            _ => w(random.unit() * 8.0),
        })
    })
}
fn doubles(seed: u64) -> [[u64; 3]; 32] {
    let mut random = Random(seed + 200);
    std::array::from_fn(|_| {
        std::array::from_fn(|_| (random.unit() as f64 * 3.7 + random.unit() as f64 * 1e-9).to_bits())
    })
}
fn halves(bf: bool) -> impl Fn(u64) -> [[u64; 3]; 32] {
    move |seed| {
        let mut random = Random(seed + 300);
        std::array::from_fn(|_| {
            std::array::from_fn(|_| {
                let mut one = || {
                    let x = random.unit() * [1.0, 300.0, 1e-5][(random.bits() % 3) as usize];
                    if bf { bf16::from_f32(x).to_bits() } else { f16::from_f32(x).to_bits() }
                };
                one() as u64 | (one() as u64) << 16
            })
        })
    }
}

#[test]
fn single_precision() {
    let flush = |x: f32| if x.is_subnormal() { 0.0f32.copysign(x) } else { x };
    // A NaN's bits are not defined by this: results that are NaN count as 0.
    let n = |x: f32| if x.is_nan() { 0 } else { w(x) };
    let no_nan = "\ntestp.notanumber.f32 %p, %d;\n@%p mov.b32 %d, 0;";
    let go = |text: &str, count: usize, model: &dyn Fn(f32, f32, f32) -> f32| {
        check_with(&format!("{text}{no_nan}"), W, &[W, W, W][..count], singles, |a, b, c| n(model(f(a), f(b), f(c))));
    };
    go("add.f32 %d, %a, %b;", 2, &|a, b, _| a + b);
    go("sub.f32 %d, %a, %b;", 2, &|a, b, _| a - b);
    go("mul.rn.f32 %d, %a, %b;", 2, &|a, b, _| a * b);
    go("div.rn.f32 %d, %a, %b;", 2, &|a, b, _| a / b);
    go("fma.rn.f32 %d, %a, %b, %c;", 3, &|a, b, c| a.mul_add(b, c));
    go("sqrt.rn.f32 %d, %a;", 1, &|a, _, _| a.sqrt());
    go("rcp.rn.f32 %d, %a;", 1, &|a, _, _| 1.0 / a);
    go("neg.f32 %d, %a;", 1, &|a, _, _| -a);
    go("abs.f32 %d, %a;", 1, &|a, _, _| a.abs());
    go("copysign.f32 %d, %a, %b;", 2, &|a, b, _| b.copysign(a));
    go("add.ftz.f32 %d, %a, %b;", 2, &|a, b, _| flush(flush(a) + flush(b)));
    go("mul.ftz.f32 %d, %a, %b;", 2, &|a, b, _| flush(flush(a) * flush(b)));
    go("fma.rn.ftz.f32 %d, %a, %b, %c;", 3, &|a, b, c| flush(flush(a).mul_add(flush(b), flush(c))));
    go("add.sat.f32 %d, %a, %b;", 2, &|a, b, _| if (a + b).is_nan() { 0.0 } else { (a + b).clamp(0.0, 1.0) + 0.0 });
    go("cvt.rni.f32.f32 %d, %a;", 1, &|a, _, _| a.round_ties_even());
    go("cvt.rzi.f32.f32 %d, %a;", 1, &|a, _, _| a.trunc());
    go("cvt.rmi.f32.f32 %d, %a;", 1, &|a, _, _| a.floor());
    go("cvt.rpi.f32.f32 %d, %a;", 1, &|a, _, _| a.ceil());
    go("ex2.approx.f32 %d, %a;", 1, &|a, _, _| (a as f64).exp2() as f32);
    go("lg2.approx.f32 %d, %a;", 1, &|a, _, _| (a as f64).log2() as f32);
    go("rsqrt.approx.f32 %d, %a;", 1, &|a, _, _| (1.0 / (a as f64).sqrt()) as f32);
    go("sin.approx.f32 %d, %a;", 1, &|a, _, _| (a as f64).sin() as f32);
    go("cos.approx.f32 %d, %a;", 1, &|a, _, _| (a as f64).cos() as f32);
    go("tanh.approx.f32 %d, %a;", 1, &|a, _, _| (a as f64).tanh() as f32);
}

#[test]
fn least_and_greatest_with_signed_zeros_and_nan() {
    let nan = w(f32::NAN);
    let cases = [(0.0f32, -0.0f32), (-0.0, 0.0), (1.0, -1.0), (f32::NAN, 2.0), (2.0, f32::NAN), (f32::INFINITY, 3.0)];
    let draw = |_: u64| std::array::from_fn(|i| [w(cases[i % 6].0), w(cases[i % 6].1), 0]);
    let order = |x: f32| (x, !x.is_sign_negative());
    let pick = |a: u64, b: u64, less: bool| match (f(a).is_nan(), f(b).is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if (order(f(a)) < order(f(b))) == less => a,
        _ => b,
    };
    check_with("min.f32 %d, %a, %b;", W, &[W, W], draw, |a, b, _| pick(a, b, true));
    check_with("max.f32 %d, %a, %b;", W, &[W, W], draw, |a, b, _| pick(a, b, false));
    let strict = "max.NaN.f32 %d, %a, %b;\ntestp.notanumber.f32 %p, %d;\n@%p mov.b32 %d, 0x7fc00000;";
    check_with(
        strict,
        W,
        &[W, W],
        draw,
        |a, b, _| if f(a).is_nan() || f(b).is_nan() { nan } else { pick(a, b, false) },
    );
}

/// The neighbours of an exact result, by comparing with a sum or product that `f64` holds exactly.
#[test]
fn directed_rounding() {
    let directed = |exact: f64, mode: &str| {
        let near = exact as f32;
        let (below, above) = if near as f64 > exact {
            (near.next_down(), near)
        } else if (near as f64) < exact {
            (near, near.next_up())
        } else {
            (near, near)
        };
        match mode {
            "rm" => below,
            "rp" => above,
            _ => {
                if exact < 0.0 {
                    above
                } else {
                    below
                }
            }
        }
    };
    // Numbers of 12 bits with exponents close together: sums and products are exact in f64.
    let draw = |seed: u64| {
        let mut random = Random(seed);
        std::array::from_fn(|_| {
            std::array::from_fn(|_| {
                w(((random.bits() % (1 << 24)) as f32 - 8_388_608.0)
                    * [1.0, 1.0 / 4096.0][(random.bits() % 2) as usize])
            })
        })
    };
    for mode in ["rz", "rm", "rp"] {
        let zero = |x: f32, exact: f64| if exact == 0.0 { 0 } else { w(x) };
        let plain = "\nsetp.eq.f32 %p, %d, 0f00000000;\n@%p mov.b32 %d, 0;";
        check_with(&format!("add.{mode}.f32 %d, %a, %b;{plain}"), W, &[W, W], draw, |a, b, _| {
            let exact = f(a) as f64 + f(b) as f64;
            zero(directed(exact, mode), exact)
        });
        check_with(&format!("mul.{mode}.f32 %d, %a, %b;{plain}"), W, &[W, W], draw, |a, b, _| {
            let exact = f(a) as f64 * f(b) as f64;
            zero(directed(exact, mode), exact)
        });
        check_with(&format!("cvt.{mode}.f32.f64 %d, %a;"), W, &[D], doubles, |a, _, _| w(directed(d(a), mode)));
        check_with(&format!("cvt.{mode}.f32.s32 %d, %a;"), W, &[W], table::mixed, |a, _, _| {
            let exact = a as u32 as i32 as f64;
            w(if exact == 0.0 { 0.0 } else { directed(exact, mode) })
        });
    }
    // Quotients: the result q is right if q b lies on the right side of a, and that of its neighbour does not.
    let positive = |seed: u64| {
        let mut random = Random(seed);
        std::array::from_fn(|_| std::array::from_fn(|_| w(random.unit().abs() + 0.01)))
    };
    check_with("div.rm.f32 %d, %a, %b;", W, &[W, W], positive, |a, b, _| {
        let q = f(a) / f(b);
        w(if q as f64 * f(b) as f64 > f(a) as f64 { q.next_down() } else { q })
    });
    check_with("sqrt.rp.f32 %d, %a;", W, &[W], positive, |a, _, _| {
        let q = f(a).sqrt();
        w(if (q as f64 * q as f64) < f(a) as f64 { q.next_up() } else { q })
    });
}

#[test]
fn double_precision() {
    let go = |text: &str, count: usize, model: &dyn Fn(f64, f64, f64) -> f64| {
        check_with(text, D, &[D, D, D][..count], doubles, |a, b, c| model(d(a), d(b), d(c)).to_bits());
    };
    go("add.f64 %d, %a, %b;", 2, &|a, b, _| a + b);
    go("mul.rn.f64 %d, %a, %b;", 2, &|a, b, _| a * b);
    go("div.rn.f64 %d, %a, %b;", 2, &|a, b, _| a / b);
    go("fma.rn.f64 %d, %a, %b, %c;", 3, &|a, b, c| a.mul_add(b, c));
    go("max.f64 %d, %a, %b;", 2, &|a, b, _| a.max(b));
    go("add.f64 %d, %a, 0d3FF8000000000000;", 1, &|a, _, _| a + 1.5);
    go("mul.f64 %d, %a, 0f40000000;", 1, &|a, _, _| a * 2.0);
    check_with("cvt.f64.f32 %d, %a;", D, &[W], singles, |a, _, _| (f(a) as f64).to_bits());
    check_with("cvt.rn.f32.f64 %d, %a;", W, &[D], doubles, |a, _, _| w(d(a) as f32));
}

#[test]
fn numbers_to_integers_and_back() {
    check_with("cvt.rzi.s32.f32 %d, %a;", W, &[W], singles, |a, _, _| f(a) as i32 as u64);
    check_with("cvt.rni.u32.f32 %d, %a;", W, &[W], singles, |a, _, _| f(a).round_ties_even() as u32 as u64);
    check_with("cvt.rmi.s64.f64 %d, %a;", D, &[D], doubles, |a, _, _| d(a).floor() as i64 as u64);
    check("cvt.rn.f32.s32 %d, %a;", W, &[W], |a, _, _| w(a as u32 as i32 as f32));
    check("cvt.rn.f32.u64 %d, %a;", W, &[D], |a, _, _| w(a as f32));
    check("cvt.rn.f64.s64 %d, %a;", D, &[D], |a, _, _| (a as i64 as f64).to_bits());
    check("cvt.rn.f32.u8 %d, %a;", W, &[W], |a, _, _| w((a & 255) as f32));
    check_with(
        "cvt.rna.tf32.f32 %d, %a;",
        W,
        &[W],
        |s| singles(s).map(|v| v.map(|x| if f(x).abs() < 1e30 { x } else { 0 })),
        |a, _, _| {
            let bits = a as u32;
            ((bits & !0x1fff) + if bits & 0x1000 != 0 { 0x2000 } else { 0 }) as u64
        },
    );
}

#[test]
fn sixteen_bits() {
    for bf in [false, true] {
        let name = if bf { "bf16" } else { "f16" };
        let up = |a: u64| if bf { bf16::from_bits(a as u16).to_f64() } else { f16::from_bits(a as u16).to_f64() };
        let down = |x: f64| (if bf { bf16::from_f64(x).to_bits() } else { f16::from_f64(x).to_bits() }) as u64;
        let models: [(&str, usize, Ternary); 6] = [
            ("add.rn", 2, &|a, b, _| a + b),
            ("sub.rn", 2, &|a, b, _| a - b),
            ("mul.rn", 2, &|a, b, _| a * b),
            ("fma.rn", 3, &|a, b, c| a.mul_add(b, c)),
            ("max", 2, &|a, b, _| a.max(b)),
            ("min", 2, &|a, b, _| a.min(b)),
        ];
        for (op, count, model) in models {
            let list = ["%a", "%b", "%c"][..count].join(", ");
            check_with(&format!("{op}.{name} %d, {list};"), H, &[H, H, H][..count], halves(bf), |a, b, c| {
                down(model(up(a), up(b), up(c)))
            });
            check_with(&format!("{op}.{name}x2 %d, {list};"), W, &[W, W, W][..count], halves(bf), |a, b, c| {
                down(model(up(a), up(b), up(c))) | down(model(up(a >> 16), up(b >> 16), up(c >> 16))) << 16
            });
        }
        let single = |a: u64| (if bf { bf16::from_f32(f(a)).to_bits() } else { f16::from_f32(f(a)).to_bits() }) as u64;
        check_with(&format!("cvt.rn.{name}.f32 %d, %a;"), H, &[W], singles, |a, _, _| single(a));
        check_with(&format!("cvt.rn.{name}x2.f32 %d, %a, %b;"), W, &[W, W], singles, |a, b, _| {
            single(b) | single(a) << 16
        });
        check_with(&format!("cvt.rn.relu.{name}x2.f32 %d, %a, %b;"), W, &[W, W], singles, |a, b, _| {
            let relu = |x: u64| if f(x) > 0.0 { single(x) } else { 0 };
            relu(b) | relu(a) << 16
        });
        check_with(&format!("cvt.f32.{name} %d, %a;"), W, &[H], halves(bf), |a, _, _| w(up(a) as f32));
        check_with(&format!("neg.{name}x2 %d, %a;"), W, &[W], halves(bf), |a, _, _| a ^ 0x8000_8000);
    }
    // Every bf16 and f16 there is, there and back.
    for bits in 0..=u16::MAX {
        use vgpu::float::{Bf16, F16, Narrow, Rounding};
        let (h, b) = (f16::from_bits(bits), bf16::from_bits(bits));
        if !h.is_nan() {
            assert_eq!(F16(bits).widen(), h.to_f32());
            assert_eq!(F16::round(h.to_f64(), Rounding::Nearest), F16(bits));
        }
        if !b.is_nan() {
            assert_eq!(Bf16::round(b.to_f64(), Rounding::Zero), Bf16(bits));
        }
    }
}

#[test]
fn comparisons_with_nan() {
    let cases = [1.0f32, 2.0, f32::NAN, -0.0, 0.0, f32::INFINITY];
    let draw = |_: u64| std::array::from_fn(|i| [w(cases[i % 6]), w(cases[(i / 6) % 6]), 0]);
    let models: [(&str, Test); 14] = [
        ("eq", |a, b| a == b),
        ("ne", |a, b| a.partial_cmp(&b).is_some_and(|o| o.is_ne())),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
        ("equ", |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_eq())),
        ("neu", |a, b| a != b),
        ("ltu", |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_lt())),
        ("leu", |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_le())),
        ("gtu", |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_gt())),
        ("geu", |a, b| a.partial_cmp(&b).is_none_or(|o| o.is_ge())),
        ("num", |a, b| a.partial_cmp(&b).is_some()),
        ("nan", |a, b| a.partial_cmp(&b).is_none()),
    ];
    for (name, model) in models {
        let text = format!("setp.{name}.f32 %p, %a, %b;\nselp.b32 %d, 1, 0, %p;");
        check_with(&text, W, &[W, W], draw, |a, b, _| model(f(a), f(b)) as u64);
    }
}
