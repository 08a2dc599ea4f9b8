//! Convolutions by cuDNN. The filter, in f32, is rounded to the type of activations, with as many channels as its input has in
//! memory; its gradient comes back in f32.

use half::bf16;

use super::transfer::{as_activations, as_f32};
use super::{CudaTensor, by_dtype};
use crate::backend::Window;
use crate::backend::cuda::cast::CastChannels;
use crate::backend::cuda::cudnn::{Convolution, Direction, Operands};
use crate::backend::cuda::device::Cuda;
use crate::backend::cuda::kernel::Dtype;
use crate::tensor::Shape;
use crate::{Error, Result};

/// The convolution, with `channels` channels in memory.
fn convolution(
    cuda: &Cuda,
    direction: Direction,
    [x, w]: [Shape; 2],
    channels: usize,
    window: Window,
) -> Result<Convolution> {
    let (&[n, h, width, _], &[k, r, s, _]) = (x.dims(), w.dims()) else {
        return Err(Error::shape("conv2d", format!("x {x:?}, w {w:?}")));
    };
    let (x, w) = ([n, h, width, channels], [k, r, s, channels]);
    let y = Convolution::sizes(x, w, window);
    let y = y.ok_or_else(|| Error::shape("conv2d", format!("{window:?} does not fit on {x:?}")))?;
    let (input, multiplication) = (cuda.activations(), cuda.multiplication());
    let Window { stride, padding, .. } = window;
    Ok(Convolution { direction, x, w, y, stride, padding, input, output: input, multiplication })
}

/// The filter as activations, with `channels` channels.
fn filter(cuda: &Cuda, w: &CudaTensor, channels: usize) -> Result<CudaTensor> {
    if channels == w.shape().last() {
        return as_activations(cuda, w);
    }
    let &[k, r, s, from] = w.shape().dims() else { return Err(Error::shape("conv2d", "w is no [K,R,S,C]")) };
    let mut padded = cuda.tensor(Shape::from([k, r, s, channels]), cuda.activations())?;
    by_dtype!(padded.buffer().dtype(), T => {
        let cast = CastChannels::<f32, T> {
            x: w.buffer().slice()?,
            y: padded.buffer_mut().slice_mut()?,
            count: (k * r * s) as u64,
            from: from as u32,
            to: channels as u32,
        };
        cast.launch(cuda.kernels())?;
    });
    Ok(padded)
}

/// Channels of network input in memory.
fn channels(x: &CudaTensor) -> usize {
    x.buffer().elems() / x.shape().rows().max(1)
}

pub fn forward(cuda: &Cuda, x: &CudaTensor, w: &CudaTensor, window: Window) -> Result<CudaTensor> {
    let convolution = convolution(cuda, Direction::Forward, [x.shape(), w.shape()], channels(x), window)?;
    let w = filter(cuda, w, channels(x))?;
    let y = cuda.tensor(Shape::from(convolution.y), convolution.output)?;
    let operands = Operands { x: x.buffer().address(), w: w.buffer().address(), y: y.buffer().address() };
    x.buffer().expect(convolution.input)?;
    cuda.convolve(&convolution, operands)?;
    Ok(y)
}

pub fn backward_data(
    cuda: &Cuda,
    w: &CudaTensor,
    dy: &CudaTensor,
    x_shape: Shape,
    window: Window,
) -> Result<CudaTensor> {
    let convolution = convolution(cuda, Direction::BackwardData, [x_shape, w.shape()], x_shape.last(), window)?;
    let w = as_activations(cuda, w)?;
    let dx = cuda.tensor(x_shape, convolution.output)?;
    let operands = Operands { x: dx.buffer().address(), w: w.buffer().address(), y: dy.buffer().address() };
    dy.buffer().expect(convolution.input)?;
    cuda.convolve(&convolution, operands)?;
    Ok(dx)
}

pub fn backward_filter(
    cuda: &Cuda,
    x: &CudaTensor,
    dy: &CudaTensor,
    w_shape: Shape,
    window: Window,
) -> Result<CudaTensor> {
    let channels = channels(x);
    let convolution = convolution(cuda, Direction::BackwardFilter, [x.shape(), w_shape], channels, window)?;
    let &[k, r, s, _] = w_shape.dims() else { return Err(Error::shape("conv2d", "w is no [K,R,S,C]")) };
    x.buffer().expect(convolution.input)?;
    dy.buffer().expect(convolution.input)?;
    // Rounded once to the type of activations: of the engines that write f32 from bf16, none shares the sum over pixels out
    // among the multiprocessors (measured: up to 25 times slower on an H100).
    let dw = cuda.tensor(Shape::from([k, r, s, channels]), convolution.output)?;
    let operands = Operands { x: x.buffer().address(), w: dw.buffer().address(), y: dy.buffer().address() };
    cuda.convolve(&convolution, operands)?;
    narrow(cuda, &dw, w_shape)
}

/// In f32, without the channels that are only padding.
fn narrow(cuda: &Cuda, dw: &CudaTensor, w_shape: Shape) -> Result<CudaTensor> {
    if dw.shape() == w_shape {
        return as_f32(cuda, dw);
    }
    let (from, to) = (dw.shape().last() as u32, w_shape.last() as u32);
    let mut narrow = cuda.tensor(w_shape, Dtype::F32)?;
    let (count, y) = (w_shape.rows() as u64, narrow.buffer_mut().slice_mut()?);
    match dw.buffer().dtype() {
        Dtype::F32 => {
            CastChannels::<f32, f32> { x: dw.buffer().slice()?, y, count, from, to }.launch(cuda.kernels())?;
        }
        Dtype::Bf16 => {
            CastChannels::<bf16, f32> { x: dw.buffer().slice()?, y, count, from, to }.launch(cuda.kernels())?;
        }
    }
    Ok(narrow)
}
