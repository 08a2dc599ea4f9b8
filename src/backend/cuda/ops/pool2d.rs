//! Pooling by kernels/pool2d.cu.

use super::{CudaTensor, by_dtype};
use crate::backend::Window;
use crate::backend::cuda::device::Cuda;
use crate::backend::cuda::memory::Scratch;
use crate::backend::cuda::pool2d::{
    GlobalAvgPoolBackward, GlobalAvgPoolForward, MaxPool, MaxPoolBackward, MaxPoolForward,
};
use crate::tensor::Shape;
use crate::{Error, Result};

pub fn max_forward(cuda: &Cuda, x: &CudaTensor, window: Window) -> Result<(CudaTensor, Scratch<u8>)> {
    let shape = MaxPool::new(x.shape(), window)?;
    let &[n, h, w, c] = x.shape().dims() else { return Err(Error::shape("max_pool", "x is no [N,H,W,C]")) };
    let (Some(p), Some(q)) = (window.output(0, h), window.output(1, w)) else {
        return Err(Error::shape("max_pool", format!("{window:?} on {:?}", x.shape())));
    };
    let mut y = cuda.tensor(Shape::from([n, p, q, c]), x.buffer().dtype())?;
    let mut argmax = cuda.scratch::<u8>(y.shape().elems())?;
    by_dtype!(x.buffer().dtype(), T => {
        let count = y.shape().elems() as u64;
        let pool = MaxPoolForward::<T> {
            x: x.buffer().slice()?,
            y: y.buffer_mut().slice_mut()?,
            argmax: argmax.slice_mut(),
            count,
            shape,
        };
        pool.launch(cuda.kernels())?;
    });
    Ok((y, argmax))
}

pub fn max_backward(
    cuda: &Cuda,
    dy: &CudaTensor,
    argmax: &Scratch<u8>,
    x_shape: Shape,
    window: Window,
) -> Result<CudaTensor> {
    let shape = MaxPool::new(x_shape, window)?;
    let mut dx = cuda.tensor(x_shape, dy.buffer().dtype())?;
    by_dtype!(dy.buffer().dtype(), T => {
        let pool = MaxPoolBackward::<T> {
            dy: dy.buffer().slice()?,
            argmax: argmax.slice(),
            dx: dx.buffer_mut().slice_mut()?,
            count: x_shape.elems() as u64,
            shape,
        };
        pool.launch(cuda.kernels())?;
    });
    Ok(dx)
}

pub fn avg_forward(cuda: &Cuda, x: &CudaTensor) -> Result<CudaTensor> {
    let &[n, h, w, c] = x.shape().dims() else { return Err(Error::shape("global_avg_pool", "x is no [N,H,W,C]")) };
    let mut y = cuda.tensor(Shape::from([n, c]), x.buffer().dtype())?;
    by_dtype!(x.buffer().dtype(), T => {
        let pool = GlobalAvgPoolForward::<T> {
            x: x.buffer().slice()?,
            y: y.buffer_mut().slice_mut()?,
            pixels: (h * w) as u32,
            channels: c as u32,
        };
        pool.launch(cuda.kernels())?;
    });
    Ok(y)
}

pub fn avg_backward(cuda: &Cuda, dy: &CudaTensor, x_shape: Shape) -> Result<CudaTensor> {
    let &[_, h, w, c] = x_shape.dims() else { return Err(Error::shape("global_avg_pool", "x is no [N,H,W,C]")) };
    let mut dx = cuda.tensor(x_shape, dy.buffer().dtype())?;
    by_dtype!(dy.buffer().dtype(), T => {
        let pool = GlobalAvgPoolBackward::<T> {
            dy: dy.buffer().slice()?,
            dx: dx.buffer_mut().slice_mut()?,
            count: x_shape.elems() as u64,
            pixels: (h * w) as u32,
            channels: c as u32,
        };
        pool.launch(cuda.kernels())?;
    });
    Ok(dx)
}
