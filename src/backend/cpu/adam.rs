//! Adam with global-norm clipping; see [`Backend::adam`](crate::backend::Backend::adam).

use rayon::prelude::*;

use super::elementwise::{CHUNK, non_finite, sum};
use super::real::Real;
use super::{Cpu, CpuTensor};
use crate::Result;
use crate::backend::{AdamConfig, AdamReport, AdamTensors, Kept, LARGEST_NORM, Stepped, Visit};

/// The optimiser's scalars.
#[derive(Clone, Copy, Debug)]
pub struct AdamState {
    /// Of the next step.
    pub(super) learning_rate: f64,
    pub(super) report: AdamReport,
}

/// Scalars of one step.
struct Args {
    learning_rate: f64,
    grad_scale: f64,
    step: u64,
}

/// One step over all parameters.
pub fn step<T: Real>(
    mut tensors: impl FnMut(&mut Visit<Cpu<T>>) -> Result<()>,
    loss: Option<&CpuTensor<T>>,
    state: &mut AdamState,
    config: &AdamConfig,
) -> Result<()> {
    let (mut squares, mut finite) = (0.0, true);
    tensors(&mut |stepped| {
        match stepped {
            Stepped::Trained(tensors) => squares += sum(tensors.grad.buffer().read(), |g| g.to_f64() * g.to_f64()),
            Stepped::Kept(kept) => finite &= is_finite(kept.value),
        }
        Ok(())
    })?;
    let norm = if finite { f64::sqrt(squares) } else { f64::NAN };
    state.report.grad_norm = norm;
    let clip = config.clip_norm;
    let grad_scale = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
    let fits = grad_scale * norm <= LARGEST_NORM;
    if state.report.left_out || !fits || !loss.is_none_or(is_finite) {
        state.report.left_out = true;
        state.report.nonfinite_steps += 1;
        return tensors(&mut |stepped| match stepped {
            Stepped::Trained(_) => Ok(()),
            Stepped::Kept(Kept { value, before }) => copy(before, value),
        });
    }
    state.report.steps += 1;
    let args = Args { learning_rate: state.learning_rate, grad_scale, step: state.report.steps };
    tensors(&mut |stepped| match stepped {
        Stepped::Trained(tensors) => update(tensors, config, &args),
        Stepped::Kept(_) => Ok(()),
    })
}

/// See [`crate::backend::Backend::keep`].
pub fn keep<'a, T: Real + 'a>(mut kept: impl Iterator<Item = Kept<'a, Cpu<T>>>) -> Result<()> {
    kept.try_for_each(|Kept { value, before }| copy(value, before))
}

fn copy<T: Real>(from: &CpuTensor<T>, to: &mut CpuTensor<T>) -> Result<()> {
    to.buffer_mut().write()?.copy_from_slice(from.buffer().read());
    Ok(())
}

fn is_finite<T: Real>(x: &CpuTensor<T>) -> bool {
    non_finite(x.buffer().read()).is_none()
}

fn update<T: Real>(tensors: AdamTensors<Cpu<T>>, config: &AdamConfig, args: &Args) -> Result<()> {
    let AdamTensors { param, grad, exp_avg, exp_avg_sq } = tensors;
    let bias1 = 1.0 - config.beta1.powi(args.step.min(i32::MAX as u64) as i32);
    let bias2 = 1.0 - config.beta2.powi(args.step.min(i32::MAX as u64) as i32);
    let real = T::from_f64;
    let (beta1, beta2, rest1, rest2) =
        (real(config.beta1), real(config.beta2), real(1.0 - config.beta1), real(1.0 - config.beta2));
    let (rate, root, eps) = (real(args.learning_rate / bias1), real(1.0 / bias2.sqrt()), real(config.eps));
    let (decay, scale) = (real(config.weight_decay), real(args.grad_scale));
    let params = param.buffer_mut().write()?.par_chunks_mut(CHUNK).zip(grad.buffer().read().par_chunks(CHUNK));
    let moments =
        exp_avg.buffer_mut().write()?.par_chunks_mut(CHUNK).zip(exp_avg_sq.buffer_mut().write()?.par_chunks_mut(CHUNK));
    params.zip(moments).for_each(|((p, g), (m, v))| {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = scale * g + decay * *p;
            *m = beta1 * *m + rest1 * g;
            *v = beta2 * *v + rest2 * g * g;
            *p = *p - rate * *m / ((*v).sqrt() * root + eps);
        }
    });
    Ok(())
}
