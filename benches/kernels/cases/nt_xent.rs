//! kernels/nt_xent.cu: the loss and its gradient, in each precision, over rows and over columns.

use cudarc::driver::CudaSlice;
use disentangle::backend::Samples;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::cuda::nt_xent::{
    Backward, BackwardColumnsFinish, BackwardRowsFinish, Bf16, F32, Forward, ForwardFinish, NormaliseColumns,
    NormaliseRows, NtXent, Precision, Tf32,
};
use disentangle::tensor::Shape;

use super::device::Number;
use super::{Case, Device, Launch, Plan, Result, Scale, Unit};

const TEMPERATURE: f64 = 0.5;
/// Elements of a sample that a block of the backward sums up; each further ones cost the similarities again.
const FEATURES: usize = 128;

/// A precision with a name and a unit.
trait Named: Precision {
    const NAME: &'static str;
    const UNIT: Unit;
}

impl Named for F32 {
    const NAME: &'static str = "f32";
    const UNIT: Unit = Unit::Fma;
}

impl Named for Tf32 {
    const NAME: &'static str = "tf32";
    const UNIT: Unit = Unit::Tf32;
}

impl Named for Bf16 {
    const NAME: &'static str = "bf16";
    const UNIT: Unit = Unit::Bf16;
}

/// As (2R, d).
const PAPER: [(usize, usize); 4] = [(256, 128), (512, 256), (8192, 128), (32_768, 128)];

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    let mut plans = Vec::new();
    match scale {
        Scale::Paper => {
            for (count, dim) in PAPER {
                plans.extend([plan::<Bf16>(count, dim, Samples::Rows), plan::<Tf32>(count, dim, Samples::Rows)]);
                plans.push(plan::<F32>(count, dim, Samples::Rows));
            }
            // The feature loss: K heads a view over a batch of N.
            plans.extend([(256, 128), (512, 256)].map(|(count, dim)| plan::<Bf16>(count, dim, Samples::Columns)));
        }
        Scale::Tiny => {
            for samples in [Samples::Rows, Samples::Columns] {
                plans.extend([plan::<Bf16>(130, 40, samples), plan::<Tf32>(130, 40, samples)]);
                plans.push(plan::<F32>(130, 40, samples));
            }
        }
    }
    plans
}

fn plan<P: Named + 'static>(count: usize, dim: usize, samples: Samples) -> Plan
where
    P::T: Number,
{
    let (name, along) = (P::NAME, if samples == Samples::Rows { "rows" } else { "columns" });
    Plan::new("nt_xent", format!("[{count}, {dim}] {name}, {along}"), move |device| {
        Loss::<P>::new(device, count, dim, samples)
    })
}

struct Loss<P: Precision> {
    samples: Samples,
    shape: NtXent,
    z: CudaSlice<P::T>,
    dloss: CudaSlice<f32>,
    unit: CudaSlice<P::T>,
    norm: CudaSlice<f32>,
    largest: CudaSlice<f32>,
    sum: CudaSlice<f32>,
    positive: CudaSlice<f32>,
    lse: CudaSlice<f32>,
    loss: CudaSlice<f32>,
    partial: CudaSlice<f32>,
    dz: CudaSlice<P::T>,
    launches: Vec<Launch>,
}

impl<P: Named> Loss<P>
where
    P::T: Number,
{
    fn new(device: &Device, count: usize, dim: usize, samples: Samples) -> Result<Self> {
        let z = match samples {
            Samples::Rows => Shape::from([count, dim]),
            Samples::Columns => Shape::from([2 * dim, count / 2]),
        };
        let shape = NtXent::new::<P>(z, samples, TEMPERATURE)?;
        let scratch = shape.forward_scratch();
        Ok(Loss {
            samples,
            shape,
            z: device.normals(shape.elems())?,
            dloss: device.upload(&[1.0])?,
            unit: device.unwritten(shape.unit_elems::<P>())?,
            norm: device.unwritten(count)?,
            largest: device.unwritten(scratch)?,
            sum: device.unwritten(scratch)?,
            positive: device.unwritten(count)?,
            lse: device.unwritten(count)?,
            loss: device.unwritten(1)?,
            partial: device.unwritten(shape.backward_scratch())?,
            dz: device.unwritten(shape.elems())?,
            launches: launches::<P>(&shape, dim, samples),
        })
    }

    fn normalise(&mut self, device: &Device) -> Result<()> {
        let (kernels, stream, shape) = (&device.kernels, &device.stream, self.shape);
        let z = Slice::of(&self.z, stream);
        let (unit, norm) = (SliceMut::of(&mut self.unit, stream), SliceMut::of(&mut self.norm, stream));
        match self.samples {
            Samples::Rows => NormaliseRows::<P> { z, unit, norm, shape }.launch(kernels)?,
            Samples::Columns => NormaliseColumns::<P> { z, unit, norm, shape }.launch(kernels)?,
        }
        Ok(())
    }

    fn forward(&mut self, device: &Device) -> Result<()> {
        let stream = &device.stream;
        let forward = Forward::<P> {
            unit: Slice::of(&self.unit, stream),
            largest: SliceMut::of(&mut self.largest, stream),
            sum: SliceMut::of(&mut self.sum, stream),
            positive: SliceMut::of(&mut self.positive, stream),
            shape: self.shape,
        };
        Ok(forward.launch(&device.kernels)?)
    }

    fn forward_finish(&mut self, device: &Device) -> Result<()> {
        let stream = &device.stream;
        let finish = ForwardFinish {
            largest: Slice::of(&self.largest, stream),
            sum: Slice::of(&self.sum, stream),
            positive: Slice::of(&self.positive, stream),
            lse: SliceMut::of(&mut self.lse, stream),
            loss: SliceMut::of(&mut self.loss, stream),
            shape: self.shape,
            splits: self.shape.splits() as u32,
        };
        Ok(finish.launch(&device.kernels)?)
    }

    fn backward(&mut self, device: &Device, slice: NtXent) -> Result<()> {
        let (unit, lse) = (Slice::of(&self.unit, &device.stream), Slice::of(&self.lse, &device.stream));
        let partial = SliceMut::of(&mut self.partial, &device.stream);
        Ok(Backward::<P> { unit, lse, partial, shape: slice }.launch(&device.kernels)?)
    }

    fn backward_finish(&mut self, device: &Device, shape: NtXent) -> Result<()> {
        let (kernels, stream, splits) = (&device.kernels, &device.stream, shape.splits() as u32);
        let (partial, unit) = (Slice::of(&self.partial, stream), Slice::of(&self.unit, stream));
        let (norm, dloss) = (Slice::of(&self.norm, stream), Slice::of(&self.dloss, stream));
        let dz = SliceMut::of(&mut self.dz, stream);
        match self.samples {
            Samples::Rows => {
                BackwardRowsFinish::<P> { partial, unit, norm, dloss, dz, shape, splits }.launch(kernels)?
            }
            Samples::Columns => {
                BackwardColumnsFinish::<P> { partial, unit, norm, dloss, dz, shape, splits }.launch(kernels)?
            }
        }
        Ok(())
    }
}

/// Normalise, forward, its end; then the gradient and its end for each slice.
fn launches<P: Named>(n: &NtXent, dim: usize, samples: Samples) -> Vec<Launch>
where
    P::T: Number,
{
    let (element, word) = (size_of::<P::T>(), size_of::<f32>());
    let (input, unit) = (n.elems() * element, n.unit_elems::<P>() * element);
    let count = n.count();
    let (normalise, finish) = match samples {
        Samples::Rows => (NormaliseRows::<P>::signature().0, BackwardRowsFinish::<P>::signature().0),
        Samples::Columns => (NormaliseColumns::<P>::signature().0, BackwardColumnsFinish::<P>::signature().0),
    };
    let on_unit =
        |kernel, bytes: usize, flops: usize| Launch { kernel, bytes: bytes as u64, flops: flops as u64, unit: P::UNIT };
    let scratch = 2 * n.forward_scratch();
    let mut launches = vec![
        Launch::plain(normalise, input + unit, 3 * n.elems()),
        on_unit(Forward::<P>::signature().0, unit + scratch * word, 2 * count * count * dim),
        Launch::plain(ForwardFinish::signature().0, (scratch + 2 * count) * word, 2 * scratch),
    ];
    // Every slice but the last one has as many rows as the scratch holds.
    let most = n.backward_scratch() / (n.splits() * dim);
    for first in (0..count).step_by(most) {
        let rows = most.min(count - first);
        let (partial, products) = (n.splits() * rows * dim, 1 + dim.div_ceil(FEATURES));
        let backward = Backward::<P>::signature().0;
        launches.push(on_unit(backward, unit + partial * word, 2 * products * count * rows * dim));
        launches.push(Launch::plain(finish, partial * word + 2 * rows * dim * element, (n.splits() + 4) * rows * dim));
    }
    launches
}

impl<P: Named> Case for Loss<P>
where
    P::T: Number,
{
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        match index {
            0 => return self.normalise(device),
            1 => return self.forward(device),
            2 => return self.forward_finish(device),
            _ => {}
        }
        let slice = self.shape.slices().nth((index - 3) / 2).ok_or("no such slice")?;
        if index % 2 == 1 { self.backward(device, slice) } else { self.backward_finish(device, slice) }
    }
}
