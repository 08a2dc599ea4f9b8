//! kernels/batch_norm.cu: training forward and backward with residual and ReLU, and inference.

use cudarc::driver::CudaSlice;
use disentangle::backend::Activation;
use disentangle::backend::cuda::batch_norm::{
    BackwardData, BackwardFinish, BackwardSums, COEFFICIENTS, InverseStd, Normalise, STATISTICS, SUMS, Statistics,
    StatisticsFinish,
};
use disentangle::backend::cuda::columns::Columns;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use half::bf16;

use super::device::Number;
use super::{Case, Device, Launch, Plan, Result, Scale, type_name};

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// What follows a batch norm.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Relu,
    ResidualRelu,
}

impl Then {
    fn name(self) -> &'static str {
        match self {
            Then::Relu => "relu",
            Then::ResidualRelu => "residual, relu",
        }
    }
}

/// Sizes of a case.
#[derive(Clone, Copy)]
struct Sizes {
    views: usize,
    rows: usize,
    channels: usize,
    then: Then,
}

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    let mut plans = Vec::new();
    match scale {
        Scale::Paper => {
            for images in [128, 256] {
                let stages = [(112, 64, Then::Relu), (56, 64, Then::ResidualRelu), (28, 128, Then::ResidualRelu)];
                let last = [(14, 256, Then::ResidualRelu), (7, 512, Then::ResidualRelu)];
                for (px, channels, then) in stages.into_iter().chain(last) {
                    plans.extend(training::<bf16>(Sizes { views: 2, rows: images * px * px, channels, then }));
                }
                // Heads.
                plans.extend(training::<bf16>(Sizes { views: 2, rows: images, channels: 512, then: Then::Relu }));
            }
            let block = Sizes { views: 2, rows: 128 * 56 * 56, channels: 64, then: Then::ResidualRelu };
            plans.extend(training::<f32>(block));
            plans.push(inference::<bf16>(Sizes { views: 1, rows: 256 * 56 * 56, ..block }));
        }
        Scale::Tiny => {
            for (rows, channels, then) in [(300, 64, Then::ResidualRelu), (150, 33, Then::Relu)] {
                let sizes = Sizes { views: 2, rows, channels, then };
                plans.extend(training::<bf16>(sizes));
                plans.extend(training::<f32>(sizes));
                plans.push(inference::<bf16>(Sizes { views: 1, ..sizes }));
            }
        }
    }
    plans
}

fn shape<T>(s: Sizes) -> String {
    format!("{} x [{}, {}] {}, {}", s.views, s.rows, s.channels, type_name::<T>(), s.then.name())
}

fn training<T: Number>(sizes: Sizes) -> [Plan; 2] {
    [
        Plan::new("batch_norm_forward", shape::<T>(sizes), move |device| Forward::<T>::new(device, sizes)),
        Plan::new("batch_norm_backward", shape::<T>(sizes), move |device| Backward::<T>::new(device, sizes)),
    ]
}

fn inference<T: Number>(sizes: Sizes) -> Plan {
    Plan::new("batch_norm_inference", shape::<T>(sizes), move |device| Inference::<T>::new(device, sizes))
}

/// What goes into and comes out of the normalisation.
struct Passed<T> {
    x: CudaSlice<T>,
    residual: Option<CudaSlice<T>>,
    mean: CudaSlice<f32>,
    inv_std: CudaSlice<f32>,
    weight: CudaSlice<f32>,
    bias: CudaSlice<f32>,
    y: CudaSlice<T>,
    shape: Columns,
}

impl<T: Number> Passed<T> {
    fn new(device: &Device, s: Sizes) -> Result<Self> {
        let shape = Columns::new(s.rows, s.channels, s.views)?;
        let residual = (s.then == Then::ResidualRelu).then(|| device.normals(shape.elems())).transpose()?;
        let per_view = s.views * s.channels;
        Ok(Passed {
            x: device.normals(shape.elems())?,
            residual,
            mean: device.repeated(&[0.01], per_view)?,
            inv_std: device.repeated(&[0.98], per_view)?,
            weight: device.repeated(&[1.1], s.channels)?,
            bias: device.repeated(&[0.1], s.channels)?,
            y: device.unwritten(shape.elems())?,
            shape,
        })
    }

    fn normalise(&mut self, device: &Device) -> Result<()> {
        let stream = &device.stream;
        let normalise = Normalise {
            x: Slice::of(&self.x, stream),
            residual: self.residual.as_ref().map(|residual| Slice::of(residual, stream)),
            mean: Slice::of(&self.mean, stream),
            inv_std: Slice::of(&self.inv_std, stream),
            weight: Slice::of(&self.weight, stream),
            bias: Slice::of(&self.bias, stream),
            y: SliceMut::of(&mut self.y, stream),
            shape: self.shape,
            activation: Activation::Relu.into(),
        };
        Ok(normalise.launch(&device.kernels)?)
    }

    fn normalise_cost(&self) -> Launch {
        let elems = self.shape.elems();
        let passes = 2 + usize::from(self.residual.is_some());
        Launch::plain(Normalise::<T>::signature().0, passes * elems * size_of::<T>(), 5 * elems)
    }
}

struct Forward<T> {
    passed: Passed<T>,
    partial: CudaSlice<f32>,
    running_mean: CudaSlice<f32>,
    running_var: CudaSlice<f32>,
    launches: [Launch; 3],
}

impl<T: Number> Forward<T> {
    fn new(device: &Device, s: Sizes) -> Result<Self> {
        let passed = Passed::<T>::new(device, s)?;
        let (elems, partial) = (passed.shape.elems(), passed.shape.partial_elems(STATISTICS));
        let launches = [
            Launch::plain(Statistics::<T>::signature().0, elems * size_of::<T>(), 5 * elems),
            Launch::plain(StatisticsFinish::signature().0, partial * size_of::<f32>(), 5 * partial),
            passed.normalise_cost(),
        ];
        Ok(Forward {
            passed,
            partial: device.unwritten(partial)?,
            running_mean: device.repeated(&[0.0], s.channels)?,
            running_var: device.repeated(&[1.0], s.channels)?,
            launches,
        })
    }
}

impl<T: Number> Case for Forward<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, shape) = (&device.kernels, &device.stream, self.passed.shape);
        match index {
            0 => {
                let (x, partial) = (Slice::of(&self.passed.x, stream), SliceMut::of(&mut self.partial, stream));
                Ok(Statistics { x, partial, shape }.launch(kernels)?)
            }
            1 => {
                let finish = StatisticsFinish {
                    partial: Slice::of(&self.partial, stream),
                    mean: SliceMut::of(&mut self.passed.mean, stream),
                    inv_std: SliceMut::of(&mut self.passed.inv_std, stream),
                    running_mean: Some(SliceMut::of(&mut self.running_mean, stream)),
                    running_var: Some(SliceMut::of(&mut self.running_var, stream)),
                    shape,
                    eps: EPS,
                    momentum: MOMENTUM,
                };
                Ok(finish.launch(kernels)?)
            }
            _ => self.passed.normalise(device),
        }
    }
}

struct Inference<T> {
    passed: Passed<T>,
    var: CudaSlice<f32>,
    launches: [Launch; 2],
}

impl<T: Number> Inference<T> {
    fn new(device: &Device, s: Sizes) -> Result<Self> {
        let passed = Passed::<T>::new(device, s)?;
        let inverse = Launch::plain(InverseStd::signature().0, 2 * s.channels * size_of::<f32>(), 3 * s.channels);
        let launches = [inverse, passed.normalise_cost()];
        Ok(Inference { passed, var: device.repeated(&[1.0], s.channels)?, launches })
    }
}

impl<T: Number> Case for Inference<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        if index == 1 {
            return self.passed.normalise(device);
        }
        let inverse = InverseStd {
            var: Slice::of(&self.var, &device.stream),
            inv_std: SliceMut::of(&mut self.passed.inv_std, &device.stream),
            columns: self.passed.shape.columns() as u32,
            eps: EPS,
        };
        Ok(inverse.launch(&device.kernels)?)
    }
}

struct Backward<T> {
    x: CudaSlice<T>,
    y: CudaSlice<T>,
    dy: CudaSlice<T>,
    mean: CudaSlice<f32>,
    inv_std: CudaSlice<f32>,
    weight: CudaSlice<f32>,
    bias: CudaSlice<f32>,
    partial: CudaSlice<f32>,
    dweight: CudaSlice<f32>,
    dbias: CudaSlice<f32>,
    coefficients: CudaSlice<f32>,
    dx: CudaSlice<T>,
    dresidual: Option<CudaSlice<T>>,
    shape: Columns,
    launches: [Launch; 3],
}

impl<T: Number> Backward<T> {
    fn new(device: &Device, s: Sizes) -> Result<Self> {
        let shape = Columns::new(s.rows, s.channels, s.views)?;
        let (elems, partial, per_view) = (shape.elems(), shape.partial_elems(SUMS), s.views * s.channels);
        let residual = s.then == Then::ResidualRelu;
        // Behind a residual the sums read y as well and write dresidual.
        let passes = if residual { 4 } else { 2 };
        let launches = [
            Launch::plain(BackwardSums::<T>::signature().0, passes * elems * size_of::<T>(), 4 * elems),
            Launch::plain(BackwardFinish::signature().0, partial * size_of::<f32>(), partial),
            Launch::plain(BackwardData::<T>::signature().0, 3 * elems * size_of::<T>(), 6 * elems),
        ];
        Ok(Backward {
            x: device.normals(elems)?,
            y: device.normals(elems)?,
            dy: device.normals(elems)?,
            mean: device.repeated(&[0.01], per_view)?,
            inv_std: device.repeated(&[0.98], per_view)?,
            weight: device.repeated(&[1.1], s.channels)?,
            bias: device.repeated(&[0.02], s.channels)?,
            partial: device.unwritten(partial)?,
            dweight: device.unwritten(s.channels)?,
            dbias: device.unwritten(s.channels)?,
            coefficients: device.unwritten(COEFFICIENTS * per_view)?,
            dx: device.unwritten(elems)?,
            dresidual: residual.then(|| device.unwritten(elems)).transpose()?,
            shape,
            launches,
        })
    }
}

impl<T: Number> Case for Backward<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, shape) = (&device.kernels, &device.stream, self.shape);
        let (x, y, dy) = (Slice::of(&self.x, stream), Slice::of(&self.y, stream), Slice::of(&self.dy, stream));
        let mean = Slice::of(&self.mean, stream);
        let (inv_std, weight) = (Slice::of(&self.inv_std, stream), Slice::of(&self.weight, stream));
        let (bias, activation) = (Slice::of(&self.bias, stream), Activation::Relu.into());
        // Only where a residual was added is the output read.
        let y = self.dresidual.as_ref().map(|_| y);
        match index {
            0 => {
                let partial = SliceMut::of(&mut self.partial, stream);
                let dresidual = self.dresidual.as_mut().map(|memory| SliceMut::of(memory, stream));
                let sums =
                    BackwardSums { x, y, dy, mean, inv_std, weight, bias, partial, dresidual, shape, activation };
                sums.launch(kernels)?;
            }
            1 => {
                let finish = BackwardFinish {
                    partial: Slice::of(&self.partial, stream),
                    inv_std: Slice::of(&self.inv_std, stream),
                    weight: Slice::of(&self.weight, stream),
                    dweight: SliceMut::of(&mut self.dweight, stream),
                    dbias: SliceMut::of(&mut self.dbias, stream),
                    coefficients: SliceMut::of(&mut self.coefficients, stream),
                    shape,
                };
                finish.launch(kernels)?;
            }
            _ => {
                // Behind a residual the sums have left the gradient that is to be passed on.
                let (dy, activation) = match &self.dresidual {
                    Some(dresidual) => (Slice::of(dresidual, stream), Activation::Identity.into()),
                    None => (dy, activation),
                };
                let data = BackwardData {
                    x,
                    dy,
                    mean,
                    inv_std,
                    weight,
                    bias,
                    coefficients: Slice::of(&self.coefficients, stream),
                    dx: SliceMut::of(&mut self.dx, stream),
                    shape,
                    activation,
                };
                data.launch(kernels)?;
            }
        }
        Ok(())
    }
}
