//! Launches of kernels/batch_norm.cu.

use cudarc::driver::DeviceRepr;

use super::columns::{Columns, FINISH_THREADS, THREADS};
use super::kernel::{Element, Kernels, Slice, SliceMut, blocks, check_elems, kernel, value_argument};
use crate::backend::Activation;
use crate::{Error, Result};

/// Quantities of a chunk: mean and sum of squared deviations of x - shift, and shift.
pub const STATISTICS: usize = 3;
/// Quantities of a chunk in the backward: sum of g and of g (x - mean).
pub const SUMS: usize = 2;
/// Per view: weight inv_std, mean of g, inv_std^2 mean of g (x - mean).
pub const COEFFICIENTS: usize = 3;

/// [`Activation`] as the kernel takes it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct ActivationCode(u32);

// SAFETY: a transparent 32-bit integer; all values it is made with are the kernel's.
unsafe impl DeviceRepr for ActivationCode {}
value_argument!(ActivationCode);

impl From<Activation> for ActivationCode {
    fn from(activation: Activation) -> Self {
        ActivationCode(match activation {
            Activation::Identity => 0,
            Activation::Relu => 1,
        })
    }
}

kernel! {
    /// Mean and squared deviations of each chunk, for [`StatisticsFinish`].
    Statistics ['a, T: Element] ['a, T] T::entry("batch_norm_statistics_f32", "batch_norm_statistics_bf16"); {
        /// `[views * rows, C]`
        x: Slice<'a, T>,
        /// `shape.partial_elems(STATISTICS)`
        partial: SliceMut<'a, f32>,
        /// Of x.
        shape: Columns,
    }
}

impl<T: Element> Statistics<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let m = &self.shape;
        let partial = ("partial", self.partial.elems(), m.partial_elems(STATISTICS));
        check_elems("batch_norm_statistics", &[("x", self.x.elems(), m.elems()), partial])?;
        // SAFETY: lengths are checked; the grid covers the matrix.
        unsafe { self.enqueue(kernels, m.walk_grid(), THREADS) }
    }
}

kernel! {
    /// Statistics per view from the chunks', and the running ones.
    StatisticsFinish ['a] ['a] "batch_norm_statistics_finish"; {
        /// From [`Statistics`].
        partial: Slice<'a, f32>,
        /// `[views, C]`
        mean: SliceMut<'a, f32>,
        /// `[views, C]`
        inv_std: SliceMut<'a, f32>,
        /// `[C]`, updated view after view; absent together with `running_var`.
        running_mean: Option<SliceMut<'a, f32>>,
        /// `[C]`
        running_var: Option<SliceMut<'a, f32>>,
        /// Of x.
        shape: Columns,
        /// Added to the variance.
        eps: f64,
        /// Share of the new value in the running ones.
        momentum: f64,
    }
}

impl StatisticsFinish<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, m) = ("batch_norm_statistics_finish", &self.shape);
        let per_view = m.views() * m.columns();
        let running = |memory: &Option<SliceMut<f32>>| memory.as_ref().map_or(m.columns(), SliceMut::elems);
        if self.running_mean.is_some() != self.running_var.is_some() {
            return Err(Error::shape(op, "running mean and variance come together"));
        }
        let lengths = [
            ("partial", self.partial.elems(), m.partial_elems(STATISTICS)),
            ("mean", self.mean.elems(), per_view),
            ("inv_std", self.inv_std.elems(), per_view),
            ("running_mean", running(&self.running_mean), m.columns()),
            ("running_var", running(&self.running_var), m.columns()),
        ];
        check_elems(op, &lengths)?;
        // SAFETY: lengths are checked; the grid covers the columns.
        unsafe { self.enqueue(kernels, m.finish_grid()?, FINISH_THREADS) }
    }
}

kernel! {
    /// `1 / sqrt(var + eps)`, for inference.
    InverseStd ['a] ['a] "batch_norm_inverse_std"; {
        /// `[C]`
        var: Slice<'a, f32>,
        /// `[C]`
        inv_std: SliceMut<'a, f32>,
        /// C.
        columns: u32,
        /// Added to the variance.
        eps: f64,
    }
}

impl InverseStd<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, columns) = ("batch_norm_inverse_std", self.columns as usize);
        check_elems(op, &[("var", self.var.elems(), columns), ("inv_std", self.inv_std.elems(), columns)])?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks(op, columns, THREADS as usize)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// `y = act((x - mean) inv_std weight + bias + residual)`: training and inference (one view).
    Normalise ['a, T: Element] ['a, T] T::entry("batch_norm_normalise_f32", "batch_norm_normalise_bf16"); {
        /// `[views * rows, C]`
        x: Slice<'a, T>,
        /// Like x, where there is one.
        residual: Option<Slice<'a, T>>,
        /// `[views, C]`
        mean: Slice<'a, f32>,
        /// `[views, C]`
        inv_std: Slice<'a, f32>,
        /// `[C]`
        weight: Slice<'a, f32>,
        /// `[C]`
        bias: Slice<'a, f32>,
        /// Like x.
        y: SliceMut<'a, T>,
        /// Of x.
        shape: Columns,
        /// What follows.
        activation: ActivationCode,
    }
}

impl<T: Element> Normalise<'_, T> {
    /// Launches it.
    pub fn launch(mut self, kernels: &Kernels) -> Result<()> {
        self.shape = self.shape.by_rows();
        let m = &self.shape;
        let (elems, channels, per_view) = (m.elems(), m.columns(), m.views() * m.columns());
        let lengths = [
            ("x", self.x.elems(), elems),
            ("residual", self.residual.map_or(elems, |r| r.elems()), elems),
            ("mean", self.mean.elems(), per_view),
            ("inv_std", self.inv_std.elems(), per_view),
            ("weight", self.weight.elems(), channels),
            ("bias", self.bias.elems(), channels),
            ("y", self.y.elems(), elems),
        ];
        check_elems("batch_norm_normalise", &lengths)?;
        // SAFETY: lengths are checked; the grid covers the matrix.
        unsafe { self.enqueue(kernels, m.walk_grid(), THREADS) }
    }
}

kernel! {
    /// Sums of g and g (x - mean) of each chunk, for [`BackwardFinish`].
    BackwardSums ['a, T: Element] ['a, T] T::entry("batch_norm_backward_sums_f32", "batch_norm_backward_sums_bf16"); {
        /// `[views * rows, C]`
        x: Slice<'a, T>,
        /// The forward's output where a residual was added and a ReLU followed; else x tells what passed.
        y: Option<Slice<'a, T>>,
        /// Like x.
        dy: Slice<'a, T>,
        /// `[views, C]`
        mean: Slice<'a, f32>,
        /// `[views, C]`
        inv_std: Slice<'a, f32>,
        /// `[C]`
        weight: Slice<'a, f32>,
        /// `[C]`
        bias: Slice<'a, f32>,
        /// `shape.partial_elems(SUMS)`
        partial: SliceMut<'a, f32>,
        /// Like x, where a residual was added and a ReLU followed: the gradient behind it.
        dresidual: Option<SliceMut<'a, T>>,
        /// Of x.
        shape: Columns,
        /// What followed.
        activation: ActivationCode,
    }
}

impl<T: Element> BackwardSums<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let m = &self.shape;
        let elems = m.elems();
        let lengths = [
            ("x", self.x.elems(), elems),
            ("y", self.y.map_or(elems, |y| y.elems()), elems),
            ("dy", self.dy.elems(), elems),
            ("mean", self.mean.elems(), m.views() * m.columns()),
            ("inv_std", self.inv_std.elems(), m.views() * m.columns()),
            ("weight", self.weight.elems(), m.columns()),
            ("bias", self.bias.elems(), m.columns()),
            ("partial", self.partial.elems(), m.partial_elems(SUMS)),
            ("dresidual", self.dresidual.as_ref().map_or(elems, SliceMut::elems), elems),
        ];
        check_elems("batch_norm_backward_sums", &lengths)?;
        // SAFETY: lengths are checked; the grid covers the matrix.
        unsafe { self.enqueue(kernels, m.walk_grid(), THREADS) }
    }
}

kernel! {
    /// Gradients of the parameters, and what [`BackwardData`] needs.
    BackwardFinish ['a] ['a] "batch_norm_backward_finish"; {
        /// From [`BackwardSums`].
        partial: Slice<'a, f32>,
        /// `[views, C]`
        inv_std: Slice<'a, f32>,
        /// `[C]`
        weight: Slice<'a, f32>,
        /// `[C]`
        dweight: SliceMut<'a, f32>,
        /// `[C]`
        dbias: SliceMut<'a, f32>,
        /// `[views, COEFFICIENTS, C]`
        coefficients: SliceMut<'a, f32>,
        /// Of x.
        shape: Columns,
    }
}

impl BackwardFinish<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let m = &self.shape;
        let (channels, per_view) = (m.columns(), m.views() * m.columns());
        let lengths = [
            ("partial", self.partial.elems(), m.partial_elems(SUMS)),
            ("inv_std", self.inv_std.elems(), per_view),
            ("weight", self.weight.elems(), channels),
            ("dweight", self.dweight.elems(), channels),
            ("dbias", self.dbias.elems(), channels),
            ("coefficients", self.coefficients.elems(), COEFFICIENTS * per_view),
        ];
        check_elems("batch_norm_backward_finish", &lengths)?;
        // SAFETY: lengths are checked; the grid covers the columns.
        unsafe { self.enqueue(kernels, m.finish_grid()?, FINISH_THREADS) }
    }
}

kernel! {
    /// Gradient of the input.
    BackwardData ['a, T: Element] ['a, T] T::entry("batch_norm_backward_data_f32", "batch_norm_backward_data_bf16"); {
        /// `[views * rows, C]`
        x: Slice<'a, T>,
        /// Like x; where [`BackwardSums`] wrote a dresidual, that one.
        dy: Slice<'a, T>,
        /// `[views, C]`
        mean: Slice<'a, f32>,
        /// `[views, C]`
        inv_std: Slice<'a, f32>,
        /// `[C]`
        weight: Slice<'a, f32>,
        /// `[C]`
        bias: Slice<'a, f32>,
        /// From [`BackwardFinish`].
        coefficients: Slice<'a, f32>,
        /// Like x.
        dx: SliceMut<'a, T>,
        /// Of x.
        shape: Columns,
        /// What followed, unless dy is a dresidual: then nothing.
        activation: ActivationCode,
    }
}

impl<T: Element> BackwardData<'_, T> {
    /// Launches it.
    pub fn launch(mut self, kernels: &Kernels) -> Result<()> {
        self.shape = self.shape.by_rows();
        let m = &self.shape;
        let (elems, per_view) = (m.elems(), m.views() * m.columns());
        let lengths = [
            ("x", self.x.elems(), elems),
            ("dy", self.dy.elems(), elems),
            ("mean", self.mean.elems(), per_view),
            ("inv_std", self.inv_std.elems(), per_view),
            ("weight", self.weight.elems(), m.columns()),
            ("bias", self.bias.elems(), m.columns()),
            ("coefficients", self.coefficients.elems(), COEFFICIENTS * per_view),
            ("dx", self.dx.elems(), elems),
        ];
        check_elems("batch_norm_backward_data", &lengths)?;
        // SAFETY: lengths are checked; the grid covers the matrix.
        unsafe { self.enqueue(kernels, m.walk_grid(), THREADS) }
    }
}
