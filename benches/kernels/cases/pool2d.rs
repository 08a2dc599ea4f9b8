//! kernels/pool2d.cu: the stem's max pooling and the global average, forward and backward.

use cudarc::driver::CudaSlice;
use disentangle::backend::Window;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::cuda::pool2d::{
    GlobalAvgPoolBackward, GlobalAvgPoolForward, MaxPool, MaxPoolBackward, MaxPoolForward,
};
use disentangle::tensor::Shape;
use half::bf16;

use super::device::Number;
use super::{Case, Device, Launch, Plan, Result, Scale, type_name};

/// ResNet's.
const WINDOW: Window = Window { kernel: [3, 3], stride: 2, padding: 1 };

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    match scale {
        Scale::Paper => {
            let of = |images| [max_pool::<bf16>([images, 112, 112, 64]), average::<bf16>([images, 7, 7, 512])];
            let f32s = [max_pool::<f32>([256, 112, 112, 64]), average::<f32>([256, 7, 7, 512])];
            [256, 512].into_iter().flat_map(of).chain(f32s).collect()
        }
        Scale::Tiny => {
            let images = [2, 15, 15, 33];
            [max_pool::<bf16>(images), average::<bf16>(images), max_pool::<f32>(images), average::<f32>(images)].into()
        }
    }
}

fn max_pool<T: Number>(x: [usize; 4]) -> Plan {
    Plan::new("max_pool", format!("{x:?} {}", type_name::<T>()), move |device| Max::<T>::new(device, x))
}

fn average<T: Number>(x: [usize; 4]) -> Plan {
    Plan::new("global_avg_pool", format!("{x:?} {}", type_name::<T>()), move |device| Average::<T>::new(device, x))
}

struct Max<T> {
    x: CudaSlice<T>,
    y: CudaSlice<T>,
    argmax: CudaSlice<u8>,
    dx: CudaSlice<T>,
    shape: MaxPool,
    launches: [Launch; 2],
}

impl<T: Number> Max<T> {
    fn new(device: &Device, x @ [images, h, w, channels]: [usize; 4]) -> Result<Self> {
        let (Some(p), Some(q)) = (WINDOW.output(0, h), WINDOW.output(1, w)) else {
            return Err("no window fits".into());
        };
        let (inputs, outputs) = (images * h * w * channels, images * p * q * channels);
        let bytes = (inputs + outputs) * size_of::<T>() + outputs;
        let flops = outputs * WINDOW.kernel.iter().product::<usize>();
        Ok(Max {
            x: device.normals(inputs)?,
            y: device.unwritten(outputs)?,
            argmax: device.unwritten(outputs)?,
            dx: device.unwritten(inputs)?,
            shape: MaxPool::new(Shape::from(x), WINDOW)?,
            launches: [
                Launch::plain(MaxPoolForward::<T>::signature().0, bytes, flops),
                Launch::plain(MaxPoolBackward::<T>::signature().0, bytes, outputs),
            ],
        })
    }
}

impl<T: Number> Case for Max<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, shape) = (&device.kernels, &device.stream, self.shape);
        if index == 0 {
            let count = self.y.len() as u64;
            let (y, argmax) = (SliceMut::of(&mut self.y, stream), SliceMut::of(&mut self.argmax, stream));
            return Ok(MaxPoolForward { x: Slice::of(&self.x, stream), y, argmax, count, shape }.launch(kernels)?);
        }
        let (dy, argmax, count) = (Slice::of(&self.y, stream), Slice::of(&self.argmax, stream), self.dx.len() as u64);
        let dx = SliceMut::of(&mut self.dx, stream);
        Ok(MaxPoolBackward { dy, argmax, dx, count, shape }.launch(kernels)?)
    }
}

struct Average<T> {
    x: CudaSlice<T>,
    y: CudaSlice<T>,
    dx: CudaSlice<T>,
    pixels: u32,
    channels: u32,
    launches: [Launch; 2],
}

impl<T: Number> Average<T> {
    fn new(device: &Device, [images, h, w, channels]: [usize; 4]) -> Result<Self> {
        let (inputs, outputs) = (images * h * w * channels, images * channels);
        let bytes = (inputs + outputs) * size_of::<T>();
        Ok(Average {
            x: device.normals(inputs)?,
            y: device.unwritten(outputs)?,
            dx: device.unwritten(inputs)?,
            pixels: (h * w) as u32,
            channels: channels as u32,
            launches: [
                Launch::plain(GlobalAvgPoolForward::<T>::signature().0, bytes, inputs),
                Launch::plain(GlobalAvgPoolBackward::<T>::signature().0, bytes, outputs),
            ],
        })
    }
}

impl<T: Number> Case for Average<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, pixels, channels) = (&device.kernels, &device.stream, self.pixels, self.channels);
        if index == 0 {
            let (x, y) = (Slice::of(&self.x, stream), SliceMut::of(&mut self.y, stream));
            return Ok(GlobalAvgPoolForward { x, y, pixels, channels }.launch(kernels)?);
        }
        let (dy, count) = (Slice::of(&self.y, stream), self.dx.len() as u64);
        let dx = SliceMut::of(&mut self.dx, stream);
        Ok(GlobalAvgPoolBackward { dy, dx, count, pixels, channels }.launch(kernels)?)
    }
}
