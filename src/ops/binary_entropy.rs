//! Mean entropy in bits of sigmoid heads, from their logits (the paper's equations 9-10 with 0 log 0 = 0):
//! `H = mean -(y log2 y + (1-y) log2(1-y))`, `y = sigmoid(a)`; `dH/da = -a y (1-y) / (ln 2 elements)`.

use crate::autograd::{Grads, Op, Tape, Var};
use crate::backend::Backend;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl<B: Backend> Tape<B> {
    /// Records the entropy, a scalar in [0, 1]. Errors if there is no element.
    pub fn binary_entropy(&mut self, logits: Var) -> Result<Var> {
        if self.shape(logits).elems() == 0 {
            return Err(Error::shape("binary_entropy", "no logits"));
        }
        let entropy = self.backend().binary_entropy_forward(self.value(logits))?;
        Ok(self.push([logits], Op::BinaryEntropy { logits }, entropy))
    }
}

pub(crate) fn backward<B: Backend>(tape: &Tape<B>, grads: &mut Grads<B>, dloss: Tensor<B>, logits: Var) -> Result<()> {
    let b = tape.backend();
    grads.add(b, logits, b.binary_entropy_backward(tape.value(logits), &dloss)?)
}
