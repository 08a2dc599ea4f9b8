//! `total = w_0 a_0 + w_1 a_1 + w_2 a_2` of three scalars: the total loss.

use crate::autograd::{Grads, Op, Tape, Var};
use crate::backend::Backend;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl<B: Backend> Tape<B> {
    /// Records the sum of (scalar, weight) pairs. Errors if one is not a scalar.
    pub fn weighted_sum(&mut self, terms: [(Var, f64); 3]) -> Result<Var> {
        if let Some((var, _)) = terms.iter().find(|(var, _)| self.shape(*var).elems() != 1) {
            return Err(Error::shape("weighted_sum", format!("{:?} is not a scalar", self.shape(*var))));
        }
        let values = terms.map(|(var, _)| self.value(var));
        let total = self.backend().weighted_sum(&values, &terms.map(|(_, weight)| weight))?;
        Ok(self.push(terms.map(|(var, _)| var), Op::WeightedSum { terms }, total))
    }
}

pub(crate) fn backward<B: Backend>(
    tape: &Tape<B>,
    grads: &mut Grads<B>,
    dy: Tensor<B>,
    terms: [(Var, f64); 3],
) -> Result<()> {
    let b = tape.backend();
    for (var, weight) in terms.into_iter().filter(|(var, _)| tape.wants_grad(*var)) {
        grads.add(b, var, b.scale(&dy, weight)?)?;
    }
    Ok(())
}
