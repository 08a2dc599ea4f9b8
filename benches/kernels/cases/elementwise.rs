//! kernels/elementwise.cu: sums of gradients that meet, scaling, sums of scalars.

use cudarc::driver::CudaSlice;
use disentangle::backend::cuda::elementwise::{AddAssign, Scale as ScaleBy, WeightedSum};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use half::bf16;

use super::device::Number;
use super::{Case, Device, Launch, Plan, Result, Scale, type_name};

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    let counts = match scale {
        // The gradient of a block's output at 56 px, for 128 and 256 images a view.
        Scale::Paper => &[256 * 56 * 56 * 64, 512 * 56 * 56 * 64][..],
        Scale::Tiny => &[4099][..],
    };
    let mut plans: Vec<Plan> = counts.iter().map(|&count| numbers::<bf16>(count)).collect();
    plans.push(numbers::<f32>(counts[0]));
    plans.push(Plan::new("weighted_sum", "3 scalars".to_string(), Scalars::new));
    plans
}

fn numbers<T: Number>(count: usize) -> Plan {
    Plan::new("add_assign, scale", format!("[{count}] {}", type_name::<T>()), move |device| {
        Numbers::<T>::new(device, count)
    })
}

struct Numbers<T> {
    x: CudaSlice<T>,
    y: CudaSlice<T>,
    launches: [Launch; 2],
}

impl<T: Number> Numbers<T> {
    fn new(device: &Device, count: usize) -> Result<Self> {
        let bytes = count * size_of::<T>();
        Ok(Numbers {
            x: device.normals(count)?,
            y: device.normals(count)?,
            launches: [
                Launch::plain(AddAssign::<T>::signature().0, 3 * bytes, count),
                Launch::plain(ScaleBy::<T>::signature().0, 2 * bytes, count),
            ],
        })
    }
}

impl<T: Number> Case for Numbers<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, count) = (&device.kernels, &device.stream, self.x.len() as u64);
        if index == 0 {
            let (x, y) = (SliceMut::of(&mut self.x, stream), Slice::of(&self.y, stream));
            return Ok(AddAssign { x, y, count }.launch(kernels)?);
        }
        let (x, y) = (Slice::of(&self.x, stream), SliceMut::of(&mut self.y, stream));
        Ok(ScaleBy { x, y, count, factor: 0.5 }.launch(kernels)?)
    }
}

struct Scalars {
    terms: [CudaSlice<f32>; 3],
    total: CudaSlice<f32>,
    launch: Launch,
}

impl Scalars {
    fn new(device: &Device) -> Result<Self> {
        let term = |value| device.upload(&[value]);
        let launch = Launch::plain(WeightedSum::signature().0, 4 * size_of::<f32>(), 6);
        Ok(Scalars { terms: [term(1.0)?, term(2.0)?, term(3.0)?], total: device.unwritten(1)?, launch })
    }
}

impl Case for Scalars {
    fn launches(&self) -> &[Launch] {
        std::slice::from_ref(&self.launch)
    }

    fn launch(&mut self, device: &Device, _index: usize) -> Result<()> {
        let [a, b, c] = self.terms.each_ref().map(|term| Some(Slice::of(term, &device.stream)));
        let total = SliceMut::of(&mut self.total, &device.stream);
        let sum = WeightedSum { a, b, c, total, weight_a: 1.0, weight_b: 1.0, weight_c: -1.0 };
        Ok(sum.launch(&device.kernels)?)
    }
}
