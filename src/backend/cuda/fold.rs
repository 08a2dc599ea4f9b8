//! Launches of kernels/fold.cu.

use cudarc::driver::DeviceRepr;

use super::kernel::{
    Dtype, Element, Kernels, Slice, SliceMut, blocks, check_elems, kernel, product, size, value_argument,
};
use crate::backend::Window;
use crate::{Error, Result};

const THREADS: u32 = 256;

/// Sizes of a folded convolution; as in kernels/fold.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    h: u32,
    w: u32,
    c: u32,
    i: u32,
    j: u32,
    channels: u32,
    factor: u32,
    border: u32,
    padding: u32,
    taps_in: u32,
    taps: u32,
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Fold>() == 44 && align_of::<Fold>() == 4);
    assert!(offset_of!(Fold, i) == 12 && offset_of!(Fold, factor) == 24 && offset_of!(Fold, taps) == 40);
};

// SAFETY: plain integers in the kernel's layout, asserted above and in fold.cu.
unsafe impl DeviceRepr for Fold {}
value_argument!(Fold);

impl Fold {
    /// Of a convolution with a square `window` over x `[N, H, W, C]`, with channels a multiple of `multiple`, itself one of 4.
    /// Errors if the window is not square or does not fit.
    pub fn new([_, h, w, c]: [usize; 4], window: Window, multiple: usize) -> Result<Self> {
        let op = "fold";
        let Window { kernel: [taps_in, other], stride, padding } = window;
        let outputs = [window.output(0, h), window.output(1, w)];
        let ([Some(p), Some(q)], true, 1..) = (outputs, taps_in == other && padding < taps_in, stride) else {
            return Err(Error::shape(op, format!("{window:?} on {h} x {w}")));
        };
        let border = padding.div_ceil(stride);
        let taps = border + (taps_in - 1 - padding) / stride + 1;
        let channels = product(op, &[stride, stride, c])?.next_multiple_of(multiple);
        let size = |value| size(op, value);
        Ok(Fold {
            h: size(h)?,
            w: size(w)?,
            c: size(c)?,
            i: size(p + taps - 1)?,
            j: size(q + taps - 1)?,
            channels: size(channels)?,
            factor: size(stride)?,
            border: size(border)?,
            padding: size(padding)?,
            taps_in: size(taps_in)?,
            taps: size(taps)?,
        })
    }

    /// Shape of `images` folded images.
    pub fn image_shape(&self, images: usize) -> [usize; 4] {
        [images, self.i as usize, self.j as usize, self.channels as usize]
    }

    /// Shape of `filters` folded filters.
    pub fn filter_shape(&self, filters: usize) -> [usize; 4] {
        [filters, self.taps as usize, self.taps as usize, self.channels as usize]
    }

    /// The window of the folded convolution.
    pub fn window(&self) -> Window {
        Window { kernel: [self.taps as usize; 2], stride: 1, padding: 0 }
    }

    /// Elements of four that a thread writes: as the kernel has it, all of a pixel's for the stems of networks on RGB.
    fn fours_per_thread(&self) -> usize {
        match (self.c, self.factor, self.channels) {
            (3, 2, 12 | 16) | (3, 1, 4 | 8) => self.channels as usize / 4,
            _ => 1,
        }
    }

    /// Elements of an image, folded and not.
    fn image_elems(&self) -> (usize, usize) {
        let elems = |[a, b, c]: [u32; 3]| a as usize * b as usize * c as usize;
        (elems([self.i, self.j, self.channels]), elems([self.h, self.w, self.c]))
    }

    /// Elements of a filter, folded and not.
    fn filter_elems(&self) -> (usize, usize) {
        let elems = |taps: u32, channels: u32| taps as usize * taps as usize * channels as usize;
        (elems(self.taps, self.channels), elems(self.taps_in, self.c))
    }
}

/// What images may be made of.
pub trait Pixel: DeviceRepr + Copy + 'static {
    /// The entry point for folding to `to`.
    fn fold(to: Dtype) -> &'static str;
}

impl Pixel for u8 {
    fn fold(to: Dtype) -> &'static str {
        match to {
            Dtype::F32 => "fold_images_u8_to_f32",
            Dtype::Bf16 | Dtype::U8 => "fold_images_u8_to_bf16",
        }
    }
}

impl Pixel for f32 {
    fn fold(_: Dtype) -> &'static str {
        "fold_images_f32"
    }
}

impl Pixel for half::bf16 {
    fn fold(_: Dtype) -> &'static str {
        "fold_images_bf16"
    }
}

kernel! {
    /// Images as input of the folded convolution. `S` is `u8` or `T`.
    FoldImages ['a, S: Pixel, T: Element] ['a, S, T] S::fold(T::DTYPE); {
        /// `[N, H, W, C]`
        x: Slice<'a, S>,
        /// `image_shape(N)`
        y: SliceMut<'a, T>,
        /// Elements of y by four.
        count: u64,
        /// Sizes.
        shape: Fold,
    }
}

impl<S: Pixel, T: Element> FoldImages<'_, S, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, (folded, plain)) = ("fold_images", self.shape.image_elems());
        if size_of::<S>() != 1 && size_of::<S>() != size_of::<T>() {
            return Err(Error::shape(op, "images are bytes, or of the type of the result"));
        }
        let images = self.x.elems() / plain.max(1);
        let lengths = [
            ("x", self.x.elems(), product(op, &[images, plain])?),
            ("y", self.y.elems(), product(op, &[images, folded])?),
            ("count", self.count as usize, images * folded / 4),
        ];
        check_elems(op, &lengths)?;
        let threads = self.count as usize / self.shape.fours_per_thread();
        // SAFETY: lengths are checked; the grid covers y.
        unsafe { self.enqueue(kernels, (blocks(op, threads, THREADS as usize)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// Filters of the folded convolution.
    FoldFilter ['a, T: Element] ['a, T] T::entry("fold_filter_f32", "fold_filter_bf16"); {
        /// `[K, R, S, C]`
        w: Slice<'a, f32>,
        /// `filter_shape(K)`
        v: SliceMut<'a, T>,
        /// Elements of v.
        count: u64,
        /// Sizes.
        shape: Fold,
    }
}

impl<T: Element> FoldFilter<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, (folded, plain)) = ("fold_filter", self.shape.filter_elems());
        let filters = self.w.elems() / plain.max(1);
        let lengths = [
            ("w", self.w.elems(), product(op, &[filters, plain])?),
            ("v", self.v.elems(), product(op, &[filters, folded])?),
            ("count", self.count as usize, filters * folded),
        ];
        check_elems(op, &lengths)?;
        // SAFETY: lengths are checked; the grid covers v.
        unsafe { self.enqueue(kernels, (blocks(op, self.count as usize, THREADS as usize)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// The filters' gradient from that of the folded ones.
    FoldFilterBack ['a, T: Element] ['a, T] T::entry("fold_filter_back_f32", "fold_filter_back_bf16"); {
        /// `filter_shape(K)`
        dv: Slice<'a, T>,
        /// `[K, R, S, C]`
        dw: SliceMut<'a, f32>,
        /// Elements of dw.
        count: u64,
        /// Sizes.
        shape: Fold,
    }
}

impl<T: Element> FoldFilterBack<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, (folded, plain)) = ("fold_filter_back", self.shape.filter_elems());
        let filters = self.dw.elems() / plain.max(1);
        let lengths = [
            ("dw", self.dw.elems(), product(op, &[filters, plain])?),
            ("dv", self.dv.elems(), product(op, &[filters, folded])?),
            ("count", self.count as usize, filters * plain),
        ];
        check_elems(op, &lengths)?;
        // SAFETY: lengths are checked; the grid covers dw.
        unsafe { self.enqueue(kernels, (blocks(op, self.count as usize, THREADS as usize)?, 1, 1), THREADS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seven_by_seven_stem_becomes_four_by_four() {
        let window = Window { kernel: [7; 2], stride: 2, padding: 3 };
        let fold = Fold::new([5, 224, 224, 3], window, 8).unwrap();
        assert_eq!((fold.image_shape(5), fold.filter_shape(64)), ([5, 115, 115, 16], [64, 4, 4, 16]));
        let window = Window { kernel: [3; 2], stride: 1, padding: 1 };
        let fold = Fold::new([2, 32, 31, 3], window, 4).unwrap();
        assert_eq!((fold.image_shape(2), fold.filter_shape(64)), ([2, 34, 33, 4], [64, 3, 3, 4]));
        assert!(Fold::new([2, 32, 32, 3], Window { kernel: [3, 5], stride: 1, padding: 1 }, 4).is_err());
    }
}
