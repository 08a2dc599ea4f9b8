//! Which parts of input, filter and output meet in one product.

use std::ops::Range;

use super::super::matmul::Layout;
use crate::backend::Window;
use crate::tensor::Shape;

/// Most images in one product: bounds the rows touched at once.
pub const IMAGES: usize = 256;
/// Fewest output channels in one product: below, it cannot use what it loads often enough.
const CHANNELS: usize = 64;
/// Input channels below which the input is lowered first.
const NARROW: usize = 16;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub k: usize,
    pub p: usize,
    pub q: usize,
    pub window: Window,
}

/// Output columns that see the same filter columns.
pub struct Segment {
    columns: Range<usize>,
    taps: Range<usize>,
}

impl Geometry {
    pub fn new(x: Shape, w: Shape, y: Shape, window: Window) -> Self {
        let (x, w, y) = (x.dims(), w.dims(), y.dims());
        let g = Geometry { n: x[0], h: x[1], w: x[2], c: x[3], k: w[0], p: y[1], q: y[2], window };
        if window.kernel == [1, 1] && window.stride == 1 && window.padding == 0 { g.pointwise() } else { g }
    }

    /// A 1 x 1 convolution is a matrix product over pixels: every pixel is an image of one pixel.
    pub fn pointwise(self) -> Self {
        Geometry { n: self.n * self.h * self.w, h: 1, w: 1, p: 1, q: 1, ..self }
    }

    pub fn taps(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1]
    }

    pub fn narrow(&self) -> bool {
        self.c < NARROW && self.taps() > 1
    }

    /// Filter positions along `axis` that fall on the input for output position `o`, and the first input position.
    pub fn valid(&self, axis: usize, o: usize) -> (Range<usize>, usize) {
        let size = [self.h, self.w][axis];
        let (start, padding) = (o * self.window.stride, self.window.padding);
        let first = padding.saturating_sub(start);
        let last = (size + padding).saturating_sub(start).min(self.window.kernel[axis]);
        (first..last.max(first), start + first - padding.min(start + first))
    }

    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let start = next;
            if start == self.q {
                return None;
            }
            let (taps, _) = self.valid(1, start);
            next = start + 1;
            while next < self.q && self.valid(1, next).0 == taps {
                next += 1;
            }
            Some(Segment { columns: start..next, taps })
        })
    }

    /// Calls `f` with each group of output positions of row `p` for the images `images`: output offset, output stride,
    /// input offset (at filter column `taps.start`), input stride, number of positions, filter columns. The input row is h.
    pub fn groups(&self, images: Range<usize>, p: usize, h: usize, mut f: impl FnMut(&Group)) {
        let (x_image, y_image) = (self.h * self.w * self.c, self.p * self.q * self.k);
        for segment in self.segments().filter(|s| !s.taps.is_empty()) {
            let at = |image: usize, q: usize| {
                let w = self.valid(1, q).1;
                (image * x_image + (h * self.w + w) * self.c, image * y_image + (p * self.q + q) * self.k)
            };
            let group = |(x, y): (usize, usize), x_stride, y_stride, count| Group {
                x: Layout::rows(x, x_stride),
                y: Layout::rows(y, y_stride),
                count,
                taps: segment.taps.clone(),
            };
            if segment.columns.len() > images.len() {
                for image in images.clone() {
                    let start = at(image, segment.columns.start);
                    f(&group(start, self.window.stride * self.c, self.k, segment.columns.len()));
                }
            } else {
                for q in segment.columns.clone() {
                    f(&group(at(images.start, q), x_image, y_image, images.len()));
                }
            }
        }
    }

    /// Images for `tasks` tasks or more, at most [`IMAGES`] each and at least 32 where there are as many.
    pub fn image_blocks(&self, tasks: usize) -> Blocks {
        Blocks { len: self.n, block: self.n.div_ceil(tasks.max(1)).next_multiple_of(32).min(IMAGES) }
    }

    /// Output channels for about `tasks` tasks, at least [`CHANNELS`] each where there are as many.
    pub fn channel_blocks(&self, tasks: usize) -> Blocks {
        Blocks { len: self.k, block: self.k.div_ceil(tasks.max(1)).next_multiple_of(CHANNELS) }
    }
}

/// `0..len` in blocks of equal size but the last.
#[derive(Clone, Copy)]
pub struct Blocks {
    len: usize,
    block: usize,
}

impl Blocks {
    pub fn len(&self) -> usize {
        self.len.div_ceil(self.block)
    }

    pub fn at(&self, i: usize) -> Range<usize> {
        i * self.block..self.len.min((i + 1) * self.block)
    }
}

/// Output positions that one product serves.
pub struct Group {
    /// In the input, at filter column `taps.start`.
    pub x: Layout,
    /// In the output.
    pub y: Layout,
    /// Rows of the product.
    pub count: usize,
    /// Filter columns that all of them see.
    pub taps: Range<usize>,
}
