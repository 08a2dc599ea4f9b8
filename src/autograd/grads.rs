//! Gradients by value: where contributions add up (but for those of convolutions that add to what is there).

use super::Var;
use crate::Result;
use crate::backend::Backend;
use crate::nn::ParamId;
use crate::tensor::Tensor;

/// Gradients of a walk along a tape.
pub struct Grads<B: Backend> {
    by_var: Vec<Option<Tensor<B>>>,
    params: Vec<Option<Var>>,
}

impl<B: Backend> Grads<B> {
    /// None yet.
    pub fn new() -> Self {
        Grads { by_var: Vec::new(), params: Vec::new() }
    }

    /// Drops all and makes room for `len` values.
    pub(crate) fn reset(&mut self, len: usize, params: &[Option<Var>]) {
        self.by_var.clear();
        self.by_var.resize_with(len, || None);
        self.params.clear();
        self.params.extend_from_slice(params);
    }

    /// Drops all: gradients need not outlive the optimiser's step.
    pub fn clear(&mut self) {
        self.by_var.clear();
    }

    /// Adds a contribution to the gradient of `var`; the first one moves in.
    pub(crate) fn add(&mut self, backend: &B, var: Var, grad: Tensor<B>) -> Result<()> {
        let slot = &mut self.by_var[var.index()];
        match slot {
            Some(sum) => backend.add_assign(sum, &grad),
            None => {
                *slot = Some(grad);
                Ok(())
            }
        }
    }

    /// What the gradient of `var` is so far, for an op that adds to it by itself.
    pub(crate) fn of_mut(&mut self, var: Var) -> Option<&mut Tensor<B>> {
        self.by_var[var.index()].as_mut()
    }

    /// All that are there.
    pub(super) fn all(&self) -> impl Iterator<Item = &Tensor<B>> {
        self.by_var.iter().flatten()
    }

    /// Takes the finished gradient of `var` out.
    pub(crate) fn take(&mut self, var: Var) -> Option<Tensor<B>> {
        self.by_var[var.index()].take()
    }

    /// The gradient of a leaf; `None` where the loss does not depend on it.
    pub fn of(&self, var: Var) -> Option<&Tensor<B>> {
        self.by_var.get(var.index())?.as_ref()
    }

    /// The gradient of a parameter; `None` where the loss does not depend on it.
    pub fn of_param(&self, id: ParamId) -> Option<&Tensor<B>> {
        self.of((*self.params.get(id.index())?)?)
    }
}

impl<B: Backend> Default for Grads<B> {
    fn default() -> Self {
        Self::new()
    }
}
