//! Launches of kernels/kmeans.cu.

use cudarc::driver::DeviceRepr;

use super::kernel::{Kernels, Slice, SliceMut, blocks, check_elems, kernel, product, size, value_argument};
use crate::{Error, Result};

/// Threads of a block, but for [`Move`].
const THREADS: u32 = 256;
/// Features of a block of [`Move`].
const FEATURES: u32 = 128;
/// Elements of a block of [`Prepare`].
const ELEMENTS: usize = 1024;
/// A grid's second and third dimension end here.
const MOST: usize = 65_535;

/// Sizes; as in kernels/kmeans.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    first: u64,
    rows: u64,
    dim: u32,
    clusters: u32,
    runs: u32,
    targets: u32,
}

const _: () = {
    assert!(size_of::<Sizes>() == 32 && align_of::<Sizes>() == 8);
    assert!(std::mem::offset_of!(Sizes, dim) == 16 && std::mem::offset_of!(Sizes, runs) == 24);
};

// SAFETY: plain integers in the kernel's layout, asserted above and in kmeans.cu.
unsafe impl DeviceRepr for Sizes {}
value_argument!(Sizes);

impl Sizes {
    /// Of `rows` points of `dim` features, `clusters` clusters, and `targets` of `runs` runs. Errors where one is 0 or too large.
    pub fn new(rows: usize, dim: usize, clusters: usize, [targets, runs]: [usize; 2]) -> Result<Self> {
        let op = "kmeans";
        let none = [rows, dim, clusters, targets, runs].contains(&0);
        if none || targets > runs || targets > MOST {
            return Err(Error::shape(
                op,
                format!("{rows} points of {dim}, {clusters} clusters, {targets} of {runs} runs"),
            ));
        }
        for sizes in [[rows, dim, 1], [runs, clusters, dim], [rows, targets, clusters], [rows, runs, 1]] {
            product(op, &sizes)?;
        }
        Ok(Sizes {
            first: 0,
            rows: rows as u64,
            dim: size(op, dim)?,
            clusters: size(op, clusters)?,
            runs: size(op, runs)?,
            targets: size(op, targets)?,
        })
    }

    /// Only `rows` points from `first` on.
    pub fn part(self, first: usize, rows: usize) -> Self {
        Sizes { first: first as u64, rows: rows as u64, ..self }
    }

    fn points(&self) -> usize {
        (self.first + self.rows) as usize
    }

    /// Points at hand times targets.
    fn pairs(&self) -> usize {
        self.rows as usize * self.targets as usize
    }

    /// Centres at hand.
    pub fn centers(&self) -> usize {
        self.targets as usize * self.clusters as usize
    }

    /// Clusters of all runs.
    pub fn all(&self) -> usize {
        self.runs as usize * self.clusters as usize
    }

    fn dim(&self) -> usize {
        self.dim as usize
    }
}

/// Fails unless memory reaches at least as far as it must.
fn check_reach(op: &'static str, lengths: &[(&str, usize, usize)]) -> Result<()> {
    match lengths.iter().find(|(_, found, wanted)| found < wanted) {
        None => Ok(()),
        Some((name, found, wanted)) => Err(Error::shape(op, format!("{name} has {found} elements, not {wanted}"))),
    }
}

kernel! {
    /// `y[i, f] = x[i, f] scale - shift[f]`.
    Prepare ['a] ['a] "kmeans_prepare"; {
        /// `[n, dim]`
        x: Slice<'a, f32>,
        /// `[dim]`
        shift: Slice<'a, f32>,
        /// Like x.
        y: SliceMut<'a, f32>,
        /// n dim.
        count: u64,
        /// Features.
        dim: u32,
        /// A power of two that f32 holds.
        scale: f64,
    }
}

impl Prepare<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, count) = ("kmeans_prepare", self.count as usize);
        if self.dim == 0 || !count.is_multiple_of(self.dim as usize) {
            return Err(Error::shape(op, format!("{count} numbers are not rows of {}", self.dim)));
        }
        let shift = ("shift", self.shift.elems(), self.dim as usize);
        check_elems(op, &[("x", self.x.elems(), count), shift, ("y", self.y.elems(), count)])?;
        // SAFETY: lengths are checked; the grid covers the elements.
        unsafe { self.enqueue(kernels, (blocks(op, count, ELEMENTS)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// The nearest centre of each point at hand, for each target.
    Assign ['a] ['a] "kmeans_assign"; {
        /// `[n, dim]`
        x: Slice<'a, f32>,
        /// `[n]`: of the prepared points.
        lengths: Slice<'a, f64>,
        /// `[rows, targets, clusters]`: products of the prepared points at hand with the columns.
        dots: Slice<'a, f32>,
        /// `[targets, clusters]`
        half: Slice<'a, f64>,
        /// `[targets]`
        longest: Slice<'a, f64>,
        /// `[targets, clusters, dim]`
        centers: Slice<'a, f64>,
        /// `[targets]`: which run each is, below `runs`.
        run: Slice<'a, u32>,
        /// `[n, runs]`, updated.
        labels: SliceMut<'a, u32>,
        /// `[n, runs]`: what the labels were.
        before: SliceMut<'a, u32>,
        /// Sizes.
        sizes: Sizes,
    }
}

impl Assign<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, s) = ("kmeans_assign", &self.sizes);
        let labels = s.points() * s.runs as usize;
        check_reach(
            op,
            &[
                ("x", self.x.elems(), s.points() * s.dim()),
                ("lengths", self.lengths.elems(), s.points()),
                ("dots", self.dots.elems(), s.pairs() * s.clusters as usize),
                ("half", self.half.elems(), s.centers()),
                ("longest", self.longest.elems(), s.targets as usize),
                ("centers", self.centers.elems(), s.centers() * s.dim()),
                ("run", self.run.elems(), s.targets as usize),
                ("labels", self.labels.elems(), labels),
                ("before", self.before.elems(), labels),
            ],
        )?;
        let grid = (blocks(op, s.pairs(), THREADS as usize)?, 1, 1);
        // SAFETY: lengths are checked; the grid covers points and targets.
        unsafe { self.enqueue(kernels, grid, THREADS) }
    }
}

kernel! {
    /// Moves points whose label changed between the sums and counts of their clusters.
    Move ['a] ['a] "kmeans_move"; {
        /// `[n, dim]`
        x: Slice<'a, f32>,
        /// `[n, runs]`, below `clusters`.
        labels: Slice<'a, u32>,
        /// `[n, runs]`, below `clusters`, or `NONE`.
        before: Slice<'a, u32>,
        /// `[targets]`
        run: Slice<'a, u32>,
        /// `[ranges, runs, clusters, dim]`
        sums: SliceMut<'a, f64>,
        /// `[ranges, runs, clusters]`
        counts: SliceMut<'a, u32>,
        /// `[ranges, targets]`
        moved: SliceMut<'a, u32>,
        /// Points of a range.
        range_rows: u64,
        /// Sizes, of all points.
        sizes: Sizes,
    }
}

impl Move<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, s) = ("kmeans_move", &self.sizes);
        let ranges = s.points().div_ceil((self.range_rows as usize).max(1));
        if self.range_rows == 0 || ranges > MOST || s.first != 0 {
            return Err(Error::shape(op, format!("{s:?} in ranges of {}", self.range_rows)));
        }
        let labels = s.points() * s.runs as usize;
        check_elems(
            op,
            &[
                ("x", self.x.elems(), s.points() * s.dim()),
                ("labels", self.labels.elems(), labels),
                ("before", self.before.elems(), labels),
                ("sums", self.sums.elems(), ranges * s.all() * s.dim()),
                ("counts", self.counts.elems(), ranges * s.all()),
            ],
        )?;
        let run = ("run", self.run.elems(), s.targets as usize);
        check_reach(op, &[run, ("moved", self.moved.elems(), ranges * s.targets as usize)])?;
        let grid = (blocks(op, s.dim(), FEATURES as usize)?, ranges as u32, s.targets);
        // SAFETY: lengths are checked; the grid covers features, ranges and targets.
        unsafe { self.enqueue(kernels, grid, FEATURES) }
    }
}

kernel! {
    /// The targets' sums over all ranges.
    Gather ['a] ['a] "kmeans_gather"; {
        /// `[ranges, runs, clusters, dim]`
        sums: Slice<'a, f64>,
        /// `[targets]`
        run: Slice<'a, u32>,
        /// `[targets, clusters, dim]`
        total: SliceMut<'a, f64>,
        /// Ranges of points.
        ranges: u32,
        /// Sizes.
        sizes: Sizes,
    }
}

impl Gather<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, s) = ("kmeans_gather", &self.sizes);
        check_elems(op, &[("sums", self.sums.elems(), self.ranges as usize * s.all() * s.dim())])?;
        let run = ("run", self.run.elems(), s.targets as usize);
        check_reach(op, &[run, ("total", self.total.elems(), s.centers() * s.dim())])?;
        let grid = (blocks(op, s.clusters as usize * s.dim(), THREADS as usize)?, s.targets, 1);
        // SAFETY: lengths are checked; the grid covers sums and targets.
        unsafe { self.enqueue(kernels, grid, THREADS) }
    }
}

kernel! {
    /// Squared distance of each point at hand to the centre of its cluster, for each target.
    Distances ['a] ['a] "kmeans_distances"; {
        /// `[n, dim]`
        x: Slice<'a, f32>,
        /// `[n, runs]`, below `clusters`.
        labels: Slice<'a, u32>,
        /// `[targets, clusters, dim]`
        centers: Slice<'a, f64>,
        /// `[targets]`
        run: Slice<'a, u32>,
        /// `[rows, targets]`
        distances: SliceMut<'a, f64>,
        /// Sizes.
        sizes: Sizes,
    }
}

impl Distances<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let (op, s) = ("kmeans_distances", &self.sizes);
        check_reach(
            op,
            &[
                ("x", self.x.elems(), s.points() * s.dim()),
                ("labels", self.labels.elems(), s.points() * s.runs as usize),
                ("centers", self.centers.elems(), s.centers() * s.dim()),
                ("run", self.run.elems(), s.targets as usize),
                ("distances", self.distances.elems(), s.pairs()),
            ],
        )?;
        let grid = (blocks(op, s.pairs(), THREADS as usize)?, 1, 1);
        // SAFETY: lengths are checked; the grid covers points and targets.
        unsafe { self.enqueue(kernels, grid, THREADS) }
    }
}
