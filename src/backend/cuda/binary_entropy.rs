//! Launches of kernels/binary_entropy.cu.

use super::cast::ELEMS_PER_BLOCK;
use super::kernel::{Element, Kernels, Slice, SliceMut, blocks, check_elems, kernel};
use crate::Result;

const THREADS: u32 = 256;
const FINISH_THREADS: u32 = 1024;

/// Partial sums of the entropy of `count` logits: one a block, at most as many as one block adds up.
pub fn partial_elems(count: usize) -> usize {
    count.div_ceil(ELEMS_PER_BLOCK).clamp(1, FINISH_THREADS as usize)
}

kernel! {
    /// The heads' outputs, if wanted, and partial sums of their entropy, for [`BinaryEntropyFinish`].
    BinaryEntropyForward ['a, T: Element] ['a, T] T::entry("binary_entropy_forward_f32", "binary_entropy_forward_bf16"); {
        /// Any shape.
        logits: Slice<'a, T>,
        /// Like the logits: their sigmoid.
        y: Option<SliceMut<'a, T>>,
        /// [`partial_elems`]
        partial: SliceMut<'a, f64>,
        /// Logits.
        count: u64,
    }
}

impl<T: Element> BinaryEntropyForward<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("binary_entropy_forward", self.count as usize);
        let lengths = [
            ("logits", self.logits.elems(), count),
            ("y", self.y.as_ref().map_or(count, SliceMut::elems), count),
            ("partial", self.partial.elems(), partial_elems(count)),
        ];
        check_elems(op, &lengths)?;
        // SAFETY: lengths are checked; a block a partial sum.
        unsafe { self.enqueue(kernels, (blocks(op, partial_elems(count), 1)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// The mean entropy in bits.
    BinaryEntropyFinish ['a] ['a] "binary_entropy_finish"; {
        /// From [`BinaryEntropyForward`].
        partial: Slice<'a, f64>,
        /// A scalar.
        loss: SliceMut<'a, f32>,
        /// Logits.
        count: u64,
        /// Partial sums.
        blocks: u32,
    }
}

impl BinaryEntropyFinish<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let parts = partial_elems(self.count as usize);
        let lengths = [
            ("partial", self.partial.elems(), parts),
            ("blocks", self.blocks as usize, parts),
            ("loss", self.loss.elems(), 1),
        ];
        check_elems("binary_entropy_finish", &lengths)?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (1, 1, 1), FINISH_THREADS) }
    }
}

kernel! {
    /// Gradient of the logits: through the entropy, and through the outputs where dy is given.
    BinaryEntropyBackward ['a, T: Element] ['a, T] T::entry("binary_entropy_backward_f32", "binary_entropy_backward_bf16"); {
        /// Any shape.
        logits: Slice<'a, T>,
        /// Like the logits.
        dy: Option<Slice<'a, T>>,
        /// A scalar.
        dloss: Slice<'a, f32>,
        /// Like the logits.
        da: SliceMut<'a, T>,
        /// Logits.
        count: u64,
    }
}

impl<T: Element> BinaryEntropyBackward<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("binary_entropy_backward", self.count as usize);
        let lengths = [
            ("logits", self.logits.elems(), count),
            ("dy", self.dy.map_or(count, |dy| dy.elems()), count),
            ("dloss", self.dloss.elems(), 1),
            ("da", self.da.elems(), count),
        ];
        check_elems(op, &lengths)?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks(op, count, ELEMS_PER_BLOCK)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// `y = 1 / (1 + exp(-x))`.
    SigmoidForward ['a, T: Element] ['a, T] T::entry("sigmoid_forward_f32", "sigmoid_forward_bf16"); {
        /// Any shape.
        x: Slice<'a, T>,
        /// Like x.
        y: SliceMut<'a, T>,
        /// Elements.
        count: u64,
    }
}

impl<T: Element> SigmoidForward<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("sigmoid_forward", self.count as usize);
        check_elems(op, &[("x", self.x.elems(), count), ("y", self.y.elems(), count)])?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks(op, count, ELEMS_PER_BLOCK)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// `dx = dy y (1 - y)`.
    SigmoidBackward ['a, T: Element] ['a, T] T::entry("sigmoid_backward_f32", "sigmoid_backward_bf16"); {
        /// The forward's output.
        y: Slice<'a, T>,
        /// Like y.
        dy: Slice<'a, T>,
        /// Like y.
        dx: SliceMut<'a, T>,
        /// Elements.
        count: u64,
    }
}

impl<T: Element> SigmoidBackward<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("sigmoid_backward", self.count as usize);
        let lengths = [("y", self.y.elems(), count), ("dy", self.dy.elems(), count), ("dx", self.dx.elems(), count)];
        check_elems(op, &lengths)?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks(op, count, ELEMS_PER_BLOCK)?, 1, 1), THREADS) }
    }
}
