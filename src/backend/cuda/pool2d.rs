//! Launches of kernels/pool2d.cu.

use cudarc::driver::DeviceRepr;

use super::kernel::{Element, Kernels, Slice, SliceMut, blocks, check_elems, kernel, product, size, value_argument};
use crate::backend::Window;
use crate::tensor::Shape;
use crate::{Error, Result};

const THREADS: u32 = 256;
/// Channels of a block of the average.
const CHANNELS: usize = 32;

/// Sizes of a max pooling; as in kernels/pool2d.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool {
    h: u32,
    w: u32,
    p: u32,
    q: u32,
    channels: u32,
    r: u32,
    s: u32,
    stride: u32,
    padding: u32,
}

const _: () = {
    assert!(size_of::<MaxPool>() == 36 && align_of::<MaxPool>() == 4);
    assert!(std::mem::offset_of!(MaxPool, p) == 8 && std::mem::offset_of!(MaxPool, channels) == 16);
    assert!(std::mem::offset_of!(MaxPool, r) == 20 && std::mem::offset_of!(MaxPool, stride) == 28);
};

// SAFETY: plain integers in the kernel's layout, asserted above and in pool2d.cu.
unsafe impl DeviceRepr for MaxPool {}
value_argument!(MaxPool);

impl MaxPool {
    /// For images of shape `x` `[N, H, W, C]`. Errors if the window does not fit, holds more than 256 taps, or has padding
    /// as wide as itself (a window without a pixel).
    pub fn new(x: Shape, window: Window) -> Result<Self> {
        let op = "max_pool";
        let &[_, h, w, channels] = x.dims() else {
            return Err(Error::shape(op, format!("{x:?} is no [N, H, W, C]")));
        };
        let [r, s] = window.kernel;
        let (Some(p), Some(q), 1..) = (window.output(0, h), window.output(1, w), window.stride) else {
            return Err(Error::shape(op, format!("{window:?} does not fit on {x:?}")));
        };
        if product(op, &[r, s])? > 256 || window.padding >= r.min(s) || product(op, &[h, w])? > i32::MAX as usize {
            return Err(Error::shape(op, format!("{window:?} on {x:?} is not supported")));
        }
        let size = |value| size(op, value);
        Ok(MaxPool {
            h: size(h)?,
            w: size(w)?,
            p: size(p)?,
            q: size(q)?,
            channels: size(channels)?,
            r: size(r)?,
            s: size(s)?,
            stride: size(window.stride)?,
            padding: size(window.padding)?,
        })
    }

    /// Blocks for `images` of this many rows and columns.
    fn blocks(&self, op: &'static str, images: usize, [rows, columns]: [u32; 2]) -> Result<(u32, u32, u32)> {
        let (channels, columns) = (self.channels as usize, columns as usize);
        let vector = if channels.is_multiple_of(4) { 4 } else { 1 };
        let rows = product(op, &[images, rows as usize])?;
        let across = product(op, &[columns, channels / vector])?;
        u32::try_from(across).map_err(|_| Error::shape(op, format!("rows of {across} elements")))?;
        Ok((blocks(op, product(op, &[rows, across.div_ceil(THREADS as usize)])?, 1)?, 1, 1))
    }

    /// Elements of the input and of the output that has `outputs` elements in all.
    fn check(&self, op: &'static str, inputs: usize, outputs: usize) -> Result<()> {
        let (image, pooled) = ([self.h, self.w, self.channels], [self.p, self.q, self.channels]);
        let per_image = image.iter().map(|&n| n as usize).product::<usize>();
        let per_output = pooled.iter().map(|&n| n as usize).product::<usize>();
        let images = outputs / per_output.max(1);
        let lengths =
            [("y", outputs, product(op, &[images, per_output])?), ("x", inputs, product(op, &[images, per_image])?)];
        check_elems(op, &lengths)
    }
}

kernel! {
    /// Largest value of each window, and where it was.
    MaxPoolForward ['a, T: Element] ['a, T] T::entry("max_pool_forward_f32", "max_pool_forward_bf16"); {
        /// `[N, H, W, C]`
        x: Slice<'a, T>,
        /// `[N, P, Q, C]`
        y: SliceMut<'a, T>,
        /// Like y: the tap `r S + s`.
        argmax: SliceMut<'a, u8>,
        /// Elements of y.
        count: u64,
        /// Sizes.
        shape: MaxPool,
    }
}

impl<T: Element> MaxPoolForward<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("max_pool_forward", self.count as usize);
        self.shape.check(op, self.x.elems(), count)?;
        check_elems(op, &[("y", self.y.elems(), count), ("argmax", self.argmax.elems(), count)])?;
        let MaxPool { p, q, channels, .. } = self.shape;
        let images = count / (p as usize * q as usize * channels as usize).max(1);
        let grid = self.shape.blocks(op, images, [p, q])?;
        // SAFETY: lengths are checked; the grid covers y.
        unsafe { self.enqueue(kernels, grid, THREADS) }
    }
}

kernel! {
    /// Each gradient to the position of its maximum.
    MaxPoolBackward ['a, T: Element] ['a, T] T::entry("max_pool_backward_f32", "max_pool_backward_bf16"); {
        /// `[N, P, Q, C]`
        dy: Slice<'a, T>,
        /// Like dy, from [`MaxPoolForward`].
        argmax: Slice<'a, u8>,
        /// `[N, H, W, C]`
        dx: SliceMut<'a, T>,
        /// Elements of dx.
        count: u64,
        /// Sizes.
        shape: MaxPool,
    }
}

impl<T: Element> MaxPoolBackward<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("max_pool_backward", self.count as usize);
        self.shape.check(op, count, self.dy.elems())?;
        check_elems(op, &[("dx", self.dx.elems(), count), ("argmax", self.argmax.elems(), self.dy.elems())])?;
        let MaxPool { h, w, r, s, stride, padding, channels, .. } = self.shape;
        let images = count / (h as usize * w as usize * channels as usize).max(1);
        // As the kernel has it: the stem's window by blocks of 2 x 2 pixels.
        let stem = [r, s, stride, padding] == [3, 3, 2, 1] && channels.is_multiple_of(4);
        let grid = self.shape.blocks(op, images, if stem { [h.div_ceil(2), w.div_ceil(2)] } else { [h, w] })?;
        // SAFETY: lengths are checked; the grid covers dx.
        unsafe { self.enqueue(kernels, grid, THREADS) }
    }
}

kernel! {
    /// Mean over H and W.
    GlobalAvgPoolForward ['a, T: Element] ['a, T] T::entry("global_avg_pool_forward_f32", "global_avg_pool_forward_bf16"); {
        /// `[N, H, W, C]`
        x: Slice<'a, T>,
        /// `[N, C]`
        y: SliceMut<'a, T>,
        /// H W.
        pixels: u32,
        /// C.
        channels: u32,
    }
}

impl<T: Element> GlobalAvgPoolForward<'_, T> {
    /// Launches it. Errors for more than 65,535 images.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, channels) = ("global_avg_pool_forward", self.channels as usize);
        let images = self.y.elems() / channels.max(1);
        let inputs = product(op, &[images, self.pixels as usize, channels])?;
        check_elems(op, &[("x", self.x.elems(), inputs), ("y", self.y.elems(), images * channels)])?;
        if !(1..=65_535).contains(&images) || self.pixels == 0 {
            return Err(Error::shape(op, format!("{images} images of {} pixels", self.pixels)));
        }
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks(op, channels, CHANNELS)?, images as u32, 1), THREADS) }
    }
}

kernel! {
    /// `dx = dy / (H W)`, spread.
    GlobalAvgPoolBackward ['a, T: Element] ['a, T] T::entry("global_avg_pool_backward_f32", "global_avg_pool_backward_bf16"); {
        /// `[N, C]`
        dy: Slice<'a, T>,
        /// `[N, H, W, C]`
        dx: SliceMut<'a, T>,
        /// Elements of dx.
        count: u64,
        /// H W.
        pixels: u32,
        /// C.
        channels: u32,
    }
}

impl<T: Element> GlobalAvgPoolBackward<'_, T> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("global_avg_pool_backward", self.count as usize);
        let outputs = product(op, &[self.dy.elems(), self.pixels as usize])?;
        let rows = count / (self.channels as usize).max(1) * self.channels as usize;
        check_elems(op, &[("dx", self.dx.elems(), count), ("dx", outputs, count), ("dx", rows, count)])?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (blocks(op, count, THREADS as usize)?, 1, 1), THREADS) }
    }
}
