//! Adam over all parameters of a network, with global-norm clipping and the learning-rate schedule.

pub mod schedule;

use crate::autograd::Grads;
use crate::backend::{AdamArgs, AdamTensors, Backend};
use crate::nn::{ParamId, Params};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Adam's constants (Kingma and Ba 2015) and the clipping norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Decay of the first moment; 0.9.
    pub beta1: f64,
    /// Decay of the second moment; 0.999.
    pub beta2: f64,
    /// Added to the root of the second moment; 1e-8.
    pub eps: f64,
    /// L2 penalty added to the gradient; 0.
    pub weight_decay: f64,
    /// Global gradient norm above which all gradients are scaled down; 0 for no clipping.
    pub clip_norm: f64,
}

/// Moments of every trained parameter.
pub struct Adam<B: Backend> {
    config: AdamConfig,
    step: u64,
    moments: Vec<Moments<B>>,
}

struct Moments<B: Backend> {
    id: ParamId,
    exp_avg: Tensor<B>,
    exp_avg_sq: Tensor<B>,
}

impl<B: Backend> Adam<B> {
    /// Zero moments for the trained tensors of `params`.
    pub fn new(params: &Params<B>, config: AdamConfig) -> Result<Self> {
        let mut moments = Vec::new();
        for (id, param) in params.iter().filter(|(_, param)| param.role.trained()) {
            let zero = || params.backend().full(param.tensor.shape(), 0.0);
            moments.push(Moments { id, exp_avg: zero()?, exp_avg_sq: zero()? });
        }
        Ok(Adam { config, step: 0, moments })
    }

    /// One update, in place. Gives the global gradient norm before clipping: with norm n the gradients are multiplied by
    /// `min(1, clip_norm / (n + 1e-6))`, as `torch.nn.utils.clip_grad_norm_` does. A norm that is not finite changes nothing
    /// and is an error.
    pub fn step(&mut self, params: &mut Params<B>, grads: &Grads<B>, learning_rate: f64) -> Result<f64> {
        let norm = self.grad_norm(params, grads)?;
        if !norm.is_finite() {
            return Err(Error::NonFinite(format!("the gradient norm is {norm}")));
        }
        self.step += 1;
        let clip = self.config.clip_norm;
        let args = AdamArgs {
            learning_rate,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            eps: self.config.eps,
            weight_decay: self.config.weight_decay,
            grad_scale: if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 },
            step: self.step,
        };
        let backend = params.backend().clone();
        let trained = params.iter_mut().filter(|(_, param)| param.role.trained());
        let tensors = trained.zip(&mut self.moments).map(|((id, param), moments)| {
            debug_assert_eq!(id, moments.id);
            let grad = grads.of_param(id).ok_or_else(|| no_gradient(&param.name))?;
            let Moments { exp_avg, exp_avg_sq, .. } = moments;
            Ok(AdamTensors { param: &mut param.tensor, grad, exp_avg, exp_avg_sq })
        });
        backend.adam(tensors, &args)?;
        Ok(norm)
    }

    /// Euclidean norm over all gradients.
    fn grad_norm(&self, params: &Params<B>, grads: &Grads<B>) -> Result<f64> {
        let mut sum = 0.0;
        for moments in &self.moments {
            let grad = grads.of_param(moments.id);
            let grad = grad.ok_or_else(|| no_gradient(&params.get(moments.id).name))?;
            sum += params.backend().squared_norm(grad)?;
        }
        Ok(sum.sqrt())
    }

    /// Updates made.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Parameter, first and second moment, in order.
    pub fn moments(&self) -> impl Iterator<Item = (ParamId, &Tensor<B>, &Tensor<B>)> {
        self.moments.iter().map(|m| (m.id, &m.exp_avg, &m.exp_avg_sq))
    }

    /// Sets the number of updates made and all moments, in order; `moments` gives both of a parameter.
    pub fn restore(
        &mut self,
        step: u64,
        mut moments: impl FnMut(ParamId) -> Result<(Tensor<B>, Tensor<B>)>,
    ) -> Result<()> {
        for slot in &mut self.moments {
            (slot.exp_avg, slot.exp_avg_sq) = moments(slot.id)?;
        }
        self.step = step;
        Ok(())
    }
}

fn no_gradient(name: &str) -> Error {
    Error::shape("adam", format!("the loss does not depend on {name}"))
}
