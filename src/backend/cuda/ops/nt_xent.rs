//! NT-Xent by kernels/nt_xent.cu, in the precision of the backend.

use super::CudaTensor;
use crate::Result;
use crate::backend::cuda::device::Cuda;
use crate::backend::cuda::kernel::{Dtype, Element};
use crate::backend::cuda::nt_xent::{
    Backward, BackwardColumnsFinish, BackwardRowsFinish, Bf16, F32, Forward, ForwardFinish, NormaliseColumns,
    NormaliseRows, NtXent, Precision, Tf32,
};
use crate::backend::{NtXentSaved, Samples};
use crate::config;
use crate::tensor::Shape;

pub fn forward(
    cuda: &Cuda,
    z: &CudaTensor,
    samples: Samples,
    temperature: f64,
) -> Result<(CudaTensor, NtXentSaved<Cuda>)> {
    match cuda.device.precision {
        config::Precision::Bf16 => forward_in::<Bf16>(cuda, z, samples, temperature),
        config::Precision::Tf32 => forward_in::<Tf32>(cuda, z, samples, temperature),
        config::Precision::F32 => forward_in::<F32>(cuda, z, samples, temperature),
    }
}

fn forward_in<P: Precision>(
    cuda: &Cuda,
    z: &CudaTensor,
    samples: Samples,
    temperature: f64,
) -> Result<(CudaTensor, NtXentSaved<Cuda>)> {
    let shape = NtXent::new::<P>(z.shape(), samples, temperature)?;
    let (count, kernels) = (shape.count(), cuda.kernels());
    let vector = |elems| cuda.tensor(Shape::from([elems]), Dtype::F32);
    let mut unit = cuda.tensor(Shape::from([shape.unit_elems::<P>()]), P::T::DTYPE)?;
    let (mut norm, mut lse) = (vector(count)?, vector(count)?);
    let (z, unit_mut, norm_mut) = (z.buffer().slice()?, unit.buffer_mut().slice_mut()?, norm.buffer_mut().slice_mut()?);
    match samples {
        Samples::Rows => NormaliseRows::<P> { z, unit: unit_mut, norm: norm_mut, shape }.launch(kernels)?,
        Samples::Columns => NormaliseColumns::<P> { z, unit: unit_mut, norm: norm_mut, shape }.launch(kernels)?,
    }
    let mut largest = cuda.scratch::<f32>(shape.forward_scratch())?;
    let mut sum = cuda.scratch::<f32>(shape.forward_scratch())?;
    let mut positive = cuda.scratch::<f32>(count)?;
    let forward = Forward::<P> {
        unit: unit.buffer().slice()?,
        largest: largest.slice_mut(),
        sum: sum.slice_mut(),
        positive: positive.slice_mut(),
        shape,
    };
    forward.launch(kernels)?;
    let mut loss = cuda.tensor(Shape::SCALAR, Dtype::F32)?;
    let finish = ForwardFinish {
        largest: largest.slice(),
        sum: sum.slice(),
        positive: positive.slice(),
        lse: lse.buffer_mut().slice_mut()?,
        loss: loss.buffer_mut().slice_mut()?,
        shape,
        splits: shape.splits() as u32,
    };
    finish.launch(kernels)?;
    Ok((loss, NtXentSaved { unit, norm, lse }))
}

pub fn backward(
    cuda: &Cuda,
    saved: &NtXentSaved<Cuda>,
    dloss: &CudaTensor,
    z_shape: Shape,
    samples: Samples,
    temperature: f64,
) -> Result<CudaTensor> {
    match cuda.device.precision {
        config::Precision::Bf16 => backward_in::<Bf16>(cuda, saved, dloss, z_shape, samples, temperature),
        config::Precision::Tf32 => backward_in::<Tf32>(cuda, saved, dloss, z_shape, samples, temperature),
        config::Precision::F32 => backward_in::<F32>(cuda, saved, dloss, z_shape, samples, temperature),
    }
}

fn backward_in<P: Precision>(
    cuda: &Cuda,
    saved: &NtXentSaved<Cuda>,
    dloss: &CudaTensor,
    z_shape: Shape,
    samples: Samples,
    temperature: f64,
) -> Result<CudaTensor> {
    let whole = NtXent::new::<P>(z_shape, samples, temperature)?;
    let mut partial = cuda.scratch::<f32>(whole.backward_scratch())?;
    let mut dz = cuda.tensor(z_shape, P::T::DTYPE)?;
    let kernels = cuda.kernels();
    for shape in whole.slices() {
        let unit = saved.unit.buffer().slice()?;
        let lse = saved.lse.buffer().slice()?;
        Backward::<P> { unit, lse, partial: partial.slice_mut(), shape }.launch(kernels)?;
        let (norm, dloss) = (saved.norm.buffer().slice()?, dloss.buffer().slice()?);
        let (partial, dz, splits) = (partial.slice(), dz.buffer_mut().slice_mut()?, shape.splits() as u32);
        match samples {
            Samples::Rows => {
                BackwardRowsFinish::<P> { partial, unit, norm, dloss, dz, shape, splits }.launch(kernels)?;
            }
            Samples::Columns => {
                BackwardColumnsFinish::<P> { partial, unit, norm, dloss, dz, shape, splits }.launch(kernels)?;
            }
        }
    }
    Ok(dz)
}
