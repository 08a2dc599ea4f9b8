//! `y = 1 / (1 + e^-x)`, any shape; `dx = dy y (1 - y)`.

use crate::Result;
use crate::autograd::{Grads, Op, Tape, Var};
use crate::backend::Backend;
use crate::tensor::Tensor;

impl<B: Backend> Tape<B> {
    /// Records a sigmoid.
    pub fn sigmoid(&mut self, x: Var) -> Result<Var> {
        let y = self.backend().sigmoid_forward(self.value(x))?;
        Ok(self.push([x], Op::Sigmoid { x }, y))
    }
}

pub(crate) fn backward<B: Backend>(
    tape: &Tape<B>,
    grads: &mut Grads<B>,
    dy: Tensor<B>,
    y: &Tensor<B>,
    x: Var,
) -> Result<()> {
    let b = tape.backend();
    grads.add(b, x, b.sigmoid_backward(y, &dy)?)
}
