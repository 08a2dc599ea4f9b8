//! Sigmoid heads and their entropy by kernels/binary_entropy.cu.

use super::{CudaTensor, by_dtype};
use crate::Result;
use crate::backend::cuda::binary_entropy::{
    BinaryEntropyBackward, BinaryEntropyFinish, BinaryEntropyForward, SigmoidBackward, SigmoidForward, partial_elems,
};
use crate::backend::cuda::device::Cuda;
use crate::backend::cuda::kernel::Dtype;
use crate::tensor::Shape;

pub fn forward(cuda: &Cuda, logits: &CudaTensor) -> Result<CudaTensor> {
    let count = logits.shape().elems();
    let mut partial = cuda.scratch::<f64>(partial_elems(count))?;
    by_dtype!(logits.buffer().dtype(), T => {
        let forward = BinaryEntropyForward::<T> {
            logits: logits.buffer().slice()?,
            y: None,
            partial: partial.slice_mut(),
            count: count as u64,
        };
        forward.launch(cuda.kernels())?;
    });
    let mut loss = cuda.tensor(Shape::SCALAR, Dtype::F32)?;
    let finish = BinaryEntropyFinish {
        partial: partial.slice(),
        loss: loss.buffer_mut().slice_mut()?,
        count: count as u64,
        blocks: partial_elems(count) as u32,
    };
    finish.launch(cuda.kernels())?;
    Ok(loss)
}

pub fn backward(cuda: &Cuda, logits: &CudaTensor, dloss: &CudaTensor) -> Result<CudaTensor> {
    let mut da = cuda.tensor(logits.shape(), logits.buffer().dtype())?;
    by_dtype!(logits.buffer().dtype(), T => {
        let backward = BinaryEntropyBackward::<T> {
            logits: logits.buffer().slice()?,
            dy: None,
            dloss: dloss.buffer().slice()?,
            da: da.buffer_mut().slice_mut()?,
            count: logits.shape().elems() as u64,
        };
        backward.launch(cuda.kernels())?;
    });
    Ok(da)
}

pub fn sigmoid_forward(cuda: &Cuda, x: &CudaTensor) -> Result<CudaTensor> {
    let mut y = cuda.tensor(x.shape(), x.buffer().dtype())?;
    by_dtype!(x.buffer().dtype(), T => {
        let count = x.shape().elems() as u64;
        SigmoidForward::<T> { x: x.buffer().slice()?, y: y.buffer_mut().slice_mut()?, count }.launch(cuda.kernels())?;
    });
    Ok(y)
}

pub fn sigmoid_backward(cuda: &Cuda, y: &CudaTensor, dy: &CudaTensor) -> Result<CudaTensor> {
    let mut dx = cuda.tensor(y.shape(), y.buffer().dtype())?;
    by_dtype!(y.buffer().dtype(), T => {
        let backward = SigmoidBackward::<T> {
            y: y.buffer().slice()?,
            dy: dy.buffer().slice()?,
            dx: dx.buffer_mut().slice_mut()?,
            count: y.shape().elems() as u64,
        };
        backward.launch(cuda.kernels())?;
    });
    Ok(dx)
}
