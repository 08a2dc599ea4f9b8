//! Adam over all parameters of a network, with global-norm clipping and the learning-rate schedule.

pub mod schedule;

pub use crate::backend::AdamConfig;

use crate::autograd::Grads;
use crate::backend::{AdamReport, AdamTensors, Backend, Kept, Stepped, Visit};
use crate::nn::{ParamId, Params};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Moments of every trained parameter, and what the other tensors were before the step under way.
pub struct Adam<B: Backend> {
    config: AdamConfig,
    /// Steps made, as far as the host knows.
    steps: u64,
    state: B::AdamState,
    /// Of the trained parameters, in order.
    trained: Vec<ParamId>,
    moments: Vec<Moments<B>>,
    /// Of running statistics, in order.
    before: Vec<Tensor<B>>,
}

struct Moments<B: Backend> {
    id: ParamId,
    exp_avg: Tensor<B>,
    exp_avg_sq: Tensor<B>,
}

impl<B: Backend> Adam<B> {
    /// Zero moments for the trained tensors of `params`.
    pub fn new(params: &Params<B>, config: AdamConfig) -> Result<Self> {
        let (mut moments, mut before) = (Vec::new(), Vec::new());
        for (id, param) in params.iter() {
            let zero = || params.backend().full(param.tensor.shape(), 0.0);
            if param.role.trained() {
                moments.push(Moments { id, exp_avg: zero()?, exp_avg_sq: zero()? });
            } else {
                before.push(zero()?);
            }
        }
        Ok(Adam {
            config,
            steps: 0,
            state: params.backend().adam_state(0)?,
            trained: moments.iter().map(|m| m.id).collect(),
            moments,
            before,
        })
    }

    /// One update, in place, waiting for it. Gives the global gradient norm before clipping. One that leaves the update out
    /// (see [`Backend::adam`]) changes nothing and is an error.
    pub fn step(&mut self, params: &mut Params<B>, grads: &Grads<B>, learning_rate: f64) -> Result<f64> {
        let backend = params.backend().clone();
        self.set_learning_rate(&backend, learning_rate)?;
        self.keep(params)?;
        self.start_step(params, grads, None)?;
        let report = backend.adam_report(&self.state)?;
        self.note(&report);
        if report.left_out {
            self.release(&backend)?;
            return Err(Error::NonFinite(format!("the gradient norm is {}", report.grad_norm)));
        }
        Ok(report.grad_norm)
    }

    /// To be called at the beginning of a step: what the forward pass changes comes back if the step is left out.
    pub fn keep(&mut self, params: &mut Params<B>) -> Result<()> {
        let backend = params.backend().clone();
        let changed = params.iter_mut().filter(|(_, param)| !param.role.trained());
        let kept = changed.zip(&mut self.before).map(|((_, param), before)| Kept { value: &mut param.tensor, before });
        backend.keep(kept, &mut self.state)
    }

    /// Has steps made again after one was left out.
    pub fn release(&mut self, backend: &B) -> Result<()> {
        backend.release(&mut self.state)
    }

    /// Sets the learning rate of the steps to come.
    pub fn set_learning_rate(&mut self, backend: &B, learning_rate: f64) -> Result<()> {
        backend.set_learning_rate(&mut self.state, learning_rate)
    }

    /// Starts one update, in place, after [`Adam::keep`]; it is left out if `loss`, a scalar, is not finite.
    pub fn start_step(&mut self, params: &mut Params<B>, grads: &Grads<B>, loss: Option<&Tensor<B>>) -> Result<()> {
        let backend = params.backend().clone();
        let Adam { config, state, moments, before, trained, .. } = self;
        for id in trained.iter() {
            grads.of_param(*id).ok_or_else(|| no_gradient(&params.get(*id).name))?;
        }
        let tensors = |visit: &mut Visit<B>| {
            let (mut moments, mut before) = (moments.iter_mut(), before.iter_mut());
            params.iter_mut().try_for_each(|(id, param)| {
                let value = &mut param.tensor;
                if !param.role.trained() {
                    return before.next().map_or(Ok(()), |before| visit(Stepped::Kept(Kept { value, before })));
                }
                let grad = grads.of_param(id).ok_or_else(|| no_gradient(&param.name))?;
                let Some(Moments { exp_avg, exp_avg_sq, .. }) = moments.next() else { return Ok(()) };
                visit(Stepped::Trained(AdamTensors { param: value, grad, exp_avg, exp_avg_sq }))
            })
        };
        backend.adam(tensors, loss, state, config)
    }

    /// Takes note of a step that is done, or was left out.
    pub fn note(&mut self, report: &AdamReport) {
        self.steps = report.steps;
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
