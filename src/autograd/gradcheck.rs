//! Gradients against central differences, in double precision.
//!
//! `f(x + h) - f(x - h)` over `2h` errs by about `h^2 f'''/6` (truncation) and `eps |f| / h` (cancellation). With
//! `h = 1e-5` and values of order one both are near 1e-10, which leaves four digits to the bound of 1e-6 that tests use.

use super::{Grads, Tape, Var};
use crate::Result;
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::tensor::{Shape, Tensor};

/// Step of the differences.
const STEP: f64 = 1e-5;

/// The worst disagreement of one input.
#[derive(Clone, Copy, Debug)]
pub struct InputError {
    /// `|analytic - numeric| / max(|analytic|, |numeric|)` in the Euclidean norm over all checked elements; 0 where both are 0.
    pub relative: f64,
    /// Norm of the numeric gradient: what the relative error is relative to.
    pub norm: f64,
}

/// Compares the gradients of the scalar that `f` records from `inputs` (shape, values) with central differences, for
/// every element, or for `limit` evenly spread ones of each input. One result an input.
pub fn gradcheck(
    inputs: &[(Shape, Vec<f64>)],
    limit: usize,
    f: impl Fn(&mut Tape<Cpu<f64>>, &[Var]) -> Result<Var>,
) -> Result<Vec<InputError>> {
    let cpu = Cpu::<f64>::new();
    let mut tape = Tape::new(cpu.clone());
    let mut value = |values: &[(Shape, Vec<f64>)], grads: Option<&mut Grads<Cpu<f64>>>| -> Result<(f64, Vec<Var>)> {
        tape.clear();
        let leaves = values
            .iter()
            .map(|(shape, values)| Ok(tape.leaf(cpu.upload(*shape, values)?)))
            .collect::<Result<Vec<_>>>()?;
        let loss = f(&mut tape, &leaves)?;
        let value = tape.scalar(loss)?;
        if let Some(grads) = grads {
            tape.backward(loss, grads)?;
        }
        Ok((value, leaves))
    };
    let mut grads = Grads::new();
    let (_, leaves) = value(inputs, Some(&mut grads))?;
    let mut errors = Vec::new();
    let mut moved = inputs.to_vec();
    for (i, (shape, values)) in inputs.iter().enumerate() {
        let analytic = grads.of(leaves[i]).map(|g: &Tensor<_>| cpu.download(g)).transpose()?;
        let analytic = analytic.unwrap_or_else(|| vec![0.0; shape.elems()]);
        let (mut difference, mut a_norm, mut n_norm) = (0.0, 0.0, 0.0);
        for j in (0..values.len()).step_by(values.len().div_ceil(limit.max(1)).max(1)) {
            moved[i].1[j] = values[j] + STEP;
            let above = value(&moved, None)?.0;
            moved[i].1[j] = values[j] - STEP;
            let below = value(&moved, None)?.0;
            moved[i].1[j] = values[j];
            let numeric = (above - below) / (2.0 * STEP);
            difference += (analytic[j] - numeric).powi(2);
            a_norm += analytic[j].powi(2);
            n_norm += numeric.powi(2);
        }
        let scale = f64::max(a_norm, n_norm).sqrt();
        let relative = if scale == 0.0 { 0.0 } else { difference.sqrt() / scale };
        errors.push(InputError { relative, norm: n_norm.sqrt() });
    }
    Ok(errors)
}
