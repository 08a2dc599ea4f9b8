//! kernels/kmeans.cu: an iteration of k-means on the features of CIFAR-10's images, apart from its matrix product.

use cudarc::driver::CudaSlice;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::cuda::kmeans::{Assign, Distances, Gather, Move, Prepare, Sizes};

use super::{Case, Device, Launch, Plan, Result, Scale};

/// Ranges of points with sums of their own.
const RANGES: usize = 16;

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    let (count, dim, clusters, runs) = match scale {
        Scale::Paper => (60_000, 512, 10, 10),
        Scale::Tiny => (203, 37, 5, 2),
    };
    let shape = format!("[{count}, {dim}], {runs} x {clusters} clusters");
    vec![Plan::new("kmeans", shape, move |device| Kmeans::new(device, [count, dim, clusters, runs]))]
}

/// All runs move at once, and every point to a first cluster: the first iteration, the dearest.
struct Kmeans {
    x: CudaSlice<f32>,
    y: CudaSlice<f32>,
    shift: CudaSlice<f32>,
    lengths: CudaSlice<f64>,
    dots: CudaSlice<f32>,
    half: CudaSlice<f64>,
    longest: CudaSlice<f64>,
    centers: CudaSlice<f64>,
    run: CudaSlice<u32>,
    labels: CudaSlice<u32>,
    none: CudaSlice<u32>,
    before: CudaSlice<u32>,
    sums: CudaSlice<f64>,
    counts: CudaSlice<u32>,
    moved: CudaSlice<u32>,
    total: CudaSlice<f64>,
    distances: CudaSlice<f64>,
    sizes: Sizes,
    range_rows: usize,
    launches: [Launch; 5],
}

impl Kmeans {
    fn new(device: &Device, [count, dim, clusters, runs]: [usize; 4]) -> Result<Self> {
        let (points, pairs, centers) = (count * dim, count * runs, runs * clusters * dim);
        let range_rows = count.div_ceil(RANGES);
        let ranges = count.div_ceil(range_rows);
        let zeros = |elems: usize| device.upload(&vec![0.0f64; elems]);
        Ok(Kmeans {
            x: device.normals(points)?,
            y: device.unwritten(points)?,
            shift: device.normals(dim)?,
            // Of no length: no product is in doubt.
            lengths: zeros(count)?,
            dots: device.normals(pairs * clusters)?,
            half: zeros(runs * clusters)?,
            longest: zeros(runs)?,
            centers: zeros(centers)?,
            run: device.upload(&(0..runs as u32).collect::<Vec<_>>())?,
            labels: device.upload(&vec![0u32; pairs])?,
            none: device.upload(&vec![u32::MAX; pairs])?,
            before: device.unwritten(pairs)?,
            sums: zeros(ranges * centers)?,
            counts: device.upload(&vec![0u32; ranges * runs * clusters])?,
            moved: device.unwritten(ranges * runs)?,
            total: device.unwritten(centers)?,
            distances: device.unwritten(pairs)?,
            sizes: Sizes::new(count, dim, clusters, [runs, runs])?,
            range_rows,
            launches: [
                Launch::plain(Prepare::signature().0, 8 * points, 2 * points),
                Launch::plain(Assign::signature().0, pairs * (4 * clusters + 12), 2 * pairs * clusters),
                Launch::plain(Move::signature().0, 4 * points + 8 * pairs + 16 * ranges * centers, pairs * dim),
                Launch::plain(Gather::signature().0, 8 * (ranges + 1) * centers, ranges * centers),
                Launch::plain(Distances::signature().0, 4 * points + 12 * pairs, 3 * pairs * dim),
            ],
        })
    }
}

impl Case for Kmeans {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, sizes) = (&device.kernels, &device.stream, self.sizes);
        let (x, run) = (Slice::of(&self.x, stream), Slice::of(&self.run, stream));
        match index {
            0 => {
                let (shift, y) = (Slice::of(&self.shift, stream), SliceMut::of(&mut self.y, stream));
                let (count, dim) = (self.x.len() as u64, self.shift.len() as u32);
                Prepare { x, shift, y, count, dim, scale: 0.5 }.launch(kernels)?;
            }
            1 => {
                let assign = Assign {
                    x,
                    lengths: Slice::of(&self.lengths, stream),
                    dots: Slice::of(&self.dots, stream),
                    half: Slice::of(&self.half, stream),
                    longest: Slice::of(&self.longest, stream),
                    centers: Slice::of(&self.centers, stream),
                    run,
                    labels: SliceMut::of(&mut self.labels, stream),
                    before: SliceMut::of(&mut self.before, stream),
                    sizes,
                };
                assign.launch(kernels)?;
            }
            2 => {
                let step = Move {
                    x,
                    labels: Slice::of(&self.labels, stream),
                    before: Slice::of(&self.none, stream),
                    run,
                    sums: SliceMut::of(&mut self.sums, stream),
                    counts: SliceMut::of(&mut self.counts, stream),
                    moved: SliceMut::of(&mut self.moved, stream),
                    range_rows: self.range_rows as u64,
                    sizes,
                };
                step.launch(kernels)?;
            }
            3 => {
                let (sums, total) = (Slice::of(&self.sums, stream), SliceMut::of(&mut self.total, stream));
                let ranges = (self.sums.len() / self.centers.len()) as u32;
                Gather { sums, run, total, ranges, sizes }.launch(kernels)?;
            }
            _ => {
                let (labels, centers) = (Slice::of(&self.labels, stream), Slice::of(&self.centers, stream));
                let distances = SliceMut::of(&mut self.distances, stream);
                Distances { x, labels, centers, run, distances, sizes }.launch(kernels)?;
            }
        }
        Ok(())
    }
}
