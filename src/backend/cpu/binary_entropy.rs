//! Entropy of sigmoid heads on the CPU, from their logits.

use rayon::prelude::*;

use super::elementwise::{self, CHUNK};
use super::real::Real;
use super::{Cpu, CpuTensor};
use crate::Result;
use crate::tensor::Shape;

/// `sigmoid(-|a|)` and `log(1 + e^-|a|)`.
fn tail<T: Real>(a: T) -> (T, T) {
    let t = (-a.abs()).exp();
    (t / (T::ONE + t), t.ln_1p())
}

/// See [`crate::backend::Backend::binary_entropy_forward`].
pub fn forward<T: Real>(cpu: &Cpu<T>, logits: &CpuTensor<T>) -> Result<CpuTensor<T>> {
    let nats = elementwise::sum(logits.buffer().read(), |a| {
        let (q, softplus) = tail(a);
        // At an infinite logit the term vanishes: 0 log 0 = 0.
        let weighted = if q == T::ZERO { T::ZERO } else { q * a.abs() };
        (softplus + weighted).to_f64()
    });
    cpu.full_tensor(Shape::SCALAR, nats / std::f64::consts::LN_2 / logits.shape().elems() as f64)
}

/// See [`crate::backend::Backend::binary_entropy_backward`].
pub fn backward<T: Real>(cpu: &Cpu<T>, logits: &CpuTensor<T>, dloss: &CpuTensor<T>) -> Result<CpuTensor<T>> {
    let dloss = dloss.buffer().read()[0].to_f64();
    let factor = T::from_f64(-dloss / std::f64::consts::LN_2 / logits.shape().elems() as f64);
    let mut da = cpu.tensor(logits.shape());
    let chunks = da.buffer_mut().write()?.par_chunks_mut(CHUNK).zip(logits.buffer().read().par_chunks(CHUNK));
    chunks.for_each(|(da, logits)| {
        for (da, &a) in da.iter_mut().zip(logits) {
            let (q, _) = tail(a);
            *da = if q == T::ZERO { T::ZERO } else { factor * a * q * (T::ONE - q) };
        }
    });
    Ok(da)
}
