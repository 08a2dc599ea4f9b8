//! `y = x w^T + b`: x `[M,I]`, w `[O,I]`, b `[O]` or none, y `[M,O]`, as `torch.nn.functional.linear`.

use crate::autograd::{Grads, Op, Tape, Var};
use crate::backend::Backend;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl<B: Backend> Tape<B> {
    /// Records a linear layer. Errors if the shapes do not fit.
    pub fn linear(&mut self, x: Var, w: Var, b: Option<Var>) -> Result<Var> {
        let (xs, ws) = (self.shape(x), self.shape(w));
        let bias_fits = b.is_none_or(|b| self.shape(b).dims() == [ws.first()]);
        if xs.dims().len() != 2 || ws.dims().len() != 2 || xs.last() != ws.last() || !bias_fits {
            return Err(Error::shape("linear", format!("x {xs:?}, w {ws:?}, b {:?}", b.map(|b| self.shape(b)))));
        }
        let y = self.backend().linear_forward(self.value(x), self.value(w), b.map(|b| self.value(b)))?;
        Ok(self.push([x, w, b.unwrap_or(w)], Op::Linear { x, w, b }, y))
    }
}

pub(crate) fn backward<B: Backend>(
    tape: &Tape<B>,
    grads: &mut Grads<B>,
    dy: Tensor<B>,
    x: Var,
    w: Var,
    b: Option<Var>,
) -> Result<()> {
    let backend = tape.backend();
    if let Some(b) = b.filter(|&b| tape.wants_grad(b)) {
        grads.add(backend, b, backend.linear_backward_bias(&dy)?)?;
    }
    if tape.wants_grad(w) {
        grads.add(backend, w, backend.linear_backward_weight(tape.value(x), &dy)?)?;
    }
    if tape.wants_grad(x) {
        grads.add(backend, x, backend.linear_backward_data(tape.value(w), &dy)?)?;
    }
    Ok(())
}
