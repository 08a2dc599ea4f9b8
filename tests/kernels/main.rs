//! Every kernel on a device, against the CPU backend in double precision: a real device if there is one, else the virtual
//! GPU, which runs the very PTX that ships and reports what a device would let pass.

mod adam;
mod batch_norm;
mod bias;
mod binary_entropy;
mod cast;
mod determinism;
mod elementwise;
mod fold;
mod gradients;
mod kmeans;
mod nt_xent;
mod nt_xent_forms;
mod pool2d;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DeviceRepr};
use disentangle::backend::cuda::kernel::{Element, Kernels};
use half::bf16;
use vgpu::{Preload, VirtualGpu, preload};

/// A context and its errors belong to the process: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A device with the kernels loaded. Dropping it checks that the virtual GPU found nothing.
struct Device {
    kernels: Kernels,
    stream: Arc<CudaStream>,
    virtual_gpu: Option<VirtualGpu>,
    _one: MutexGuard<'static, ()>,
}

/// The device to test on. Fails where there is neither a real nor a virtual one.
fn device() -> Device {
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let virtual_gpu = match preload() {
        Preload::Virtual(gpu) => Some(gpu),
        Preload::Real => None,
        Preload::Failed(why) => panic!("no device: {why}"),
    };
    if let Some(gpu) = virtual_gpu {
        gpu.last_report();
    }
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let kernels = Kernels::load(&context, Arc::clone(&stream)).unwrap();
    Device { kernels, stream, virtual_gpu, _one: one }
}

impl Device {
    fn upload<T: DeviceRepr + Clone>(&self, values: &[T]) -> CudaSlice<T> {
        self.stream.clone_htod(values).unwrap()
    }

    /// Memory that nobody wrote: what a kernel leaves out shows.
    fn unwritten<T: DeviceRepr>(&self, elems: usize) -> CudaSlice<T> {
        // SAFETY: only tests read it, and the virtual GPU reports reads of what was not written.
        unsafe { self.stream.alloc(elems) }.unwrap()
    }

    fn download<T: DeviceRepr + Clone + Default>(&self, memory: &CudaSlice<T>) -> Vec<T> {
        let values = self.stream.clone_dtoh(memory);
        self.stream.synchronize().unwrap_or_else(|e| panic!("{e}: {}", self.report()));
        values.unwrap_or_else(|e| panic!("{e}: {}", self.report()))
    }

    /// The same memory once more, for kernels that may work in place. To be given to `CudaSlice::leak`, not dropped.
    fn alias<T>(&self, memory: &CudaSlice<T>) -> CudaSlice<T> {
        let (address, _) = memory.device_ptr(&self.stream);
        // SAFETY: the address and length of living memory; only kernels that allow it get both.
        unsafe { self.stream.upgrade_device_ptr(address, memory.len()) }
    }

    fn upload_as<T: Number>(&self, values: &[f32]) -> CudaSlice<T> {
        self.upload(&values.iter().map(|&value| T::rounded(value)).collect::<Vec<_>>())
    }

    fn read<T: Number>(&self, memory: &CudaSlice<T>) -> Vec<f64> {
        self.download(memory).into_iter().map(T::wide).collect()
    }

    /// What the virtual GPU found.
    fn report(&self) -> String {
        self.virtual_gpu.map(|gpu| gpu.last_report()).unwrap_or_default()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.report(), "");
        }
    }
}

/// What kernels take and give.
trait Number: Element + Default {
    /// Half the distance of two neighbours, relative, at most: what rounding a result to this type costs beyond f32.
    const ROUNDING: f64;
    fn rounded(x: f32) -> Self;
    fn wide(self) -> f64;
}

impl Number for f32 {
    const ROUNDING: f64 = 0.0;
    fn rounded(x: f32) -> Self {
        x
    }
    fn wide(self) -> f64 {
        self.into()
    }
}

impl Number for bf16 {
    const ROUNDING: f64 = 1.0 / 256.0;
    fn rounded(x: f32) -> Self {
        bf16::from_f32(x)
    }
    fn wide(self) -> f64 {
        self.to_f64()
    }
}

/// Half the distance of two neighbours among f32, relative, at most.
const UNIT: f64 = 1.0 / 16_777_216.0;

/// Numbers on the device and their exact and plain twins.
struct Parity<'a> {
    found: &'a [f64],
    /// From the CPU in double precision.
    exact: &'a [f64],
    /// From the CPU in f32.
    plain: &'a [f64],
    /// What a few roundings cost, absolute: the plain error may happen to be 0.
    floor: f64,
}

impl Parity<'_> {
    /// Fails where a number is further from the exact one than twice the largest error of the plain ones and the floor,
    /// and what rounding it to `T` costs.
    fn check<T: Number>(&self, what: &str) {
        let bound = 2.0 * distance(self.plain.iter().copied(), self.exact) + self.floor;
        assert_eq!(self.found.len(), self.exact.len(), "{what}");
        for (i, (&found, &exact)) in self.found.iter().zip(self.exact).enumerate() {
            let bound = bound + T::ROUNDING * (exact.abs() + bound);
            let same = found == exact || found.is_nan() && exact.is_nan();
            assert!(same || (found - exact).abs() <= bound, "{what} [{i}]: {found} instead of {exact}, bound {bound}");
        }
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The largest distance of `found` from `exact`; NaN must meet NaN, and an infinity its own.
fn distance(found: impl IntoIterator<Item = f64>, exact: &[f64]) -> f64 {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), exact.len());
    let apart = |(&f, &e): (&f64, &f64)| match f == e || f.is_nan() && e.is_nan() {
        true => 0.0,
        false if f.is_finite() && e.is_finite() => (f - e).abs(),
        false => f64::INFINITY,
    };
    found.iter().zip(exact).map(apart).fold(0.0, f64::max)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

/// Values that `T` holds, so that all start from the same.
fn held<T: Number>(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|value| T::rounded(value).wide() as f32).collect()
}

/// Reproducible numbers of both signs, mostly below `size`: others for each count and each size.
fn numbers(count: usize, size: f64) -> Vec<f32> {
    let mut stream = disentangle::rng::stream(size.to_bits(), disentangle::rng::Purpose::Probe, 0, count as u64, 0);
    (0..count).map(|_| (size * stream.normal()) as f32).collect()
}
