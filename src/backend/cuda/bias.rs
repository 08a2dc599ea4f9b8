//! Launches of kernels/bias.cu.

use super::columns::{Columns, FINISH_THREADS, THREADS};
use super::kernel::{Element, Kernels, Slice, SliceMut, check_elems, kernel};
use crate::Result;

kernel! {
    /// `y[r, c] = x[r, c] + b[c]`.
    BiasAdd ['a, T: Element] ['a, T] T::entry("bias_add_f32", "bias_add_bf16"); {
        /// `[rows, columns]`
        x: Slice<'a, T>,
        /// `[columns]`
        b: Slice<'a, f32>,
        /// Like x.
        y: SliceMut<'a, T>,
        /// Of one view.
        shape: Columns,
    }
}

impl<T: Element> BiasAdd<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let m = &self.shape;
        let lengths =
            [("x", self.x.elems(), m.elems()), ("b", self.b.elems(), m.columns()), ("y", self.y.elems(), m.elems())];
        check_elems("bias_add", &lengths)?;
        // SAFETY: lengths are checked; the grid covers the matrix.
        unsafe { self.enqueue(kernels, m.walk_grid(), THREADS) }
    }
}

kernel! {
    /// Sums of dy over each chunk's rows, for [`BiasBackwardFinish`].
    BiasBackward ['a, T: Element] ['a, T] T::entry("bias_backward_f32", "bias_backward_bf16"); {
        /// `[rows, columns]`
        dy: Slice<'a, T>,
        /// `shape.partial_elems(1)`
        partial: SliceMut<'a, f32>,
        /// Of one view.
        shape: Columns,
    }
}

impl<T: Element> BiasBackward<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let m = &self.shape;
        let partial = ("partial", self.partial.elems(), m.partial_elems(1));
        check_elems("bias_backward", &[("views", m.views(), 1), ("dy", self.dy.elems(), m.elems()), partial])?;
        // SAFETY: lengths are checked; the grid covers the matrix.
        unsafe { self.enqueue(kernels, m.walk_grid(), THREADS) }
    }
}

kernel! {
    /// `db[c]` from the chunks' sums.
    BiasBackwardFinish ['a] ['a] "bias_backward_finish"; {
        /// From [`BiasBackward`].
        partial: Slice<'a, f32>,
        /// `[columns]`
        db: SliceMut<'a, f32>,
        /// The same.
        shape: Columns,
    }
}

impl BiasBackwardFinish<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let m = &self.shape;
        let partial = ("partial", self.partial.elems(), m.partial_elems(1));
        check_elems("bias_backward_finish", &[partial, ("db", self.db.elems(), m.columns())])?;
        // SAFETY: lengths are checked; the grid covers the columns.
        unsafe { self.enqueue(kernels, m.finish_grid()?, FINISH_THREADS) }
    }
}
