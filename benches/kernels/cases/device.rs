//! The device that cases run on, and its memory.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DeviceRepr, ValidAsZeroBits};
use disentangle::backend::cuda::kernel::{Element, Kernels};
use disentangle::rng::{Purpose, stream};
use half::bf16;
use vgpu::{Preload, VirtualGpu, preload};

use super::Result;

/// Random numbers that are made; longer memory repeats them.
const BLOCK: usize = 1 << 20;

/// A device with the kernels loaded.
pub struct Device {
    /// All work goes here.
    pub stream: Arc<CudaStream>,
    /// Loaded entry points.
    pub kernels: Kernels,
    /// Set where there is no real device.
    pub virtual_gpu: Option<VirtualGpu>,
}

/// What memory is filled with.
pub trait Number: Element + DeviceRepr + ValidAsZeroBits {
    /// Rounded.
    fn of(value: f32) -> Self;
}

impl Number for f32 {
    fn of(value: f32) -> Self {
        value
    }
}

impl Number for bf16 {
    fn of(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

impl Device {
    /// The first real device, else the virtual one.
    pub fn open() -> Result<Self> {
        let virtual_gpu = match preload() {
            Preload::Virtual(gpu) => Some(gpu),
            Preload::Real => None,
            Preload::Failed(why) => return Err(why.into()),
        };
        let context = CudaContext::new(0)?;
        // SAFETY: there is one stream, so no memory is used on two.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream()?;
        let kernels = Kernels::load(&context, Arc::clone(&stream))?;
        Ok(Device { stream, kernels, virtual_gpu })
    }

    /// Memory with these values.
    pub fn upload<T: DeviceRepr + Clone>(&self, values: &[T]) -> Result<CudaSlice<T>> {
        Ok(self.stream.clone_htod(values)?)
    }

    /// Memory that nobody wrote.
    pub fn unwritten<T: DeviceRepr>(&self, elems: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every case writes it before it reads it; the virtual GPU would report otherwise.
        Ok(unsafe { self.stream.alloc(elems) }?)
    }

    /// Memory with normally distributed numbers of mean 0 and deviation 1; the same ones on every call.
    pub fn normals<T: Number>(&self, elems: usize) -> Result<CudaSlice<T>> {
        let mut random = stream(7, Purpose::Probe, 0, 0, 0);
        let values: Vec<T> = (0..elems.min(BLOCK)).map(|_| T::of(random.normal() as f32)).collect();
        self.repeated(&values, elems)
    }

    /// Memory that repeats `values`.
    pub fn repeated<T: DeviceRepr + Clone>(&self, values: &[T], elems: usize) -> Result<CudaSlice<T>> {
        let block = self.upload(values)?;
        if values.len() == elems {
            return Ok(block);
        }
        let mut memory = self.unwritten(elems)?;
        for first in (0..elems).step_by(values.len()) {
            let count = values.len().min(elems - first);
            self.stream.memcpy_dtod(&block.slice(..count), &mut memory.slice_mut(first..first + count))?;
        }
        Ok(memory)
    }
}
