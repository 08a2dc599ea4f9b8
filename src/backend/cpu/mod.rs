//! The CPU backend: the default device, and in double precision the reference for every kernel.
//!
//! rayon outermost, matrix products by the crate `gemm`, reductions in an order fixed by shape. Every result is the same
//! on any number of threads.

mod adam;
mod batch_norm;
mod binary_entropy;
mod conv2d;
mod elementwise;
pub(crate) mod matmul;
mod nt_xent;
mod pool;
mod pool2d;
mod real;

use std::sync::Arc;

use rayon::prelude::*;

pub use adam::AdamState;
pub use pool::{Buffer, Pool};
pub use real::Real;

use super::*;
use crate::Error;

/// The CPU computing in `T`: `f32` to train, `f64` to check.
#[derive(Clone, Debug, Default)]
pub struct Cpu<T: Real> {
    pool: Arc<Pool<T>>,
    /// Partial sums.
    wide: Arc<Pool<f64>>,
    /// Positions of maxima.
    bytes: Arc<Pool<u8>>,
}

/// A tensor of this backend.
type CpuTensor<T> = Tensor<Cpu<T>>;

impl<T: Real> Cpu<T> {
    /// A device with empty pools.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tensor with arbitrary contents.
    fn tensor(&self, shape: Shape) -> Tensor<Self> {
        Tensor::new(shape, self.pool.take(shape.elems()))
    }

    fn full_tensor(&self, shape: Shape, value: f64) -> Result<Tensor<Self>> {
        let mut x = self.tensor(shape);
        x.buffer_mut().write()?.fill(T::from_f64(value));
        Ok(x)
    }

    fn scratch(&self, len: usize) -> Buffer<T> {
        self.pool.take(len)
    }

    /// Before tasks that take a scratch buffer of `len` each: one a thread. How many tasks run at once is chance, and without
    /// this some later step would be the first to need one more.
    fn reserve_scratch(&self, len: usize) {
        self.pool.reserve(len, rayon::current_num_threads());
    }

    fn wide_scratch(&self, len: usize) -> Buffer<f64> {
        self.wide.take(len)
    }

    fn byte_scratch(&self, len: usize) -> Buffer<u8> {
        self.bytes.take(len)
    }

    /// A tensor's elements, row-major, without a copy.
    pub fn values<'a>(&self, x: &'a Tensor<Self>) -> &'a [T] {
        x.buffer().read()
    }
}

/// A linear layer is a 1 x 1 convolution over rows.
const POINTWISE: Window = Window { kernel: [1, 1], stride: 1, padding: 0 };

/// A matrix as images of one pixel (or as 1 x 1 filters).
fn as_pixels<T: Real>(x: &CpuTensor<T>) -> CpuTensor<T> {
    Tensor::new(pixel_shape(x.shape()), x.buffer().clone())
}

fn pixel_shape(x: Shape) -> Shape {
    Shape::from([x.rows(), 1, 1, x.last()])
}

/// The same elements, as a matrix.
fn as_matrix<T: Real>(x: &CpuTensor<T>) -> CpuTensor<T> {
    Tensor::new(Shape::from([x.shape().first(), x.shape().last()]), x.buffer().clone())
}

impl<T: Real> Backend for Cpu<T> {
    type Buffer = Buffer<T>;
    type Argmax = Buffer<u8>;
    type AdamState = AdamState;
    type Pixels = Vec<u8>;
    type Lane = Lane;
    type Report = StepReport;

    const NAME: &'static str = "cpu";
    const LANES: usize = 1;

    fn upload(&self, shape: Shape, values: &[f64]) -> Result<Tensor<Self>> {
        if values.len() != shape.elems() {
            return Err(Error::shape("upload", format!("{} values for shape {shape:?}", values.len())));
        }
        let mut x = self.tensor(shape);
        x.buffer_mut().write()?.iter_mut().zip(values).for_each(|(x, &value)| *x = T::from_f64(value));
        Ok(x)
    }

    fn download(&self, x: &Tensor<Self>) -> Result<Vec<f64>> {
        Ok(x.buffer().read().iter().map(|x| x.to_f64()).collect())
    }

    fn upload_images(&self, shape: Shape, pixels: &[u8]) -> Result<Tensor<Self>> {
        if pixels.len() != shape.elems() {
            return Err(Error::shape("upload_images", format!("{} bytes for shape {shape:?}", pixels.len())));
        }
        let level: [T; 256] = std::array::from_fn(|i| T::from_f64(i as f64) / T::from_f64(255.0));
        let mut x = self.tensor(shape);
        let chunks =
            x.buffer_mut().write()?.par_chunks_mut(elementwise::CHUNK).zip(pixels.par_chunks(elementwise::CHUNK));
        chunks.for_each(|(x, pixels)| x.iter_mut().zip(pixels).for_each(|(x, &p)| *x = level[usize::from(p)]));
        Ok(x)
    }

    fn non_finite(&self, x: &Tensor<Self>) -> Result<Option<NonFinite>> {
        Ok(elementwise::non_finite(x.buffer().read()))
    }

    fn scalar(&self, x: &Tensor<Self>) -> Result<f64> {
        match x.buffer().read() {
            [value] => Ok(value.to_f64()),
            _ => Err(Error::shape("scalar", format!("{:?} is not a scalar", x.shape()))),
        }
    }

    fn full(&self, shape: Shape, value: f64) -> Result<Tensor<Self>> {
        self.full_tensor(shape, value)
    }

    fn memory(&self) -> Memory {
        let pools = [self.pool.memory(), self.wide.memory(), self.bytes.memory()];
        pools.iter().fold(Memory::default(), |sum, pool| Memory {
            live_bytes: sum.live_bytes + pool.live_bytes,
            peak_bytes: sum.peak_bytes + pool.peak_bytes,
            cached_bytes: sum.cached_bytes + pool.cached_bytes,
            allocations: sum.allocations + pool.allocations,
        })
    }

    fn conv2d_forward(&self, x: &Tensor<Self>, w: &Tensor<Self>, window: Window) -> Result<Tensor<Self>> {
        conv2d::forward(self, x, w, window)
    }

    fn conv2d_backward_data(
        &self,
        w: &Tensor<Self>,
        dy: &Tensor<Self>,
        x_shape: Shape,
        window: Window,
    ) -> Result<Tensor<Self>> {
        conv2d::backward_data(self, w, dy, x_shape, window)
    }

    fn conv2d_backward_filter(
        &self,
        x: &Tensor<Self>,
        dy: &Tensor<Self>,
        w_shape: Shape,
        window: Window,
    ) -> Result<Tensor<Self>> {
        conv2d::backward_filter(self, x, dy, w_shape, window)
    }

    fn linear_forward(&self, x: &Tensor<Self>, w: &Tensor<Self>, b: Option<&Tensor<Self>>) -> Result<Tensor<Self>> {
        let mut y = as_matrix(&conv2d::forward(self, &as_pixels(x), &as_pixels(w), POINTWISE)?);
        if let Some(b) = b {
            let b = b.buffer().read();
            for row in y.buffer_mut().write()?.chunks_exact_mut(b.len()) {
                row.iter_mut().zip(b).for_each(|(y, &b)| *y += b);
            }
        }
        Ok(y)
    }

    fn linear_backward_data(&self, w: &Tensor<Self>, dy: &Tensor<Self>) -> Result<Tensor<Self>> {
        let x_shape = Shape::from([dy.shape().rows(), 1, 1, w.shape().last()]);
        Ok(as_matrix(&conv2d::backward_data(self, &as_pixels(w), &as_pixels(dy), x_shape, POINTWISE)?))
    }

    fn linear_backward_weight(&self, x: &Tensor<Self>, dy: &Tensor<Self>) -> Result<Tensor<Self>> {
        let w_shape = Shape::from([dy.shape().last(), 1, 1, x.shape().last()]);
        Ok(as_matrix(&conv2d::backward_filter(self, &as_pixels(x), &as_pixels(dy), w_shape, POINTWISE)?))
    }

    fn linear_backward_bias(&self, dy: &Tensor<Self>) -> Result<Tensor<Self>> {
        let columns = dy.shape().last();
        let mut sums = self.wide_scratch(columns);
        let sums = sums.write()?;
        sums.fill(0.0);
        for row in dy.buffer().read().chunks_exact(columns) {
            sums.iter_mut().zip(row).for_each(|(sum, dy)| *sum += dy.to_f64());
        }
        self.upload(Shape::from([columns]), sums)
    }

    fn batch_norm_forward(
        &self,
        x: &Tensor<Self>,
        affine: Affine<Self>,
        residual: Option<&Tensor<Self>>,
        running: Option<RunningStats<Self>>,
        views: usize,
        eps: f64,
        activation: Activation,
    ) -> Result<(Tensor<Self>, BatchStats<Self>)> {
        batch_norm::forward(self, x, affine, residual, running, views, eps, activation)
    }

    fn batch_norm_backward(
        &self,
        x: &Tensor<Self>,
        y: &Tensor<Self>,
        dy: Tensor<Self>,
        affine: Affine<Self>,
        stats: &BatchStats<Self>,
        residual: Residual,
        activation: Activation,
    ) -> Result<BatchNormGrads<Self>> {
        batch_norm::backward(self, x, y, dy, affine.weight, stats, residual, activation)
    }

    fn batch_norm_inference(
        &self,
        x: &Tensor<Self>,
        affine: Affine<Self>,
        residual: Option<&Tensor<Self>>,
        mean: &Tensor<Self>,
        var: &Tensor<Self>,
        eps: f64,
        activation: Activation,
    ) -> Result<Tensor<Self>> {
        batch_norm::inference(self, x, affine, residual, mean, var, eps, activation)
    }

    fn max_pool_forward(&self, x: &Tensor<Self>, window: Window) -> Result<(Tensor<Self>, Buffer<u8>)> {
        pool2d::max_forward(self, x, window)
    }

    fn max_pool_backward(
        &self,
        dy: &Tensor<Self>,
        argmax: &Buffer<u8>,
        x_shape: Shape,
        window: Window,
    ) -> Result<Tensor<Self>> {
        pool2d::max_backward(self, dy, argmax, x_shape, window)
    }

    fn global_avg_pool_forward(&self, x: &Tensor<Self>) -> Result<Tensor<Self>> {
        pool2d::avg_forward(self, x)
    }

    fn global_avg_pool_backward(&self, dy: &Tensor<Self>, x_shape: Shape) -> Result<Tensor<Self>> {
        pool2d::avg_backward(self, dy, x_shape)
    }

    fn sigmoid_forward(&self, x: &Tensor<Self>) -> Result<Tensor<Self>> {
        elementwise::map(self, x, elementwise::sigmoid)
    }

    fn sigmoid_backward(&self, y: &Tensor<Self>, dy: &Tensor<Self>) -> Result<Tensor<Self>> {
        elementwise::zip(self, y, dy, |y, dy| dy * y * (T::ONE - y))
    }

    fn nt_xent_forward(
        &self,
        z: &Tensor<Self>,
        samples: Samples,
        temperature: f64,
    ) -> Result<(Tensor<Self>, NtXentSaved<Self>)> {
        nt_xent::forward(self, z, samples, temperature)
    }

    fn nt_xent_backward(
        &self,
        saved: &NtXentSaved<Self>,
        dloss: &Tensor<Self>,
        z_shape: Shape,
        samples: Samples,
        temperature: f64,
    ) -> Result<Tensor<Self>> {
        nt_xent::backward(self, saved, dloss, z_shape, samples, temperature)
    }

    fn binary_entropy_forward(&self, logits: &Tensor<Self>) -> Result<Tensor<Self>> {
        binary_entropy::forward(self, logits)
    }

    fn binary_entropy_backward(&self, logits: &Tensor<Self>, dloss: &Tensor<Self>) -> Result<Tensor<Self>> {
        binary_entropy::backward(self, logits, dloss)
    }

    fn weighted_sum(&self, terms: &[&Tensor<Self>], weights: &[f64]) -> Result<Tensor<Self>> {
        let mut sum = 0.0;
        for (term, weight) in terms.iter().zip(weights) {
            sum += weight * self.scalar(term)?;
        }
        self.full_tensor(Shape::SCALAR, sum)
    }

    fn scale(&self, x: &Tensor<Self>, factor: f64) -> Result<Tensor<Self>> {
        let factor = T::from_f64(factor);
        elementwise::map(self, x, |x| x * factor)
    }

    fn add_assign(&self, x: &mut Tensor<Self>, y: &Tensor<Self>) -> Result<()> {
        // A shared buffer keeps its value for the others; the sum moves to a new one.
        if x.buffer_mut().write().is_err() {
            *x = elementwise::zip(self, x, y, |x, y| x + y)?;
            return Ok(());
        }
        let chunks = x.buffer_mut().write()?.par_chunks_mut(elementwise::CHUNK);
        chunks.zip(y.buffer().read().par_chunks(elementwise::CHUNK)).for_each(|(x, y)| {
            x.iter_mut().zip(y).for_each(|(x, &y)| *x += y);
        });
        Ok(())
    }

    fn adam_state(&self, steps: u64) -> Result<AdamState> {
        Ok(AdamState { learning_rate: 0.0, report: AdamReport { steps, ..AdamReport::default() } })
    }

    fn set_learning_rate(&self, state: &mut AdamState, learning_rate: f64) -> Result<()> {
        state.learning_rate = learning_rate;
        Ok(())
    }

    fn adam(
        &self,
        tensors: impl FnMut(&mut Visit<Self>) -> Result<()>,
        loss: Option<&Tensor<Self>>,
        state: &mut AdamState,
        config: &AdamConfig,
    ) -> Result<()> {
        adam::step(tensors, loss, state, config)
    }

    fn keep<'a>(&self, kept: impl Iterator<Item = Kept<'a, Self>>, _state: &mut AdamState) -> Result<()>
    where
        Self: 'a,
    {
        adam::keep(kept)
    }

    fn release(&self, state: &mut AdamState) -> Result<()> {
        state.report.left_out = false;
        Ok(())
    }

    fn adam_report(&self, state: &AdamState) -> Result<AdamReport> {
        Ok(state.report)
    }

    fn pixels(&self, bytes: usize) -> Result<Vec<u8>> {
        Ok(vec![0; bytes])
    }

    fn lane(&self, images: Shape) -> Result<Lane> {
        Ok(Lane { images, report: StepReport::default() })
    }

    fn start(
        &self,
        lane: &mut Lane,
        pixels: &Vec<u8>,
        mut work: impl FnMut(Tensor<Self>, &mut StepReport) -> Result<()>,
    ) -> Result<()> {
        work(self.upload_images(lane.images, pixels)?, &mut lane.report)
    }

    fn report(&self, report: &mut StepReport, losses: [&Tensor<Self>; LOSSES], adam: &AdamState) -> Result<()> {
        for (value, loss) in report.losses.iter_mut().zip(losses) {
            *value = self.scalar(loss)?;
        }
        report.adam = adam.report;
        Ok(())
    }

    fn finish(&self, lane: &mut Lane) -> Result<StepReport> {
        Ok(lane.report)
    }
}

/// A step: done when it was started.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    images: Shape,
    report: StepReport,
}
