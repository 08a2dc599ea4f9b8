//! What a device must be able to do: the whole contract, a formula a method.
//!
//! Conventions. Tensors are dense; images are NHWC, filters KRSC, matrices row-major. Arguments come as inputs, then
//! sizes and scalars; scalars are `f64` so that the double-precision backend is exact. Every result is a new tensor from
//! the backend's pool; a backward method **overwrites**, only [`Backend::add_assign`] accumulates. Shapes are checked in
//! `ops/` before a method is called; a method may trust them.

pub mod cpu;
pub mod cuda;
mod memory;

pub use memory::{Footprint, Memory};

use std::fmt::Debug;

use crate::{
    Result,
    eval::kmeans::{Partition, Points},
    tensor::{Shape, Tensor},
};

/// Geometry of a 2-D convolution or pooling: square kernels are not assumed, dilation is 1, groups are 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Kernel rows and columns (R, S).
    pub kernel: [usize; 2],
    /// Step between output positions, in pixels, both directions.
    pub stride: usize,
    /// Pixels added on every side: zeros for a convolution, minus infinity for max pooling.
    pub padding: usize,
}

impl Window {
    /// Output rows or columns for an input of `size`: `floor((size + 2 padding - kernel) / stride) + 1`, or `None` if
    /// the kernel does not fit.
    pub fn output(&self, axis: usize, size: usize) -> Option<usize> {
        Some((size + 2 * self.padding).checked_sub(self.kernel[axis])? / self.stride + 1)
    }
}

/// What follows a batch norm in the same pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(x, 0)`.
    Relu,
}

/// Which direction of a matrix holds the vectors that NT-Xent compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Input `[2N, d]`: each row is a sample, rows n and n + N are positives (instance loss).
    Rows,
    /// Input `[2N, K]`, view 1 over view 2: each head's N outputs in one view are a sample of dimension N; the same
    /// head in the other view is its positive (feature loss). Nothing is transposed by the caller.
    Columns,
}

/// Affine parameters of a batch norm, each `[C]`.
#[derive(Clone, Copy)]
pub struct Affine<'a, B: Backend> {
    /// γ
    pub weight: &'a Tensor<B>,
    /// β
    pub bias: &'a Tensor<B>,
}

/// Running statistics of a batch norm, each `[C]`; the variance is the unbiased one, as in PyTorch.
pub struct RunningStats<'a, B: Backend> {
    /// Running mean.
    pub mean: &'a mut Tensor<B>,
    /// Running variance.
    pub var: &'a mut Tensor<B>,
    /// Share of the new value: `r <- (1 - momentum) r + momentum new`, view after view.
    pub momentum: f64,
}

/// Statistics a training batch norm used, kept for its backward: each `[views, C]`.
pub struct BatchStats<B: Backend> {
    /// Mean per view and channel.
    pub mean: Tensor<B>,
    /// `1 / sqrt(biased variance + eps)` per view and channel.
    pub inv_std: Tensor<B>,
}

/// Gradients of a batch norm.
pub struct BatchNormGrads<B: Backend> {
    /// Like the input.
    pub dx: Tensor<B>,
    /// `[C]`
    pub dweight: Tensor<B>,
    /// `[C]`
    pub dbias: Tensor<B>,
    /// Like the input: the gradient behind the activation, where a residual was added.
    pub dresidual: Option<Tensor<B>>,
}

/// What NT-Xent keeps for its backward: O(R d), never the R x R similarities.
pub struct NtXentSaved<B: Backend> {
    /// Unit samples `[2R, d]`.
    pub unit: Tensor<B>,
    /// Norms before clamping, `[2R]`.
    pub norm: Tensor<B>,
    /// `log sum_{k != i} exp(s_ik / temperature)`, `[2R]`.
    pub lse: Tensor<B>,
}

/// One parameter with its gradient and Adam's moments; all of one shape.
pub struct AdamTensors<'a, B: Backend> {
    /// Updated in place.
    pub param: &'a mut Tensor<B>,
    /// Before clipping.
    pub grad: &'a Tensor<B>,
    /// First moment, updated in place.
    pub exp_avg: &'a mut Tensor<B>,
    /// Second moment, updated in place.
    pub exp_avg_sq: &'a mut Tensor<B>,
}

/// A tensor that a step changes before it is known whether the step is made: a running statistic. Both of one shape.
pub struct Kept<'a, B: Backend> {
    /// What the forward pass updates.
    pub value: &'a mut Tensor<B>,
    /// What it was before the step.
    pub before: &'a mut Tensor<B>,
}

/// What an Adam step is about, tensor by tensor.
pub enum Stepped<'a, B: Backend> {
    /// Updated, if the step is made.
    Trained(AdamTensors<'a, B>),
    /// Put back to what it was, if the step is left out.
    Kept(Kept<'a, B>),
}

/// What is called for each tensor of a step, in an order that is always the same.
pub type Visit<'v, B> = dyn FnMut(Stepped<'_, B>) -> Result<()> + 'v;

/// The largest norm of gradients, after clipping, whose square is an `f32`: beyond it Adam's second moment would be infinite
/// for good.
pub const LARGEST_NORM: f64 = 1.8446743e19;

/// Adam's constants (Kingma and Ba 2015) and the clipping norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Decay of the first moment; 0.9.
    pub beta1: f64,
    /// Decay of the second moment; 0.999.
    pub beta2: f64,
    /// Added to the root of the second moment; 1e-8.
    pub eps: f64,
    /// L2 penalty, added to the gradient (PyTorch's Adam, not AdamW); 0.
    pub weight_decay: f64,
    /// Global gradient norm above which all gradients are scaled down; 0 for no clipping.
    pub clip_norm: f64,
}

/// What an Adam step leaves for the host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AdamReport {
    /// Global gradient norm of the last step, before clipping.
    pub grad_norm: f64,
    /// Steps made.
    pub steps: u64,
    /// Steps left out, those that followed a bad one included.
    pub nonfinite_steps: u64,
    /// Whether the last step was left out.
    pub left_out: bool,
}

/// Elements that are neither infinite nor NaN are missing here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NonFinite {
    /// Elements that are infinite or NaN; at least 1.
    pub count: usize,
    /// Position of the first of them, row-major.
    pub first: usize,
    /// Its value.
    pub value: f64,
}

/// What a training step leaves for the host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReport {
    /// The loss and its parts, in the order they were given in.
    pub losses: [f64; LOSSES],
    /// Of the optimiser.
    pub adam: AdamReport,
}

/// Numbers of a loss: total, instance, feature, entropy.
pub const LOSSES: usize = 4;

/// A device with its memory; a clone is another handle to the same device.
pub trait Backend: Sized + Clone {
    /// Memory of a tensor; a clone is another handle to the same memory.
    type Buffer: Clone + Debug;
    /// Positions of the maxima of a pooling.
    type Argmax: Debug;
    /// Learning rate and step count, where the optimiser reads them.
    type AdamState;
    /// Memory for the views of a batch, from which this device copies fastest.
    type Pixels: AsRef<[u8]> + AsMut<[u8]> + Send + 'static;
    /// What one training step under way holds on to.
    type Lane;
    /// Where a step's [`StepReport`] goes.
    type Report;
    /// The clusters of points in several runs of k-means.
    type Partition<'a>: Partition;

    /// Its word in configurations.
    const NAME: &'static str;
    /// Steps that should be under way at once, so that the device never waits for the host.
    const LANES: usize;

    // -- Host and device ------------------------------------------------------------------------------------------

    /// Copies `values` (row-major) to the device.
    fn upload(&self, shape: Shape, values: &[f64]) -> Result<Tensor<Self>>;
    /// Copies a tensor to the host, row-major.
    fn download(&self, x: &Tensor<Self>) -> Result<Vec<f64>>;
    /// Images as network input: `x = pixel / 255`; `pixels` uint8 `[N, H, W, 3]`.
    fn upload_images(&self, shape: Shape, pixels: &[u8]) -> Result<Tensor<Self>>;
    /// A scalar tensor's value on the host.
    fn scalar(&self, x: &Tensor<Self>) -> Result<f64>;
    /// Every element `value`.
    fn full(&self, shape: Shape, value: f64) -> Result<Tensor<Self>>;
    /// The elements that are infinite or NaN, if there are any, waiting for the device.
    fn non_finite(&self, x: &Tensor<Self>) -> Result<Option<NonFinite>>;
    /// How much memory tensors take.
    fn memory(&self) -> Memory;
    /// Forgets the peak, and the largest workspace: the peak is what lives now.
    fn reset_peak(&self);
    /// What a tensor takes of that.
    fn footprint(&self, x: &Tensor<Self>) -> Footprint;
    /// The same of positions.
    fn argmax_footprint(&self, argmax: &Self::Argmax) -> Footprint;

    // -- Layers ---------------------------------------------------------------------------------------------------

    /// `y[n,p,q,k] = sum_{r,s,c} x[n, p stride + r - padding, q stride + s - padding, c] w[k,r,s,c]`.
    /// x `[N,H,W,C]`, w `[K,R,S,C]`, y `[N,P,Q,K]`.
    fn conv2d_forward(&self, x: &Tensor<Self>, w: &Tensor<Self>, window: Window) -> Result<Tensor<Self>>;
    /// Gradient of the input, of shape `x_shape`.
    fn conv2d_backward_data(
        &self,
        w: &Tensor<Self>,
        dy: &Tensor<Self>,
        x_shape: Shape,
        window: Window,
    ) -> Result<Tensor<Self>>;
    /// Adds the gradient of the input to `dx`, where another one is already.
    fn conv2d_backward_data_add(
        &self,
        w: &Tensor<Self>,
        dy: &Tensor<Self>,
        dx: &mut Tensor<Self>,
        window: Window,
    ) -> Result<()> {
        let more = self.conv2d_backward_data(w, dy, dx.shape(), window)?;
        self.add_assign(dx, &more)
    }
    /// Gradient of the filter, of shape `w_shape`.
    fn conv2d_backward_filter(
        &self,
        x: &Tensor<Self>,
        dy: &Tensor<Self>,
        w_shape: Shape,
        window: Window,
    ) -> Result<Tensor<Self>>;

    /// `y = x w^T + b`: x `[M,I]`, w `[O,I]`, b `[O]`, y `[M,O]`.
    fn linear_forward(&self, x: &Tensor<Self>, w: &Tensor<Self>, b: Option<&Tensor<Self>>) -> Result<Tensor<Self>>;
    /// `dx = dy w`.
    fn linear_backward_data(&self, w: &Tensor<Self>, dy: &Tensor<Self>) -> Result<Tensor<Self>>;
    /// `dw = dy^T x`.
    fn linear_backward_weight(&self, x: &Tensor<Self>, dy: &Tensor<Self>) -> Result<Tensor<Self>>;
    /// `db = sum over rows of dy`.
    fn linear_backward_bias(&self, dy: &Tensor<Self>) -> Result<Tensor<Self>>;

    /// Training batch norm over all but the last dimension, separately for each of `views` equal parts of the first:
    /// `y = act((x - mean) / sqrt(var + eps) weight + bias + residual)`; updates `running` view after view.
    fn batch_norm_forward(
        &self,
        x: &Tensor<Self>,
        affine: Affine<Self>,
        residual: Option<&Tensor<Self>>,
        running: Option<RunningStats<Self>>,
        views: usize,
        eps: f64,
        activation: Activation,
    ) -> Result<(Tensor<Self>, BatchStats<Self>)>;
    /// Backward of [`Backend::batch_norm_forward`]; `y` is its output (a ReLU passed where it is positive). `dy` is taken:
    /// its memory is used again. `dresidual` is given when a residual was added.
    fn batch_norm_backward(
        &self,
        x: &Tensor<Self>,
        y: &Tensor<Self>,
        dy: Tensor<Self>,
        affine: Affine<Self>,
        stats: &BatchStats<Self>,
        residual: Residual,
        activation: Activation,
    ) -> Result<BatchNormGrads<Self>>;
    /// Batch norm with given statistics `mean`, `var` `[C]`: `y = act((x - mean) / sqrt(var + eps) weight + bias + residual)`.
    fn batch_norm_inference(
        &self,
        x: &Tensor<Self>,
        affine: Affine<Self>,
        residual: Option<&Tensor<Self>>,
        mean: &Tensor<Self>,
        var: &Tensor<Self>,
        eps: f64,
        activation: Activation,
    ) -> Result<Tensor<Self>>;

    /// Largest value of each window, per channel, with its position (the first in row-major order; NaN wins, as in PyTorch).
    fn max_pool_forward(&self, x: &Tensor<Self>, window: Window) -> Result<(Tensor<Self>, Self::Argmax)>;
    /// Sends each gradient to the position of its maximum.
    fn max_pool_backward(
        &self,
        dy: &Tensor<Self>,
        argmax: &Self::Argmax,
        x_shape: Shape,
        window: Window,
    ) -> Result<Tensor<Self>>;
    /// Mean over H and W: `[N,H,W,C]` to `[N,C]`.
    fn global_avg_pool_forward(&self, x: &Tensor<Self>) -> Result<Tensor<Self>>;
    /// `dx = dy / (H W)`, spread.
    fn global_avg_pool_backward(&self, dy: &Tensor<Self>, x_shape: Shape) -> Result<Tensor<Self>>;

    /// `y = 1 / (1 + exp(-x))`, without overflow.
    fn sigmoid_forward(&self, x: &Tensor<Self>) -> Result<Tensor<Self>>;
    /// `dx = dy y (1 - y)`.
    fn sigmoid_backward(&self, y: &Tensor<Self>, dy: &Tensor<Self>) -> Result<Tensor<Self>>;

    // -- Losses ---------------------------------------------------------------------------------------------------

    /// `1/2R sum_i [ log sum_{k != i} exp(s_ik / temperature) - s_i,pos(i) / temperature ]`, s the cosine with norms
    /// clamped at 1e-12. A scalar.
    fn nt_xent_forward(
        &self,
        z: &Tensor<Self>,
        samples: Samples,
        temperature: f64,
    ) -> Result<(Tensor<Self>, NtXentSaved<Self>)>;
    /// Gradient of the input (of shape `z_shape`) for the upstream scalar `dloss`.
    fn nt_xent_backward(
        &self,
        saved: &NtXentSaved<Self>,
        dloss: &Tensor<Self>,
        z_shape: Shape,
        samples: Samples,
        temperature: f64,
    ) -> Result<Tensor<Self>>;
    /// Mean over all elements of the entropy in bits of a Bernoulli variable with logit a: `H = log2(1 + e^-|a|) +
    /// |a| sigmoid(-|a|) / ln 2`, which is exact where y rounds to 0 or 1. A scalar.
    fn binary_entropy_forward(&self, logits: &Tensor<Self>) -> Result<Tensor<Self>>;
    /// `da = -dloss a y (1 - y) / (ln 2 elements)`.
    fn binary_entropy_backward(&self, logits: &Tensor<Self>, dloss: &Tensor<Self>) -> Result<Tensor<Self>>;
    /// `sum_i weights[i] terms[i]` of scalars.
    fn weighted_sum(&self, terms: &[&Tensor<Self>], weights: &[f64]) -> Result<Tensor<Self>>;
    /// `factor x`: a new tensor.
    fn scale(&self, x: &Tensor<Self>, factor: f64) -> Result<Tensor<Self>>;

    // -- Accumulation and optimisation ----------------------------------------------------------------------------

    /// `x += y`: the only method that accumulates.
    fn add_assign(&self, x: &mut Tensor<Self>, y: &Tensor<Self>) -> Result<()>;
    /// The optimiser's scalars after `steps` steps.
    fn adam_state(&self, steps: u64) -> Result<Self::AdamState>;
    /// Sets the learning rate of the steps to come.
    fn set_learning_rate(&self, state: &mut Self::AdamState, learning_rate: f64) -> Result<()>;
    /// One Adam step (Kingma and Ba 2015, as `torch.optim.Adam`) over all parameters, after global-norm clipping (as
    /// `torch.nn.utils.clip_grad_norm_`): `n = sqrt(sum of g^2 over all gradients)`, summed in double precision in a fixed
    /// order; `s = min(1, clip_norm / (n + 1e-6))` (1 where clip_norm is 0); `g = s grad + weight_decay p;
    /// m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p -= learning_rate m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps)`.
    ///
    /// The step is left out if `s n` is above [`LARGEST_NORM`] or no number, `loss` is not finite, a kept tensor is not finite,
    /// or the step before was left out and [`Backend::release`] was not called since: then all kept tensors become what
    /// [`Backend::keep`] found, nothing else changes, and it is counted. `tensors` calls its argument with each tensor, and may
    /// be called more than once.
    fn adam(
        &self,
        tensors: impl FnMut(&mut Visit<Self>) -> Result<()>,
        loss: Option<&Tensor<Self>>,
        state: &mut Self::AdamState,
        config: &AdamConfig,
    ) -> Result<()>;
    /// To be called at the beginning of a step: `before <- value` of all tensors that [`Backend::adam`] may have to put back, which
    /// must be the same ones in every step.
    fn keep<'a>(&self, kept: impl Iterator<Item = Kept<'a, Self>>, state: &mut Self::AdamState) -> Result<()>
    where
        Self: 'a;
    /// Has steps made again after one was left out.
    fn release(&self, state: &mut Self::AdamState) -> Result<()>;
    /// What the last step left, waiting for it.
    fn adam_report(&self, state: &Self::AdamState) -> Result<AdamReport>;

    // -- Steps under way ------------------------------------------------------------------------------------------

    /// Memory for `bytes` of views, zeroed.
    fn pixels(&self, bytes: usize) -> Result<Self::Pixels>;
    /// A lane for steps on views of shape `images` `[2N, H, W, 3]`.
    fn lane(&self, images: Shape) -> Result<Self::Lane>;
    /// Starts `work` on the views in `pixels`, as network input (see [`Backend::upload_images`]), and may return before it
    /// is done; `pixels` is used until [`Backend::finish`]. `work` must do the same for every step of a lane: a device may
    /// record it once and repeat the record.
    fn start(
        &self,
        lane: &mut Self::Lane,
        pixels: &Self::Pixels,
        work: impl FnMut(Tensor<Self>, &mut Self::Report) -> Result<()>,
    ) -> Result<()>;
    /// To be called by `work` at its end: has the losses (scalars) and the optimiser's numbers brought to the host.
    fn report(&self, report: &mut Self::Report, losses: [&Tensor<Self>; LOSSES], adam: &Self::AdamState) -> Result<()>;
    /// Waits until the lane's step is done.
    fn finish(&self, lane: &mut Self::Lane) -> Result<StepReport>;

    // -- Clustering -----------------------------------------------------------------------------------------------

    /// Room for the cluster of every point, of `clusters`, in each of `runs` runs side by side. None has one yet.
    fn partition<'a>(&self, points: &'a Points<'a>, clusters: usize, runs: usize) -> Result<Self::Partition<'a>>;
}

/// Whether a batch norm added a residual before its activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// It did not.
    Absent,
    /// It did: its gradient is wanted.
    Added,
}
