//! Gradients against central differences, in double precision.
//!
//! `f(x + h) - f(x - h)` over `2h` errs by about `h^2 f'''/6` (truncation) and `eps |f| / h` (cancellation). With
//! `h = 1e-5` and values of order one both are near 1e-10, which leaves four digits to the bound of 1e-6 that tests use.
//!
//! ReLU and max pooling have kinks, across which a difference says nothing about a derivative. The tape knows which branch
//! each of them took ([`Tape::branches`]); an element whose step changes a branch is counted and not compared.

use super::{Grads, Tape, Var};
use crate::Result;
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::nn::Params;
use crate::tensor::{Shape, Tensor};

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Differences {
    /// Step h of the differences.
    pub step: f64,
    /// Compares at most this many elements of an input, evenly spread.
    pub limit: usize,
}

impl Default for Differences {
    /// Every element, with steps of 1e-5.
    fn default() -> Self {
        Differences { step: 1e-5, limit: usize::MAX }
    }
}

/// The disagreement of one input.
#[derive(Clone, Copy, Debug)]
pub struct InputError {
    /// `|analytic - numeric| / max(|analytic|, |numeric|)` in the Euclidean norm over all compared elements; 0 where both
    /// are 0.
    pub relative: f64,
    /// Norm of the numeric gradient: what the relative error is relative to.
    pub norm: f64,
    /// Elements compared.
    pub compared: usize,
    /// Elements not compared because their steps crossed a kink.
    pub crossed: usize,
}

/// Compares the gradients of the scalar that `f` records from `inputs` (shape, values) with central differences. One result
/// an input.
pub fn gradcheck(
    inputs: &[(Shape, Vec<f64>)],
    differences: Differences,
    f: impl Fn(&mut Tape<Cpu<f64>>, &[Var]) -> Result<Var>,
) -> Result<Vec<InputError>> {
    let cpu = Cpu::<f64>::new();
    let mut tape = Tape::new(cpu.clone());
    let record = |tape: &mut Tape<Cpu<f64>>, values: &[(Shape, Vec<f64>)]| {
        tape.clear();
        let leaf = |(shape, values): &(Shape, Vec<f64>)| Ok(tape.leaf(cpu.upload(*shape, values)?));
        let leaves = values.iter().map(leaf).collect::<Result<Vec<_>>>()?;
        Ok((f(tape, &leaves)?, leaves))
    };
    let mut grads = Grads::new();
    let (loss, leaves) = record(&mut tape, inputs)?;
    tape.backward(loss, &mut grads)?;
    let mut moved = inputs.to_vec();
    let mut errors = Vec::new();
    for (i, (shape, values)) in inputs.iter().enumerate() {
        let analytic = gradient(&cpu, grads.of(leaves[i]), *shape)?;
        errors.push(compare(&analytic, differences, |j, offset| {
            moved[i].1[j] = values[j] + offset;
            let (loss, _) = record(&mut tape, &moved)?;
            moved[i].1[j] = values[j];
            Ok((tape.scalar(loss)?, tape.branches()))
        })?);
    }
    Ok(errors)
}

/// Like [`gradcheck`] for the trained tensors of `params`, which `f` records. One result a tensor, with its name.
pub fn gradcheck_params(
    params: &mut Params<Cpu<f64>>,
    differences: Differences,
    f: impl Fn(&mut Tape<Cpu<f64>>, &mut Params<Cpu<f64>>) -> Result<Var>,
) -> Result<Vec<(String, InputError)>> {
    let cpu = params.backend().clone();
    let mut tape = Tape::new(cpu.clone());
    let mut grads = Grads::new();
    let loss = f(&mut tape, params)?;
    tape.backward(loss, &mut grads)?;
    let trained: Vec<_> =
        params.iter().filter(|(_, p)| p.role.trained()).map(|(id, p)| (id, p.name.clone(), p.tensor.clone())).collect();
    let mut errors = Vec::new();
    for (id, name, tensor) in trained {
        let shape = tensor.shape();
        let analytic = gradient(&cpu, grads.of_param(id), shape)?;
        let mut values = cpu.download(&tensor)?;
        let set = |params: &mut Params<Cpu<f64>>, values: &[f64]| -> Result<()> {
            let tensor = cpu.upload(shape, values)?;
            params.iter_mut().filter(|(other, _)| *other == id).for_each(|(_, p)| p.tensor = tensor.clone());
            Ok(())
        };
        let error = compare(&analytic, differences, |j, offset| {
            let value = values[j];
            values[j] = value + offset;
            set(params, &values)?;
            values[j] = value;
            tape.clear();
            let loss = f(&mut tape, params)?;
            Ok((tape.scalar(loss)?, tape.branches()))
        })?;
        set(params, &values)?;
        errors.push((name, error));
    }
    Ok(errors)
}

/// A gradient on the host; zeros where the loss does not depend on the input.
fn gradient(cpu: &Cpu<f64>, grad: Option<&Tensor<Cpu<f64>>>, shape: Shape) -> Result<Vec<f64>> {
    grad.map_or_else(|| Ok(vec![0.0; shape.elems()]), |grad| cpu.download(grad))
}

/// Compares a gradient with differences; `at` gives value and branches with element j moved by an offset.
fn compare(
    analytic: &[f64],
    Differences { step, limit }: Differences,
    mut at: impl FnMut(usize, f64) -> Result<(f64, u64)>,
) -> Result<InputError> {
    let (mut difference, mut a_norm, mut n_norm) = (0.0, 0.0, 0.0);
    let (mut compared, mut crossed) = (0, 0);
    for j in (0..analytic.len()).step_by(analytic.len().div_ceil(limit.max(1)).max(1)) {
        let (above, branches_above) = at(j, step)?;
        let (below, branches_below) = at(j, -step)?;
        if branches_above != branches_below {
            crossed += 1;
            continue;
        }
        compared += 1;
        let numeric = (above - below) / (2.0 * step);
        difference += (analytic[j] - numeric).powi(2);
        a_norm += analytic[j].powi(2);
        n_norm += numeric.powi(2);
    }
    let scale = f64::max(a_norm, n_norm).sqrt();
    let relative = if scale == 0.0 { 0.0 } else { difference.sqrt() / scale };
    Ok(InputError { relative, norm: n_norm.sqrt(), compared, crossed })
}
