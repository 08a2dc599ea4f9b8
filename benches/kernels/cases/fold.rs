//! kernels/fold.cu: images and filters as the first convolution takes them.

use cudarc::driver::{CudaSlice, DeviceRepr};
use disentangle::backend::Window;
use disentangle::backend::cuda::fold::{Fold, FoldFilter, FoldFilterBack, FoldImages, Pixel};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use half::bf16;

use super::device::Number;
use super::{Case, Device, Launch, Plan, Result, Scale, type_name};

/// ResNet's stem.
const STEM: Window = Window { kernel: [7, 7], stride: 2, padding: 3 };
/// Channels are padded to a multiple of this.
const MULTIPLE: usize = 8;
/// Of an image.
const CHANNELS: usize = 3;

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    let (images, f32_images, filters, px) = match scale {
        Scale::Paper => (&[256, 512][..], 256, 64, 224),
        Scale::Tiny => (&[3][..], 3, 5, 15),
    };
    let mut plans: Vec<Plan> = images.iter().map(|&count| of_bytes::<bf16>([count, px, px, CHANNELS])).collect();
    plans.push(of_bytes::<f32>([f32_images, px, px, CHANNELS]));
    plans.push(of_numbers::<bf16>([f32_images, px, px, CHANNELS]));
    plans.push(of_numbers::<f32>([f32_images, px, px, CHANNELS]));
    plans.extend([filter::<bf16>(filters), filter::<f32>(filters)]);
    plans
}

fn of_bytes<T: Number>(x: [usize; 4]) -> Plan {
    Plan::new("fold_images", format!("{x:?} u8 to {}", type_name::<T>()), move |device| {
        let levels: Vec<u8> = (0..=u8::MAX).cycle().take(x.iter().product::<usize>().min(1 << 16)).collect();
        Images::<u8, T>::new(device, x, device.repeated(&levels, x.iter().product())?)
    })
}

fn of_numbers<T: Number + Pixel>(x: [usize; 4]) -> Plan {
    Plan::new("fold_images", format!("{x:?} {}", type_name::<T>()), move |device| {
        Images::<T, T>::new(device, x, device.normals(x.iter().product())?)
    })
}

fn filter<T: Number>(count: usize) -> Plan {
    let shape = format!("[{count}, 7, 7, {CHANNELS}] {}", type_name::<T>());
    Plan::new("fold_filter", shape, move |device| Filter::<T>::new(device, count))
}

struct Images<S, T> {
    x: CudaSlice<S>,
    y: CudaSlice<T>,
    shape: Fold,
    launch: Launch,
}

impl<S: Pixel + DeviceRepr, T: Number> Images<S, T> {
    fn new(device: &Device, dims: [usize; 4], x: CudaSlice<S>) -> Result<Self> {
        let shape = Fold::new(dims, STEM, MULTIPLE)?;
        let elems = shape.image_shape(dims[0]).iter().product();
        let bytes = x.len() * size_of::<S>() + elems * size_of::<T>();
        let launch = Launch::plain(FoldImages::<S, T>::signature().0, bytes, x.len());
        Ok(Images { x, y: device.unwritten(elems)?, shape, launch })
    }
}

impl<S: Pixel + DeviceRepr, T: Number> Case for Images<S, T> {
    fn launches(&self) -> &[Launch] {
        std::slice::from_ref(&self.launch)
    }

    fn launch(&mut self, device: &Device, _index: usize) -> Result<()> {
        let (x, count) = (Slice::of(&self.x, &device.stream), self.y.len() as u64 / 4);
        let y = SliceMut::of(&mut self.y, &device.stream);
        Ok(FoldImages { x, y, count, shape: self.shape }.launch(&device.kernels)?)
    }
}

/// A filter there, and its gradient back.
struct Filter<T> {
    w: CudaSlice<f32>,
    v: CudaSlice<T>,
    dw: CudaSlice<f32>,
    shape: Fold,
    launches: [Launch; 2],
}

impl<T: Number> Filter<T> {
    fn new(device: &Device, count: usize) -> Result<Self> {
        let shape = Fold::new([1, 224, 224, CHANNELS], STEM, MULTIPLE)?;
        let (plain, folded) = (count * 7 * 7 * CHANNELS, shape.filter_shape(count).iter().product());
        let (whole, back) = (4 * plain + folded * size_of::<T>(), (4 + size_of::<T>()) * plain);
        Ok(Filter {
            w: device.normals(plain)?,
            v: device.unwritten(folded)?,
            dw: device.unwritten(plain)?,
            shape,
            launches: [
                Launch::plain(FoldFilter::<T>::signature().0, whole, 0),
                Launch::plain(FoldFilterBack::<T>::signature().0, back, 0),
            ],
        })
    }
}

impl<T: Number> Case for Filter<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, shape) = (&device.kernels, &device.stream, self.shape);
        if index == 0 {
            let (w, count) = (Slice::of(&self.w, stream), self.v.len() as u64);
            return Ok(FoldFilter { w, v: SliceMut::of(&mut self.v, stream), count, shape }.launch(kernels)?);
        }
        let (dv, count) = (Slice::of(&self.v, stream), self.dw.len() as u64);
        Ok(FoldFilterBack { dv, dw: SliceMut::of(&mut self.dw, stream), count, shape }.launch(kernels)?)
    }
}
