//! Floating-point arithmetic, as a table from name, type and modifiers to a function over lanes.

use super::alu::{Form, bank_of, form};
use super::registers::{Ftz, Lane};
use super::simd;
use crate::float::{
    Bf16, F16, Narrow, Rounding, SINGLE, add_f64, add_odd, div_f64, div_odd, fma_odd, mul_f64, narrow, sqrt_f64,
    sqrt_odd,
};
use crate::ptx::{Bank, Type};

/// What modifiers say about a floating-point instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modifiers {
    /// Rounding; to nearest if none is written.
    pub rounding: Rounding,
    /// `.ftz`
    pub flush: bool,
    /// `.NaN`: a NaN input gives NaN from `min` and `max`.
    pub keep_nan: bool,
}

/// `f32`, with or without subnormals.
trait Single: Lane<Raw = u32> {
    fn get(self) -> f32;
    fn put(x: f32) -> Self;
}
impl Single for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
    #[inline(always)]
    fn put(x: f32) -> Self {
        x
    }
}
impl Single for Ftz {
    #[inline(always)]
    fn get(self) -> f32 {
        self.0
    }
    #[inline(always)]
    fn put(x: f32) -> Self {
        Ftz(x)
    }
}

/// The lesser: a number rather than NaN, -0 before +0.
fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || (b < a) || (a == b && b.is_sign_negative()) { b } else { a }
}

/// The greater: a number rather than NaN, +0 before -0.
fn greatest(a: f64, b: f64) -> f64 {
    if a.is_nan() || (b > a) || (a == b && b.is_sign_positive()) { b } else { a }
}

fn or_nan(a: f64, b: f64, x: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { x }
}

/// Clamp to 0 to 1; NaN becomes 0 (`.sat`).
pub fn saturate() -> Form {
    form!(f32 => f32, |x| if x > 0.0 { x.min(1.0) } else { 0.0 })
}

/// The same for `f64`.
pub fn saturate_f64() -> Form {
    form!(f64 => f64, |x| if x > 0.0 { x.min(1.0) } else { 0.0 })
}

/// Negative becomes 0, NaN stays (`.relu`), in each of the 16-bit parts.
pub fn relu(ty: Type) -> Option<Form> {
    fn clamp<T: Narrow>(x: T) -> T {
        let v = x.widen();
        if v.is_nan() || v > 0.0 { T::exact(v) } else { T::exact(0.0) }
    }
    Some(match ty {
        Type::F16 => form!(F16 => F16, clamp),
        Type::Bf16 => form!(Bf16 => Bf16, clamp),
        Type::F16x2 => form!(u32 => u32, |a| pair(clamp(F16(a as u16)).0, clamp(F16((a >> 16) as u16)).0)),
        Type::Bf16x2 => form!(u32 => u32, |a| pair(clamp(Bf16(a as u16)).0, clamp(Bf16((a >> 16) as u16)).0)),
        _ => return None,
    })
}

fn pair(low: u16, high: u16) -> u32 {
    low as u32 | (high as u32) << 16
}

/// Floating-point arithmetic of a type.
pub fn arithmetic(name: &str, ty: Type, m: Modifiers) -> Option<Form> {
    match ty {
        Type::F32 if m.flush => single::<Ftz>(name, m),
        Type::F32 => single::<f32>(name, m),
        Type::F64 => double(name, m),
        Type::F16 if m.rounding == Rounding::Nearest => half(name, m.keep_nan, false),
        Type::Bf16 if m.rounding == Rounding::Nearest => bfloat(name, m.keep_nan, false),
        Type::F16x2 if m.rounding == Rounding::Nearest => half(name, m.keep_nan, true),
        Type::Bf16x2 if m.rounding == Rounding::Nearest => bfloat(name, m.keep_nan, true),
        _ => None,
    }
}

fn single<F: Single>(name: &str, m: Modifiers) -> Option<Form> {
    use Rounding::*;
    macro_rules! rounded {
        ($($x:ident),+ => $nearest:expr, $odd:expr) => {
            match m.rounding {
                Nearest => form!($(rounded!(@ $x)),+ => F, |$($x: F),+| { $(let $x = $x.get();)+ F::put($nearest) }),
                Zero => rounded!(# $($x),+ => $odd, Zero),
                Down => rounded!(# $($x),+ => $odd, Down),
                Up => rounded!(# $($x),+ => $odd, Up),
            }
        };
        (@ $x:ident) => { F };
        (# $($x:ident),+ => $odd:expr, $mode:ident) => {
            form!($(rounded!(@ $x)),+ => F, |$($x: F),+| {
                $(let $x = $x.get() as f64;)+
                F::put(narrow($odd, SINGLE, $mode))
            })
        };
    }
    Some(match name {
        "add" => rounded!(a, b => a + b, add_odd(a, b)),
        "sub" => rounded!(a, b => a - b, add_odd(a, -b)),
        "mul" => rounded!(a, b => a * b, a * b),
        "div" => rounded!(a, b => a / b, div_odd(a, b)),
        "rcp" => rounded!(a => 1.0 / a, div_odd(1.0, a)),
        "sqrt" => rounded!(a => a.sqrt(), sqrt_odd(a)),
        "fma" if m.rounding == Nearest => simd::fma(m.flush),
        "fma" => rounded!(a, b, c => a.mul_add(b, c), fma_odd(a, b, c)),
        "neg" => form!(F => F, |a| F::put(-a.get())),
        "abs" => form!(F => F, |a| F::put(a.get().abs())),
        "min" if m.keep_nan => form!(F, F => F, |a, b| {
            let (a, b) = (a.get() as f64, b.get() as f64);
            F::put(or_nan(a, b, least(a, b)) as f32)
        }),
        "max" if m.keep_nan => form!(F, F => F, |a, b| {
            let (a, b) = (a.get() as f64, b.get() as f64);
            F::put(or_nan(a, b, greatest(a, b)) as f32)
        }),
        "min" => form!(F, F => F, |a, b| F::put(least(a.get() as f64, b.get() as f64) as f32)),
        "max" => form!(F, F => F, |a, b| F::put(greatest(a.get() as f64, b.get() as f64) as f32)),
        // A device computes these to about 2^-22; here they are correctly rounded.
        "ex2.approx" => form!(F => F, |a| F::put((a.get() as f64).exp2() as f32)),
        "lg2.approx" => form!(F => F, |a| F::put((a.get() as f64).log2() as f32)),
        "sin.approx" => form!(F => F, |a| F::put((a.get() as f64).sin() as f32)),
        "cos.approx" => form!(F => F, |a| F::put((a.get() as f64).cos() as f32)),
        "tanh.approx" => form!(F => F, |a| F::put((a.get() as f64).tanh() as f32)),
        "rsqrt.approx" => form!(F => F, |a| F::put((1.0 / (a.get() as f64).sqrt()) as f32)),
        "sqrt.approx" => form!(F => F, |a| F::put(a.get().sqrt())),
        "rcp.approx" => form!(F => F, |a| F::put(1.0 / a.get())),
        "div.approx" | "div.full" => form!(F, F => F, |a, b| F::put(a.get() / b.get())),
        "copysign" => form!(F, F => F, |sign, a| F::put(a.get().copysign(sign.get()))),
        _ => return None,
    })
}

fn double(name: &str, m: Modifiers) -> Option<Form> {
    use Rounding::*;
    macro_rules! rounded {
        ($($x:ident),+ => $f:expr) => {
            match m.rounding {
                Nearest => form!($(rounded!(@ $x)),+ => f64, |$($x: f64),+| $f(Nearest)),
                Zero => form!($(rounded!(@ $x)),+ => f64, |$($x: f64),+| $f(Zero)),
                Down => form!($(rounded!(@ $x)),+ => f64, |$($x: f64),+| $f(Down)),
                Up => form!($(rounded!(@ $x)),+ => f64, |$($x: f64),+| $f(Up)),
            }
        };
        (@ $x:ident) => { f64 };
    }
    Some(match name {
        "add" => rounded!(a, b => |r| add_f64(a, b, r)),
        "sub" => rounded!(a, b => |r| add_f64(a, -b, r)),
        "mul" => rounded!(a, b => |r| mul_f64(a, b, r)),
        "div" => rounded!(a, b => |r| div_f64(a, b, r)),
        "rcp" => rounded!(a => |r| div_f64(1.0, a, r)),
        "sqrt" => rounded!(a => |r| sqrt_f64(a, r)),
        "fma" if m.rounding == Nearest => form!(f64, f64, f64 => f64, |a, b, c| a.mul_add(b, c)),
        "neg" => form!(f64 => f64, |a| -a),
        "abs" => form!(f64 => f64, |a| a.abs()),
        "min" => form!(f64, f64 => f64, least),
        "max" => form!(f64, f64 => f64, greatest),
        "copysign" => form!(f64, f64 => f64, |sign, a| a.copysign(sign)),
        "rcp.approx" => form!(f64 => f64, |a| 1.0 / a),
        "rsqrt.approx" => form!(f64 => f64, |a| 1.0 / a.sqrt()),
        _ => return None,
    })
}

/// Arithmetic of 16-bit floats: each operation rounds once, from a result that is exact or rounded to odd.
macro_rules! small {
    ($function:ident, $t:ident) => {
        fn $function(name: &str, keep_nan: bool, packed: bool) -> Option<Form> {
            fn near(x: f64) -> $t {
                $t::round(x, Rounding::Nearest)
            }
            macro_rules! lanes {
                ($f:expr; $a:ident) => {
                    if packed {
                        form!(u32 => u32, |a| { let f: fn(f64) -> $t = $f;
                            let part = |s: u32| f($t((a >> s) as u16).widen() as f64).0; pair(part(0), part(16)) })
                    } else {
                        form!($t => $t, |a| { let f: fn(f64) -> $t = $f; f(a.widen() as f64) })
                    }
                };
                ($f:expr; $a:ident $b:ident) => {
                    if packed {
                        form!(u32, u32 => u32, |a, b| { let f: fn(f64, f64) -> $t = $f;
                            let part = |s: u32| f($t((a >> s) as u16).widen() as f64, $t((b >> s) as u16).widen() as f64).0;
                            pair(part(0), part(16)) })
                    } else {
                        form!($t, $t => $t, |a, b| { let f: fn(f64, f64) -> $t = $f;
                            f(a.widen() as f64, b.widen() as f64) })
                    }
                };
                ($f:expr; $a:ident $b:ident $c:ident) => {
                    if packed {
                        form!(u32, u32, u32 => u32, |a, b, c| { let f: fn(f64, f64, f64) -> $t = $f;
                            let at = |x: u32, s: u32| $t((x >> s) as u16).widen() as f64;
                            let part = |s: u32| f(at(a, s), at(b, s), at(c, s)).0;
                            pair(part(0), part(16)) })
                    } else {
                        form!($t, $t, $t => $t, |a, b, c| { let f: fn(f64, f64, f64) -> $t = $f;
                            f(a.widen() as f64, b.widen() as f64, c.widen() as f64) })
                    }
                };
            }
            Some(match name {
                "add" => lanes!(|a, b| near(add_odd(a, b)); a b),
                "sub" => lanes!(|a, b| near(add_odd(a, -b)); a b),
                "mul" => lanes!(|a, b| near(a * b); a b),
                "fma" => lanes!(|a, b, c| near(fma_odd(a, b, c)); a b c),
                "neg" => lanes!(|a| near(-a); a),
                "abs" => lanes!(|a| near(a.abs()); a),
                "min" if keep_nan => lanes!(|a, b| near(or_nan(a, b, least(a, b))); a b),
                "max" if keep_nan => lanes!(|a, b| near(or_nan(a, b, greatest(a, b))); a b),
                "min" => lanes!(|a, b| near(least(a, b)); a b),
                "max" => lanes!(|a, b| near(greatest(a, b)); a b),
                "ex2.approx" => lanes!(|a| near(a.exp2()); a),
                "tanh.approx" => lanes!(|a| near(a.tanh()); a),
                _ => return None,
            })
        }
    };
}
small!(half, F16);
small!(bfloat, Bf16);

/// `testp`: a property of a float.
pub fn test_property(name: &str, ty: Type) -> Option<Form> {
    macro_rules! form_of {
        ($t:ty, $f:expr) => {
            Form {
                run: |r, o, m| {
                    let f: fn($t) -> bool = $f;
                    let bits =
                        <$t>::row(r, o.a).iter().enumerate().fold(0, |w, (l, &x)| w | (f(<$t>::of(x)) as u32) << l);
                    r.set_pred(o.d, m, bits);
                },
                d: Bank::Pred,
                src: [Some(bank_of::<$t>()), None, None],
            }
        };
    }
    macro_rules! each {
        ($t:ty) => {
            match name {
                "finite" => form_of!($t, |x| x.is_finite()),
                "infinite" => form_of!($t, |x| x.is_infinite()),
                "number" => form_of!($t, |x| !x.is_nan()),
                "notanumber" => form_of!($t, |x| x.is_nan()),
                "normal" => form_of!($t, |x| x.is_normal()),
                "subnormal" => form_of!($t, |x| x.is_subnormal()),
                _ => return None,
            }
        };
    }
    Some(match ty {
        Type::F32 => each!(f32),
        Type::F64 => each!(f64),
        _ => return None,
    })
}
