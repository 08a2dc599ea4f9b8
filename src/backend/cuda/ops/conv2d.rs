//! Convolutions by cuDNN. Filters, in f32, are rounded to the type of activations, and their gradients come back in f32.
//! Bytes of images, and channels that tensor cores do not take, are folded first (kernels/fold.cu).

use super::transfer::{add_assign, as_activations, as_f32};
use super::{CudaTensor, by_dtype};
use crate::backend::Window;
use crate::backend::cuda::convolution::{Convolution, Direction, Operands, Written};
use crate::backend::cuda::device::Cuda;
use crate::backend::cuda::fold::{Fold, FoldFilter, FoldFilterBack, FoldImages};
use crate::backend::cuda::kernel::Dtype;
use crate::config::Precision;
use crate::tensor::Shape;
use crate::{Error, Result};

fn dims(what: &str, shape: Shape) -> Result<[usize; 4]> {
    shape.dims().try_into().map_err(|_| Error::shape("conv2d", format!("{what} has no four dimensions: {shape:?}")))
}

/// Channels are a multiple of this for tensor cores.
fn channel_multiple(cuda: &Cuda) -> usize {
    match cuda.device.precision {
        Precision::Bf16 => 8,
        Precision::Tf32 => 4,
        Precision::F32 => 1,
    }
}

/// The convolution that cuDNN is given.
struct Given {
    convolution: Convolution,
    fold: Option<Fold>,
}

impl Given {
    fn new(
        cuda: &Cuda,
        direction: Direction,
        [x, w]: [[usize; 4]; 2],
        window: Window,
        fold: Option<Fold>,
    ) -> Result<Self> {
        let (x, w, window) = match &fold {
            Some(fold) => (fold.image_shape(x[0]), fold.filter_shape(w[0]), fold.window()),
            None => (x, w, window),
        };
        let y = Convolution::sizes(x, w, window);
        let y = y.ok_or_else(|| Error::shape("conv2d", format!("{window:?} does not fit on {x:?}")))?;
        let (input, multiplication) = (cuda.activations(), cuda.multiplication());
        let Window { stride, padding, .. } = window;
        let result = Written::Over;
        let convolution =
            Convolution { direction, x, w, y, stride, padding, input, output: input, multiplication, result };
        Ok(Given { convolution, fold })
    }

    /// x as it is, or folded.
    fn images(&self, cuda: &Cuda, x: &CudaTensor) -> Result<CudaTensor> {
        let Some(shape) = self.fold else {
            x.buffer().expect(self.convolution.input)?;
            return Ok(x.clone());
        };
        let mut y = cuda.tensor(Shape::from(self.convolution.x), self.convolution.input)?;
        let count = y.shape().elems() as u64 / 4;
        by_dtype!(y.buffer().dtype(), T => match x.buffer().dtype() {
            Dtype::U8 => FoldImages::<u8, T> { x: x.buffer().bytes()?, y: y.buffer_mut().slice_mut()?, count, shape }
                .launch(cuda.kernels())?,
            _ => FoldImages::<T, T> { x: x.buffer().slice()?, y: y.buffer_mut().slice_mut()?, count, shape }
                .launch(cuda.kernels())?,
        });
        Ok(y)
    }

    /// The filter as activations, folded alike.
    fn filter(&self, cuda: &Cuda, w: &CudaTensor) -> Result<CudaTensor> {
        let Some(shape) = self.fold else { return as_activations(cuda, w) };
        let mut v = cuda.tensor(Shape::from(self.convolution.w), self.convolution.input)?;
        let count = v.shape().elems() as u64;
        by_dtype!(v.buffer().dtype(), T => {
            let (w, v) = (w.buffer().slice()?, v.buffer_mut().slice_mut()?);
            FoldFilter::<T> { w, v, count, shape }.launch(cuda.kernels())?;
        });
        Ok(v)
    }

    /// The filter's gradient in f32, not folded.
    fn filter_back(&self, cuda: &Cuda, dv: CudaTensor, w_shape: Shape) -> Result<CudaTensor> {
        let Some(shape) = self.fold else { return as_f32(cuda, &dv) };
        let mut dw = cuda.tensor(w_shape, Dtype::F32)?;
        let count = w_shape.elems() as u64;
        by_dtype!(dv.buffer().dtype(), T => {
            let (dv, dw) = (dv.buffer().slice()?, dw.buffer_mut().slice_mut()?);
            FoldFilterBack::<T> { dv, dw, count, shape }.launch(cuda.kernels())?;
        });
        Ok(dw)
    }
}

/// How x must be folded, if it must be.
fn fold(cuda: &Cuda, x: &CudaTensor, window: Window) -> Result<Option<Fold>> {
    let multiple = channel_multiple(cuda);
    let bytes = x.buffer().dtype() == Dtype::U8;
    let square = window.kernel[0] == window.kernel[1];
    if !bytes && (x.shape().last().is_multiple_of(multiple) || !square) {
        return Ok(None);
    }
    Fold::new(dims("x", x.shape())?, window, multiple.next_multiple_of(4)).map(Some)
}

pub fn forward(cuda: &Cuda, x: &CudaTensor, w: &CudaTensor, window: Window) -> Result<CudaTensor> {
    let sizes = [dims("x", x.shape())?, dims("w", w.shape())?];
    let given = Given::new(cuda, Direction::Forward, sizes, window, fold(cuda, x, window)?)?;
    let (x, w) = (given.images(cuda, x)?, given.filter(cuda, w)?);
    let y = cuda.tensor(Shape::from(given.convolution.y), given.convolution.output)?;
    let operands = Operands { x: x.buffer().address(), w: w.buffer().address(), y: y.buffer().address() };
    cuda.convolve(&given.convolution, operands)?;
    Ok(y)
}

pub fn backward_data(
    cuda: &Cuda,
    w: &CudaTensor,
    dy: &CudaTensor,
    x_shape: Shape,
    window: Window,
) -> Result<CudaTensor> {
    let sizes = [dims("x", x_shape)?, dims("w", w.shape())?];
    let Given { convolution, .. } = Given::new(cuda, Direction::BackwardData, sizes, window, None)?;
    let w = as_activations(cuda, w)?;
    dy.buffer().expect(convolution.input)?;
    let dx = cuda.tensor(x_shape, convolution.output)?;
    let operands = Operands { x: dx.buffer().address(), w: w.buffer().address(), y: dy.buffer().address() };
    cuda.convolve(&convolution, operands)?;
    Ok(dx)
}

/// Adds to what is in `dx`, in the same pass where cuDNN has an engine for that.
pub fn backward_data_add(
    cuda: &Cuda,
    w: &CudaTensor,
    dy: &CudaTensor,
    dx: &mut CudaTensor,
    window: Window,
) -> Result<()> {
    let sizes = [dims("x", dx.shape())?, dims("w", w.shape())?];
    let Given { convolution, .. } = Given::new(cuda, Direction::BackwardData, sizes, window, None)?;
    let convolution = Convolution { result: Written::Added, ..convolution };
    if dx.buffer_mut().is_unique() && cuda.supports(&convolution)? {
        let w = as_activations(cuda, w)?;
        dy.buffer().expect(convolution.input)?;
        dx.buffer().expect(convolution.output)?;
        let operands = Operands { x: dx.buffer().address(), w: w.buffer().address(), y: dy.buffer().address() };
        return cuda.convolve(&convolution, operands);
    }
    let more = backward_data(cuda, w, dy, dx.shape(), window)?;
    add_assign(cuda, dx, &more)
}

pub fn backward_filter(
    cuda: &Cuda,
    x: &CudaTensor,
    dy: &CudaTensor,
    w_shape: Shape,
    window: Window,
) -> Result<CudaTensor> {
    let sizes = [dims("x", x.shape())?, dims("w", w_shape)?];
    let given = Given::new(cuda, Direction::BackwardFilter, sizes, window, fold(cuda, x, window)?)?;
    let x = given.images(cuda, x)?;
    dy.buffer().expect(given.convolution.input)?;
    // Rounded once to the type of activations: of the engines that write f32 from bf16, none shares the sum over pixels out
    // among the multiprocessors (measured: up to 25 times slower on an H100).
    let dw = cuda.tensor(Shape::from(given.convolution.w), given.convolution.output)?;
    let operands = Operands { x: x.buffer().address(), w: dw.buffer().address(), y: dy.buffer().address() };
    cuda.convolve(&given.convolution, operands)?;
    given.filter_back(cuda, dw, w_shape)
}
