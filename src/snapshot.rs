//! Between a network in memory and the tensors of a checkpoint.

use crate::backend::Backend;
use crate::checkpoint::{Checkpoint, NamedTensor};
use crate::nn::{ParamId, Params};
use crate::optim::Adam;
use crate::tensor::Tensor;
use crate::{Error, Result};

const EXP_AVG: &str = "optimizer.exp_avg.";
const EXP_AVG_SQ: &str = "optimizer.exp_avg_sq.";

/// [`whole`]. Errors with [`Error::NonFinite`] if a number is not finite: a good checkpoint must not give way to a useless one.
pub fn tensors<B: Backend>(params: &Params<B>, adam: &Adam<B>) -> Result<Vec<NamedTensor>> {
    let tensors = whole(params, adam)?;
    match tensors.iter().find(|tensor| tensor.data.iter().any(|x| !x.is_finite())) {
        Some(tensor) => Err(Error::NonFinite(format!(
            "{} is no longer finite and is not saved; the last checkpoint is intact: try a smaller learning_rate",
            tensor.name
        ))),
        None => Ok(tensors),
    }
}

/// All weights, running statistics and moments, under the names and in the layouts of a checkpoint, whatever they are.
pub fn whole<B: Backend>(params: &Params<B>, adam: &Adam<B>) -> Result<Vec<NamedTensor>> {
    let mut tensors = Vec::new();
    for (id, param) in params.iter() {
        tensors.push(named(param.name.clone(), params.export(id, &param.tensor)?));
    }
    for (id, exp_avg, exp_avg_sq) in adam.moments() {
        let param = params.get(id);
        for (prefix, moment) in [(EXP_AVG, exp_avg), (EXP_AVG_SQ, exp_avg_sq)] {
            tensors.push(named(format!("{prefix}{}", param.name), params.export(id, moment)?));
        }
    }
    Ok(tensors)
}

fn named(name: String, (shape, values): (Vec<usize>, Vec<f64>)) -> NamedTensor {
    NamedTensor { name, shape, data: values.into_iter().map(|x| x as f32).collect() }
}

/// Sets weights and running statistics from a checkpoint. Errors if one is missing or of another shape: the checkpoint is of
/// another network.
pub fn restore_params<B: Backend>(params: &mut Params<B>, checkpoint: &Checkpoint) -> Result<()> {
    let ids: Vec<ParamId> = params.iter().map(|(id, _)| id).collect();
    for id in ids {
        let tensor = read(params, checkpoint, id, "")?;
        params.set(id, tensor);
    }
    Ok(())
}

/// Sets the optimiser's moments and its number of steps from a checkpoint. Errors as [`restore_params`].
pub fn restore_adam<B: Backend>(params: &Params<B>, adam: &mut Adam<B>, checkpoint: &Checkpoint) -> Result<()> {
    adam.restore(params.backend(), checkpoint.meta.step, |id| {
        Ok((read(params, checkpoint, id, EXP_AVG)?, read(params, checkpoint, id, EXP_AVG_SQ)?))
    })
}

fn read<B: Backend>(params: &Params<B>, checkpoint: &Checkpoint, id: ParamId, prefix: &str) -> Result<Tensor<B>> {
    let name = format!("{prefix}{}", params.get(id).name);
    let tensor = checkpoint.tensor(&name);
    let tensor =
        tensor.ok_or_else(|| Error::shape("checkpoint", format!("{name} is missing: it is of another network")))?;
    let values: Vec<f64> = tensor.data.iter().map(|&x| f64::from(x)).collect();
    params.import(id, &tensor.shape, &values)
}
