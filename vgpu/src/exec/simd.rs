//! What the processor's wide vectors and fused multiply-add are worth the trouble for.
//!
//! The crate is built for any x86-64 (or other) processor, where vectors are short and `mul_add` is a call into the C library.
//! Functions declared with `vectorised!` are compiled a second time, for AVX2 and FMA, and take that where the processor has
//! them. Both give the same bits: a fused multiply-add is correctly rounded either way.

use super::alu::{Form, form};
use super::registers::{ALL, Ftz, LANES, Operands, Registers};
use crate::float::flush;

/// Accumulators of one `mma`: 16 rows of 8 columns.
pub type Tile = [[f32; 8]; 16];

/// `fma.rn.f32`.
pub fn fma(ftz: bool) -> Form {
    let any = form!(f32, f32, f32 => f32, |a, b, c| a.mul_add(b, c));
    let run = match (ftz, fast()) {
        (true, _) => form!(Ftz, Ftz, Ftz => Ftz, |a, b, c| Ftz(a.0.mul_add(b.0, flush(c.0)))).run,
        (false, true) => fma_row,
        (false, false) => any.run,
    };
    Form { run, ..any }
}

fn fma_row(r: &mut Registers, o: &Operands, mask: u32) {
    let (a, b, c) = (&r.words[o.a as usize], &r.words[o.b as usize], &r.words[o.c as usize]);
    let mut out = [0; LANES];
    multiply_add(a, b, c, &mut out);
    let row = &mut r.words[o.d as usize];
    if mask == ALL {
        *row = out;
    } else {
        for (lane, value) in row.iter_mut().enumerate() {
            *value = if mask >> lane & 1 == 1 { out[lane] } else { *value };
        }
    }
}

/// Whether the processor has what `vectorised!` compiles for.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn fast() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2")
}
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn fast() -> bool {
    false
}

/// Declares a function that is compiled for any processor and for one with AVX2 and FMA, along with all that is inlined.
macro_rules! vectorised {
    ($(#[$meta:meta])* $name:ident($($argument:ident: $ty:ty),*) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        pub fn $name($($argument: $ty),*) $(-> $result)? {
            #[inline(always)]
            fn body($($argument: $ty),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
                fn with_vectors($($argument: $ty),*) $(-> $result)? {
                    body($($argument),*)
                }
                if $crate::exec::simd::fast() {
                    // SAFETY: `fast` saw these features on this processor.
                    return unsafe { with_vectors($($argument),*) };
                }
            }
            body($($argument),*)
        }
    };
}
pub(crate) use vectorised;

vectorised!(multiply_add(a: &[u32; LANES], b: &[u32; LANES], c: &[u32; LANES], out: &mut [u32; LANES]) {
    for lane in 0..LANES {
        out[lane] = f32::from_bits(a[lane]).mul_add(f32::from_bits(b[lane]), f32::from_bits(c[lane])).to_bits();
    }
});

vectorised!(
    /// `acc += a b`, over `k` steps in order, one rounding a step.
    multiply_tile(a: &[[f32; 16]; 16], b: &[[f32; 8]; 16], k: usize, acc: &mut Tile) {
        for (row, sums) in acc.iter_mut().enumerate() {
            for step in 0..k.min(16) {
                let x = a[row][step];
                for (sum, &y) in sums.iter_mut().zip(&b[step]) {
                    *sum = x.mul_add(y, *sum);
                }
            }
        }
    }
);
