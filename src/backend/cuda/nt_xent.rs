//! Launches of kernels/nt_xent.cu, and how the work is cut up.

use cudarc::driver::DeviceRepr;
use half::bf16;

use super::kernel::{Element, Kernels, Slice, SliceMut, blocks, check_elems, kernel, product, size, value_argument};
use crate::backend::Samples;
use crate::tensor::Shape;
use crate::{Error, Result};

const THREADS: u32 = 256;
const FINISH_THREADS: u32 = 1024;
/// Samples of a tile.
const TILE: usize = 64;
/// Elements of a sample that a block of the backward sums up.
const FEATURES: usize = 128;
/// Samples' rows are padded to a multiple of this many 32-bit words.
const STEP: usize = 16;
/// Blocks of a launch, about: a few for each multiprocessor of the largest device.
const BLOCKS: usize = 512;
/// Elements of the backward's scratch, about: 16 MiB.
const SCRATCH: usize = 1 << 22;

/// What similarities are computed in.
pub trait Precision {
    /// Of the input and the unit samples.
    type T: Element;
    /// The entry point for this precision.
    fn entry(f32: &'static str, tf32: &'static str, bf16: &'static str) -> &'static str;
}

/// f32 and fused multiply-add.
pub enum F32 {}
/// f32 rounded to 10 bits of mantissa, on tensor cores.
pub enum Tf32 {}
/// bf16, on tensor cores.
pub enum Bf16 {}

impl Precision for F32 {
    type T = f32;
    fn entry(f32: &'static str, _: &'static str, _: &'static str) -> &'static str {
        f32
    }
}

impl Precision for Tf32 {
    type T = f32;
    fn entry(_: &'static str, tf32: &'static str, _: &'static str) -> &'static str {
        tf32
    }
}

impl Precision for Bf16 {
    type T = bf16;
    fn entry(_: &'static str, _: &'static str, bf16: &'static str) -> &'static str {
        bf16
    }
}

/// Sizes; as in kernels/nt_xent.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NtXent {
    count: u32,
    dim: u32,
    words: u32,
    tiles_per_split: u32,
    first: u32,
    rows: u32,
    temperature: f64,
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<NtXent>() == 32 && align_of::<NtXent>() == 8);
    assert!(offset_of!(NtXent, words) == 8 && offset_of!(NtXent, first) == 16 && offset_of!(NtXent, temperature) == 24);
};

// SAFETY: plain numbers in the kernel's layout, asserted above and in nt_xent.cu.
unsafe impl DeviceRepr for NtXent {}
value_argument!(NtXent);

impl NtXent {
    /// For z of shape `[2N, d]`, view 1 over view 2, computed in `P`. All samples are one slice. Errors for other shapes,
    /// and for a temperature that is not positive.
    pub fn new<P: Precision>(z: Shape, samples: Samples, temperature: f64) -> Result<Self> {
        let op = "nt_xent";
        let (rows, columns) = match *z.dims() {
            [rows, columns] if rows.is_multiple_of(2) && z.elems() > 0 => (rows, columns),
            _ => return Err(Error::shape(op, format!("z holds two views of equal size, [2N, d], not {z:?}"))),
        };
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(Error::Usage(format!("the temperature of nt_xent is {temperature}; it must be positive")));
        }
        let (count, dim) = match samples {
            Samples::Rows => (rows, columns),
            Samples::Columns => (product(op, &[2, columns])?, rows / 2),
        };
        let per_word = size_of::<u32>() / size_of::<P::T>();
        let words = dim.div_ceil(per_word).next_multiple_of(STEP);
        let tiles = count.div_ceil(TILE);
        let whole = NtXent {
            // Positions of samples are added to in 32 bits.
            count: i32::try_from(count).map_err(|_| Error::shape(op, format!("{count} samples")))? as u32,
            dim: size(op, dim)?,
            words: size(op, words)?,
            tiles_per_split: size(op, tiles.div_ceil((BLOCKS / tiles).clamp(1, tiles)))?,
            first: 0,
            rows: size(op, count)?,
            temperature,
        };
        Ok(whole)
    }

    /// Samples, 2R.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Elements of the input.
    pub fn elems(&self) -> usize {
        self.count() * self.dim as usize
    }

    /// Elements of the unit samples, padded, in `P`.
    pub fn unit_elems<P: Precision>(&self) -> usize {
        self.count() * self.words as usize * (size_of::<u32>() / size_of::<P::T>())
    }

    /// Parts that the columns of the similarities are shared out in.
    pub fn splits(&self) -> usize {
        self.count().div_ceil(TILE).div_ceil(self.tiles_per_split as usize)
    }

    /// Elements of the forward's scratch: `largest` and `sum` each.
    pub fn forward_scratch(&self) -> usize {
        self.splits() * self.count()
    }

    /// The slices of rows that the backward goes through, one launch after the other, so that its scratch stays small.
    pub fn slices(&self) -> impl Iterator<Item = NtXent> + use<> {
        self.slices_of(self.slice_rows())
    }

    /// Slices of `rows` rows each (of 1 for 0), the last perhaps of fewer. [`NtXent::backward_scratch`] is enough for as
    /// many rows as [`NtXent::slices`] takes at once, and for fewer.
    pub fn slices_of(&self, rows: usize) -> impl Iterator<Item = NtXent> + use<> {
        let (whole, rows) = (*self, rows.max(1));
        (0..whole.count()).step_by(rows).map(move |first| NtXent {
            first: first as u32,
            rows: rows.min(whole.count() - first) as u32,
            ..whole
        })
    }

    /// Elements of the backward's scratch, enough for every slice.
    pub fn backward_scratch(&self) -> usize {
        self.splits() * self.slice_rows().min(self.count()) * self.dim as usize
    }

    fn slice_rows(&self) -> usize {
        (SCRATCH / (self.dim as usize * self.splits()) / TILE * TILE).max(TILE)
    }

    fn partial_elems(&self) -> usize {
        self.splits() * self.rows as usize * self.dim as usize
    }
}

/// Declares a launch that exists for samples in rows and in columns of z.
macro_rules! normalise {
    ($(#[$doc:meta])* $name:ident, $f32:literal, $tf32:literal, $bf16:literal, $samples:literal) => {
        kernel! {
            $(#[$doc])*
            $name ['a, P: Precision] ['a, P] P::entry($f32, $tf32, $bf16); {
                /// The input.
                z: Slice<'a, P::T>,
                /// `shape.unit_elems()`: unit samples, rows padded with zeros.
                unit: SliceMut<'a, P::T>,
                /// `[2R]`: norms before clamping.
                norm: SliceMut<'a, f32>,
                /// Of z.
                shape: NtXent,
            }
        }

        impl<P: Precision> $name<'_, P> {
            /// Launches it.
            pub fn launch(self, kernels: &Kernels) -> Result<()> {
                let n = &self.shape;
                let lengths = [
                    ("z", self.z.elems(), n.elems()),
                    ("unit", self.unit.elems(), n.unit_elems::<P>()),
                    ("norm", self.norm.elems(), n.count()),
                ];
                check_elems("nt_xent_normalise", &lengths)?;
                // SAFETY: lengths are checked; the grid covers the samples.
                unsafe { self.enqueue(kernels, (blocks("nt_xent_normalise", n.count(), $samples)?, 1, 1), THREADS) }
            }
        }
    };
}

normalise! {
    /// Unit samples from the rows of z.
    NormaliseRows, "nt_xent_normalise_rows_f32", "nt_xent_normalise_rows_tf32", "nt_xent_normalise_rows_bf16", 8
}
normalise! {
    /// Unit samples from the columns of z's halves.
    NormaliseColumns, "nt_xent_normalise_columns_f32", "nt_xent_normalise_columns_tf32", "nt_xent_normalise_columns_bf16", 32
}

kernel! {
    /// Largest cosine and sum of exponentials of each row and split, for [`ForwardFinish`].
    Forward ['a, P: Precision] ['a, P] P::entry("nt_xent_forward_f32", "nt_xent_forward_tf32", "nt_xent_forward_bf16"); {
        /// From [`NormaliseRows`] or [`NormaliseColumns`].
        unit: Slice<'a, P::T>,
        /// `shape.forward_scratch()`
        largest: SliceMut<'a, f32>,
        /// `shape.forward_scratch()`
        sum: SliceMut<'a, f32>,
        /// `[2R]`: cosines with the positives.
        positive: SliceMut<'a, f32>,
        /// Of z.
        shape: NtXent,
    }
}

impl<P: Precision> Forward<'_, P> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, n) = ("nt_xent_forward", &self.shape);
        let lengths = [
            ("unit", self.unit.elems(), n.unit_elems::<P>()),
            ("largest", self.largest.elems(), n.forward_scratch()),
            ("sum", self.sum.elems(), n.forward_scratch()),
            ("positive", self.positive.elems(), n.count()),
        ];
        check_elems(op, &lengths)?;
        let grid = (blocks(op, n.count(), TILE)?, n.splits() as u32, 1);
        // SAFETY: lengths are checked; the grid covers rows and splits.
        unsafe { self.enqueue(kernels, grid, THREADS) }
    }
}

kernel! {
    /// Log-sum-exps and the loss.
    ForwardFinish ['a] ['a] "nt_xent_forward_finish"; {
        /// From [`Forward`].
        largest: Slice<'a, f32>,
        /// From [`Forward`].
        sum: Slice<'a, f32>,
        /// From [`Forward`].
        positive: Slice<'a, f32>,
        /// `[2R]`, kept for the backward.
        lse: SliceMut<'a, f32>,
        /// A scalar.
        loss: SliceMut<'a, f32>,
        /// Of z.
        shape: NtXent,
        /// `shape.splits()`
        splits: u32,
    }
}

impl ForwardFinish<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let n = &self.shape;
        let lengths = [
            ("largest", self.largest.elems(), n.forward_scratch()),
            ("sum", self.sum.elems(), n.forward_scratch()),
            ("positive", self.positive.elems(), n.count()),
            ("lse", self.lse.elems(), n.count()),
            ("loss", self.loss.elems(), 1),
            ("splits", self.splits as usize, n.splits()),
        ];
        check_elems("nt_xent_forward_finish", &lengths)?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (1, 1, 1), FINISH_THREADS) }
    }
}

kernel! {
    /// A slice's gradients of unit samples, in parts, for [`BackwardRowsFinish`] or [`BackwardColumnsFinish`].
    Backward ['a, P: Precision] ['a, P] P::entry("nt_xent_backward_f32", "nt_xent_backward_tf32", "nt_xent_backward_bf16"); {
        /// As in the forward.
        unit: Slice<'a, P::T>,
        /// From [`ForwardFinish`].
        lse: Slice<'a, f32>,
        /// `shape.backward_scratch()`
        partial: SliceMut<'a, f32>,
        /// One of [`NtXent::slices`].
        shape: NtXent,
    }
}

impl<P: Precision> Backward<'_, P> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, n) = ("nt_xent_backward", &self.shape);
        let lengths = [("unit", self.unit.elems(), n.unit_elems::<P>()), ("lse", self.lse.elems(), n.count())];
        check_elems(op, &lengths)?;
        check_scratch(op, self.partial.elems(), n)?;
        let features = (n.dim as usize).div_ceil(FEATURES);
        if features > 65_535 {
            return Err(Error::shape(op, format!("samples of {} elements", n.dim)));
        }
        let grid = (blocks(op, n.rows as usize, TILE)?, n.splits() as u32, features as u32);
        // SAFETY: lengths are checked; the grid covers the slice's rows, splits and elements.
        unsafe { self.enqueue(kernels, grid, THREADS) }
    }
}

/// The scratch of a whole backward serves each slice.
fn check_scratch(op: &'static str, elems: usize, n: &NtXent) -> Result<()> {
    if elems < n.partial_elems() {
        return Err(Error::shape(op, format!("partial has {elems} elements, fewer than {}", n.partial_elems())));
    }
    Ok(())
}

/// Declares the end of the backward, for samples in rows and in columns of z.
macro_rules! backward_finish {
    ($(#[$doc:meta])* $name:ident, $f32:literal, $bf16:literal, $samples:literal) => {
        kernel! {
            $(#[$doc])*
            $name ['a, P: Precision] ['a, P] <P::T as Element>::entry($f32, $bf16); {
                /// From [`Backward`].
                partial: Slice<'a, f32>,
                /// As in the forward.
                unit: Slice<'a, P::T>,
                /// From the normalisation.
                norm: Slice<'a, f32>,
                /// A scalar.
                dloss: Slice<'a, f32>,
                /// Like z; the slice's part of it is written.
                dz: SliceMut<'a, P::T>,
                /// The same slice.
                shape: NtXent,
                /// `shape.splits()`
                splits: u32,
            }
        }

        impl<P: Precision> $name<'_, P> {
            /// Launches it.
            pub fn launch(self, kernels: &Kernels) -> Result<()> {
                let (op, n) = ("nt_xent_backward_finish", &self.shape);
                let lengths = [
                    ("unit", self.unit.elems(), n.unit_elems::<P>()),
                    ("norm", self.norm.elems(), n.count()),
                    ("dloss", self.dloss.elems(), 1),
                    ("dz", self.dz.elems(), n.elems()),
                    ("splits", self.splits as usize, n.splits()),
                ];
                check_elems(op, &lengths)?;
                check_scratch(op, self.partial.elems(), n)?;
                // SAFETY: lengths are checked; the grid covers the slice's rows.
                unsafe { self.enqueue(kernels, (blocks(op, n.rows as usize, $samples)?, 1, 1), THREADS) }
            }
        }
    };
}

backward_finish! {
    /// A slice's gradient through the normalisation, to rows of dz.
    BackwardRowsFinish, "nt_xent_backward_rows_finish_f32", "nt_xent_backward_rows_finish_bf16", 8
}
backward_finish! {
    /// A slice's gradient through the normalisation, to columns of dz's halves.
    BackwardColumnsFinish, "nt_xent_backward_columns_finish_f32", "nt_xent_backward_columns_finish_bf16", 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_the_samples_in_little_scratch() {
        for (count, dim) in [(2, 1), (66, 3), (256, 128), (8192, 128), (8192, 2048), (131_072, 128), (131_072, 1 << 20)]
        {
            let n = NtXent::new::<F32>(Shape::from([count, dim]), Samples::Rows, 0.5).unwrap();
            let mut next = 0;
            for slice in n.slices() {
                assert_eq!(slice.first, next);
                assert!(slice.partial_elems() <= n.backward_scratch(), "{slice:?}");
                next += slice.rows;
            }
            assert_eq!(next as usize, count);
            assert!(n.splits() * n.tiles_per_split as usize * TILE >= count && n.splits() <= 512);
            assert!(n.backward_scratch() <= SCRATCH.max(n.splits() * TILE * dim));
        }
        assert!(NtXent::new::<F32>(Shape::from([3, 4]), Samples::Rows, 0.5).is_err());
        assert!(NtXent::new::<Bf16>(Shape::from([4, 4]), Samples::Columns, 0.0).is_err());
    }

    #[test]
    fn many_samples_need_under_256_mib() {
        for samples in [Samples::Rows, Samples::Columns] {
            let z = match samples {
                Samples::Rows => Shape::from([131_072, 128]),
                Samples::Columns => Shape::from([256, 65_536]),
            };
            let n = NtXent::new::<F32>(z, samples, 0.5).unwrap();
            let elems =
                2 * n.elems() + n.unit_elems::<F32>() + 3 * n.count() + 2 * n.forward_scratch() + n.backward_scratch();
            assert!(elems * size_of::<f32>() < 256 << 20, "{elems} elements");
        }
    }
}
