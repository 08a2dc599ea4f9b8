//! Normalised temperature-scaled cross entropy (Chen et al. 2020, eq. 1; the paper's equations 1-8), over rows (instance
//! loss) or columns (feature loss) of one matrix that holds view 1 over view 2:
//!
//! `loss = 1/2R sum_i [ log sum_{k != i} exp(s_ik / t) - s_i,pos(i) / t ]`, `s_ik = a_i . a_k / (|a_i| |a_k|)`, norms clamped
//! at 1e-12, `pos(i) = i + R mod 2R`.

use crate::autograd::{Grads, Op, Tape, Var};
use crate::backend::{Backend, NtXentSaved, Samples};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl<B: Backend> Tape<B> {
    /// Records the loss, a scalar. z is `[2N, d]`, view 1's N rows first. Errors if z is not such a matrix or the
    /// temperature is not positive.
    pub fn nt_xent(&mut self, z: Var, samples: Samples, temperature: f64) -> Result<Var> {
        let shape = self.shape(z);
        if shape.dims().len() != 2 || shape.elems() == 0 || !shape.first().is_multiple_of(2) {
            return Err(Error::shape("nt_xent", format!("z holds two views of equal size, [2N, d], not {shape:?}")));
        }
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(Error::Usage(format!("the temperature of nt_xent is {temperature}; it must be positive")));
        }
        let (loss, saved) = self.backend().nt_xent_forward(self.value(z), samples, temperature)?;
        Ok(self.push([z], Op::NtXent { z, saved, samples, temperature }, loss))
    }
}

pub(crate) fn backward<B: Backend>(
    tape: &Tape<B>,
    grads: &mut Grads<B>,
    dloss: Tensor<B>,
    z: Var,
    saved: &NtXentSaved<B>,
    samples: Samples,
    temperature: f64,
) -> Result<()> {
    let b = tape.backend();
    grads.add(b, z, b.nt_xent_backward(saved, &dloss, tape.shape(z), samples, temperature)?)
}
