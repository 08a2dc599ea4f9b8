//! Batch norm by kernels/batch_norm.cu.

use super::{CudaTensor, by_dtype};
use crate::Result;
use crate::backend::cuda::batch_norm::{
    BackwardData, BackwardFinish, BackwardSums, COEFFICIENTS, InverseStd, Normalise, STATISTICS, SUMS, Statistics,
    StatisticsFinish,
};
use crate::backend::cuda::columns::Columns;
use crate::backend::cuda::device::Cuda;
use crate::backend::cuda::kernel::{Dtype, Element, Slice, SliceMut};
use crate::backend::{Activation, Affine, BatchNormGrads, BatchStats, Residual, RunningStats};
use crate::tensor::Shape;

/// x as a matrix with channels in columns.
fn columns(x: &CudaTensor, views: usize) -> Result<Columns> {
    Columns::new(x.shape().rows() / views.max(1), x.shape().last(), views)
}

pub fn forward(
    cuda: &Cuda,
    x: &CudaTensor,
    affine: Affine<Cuda>,
    residual: Option<&CudaTensor>,
    running: Option<RunningStats<Cuda>>,
    views: usize,
    eps: f64,
    activation: Activation,
) -> Result<(CudaTensor, BatchStats<Cuda>)> {
    let shape = columns(x, views)?;
    let per_view = Shape::from([views, x.shape().last()]);
    let mut partial = cuda.scratch::<f32>(shape.partial_elems(STATISTICS))?;
    by_dtype!(x.buffer().dtype(), T => {
        let statistics = Statistics::<T> { x: x.buffer().slice()?, partial: partial.slice_mut(), shape };
        statistics.launch(cuda.kernels())?;
    });
    let mut stats =
        BatchStats { mean: cuda.tensor(per_view, Dtype::F32)?, inv_std: cuda.tensor(per_view, Dtype::F32)? };
    let momentum = running.as_ref().map_or(0.0, |running| running.momentum);
    let mut running_mean: Option<SliceMut<f32>> = None;
    let mut running_var = None;
    if let Some(RunningStats { mean, var, .. }) = running {
        running_mean = Some(mean.buffer_mut().slice_mut()?);
        running_var = Some(var.buffer_mut().slice_mut()?);
    }
    let finish = StatisticsFinish {
        partial: partial.slice(),
        mean: stats.mean.buffer_mut().slice_mut()?,
        inv_std: stats.inv_std.buffer_mut().slice_mut()?,
        running_mean,
        running_var,
        shape,
        eps,
        momentum,
    };
    finish.launch(cuda.kernels())?;
    let y = normalise(cuda, x, affine, residual, [&stats.mean, &stats.inv_std], shape, activation)?;
    Ok((y, stats))
}

fn normalise(
    cuda: &Cuda,
    x: &CudaTensor,
    affine: Affine<Cuda>,
    residual: Option<&CudaTensor>,
    [mean, inv_std]: [&CudaTensor; 2],
    shape: Columns,
    activation: Activation,
) -> Result<CudaTensor> {
    let mut y = cuda.tensor(x.shape(), x.buffer().dtype())?;
    by_dtype!(x.buffer().dtype(), T => {
        let normalise = Normalise::<T> {
            x: x.buffer().slice()?,
            residual: residual.map(|residual| residual.buffer().slice()).transpose()?,
            mean: mean.buffer().slice()?,
            inv_std: inv_std.buffer().slice()?,
            weight: affine.weight.buffer().slice()?,
            bias: affine.bias.buffer().slice()?,
            y: y.buffer_mut().slice_mut()?,
            shape,
            activation: activation.into(),
        };
        normalise.launch(cuda.kernels())?;
    });
    Ok(y)
}

pub fn inference(
    cuda: &Cuda,
    x: &CudaTensor,
    affine: Affine<Cuda>,
    residual: Option<&CudaTensor>,
    [mean, var]: [&CudaTensor; 2],
    eps: f64,
    activation: Activation,
) -> Result<CudaTensor> {
    let mut inv_std = cuda.tensor(var.shape(), Dtype::F32)?;
    let inverse = InverseStd {
        var: var.buffer().slice()?,
        inv_std: inv_std.buffer_mut().slice_mut()?,
        columns: var.shape().elems() as u32,
        eps,
    };
    inverse.launch(cuda.kernels())?;
    normalise(cuda, x, affine, residual, [mean, &inv_std], columns(x, 1)?, activation)
}

pub fn backward(
    cuda: &Cuda,
    x: &CudaTensor,
    y: &CudaTensor,
    dy: CudaTensor,
    affine: Affine<Cuda>,
    stats: &BatchStats<Cuda>,
    residual: Residual,
    activation: Activation,
) -> Result<BatchNormGrads<Cuda>> {
    let views = stats.mean.shape().first();
    let shape = columns(x, views)?;
    let channels = Shape::from([x.shape().last()]);
    let mut partial = cuda.scratch::<f32>(shape.partial_elems(SUMS))?;
    // Without an activation the residual's gradient is dy itself.
    let mut masked = match (residual, activation) {
        (Residual::Added, Activation::Relu) => Some(cuda.tensor(x.shape(), x.buffer().dtype())?),
        _ => None,
    };
    by_dtype!(x.buffer().dtype(), T => {
        let sums = BackwardSums::<T> {
            x: x.buffer().slice()?,
            y: passed(y, residual, activation)?,
            dy: dy.buffer().slice()?,
            mean: stats.mean.buffer().slice()?,
            inv_std: stats.inv_std.buffer().slice()?,
            weight: affine.weight.buffer().slice()?,
            bias: affine.bias.buffer().slice()?,
            partial: partial.slice_mut(),
            dresidual: masked.as_mut().map(|masked| masked.buffer_mut().slice_mut()).transpose()?,
            shape,
            activation: activation.into(),
        };
        sums.launch(cuda.kernels())?;
    });
    let (mut dweight, mut dbias) = (cuda.tensor(channels, Dtype::F32)?, cuda.tensor(channels, Dtype::F32)?);
    let mut coefficients = cuda.scratch::<f32>(COEFFICIENTS * views * channels.elems())?;
    let finish = BackwardFinish {
        partial: partial.slice(),
        inv_std: stats.inv_std.buffer().slice()?,
        weight: affine.weight.buffer().slice()?,
        dweight: dweight.buffer_mut().slice_mut()?,
        dbias: dbias.buffer_mut().slice_mut()?,
        coefficients: coefficients.slice_mut(),
        shape,
    };
    finish.launch(cuda.kernels())?;
    let mut dx = cuda.tensor(x.shape(), x.buffer().dtype())?;
    let (dy, activation) = match masked {
        Some(masked) => (masked, Activation::Identity),
        None => (dy, activation),
    };
    by_dtype!(x.buffer().dtype(), T => {
        let data = BackwardData::<T> {
            x: x.buffer().slice()?,
            dy: dy.buffer().slice()?,
            mean: stats.mean.buffer().slice()?,
            inv_std: stats.inv_std.buffer().slice()?,
            weight: affine.weight.buffer().slice()?,
            bias: affine.bias.buffer().slice()?,
            coefficients: coefficients.slice(),
            dx: dx.buffer_mut().slice_mut()?,
            shape,
            activation: activation.into(),
        };
        data.launch(cuda.kernels())?;
    });
    let dresidual = (residual == Residual::Added).then_some(dy);
    Ok(BatchNormGrads { dx, dweight, dbias, dresidual })
}

/// The output, where only it says what a ReLU let pass.
fn passed<T: Element>(y: &CudaTensor, residual: Residual, activation: Activation) -> Result<Option<Slice<'_, T>>> {
    match (residual, activation) {
        (Residual::Added, Activation::Relu) => y.buffer().slice().map(Some),
        _ => Ok(None),
    }
}
