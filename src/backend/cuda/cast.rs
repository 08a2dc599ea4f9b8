//! Launches of kernels/cast.cu.

use half::bf16;

use super::kernel::{Element, Kernels, Slice, SliceMut, blocks, check_elems, kernel, product};
use crate::{Error, Result};

const THREADS: u32 = 256;
/// Elements of a block that has four a thread.
pub(super) const ELEMS_PER_BLOCK: usize = 4 * THREADS as usize;

kernel! {
    /// `y = x`, rounded to nearest even.
    CastToBf16 ['a] ['a] "cast_f32_to_bf16"; {
        /// Any shape.
        x: Slice<'a, f32>,
        /// Like x.
        y: SliceMut<'a, bf16>,
        /// Elements.
        count: u64,
    }
}

impl CastToBf16<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let count = self.count as usize;
        check_elems("cast_f32_to_bf16", &[("x", self.x.elems(), count), ("y", self.y.elems(), count)])?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks("cast_f32_to_bf16", count, ELEMS_PER_BLOCK)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// `y = x`, exactly.
    CastToF32 ['a] ['a] "cast_bf16_to_f32"; {
        /// Any shape.
        x: Slice<'a, bf16>,
        /// Like x.
        y: SliceMut<'a, f32>,
        /// Elements.
        count: u64,
    }
}

impl CastToF32<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let count = self.count as usize;
        check_elems("cast_bf16_to_f32", &[("x", self.x.elems(), count), ("y", self.y.elems(), count)])?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks("cast_bf16_to_f32", count, ELEMS_PER_BLOCK)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// Images as network input: `pixel / 255`, zeros in channels that are only padding.
    CastImages ['a, T: Element] ['a, T] T::entry("cast_images_to_f32", "cast_images_to_bf16"); {
        /// `[N, H, W, channels]`
        pixels: Slice<'a, u8>,
        /// `[N, H, W, padded]`
        y: SliceMut<'a, T>,
        /// N H W.
        count: u64,
        /// Of the images.
        channels: u32,
        /// Of the network's input; not fewer.
        padded: u32,
    }
}

impl<T: Element> CastImages<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let op = "cast_images";
        let count = self.count as usize;
        if self.padded < self.channels {
            return Err(Error::shape(op, format!("{} channels padded to {}", self.channels, self.padded)));
        }
        let pixels = product(op, &[count, self.channels as usize])?;
        let elems = product(op, &[count, self.padded as usize])?;
        check_elems(op, &[("pixels", self.pixels.elems(), pixels), ("y", self.y.elems(), elems)])?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks(op, count, THREADS as usize)?, 1, 1), THREADS) }
    }
}
