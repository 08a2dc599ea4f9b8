//! k-means by cuBLASLt, in f32 without tensor cores, and kernels/kmeans.cu; decisions about runs are the host's.
//!
//! Points stay on the device. An iteration sends the centres (12 dim bytes each) and brings the sums of clusters (8 dim bytes each)
//! and the numbers of points that moved.

use cudarc::driver::result;

use super::transfer::{copy_to_device, copy_to_host};
use crate::backend::cuda::cublaslt::{Bias, Matrices, Multiplication, Operand, Product};
use crate::backend::cuda::device::{Cuda, failed};
use crate::backend::cuda::kernel::Dtype;
use crate::backend::cuda::kmeans::{Assign, Distances, Gather, Move, Prepare, Sizes};
use crate::backend::cuda::memory::Scratch;
use crate::eval::kmeans::{NONE, Partition, Points, Target};
use crate::{Error, Result};

/// Products that are there at once, at most (64 MiB), as long as these are the products of [`ROWS`] points.
const PRODUCTS: usize = 1 << 24;
/// Points are taken in multiples of this: each part begins at a multiple of 256 bytes, as the library likes it.
const ROWS: usize = 64;

/// Points, labels and sums in device memory.
pub struct DevicePartition<'a> {
    cuda: Cuda,
    points: &'a Points<'a>,
    clusters: usize,
    runs: usize,
    ranges: usize,
    range_rows: usize,
    x: Scratch<f32>,
    prepared: Scratch<f32>,
    lengths: Scratch<f64>,
    labels: Scratch<u32>,
    before: Scratch<u32>,
    sums: Scratch<f64>,
    counts: Scratch<u32>,
    /// Points in each cluster, on the host: runs x clusters.
    counted: Vec<u64>,
}

/// Memory with every byte the same.
fn filled<T>(cuda: &Cuda, elems: usize, byte: u8) -> Result<Scratch<T>> {
    let memory = cuda.scratch::<T>(elems)?;
    let (address, stream) = (memory.address().0, cuda.device.compute.cu_stream());
    // SAFETY: memory of as many bytes.
    unsafe { result::memset_d8_async(address, byte, elems * size_of::<T>(), stream) }
        .map_err(failed("filling memory"))?;
    Ok(memory)
}

/// Memory with these values.
fn sent<T>(cuda: &Cuda, values: &[T]) -> Result<Scratch<T>> {
    let memory = cuda.scratch(values.len())?;
    copy_to_device(cuda, values, memory.address())?;
    Ok(memory)
}

impl<'a> DevicePartition<'a> {
    /// No point has a cluster yet.
    pub fn new(cuda: &Cuda, points: &'a Points<'a>, clusters: usize, runs: usize) -> Result<Self> {
        let (count, dim) = (points.rows.count, points.rows.dim);
        let (ranges, blocks) = points.ranges(clusters);
        Sizes::new(count, dim, clusters, [runs, runs])?;
        let x = sent(cuda, points.rows.values)?;
        let shift = sent(cuda, &points.shift)?;
        let mut prepared = cuda.scratch(count * dim)?;
        let prepare = Prepare {
            x: x.slice(),
            shift: shift.slice(),
            y: prepared.slice_mut(),
            count: (count * dim) as u64,
            dim: dim as u32,
            scale: points.scale.into(),
        };
        prepare.launch(cuda.kernels())?;
        Ok(DevicePartition {
            cuda: cuda.clone(),
            points,
            clusters,
            runs,
            ranges,
            range_rows: blocks * points.block,
            x,
            prepared,
            lengths: sent(cuda, &points.lengths)?,
            labels: filled(cuda, count * runs, 0xff)?,
            before: filled(cuda, count * runs, 0xff)?,
            sums: filled(cuda, ranges * runs * clusters * dim, 0)?,
            counts: filled(cuda, ranges * runs * clusters, 0)?,
            counted: vec![0; runs * clusters],
        })
    }

    fn sizes(&self, targets: usize) -> Result<Sizes> {
        Sizes::new(self.points.rows.count, self.points.rows.dim, self.clusters, [targets, self.runs])
    }

    /// Points in parts of so many, where each takes `width` numbers.
    fn parts(&self, width: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.points.rows.count;
        let rows = (PRODUCTS / width / ROWS * ROWS).max(ROWS);
        (0..count).step_by(rows).map(move |first| (first, rows.min(count - first)))
    }

    /// Products of `rows` prepared points from `first` on with the columns.
    fn dots(&self, [first, rows, count]: [usize; 3], columns: &Scratch<f32>, dots: &Scratch<f32>) -> Result<()> {
        let dim = self.points.rows.dim;
        let product = Product {
            m: rows,
            n: count,
            k: dim,
            a: Operand::Plain,
            b: Operand::Transposed,
            input: Dtype::F32,
            output: Dtype::F32,
            // The bound of the products' error is that of f32, whatever the precision of the network.
            compute: Multiplication::Exact,
            bias: Bias::Absent,
        };
        let a = self.prepared.address().offset::<f32>(first * dim);
        self.cuda.product(&product, Matrices { a, b: columns.address(), d: dots.address(), bias: None })
    }

    /// New labels for all points.
    fn label(&mut self, targets: &[Target], run: &Scratch<u32>, sizes: Sizes) -> Result<()> {
        let columns = self.points.columns(targets.iter().flat_map(|target| target.centers.iter().copied()));
        let centers: Vec<f64> = targets.iter().flat_map(|target| target.centers.iter().copied()).collect();
        let (half, longest) = (columns.half(), columns.longest(self.clusters));
        let (half, longest) = (sent(&self.cuda, &half)?, sent(&self.cuda, &longest)?);
        let (values, centers) = (sent(&self.cuda, &columns.values)?, sent(&self.cuda, &centers)?);
        let width = columns.count;
        let rows = self.parts(width).map(|(_, rows)| rows).max().unwrap_or(0);
        let dots = self.cuda.scratch::<f32>(rows * width)?;
        for (first, rows) in self.parts(width) {
            self.dots([first, rows, width], &values, &dots)?;
            let assign = Assign {
                x: self.x.slice(),
                lengths: self.lengths.slice(),
                dots: dots.slice(),
                half: half.slice(),
                longest: longest.slice(),
                centers: centers.slice(),
                run: run.slice(),
                labels: self.labels.slice_mut(),
                before: self.before.slice_mut(),
                sizes: sizes.part(first, rows),
            };
            assign.launch(self.cuda.kernels())?;
        }
        Ok(())
    }

    /// Distances for each part of the points in turn: [rows, targets].
    fn for_distances(&self, runs: &[u32], centers: &[f64], mut each: impl FnMut(Vec<f64>)) -> Result<()> {
        let sizes = self.sizes(runs.len())?;
        let (run, centers) = (sent(&self.cuda, runs)?, sent(&self.cuda, centers)?);
        // Whole blocks of points, whose distances are summed up by themselves.
        let rows = (PRODUCTS / 2 / runs.len() / self.points.block).max(1) * self.points.block;
        let count = self.points.rows.count;
        let mut distances = self.cuda.scratch::<f64>(rows.min(count) * runs.len())?;
        for first in (0..count).step_by(rows) {
            let rows = rows.min(count - first);
            let launch = Distances {
                x: self.x.slice(),
                labels: self.labels.slice(),
                centers: centers.slice(),
                run: run.slice(),
                distances: distances.slice_mut(),
                sizes: sizes.part(first, rows),
            };
            launch.launch(self.cuda.kernels())?;
            each(copy_to_host(&self.cuda, distances.address(), rows * runs.len())?);
        }
        Ok(())
    }
}

impl Partition for DevicePartition<'_> {
    fn assign(&mut self, targets: &[Target]) -> Result<Vec<usize>> {
        let sizes = self.sizes(targets.len())?;
        let numbers: Vec<u32> = targets.iter().map(|target| target.run as u32).collect();
        let run = sent(&self.cuda, &numbers)?;
        self.label(targets, &run, sizes)?;
        let mut moved = self.cuda.scratch::<u32>(self.ranges * targets.len())?;
        let launch = Move {
            x: self.x.slice(),
            labels: self.labels.slice(),
            before: self.before.slice(),
            run: run.slice(),
            sums: self.sums.slice_mut(),
            counts: self.counts.slice_mut(),
            moved: moved.slice_mut(),
            range_rows: self.range_rows as u64,
            sizes,
        };
        launch.launch(self.cuda.kernels())?;
        let moved: Vec<u32> = copy_to_host(&self.cuda, moved.address(), self.ranges * targets.len())?;
        let counts: Vec<u32> = copy_to_host(&self.cuda, self.counts.address(), self.ranges * self.counted.len())?;
        let ranges = |i: usize, width: usize, numbers: &[u32]| -> u64 {
            numbers.iter().skip(i).step_by(width).map(|&number| u64::from(number)).sum()
        };
        let width = self.counted.len();
        self.counted.iter_mut().enumerate().for_each(|(i, count)| *count = ranges(i, width, &counts));
        Ok((0..targets.len()).map(|t| ranges(t, targets.len(), &moved) as usize).collect())
    }

    fn counts(&self, run: usize) -> &[u64] {
        &self.counted[run * self.clusters..][..self.clusters]
    }

    fn sums(&self, runs: &[usize]) -> Result<Vec<Vec<f64>>> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let (sizes, size) = (self.sizes(runs.len())?, self.clusters * self.points.rows.dim);
        let run = sent(&self.cuda, &runs.iter().map(|&run| run as u32).collect::<Vec<_>>())?;
        let mut total = self.cuda.scratch::<f64>(runs.len() * size)?;
        let gather = Gather {
            sums: self.sums.slice(),
            run: run.slice(),
            total: total.slice_mut(),
            ranges: self.ranges as u32,
            sizes,
        };
        gather.launch(self.cuda.kernels())?;
        let total: Vec<f64> = copy_to_host(&self.cuda, total.address(), runs.len() * size)?;
        Ok(total.chunks(size).map(<[f64]>::to_vec).collect())
    }

    fn labels(&self, run: usize) -> Result<Vec<u32>> {
        let labels: Vec<u32> = copy_to_host(&self.cuda, self.labels.address(), self.points.rows.count * self.runs)?;
        let labels: Vec<u32> = labels.into_iter().skip(run).step_by(self.runs).collect();
        match labels.contains(&NONE) {
            true => Err(Error::Device(format!("k-means: a point of run {run} has no cluster"))),
            false => Ok(labels),
        }
    }

    fn distances(&self, run: usize, centers: &[f64]) -> Result<Vec<f64>> {
        let mut distances = Vec::with_capacity(self.points.rows.count);
        self.for_distances(&[run as u32], centers, |part| distances.extend(part))?;
        Ok(distances)
    }

    fn inertias(&self, centers: &[&[f64]]) -> Result<Vec<f64>> {
        let (runs, block) = (self.runs, self.points.block);
        let mut partial: Vec<Vec<f64>> = Vec::new();
        let numbers: Vec<u32> = (0..runs as u32).collect();
        self.for_distances(&numbers, &centers.concat(), |part| {
            for rows in part.chunks(block * runs) {
                let mut sums = vec![0.0; runs];
                rows.chunks(runs).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, d)| *sum += d));
                partial.push(sums);
            }
        })?;
        Ok((0..runs).map(|run| partial.iter().map(|sums| sums[run]).sum()).collect())
    }
}
