//! kernels/cast.cu: between f32 and bf16, and images to network input.

use cudarc::driver::CudaSlice;
use disentangle::backend::cuda::cast::{CastImages, CastToBf16, CastToF32};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use half::bf16;

use super::device::Number;
use super::{Case, Device, Launch, Plan, Result, Scale, type_name};

/// Channels of an image.
const CHANNELS: usize = 3;

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    let mut plans = Vec::new();
    match scale {
        Scale::Paper => {
            for images in [256, 512] {
                plans.extend([4, 8].map(|padded| images_plan::<bf16>(images * 224 * 224, padded)));
            }
            plans.push(images_plan::<f32>(256 * 224 * 224, 4));
            plans.extend(numbers(21_284_672)); // the weights of ResNet-34
        }
        Scale::Tiny => {
            plans.extend([images_plan::<bf16>(1000, 4), images_plan::<bf16>(1000, 8), images_plan::<f32>(1000, 4)]);
            plans.extend(numbers(10_001));
        }
    }
    plans
}

fn images_plan<T: Number>(pixels: usize, padded: usize) -> Plan {
    let shape = format!("[{pixels}, {CHANNELS}] to [{pixels}, {padded}] {}", type_name::<T>());
    Plan::new("cast_images", shape, move |device| Images::<T>::new(device, pixels, padded))
}

fn numbers(count: usize) -> [Plan; 2] {
    [
        Plan::new("cast_to_bf16", format!("[{count}]"), move |device| ToBf16::new(device, count)),
        Plan::new("cast_to_f32", format!("[{count}]"), move |device| ToF32::new(device, count)),
    ]
}

struct Images<T> {
    pixels: CudaSlice<u8>,
    y: CudaSlice<T>,
    count: usize,
    padded: usize,
    launch: Launch,
}

impl<T: Number> Images<T> {
    fn new(device: &Device, count: usize, padded: usize) -> Result<Self> {
        let levels: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 16).collect();
        let bytes = count * (CHANNELS + padded * size_of::<T>());
        Ok(Images {
            pixels: device.repeated(&levels[..levels.len().min(count * CHANNELS)], count * CHANNELS)?,
            y: device.unwritten(count * padded)?,
            count,
            padded,
            launch: Launch::plain(CastImages::<T>::signature().0, bytes, count * CHANNELS),
        })
    }
}

impl<T: Number> Case for Images<T> {
    fn launches(&self) -> &[Launch] {
        std::slice::from_ref(&self.launch)
    }

    fn launch(&mut self, device: &Device, _index: usize) -> Result<()> {
        let cast = CastImages {
            pixels: Slice::of(&self.pixels, &device.stream),
            y: SliceMut::of(&mut self.y, &device.stream),
            count: self.count as u64,
            channels: CHANNELS as u32,
            padded: self.padded as u32,
        };
        Ok(cast.launch(&device.kernels)?)
    }
}

/// Bytes of an element in both types.
const BOTH: usize = size_of::<f32>() + size_of::<bf16>();

struct ToBf16 {
    x: CudaSlice<f32>,
    y: CudaSlice<bf16>,
    launch: Launch,
}

impl ToBf16 {
    fn new(device: &Device, count: usize) -> Result<Self> {
        let launch = Launch::plain(CastToBf16::signature().0, BOTH * count, count);
        Ok(ToBf16 { x: device.normals(count)?, y: device.unwritten(count)?, launch })
    }
}

impl Case for ToBf16 {
    fn launches(&self) -> &[Launch] {
        std::slice::from_ref(&self.launch)
    }

    fn launch(&mut self, device: &Device, _index: usize) -> Result<()> {
        let (x, count) = (Slice::of(&self.x, &device.stream), self.x.len() as u64);
        Ok(CastToBf16 { x, y: SliceMut::of(&mut self.y, &device.stream), count }.launch(&device.kernels)?)
    }
}

struct ToF32 {
    x: CudaSlice<bf16>,
    y: CudaSlice<f32>,
    launch: Launch,
}

impl ToF32 {
    fn new(device: &Device, count: usize) -> Result<Self> {
        let launch = Launch::plain(CastToF32::signature().0, BOTH * count, count);
        Ok(ToF32 { x: device.normals(count)?, y: device.unwritten(count)?, launch })
    }
}

impl Case for ToF32 {
    fn launches(&self) -> &[Launch] {
        std::slice::from_ref(&self.launch)
    }

    fn launch(&mut self, device: &Device, _index: usize) -> Result<()> {
        let (x, count) = (Slice::of(&self.x, &device.stream), self.x.len() as u64);
        Ok(CastToF32 { x, y: SliceMut::of(&mut self.y, &device.stream), count }.launch(&device.kernels)?)
    }
}
