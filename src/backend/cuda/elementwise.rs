//! Launches of kernels/elementwise.cu.

use super::cast::ELEMS_PER_BLOCK;
use super::kernel::{Element, Kernels, Slice, SliceMut, blocks, check_elems, kernel};
use crate::Result;

const THREADS: u32 = 256;

kernel! {
    /// `x += y`.
    AddAssign ['a, T: Element] ['a, T] T::entry("add_assign_f32", "add_assign_bf16"); {
        /// Any shape.
        x: SliceMut<'a, T>,
        /// Like x.
        y: Slice<'a, T>,
        /// Elements.
        count: u64,
    }
}

impl<T: Element> AddAssign<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("add_assign", self.count as usize);
        check_elems(op, &[("x", self.x.elems(), count), ("y", self.y.elems(), count)])?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks(op, count, ELEMS_PER_BLOCK)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// `y = factor x`.
    Scale ['a, T: Element] ['a, T] T::entry("scale_f32", "scale_bf16"); {
        /// Any shape.
        x: Slice<'a, T>,
        /// Like x.
        y: SliceMut<'a, T>,
        /// Elements.
        count: u64,
        /// Rounded to f32.
        factor: f64,
    }
}

impl<T: Element> Scale<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("scale", self.count as usize);
        check_elems(op, &[("x", self.x.elems(), count), ("y", self.y.elems(), count)])?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks(op, count, ELEMS_PER_BLOCK)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// `total = weight_a a + weight_b b + weight_c c` of scalars.
    WeightedSum ['a] ['a] "weighted_sum"; {
        /// A scalar, if there is a first.
        a: Option<Slice<'a, f32>>,
        /// A scalar, if there is a second.
        b: Option<Slice<'a, f32>>,
        /// A scalar, if there is a third.
        c: Option<Slice<'a, f32>>,
        /// A scalar.
        total: SliceMut<'a, f32>,
        /// Of a.
        weight_a: f64,
        /// Of b.
        weight_b: f64,
        /// Of c.
        weight_c: f64,
    }
}

impl WeightedSum<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let scalar = |term: &Option<Slice<f32>>| term.as_ref().map_or(1, Slice::elems);
        let lengths = [
            ("a", scalar(&self.a), 1),
            ("b", scalar(&self.b), 1),
            ("c", scalar(&self.c), 1),
            ("total", self.total.elems(), 1),
        ];
        check_elems("weighted_sum", &lengths)?;
        // SAFETY: each is one number, or absent.
        unsafe { self.enqueue(kernels, (1, 1, 1), 1) }
    }
}
