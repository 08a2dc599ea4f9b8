//! `y = act((x - mean) / sqrt(var + eps) weight + bias + residual)` over all but the last dimension (Ioffe and Szegedy 2015),
//! as `torch.nn.functional.batch_norm`, with the residual add and the ReLU that follow it in a ResNet.
//!
//! Training takes the statistics of each view by itself, as two separate forward passes would, and updates the running
//! statistics view after view. Inference takes the running statistics.

use crate::autograd::{Grads, Op, Tape, Var};
use crate::backend::{Activation, Affine, Backend, BatchStats, Residual, RunningStats};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Added to the variance, PyTorch's default.
pub const EPS: f64 = 1e-5;

/// What a batch norm reads from the tape. x: channels last; weight, bias `[C]`; residual like x.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// To be normalised.
    pub x: Var,
    /// γ
    pub weight: Var,
    /// β
    pub bias: Var,
    /// Added before the activation.
    pub residual: Option<Var>,
}

impl<B: Backend> Tape<B> {
    /// Records a training batch norm. `running` is updated if given. Errors if the shapes do not fit or the first dimension
    /// is not `views` equal parts.
    pub fn batch_norm(
        &mut self,
        inputs: Inputs,
        running: Option<RunningStats<B>>,
        views: usize,
        activation: Activation,
    ) -> Result<Var> {
        self.check_batch_norm(inputs)?;
        let Inputs { x, weight, bias, residual } = inputs;
        let first = self.shape(x).first();
        if views == 0 || first == 0 || !first.is_multiple_of(views) {
            return Err(Error::shape("batch_norm", format!("{first} images are not {views} equal views")));
        }
        let affine = Affine { weight: self.value(weight), bias: self.value(bias) };
        let residual_value = residual.map(|r| self.value(r));
        let (y, stats) = self.backend().batch_norm_forward(
            self.value(x),
            affine,
            residual_value,
            running,
            views,
            EPS,
            activation,
        )?;
        let op = Op::BatchNorm { x, weight, bias, residual, stats, activation };
        Ok(self.push([x, weight, bias, residual.unwrap_or(x)], op, y))
    }

    /// Records a batch norm with given statistics (`mean`, `var`: `[C]`). It has no backward.
    pub fn batch_norm_inference(
        &mut self,
        inputs: Inputs,
        mean: &Tensor<B>,
        var: &Tensor<B>,
        activation: Activation,
    ) -> Result<Var> {
        self.check_batch_norm(inputs)?;
        let Inputs { x, weight, bias, residual } = inputs;
        let affine = Affine { weight: self.value(weight), bias: self.value(bias) };
        let residual_value = residual.map(|r| self.value(r));
        let y =
            self.backend().batch_norm_inference(self.value(x), affine, residual_value, mean, var, EPS, activation)?;
        Ok(self.push([x, weight, bias, residual.unwrap_or(x)], Op::BatchNormInference, y))
    }

    fn check_batch_norm(&self, inputs: Inputs) -> Result<()> {
        let x = self.shape(inputs.x);
        let per_channel = |var| self.shape(var).dims() == [x.last()];
        let residual_fits = inputs.residual.is_none_or(|r| self.shape(r) == x);
        if x.dims().len() < 2 || !per_channel(inputs.weight) || !per_channel(inputs.bias) || !residual_fits {
            let (weight, bias) = (self.shape(inputs.weight), self.shape(inputs.bias));
            let residual = inputs.residual.map(|r| self.shape(r));
            let problem = format!("x {x:?}, weight {weight:?}, bias {bias:?}, residual {residual:?}");
            return Err(Error::shape("batch_norm", problem));
        }
        Ok(())
    }
}

pub(crate) fn backward<B: Backend>(
    tape: &Tape<B>,
    grads: &mut Grads<B>,
    dy: Tensor<B>,
    y: &Tensor<B>,
    inputs: Inputs,
    stats: &BatchStats<B>,
    activation: Activation,
) -> Result<()> {
    let b = tape.backend();
    let wanted = inputs.residual.filter(|&r| tape.wants_grad(r));
    let residual = if inputs.residual.is_some() { Residual::Added } else { Residual::Absent };
    let affine = Affine { weight: tape.value(inputs.weight), bias: tape.value(inputs.bias) };
    let result = b.batch_norm_backward(tape.value(inputs.x), y, dy, affine, stats, residual, activation)?;
    for (var, grad) in [(inputs.x, result.dx), (inputs.weight, result.dweight), (inputs.bias, result.dbias)] {
        if tape.wants_grad(var) {
            grads.add(b, var, grad)?;
        }
    }
    if let (Some(var), Some(grad)) = (wanted, result.dresidual) {
        grads.add(b, var, grad)?;
    }
    Ok(())
}
