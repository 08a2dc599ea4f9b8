//! Adam over all parameters of a network, with global-norm clipping and the learning-rate schedule.

pub mod schedule;

pub use crate::backend::AdamConfig;

use crate::autograd::Grads;
use crate::backend::{AdamReport, AdamTensors, Backend};
use crate::nn::{ParamId, Params};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Moments of every trained parameter.
pub struct Adam<B: Backend> {
    config: AdamConfig,
    /// Steps made, as far as the host knows.
    steps: u64,
    state: B::AdamState,
    /// Of the trained parameters, in order.
    trained: Vec<ParamId>,
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
        Ok(Adam {
            config,
            steps: 0,
            state: params.backend().adam_state(0)?,
            trained: moments.iter().map(|m| m.id).collect(),
            moments,
        })
    }

    /// One update, in place, waiting for it. Gives the global gradient norm before clipping. A norm that is not finite
    /// changes nothing and is an error.
    pub fn step(&mut self, params: &mut Params<B>, grads: &Grads<B>, learning_rate: f64) -> Result<f64> {
        let backend = params.backend().clone();
        self.set_learning_rate(&backend, learning_rate)?;
        self.start_step(params, grads)?;
        self.finish_step(&backend.adam_report(&self.state)?)
    }

    /// Sets the learning rate of the steps to come.
    pub fn set_learning_rate(&mut self, backend: &B, learning_rate: f64) -> Result<()> {
        backend.set_learning_rate(&mut self.state, learning_rate)
    }

    /// Starts one update, in place.
    pub fn start_step(&mut self, params: &mut Params<B>, grads: &Grads<B>) -> Result<()> {
        let backend = params.backend().clone();
        let Adam { config, state, moments, trained, .. } = self;
        for id in trained.iter() {
            grads.of_param(*id).ok_or_else(|| no_gradient(&params.get(*id).name))?;
        }
        let all = trained.iter().filter_map(|&id| grads.of_param(id).map(Ok));
        let params = params.iter_mut().filter(|(_, param)| param.role.trained());
        let tensors = params.zip(moments).map(|((id, param), moments)| {
            debug_assert_eq!(id, moments.id);
            let grad = grads.of_param(id).ok_or_else(|| no_gradient(&param.name))?;
            let Moments { exp_avg, exp_avg_sq, .. } = moments;
            Ok(AdamTensors { param: &mut param.tensor, grad, exp_avg, exp_avg_sq })
        });
        backend.adam(all, tensors, state, config)
    }

    /// Takes note of a step that is done. Gives the global gradient norm before clipping; one that is not finite, which
    /// changed nothing, is an error.
    pub fn finish_step(&mut self, report: &AdamReport) -> Result<f64> {
        self.steps = report.steps;
        if !report.grad_norm.is_finite() {
            return Err(Error::NonFinite(format!("the gradient norm is {}", report.grad_norm)));
        }
        Ok(report.grad_norm)
    }

    /// The device's part: learning rate and step count.
    pub fn state(&self) -> &B::AdamState {
        &self.state
    }

    /// Updates made, up to the last that was finished.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Parameter, first and second moment, in order.
    pub fn moments(&self) -> impl Iterator<Item = (ParamId, &Tensor<B>, &Tensor<B>)> {
        self.moments.iter().map(|m| (m.id, &m.exp_avg, &m.exp_avg_sq))
    }

    /// Sets the number of updates made and all moments, in order; `moments` gives both of a parameter.
    pub fn restore(
        &mut self,
        backend: &B,
        steps: u64,
        mut moments: impl FnMut(ParamId) -> Result<(Tensor<B>, Tensor<B>)>,
    ) -> Result<()> {
        for slot in &mut self.moments {
            (slot.exp_avg, slot.exp_avg_sq) = moments(slot.id)?;
        }
        (self.steps, self.state) = (steps, backend.adam_state(steps)?);
        Ok(())
    }
}

fn no_gradient(name: &str) -> Error {
    Error::shape("adam", format!("the loss does not depend on {name}"))
}
