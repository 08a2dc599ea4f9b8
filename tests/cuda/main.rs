//! The CUDA backend as training uses it, against the CPU backend: on a real device if there is one, else on the virtual GPU
//! with its stand-ins for cuDNN and cuBLASLt, which report what a device would let pass.

mod bounds;
mod kmeans;
mod layers;
mod losses;
mod memory;
mod nonfinite;
mod norms;
mod out_of_memory;
mod program;
mod steady;
mod training;
mod transfers;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use disentangle::backend::Backend;
use disentangle::backend::cpu::{Cpu, Real};
use disentangle::backend::cuda::Cuda;
use disentangle::config::Precision;
use disentangle::rng::{Purpose, stream};
use disentangle::tensor::{Shape, Tensor};
use half::bf16;
use vgpu::{Preload, VirtualGpu, preload};

/// A context and its errors belong to the process: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

/// The backend under test. Dropping it closes the device and checks that the virtual GPU found nothing and nothing is left;
/// whatever lives on the device goes before it.
struct Device {
    cuda: Option<Cuda>,
    virtual_gpu: Option<VirtualGpu>,
    _one: MutexGuard<'static, ()>,
}

impl Deref for Device {
    type Target = Cuda;
    fn deref(&self) -> &Cuda {
        self.cuda.as_ref().expect("open until it is dropped")
    }
}

/// Orders of streams that are tried.
const SEEDS: u64 = 50;

impl Device {
    /// Restarts the order in which streams make progress from a seed. A real device has but one order, its own.
    fn set_seed(&self, seed: u64) {
        if let Some(gpu) = self.virtual_gpu {
            gpu.set_seed(seed);
        }
    }
}

/// Which device this process tests on: `None` is a real one. Fails where there is none, or where `REQUIRE_GPU=1` asks for a real
/// one and `VGPU=1` does not ask for the virtual one.
fn virtual_gpu() -> Option<VirtualGpu> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    match preload() {
        Preload::Virtual(_) if is_set("REQUIRE_GPU") && !is_set("VGPU") => panic!("REQUIRE_GPU=1, and there is no GPU"),
        Preload::Virtual(gpu) => Some(gpu),
        Preload::Real => None,
        Preload::Failed(why) => panic!("no device: {why}"),
    }
}

/// Opens the device to test on.
fn cuda(precision: Precision) -> Device {
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let virtual_gpu = virtual_gpu();
    if let Some(gpu) = virtual_gpu {
        // Of a test that failed.
        gpu.last_report();
        gpu.set_seed(0);
    }
    let cuda = Cuda::new(0, precision).unwrap().with_engines_in(ENGINES.clone());
    Device { cuda: Some(cuda), virtual_gpu, _one: one }
}

/// Engines that this process has chosen: the same ones whenever it opens the device again.
static ENGINES: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = if built.exists() { built.to_path_buf() } else { std::env::temp_dir() };
    let file = folder.join("cuda-engines.json");
    let _ = std::fs::remove_file(&file);
    file
});

impl Drop for Device {
    fn drop(&mut self) {
        self.cuda = None;
        let report = self.virtual_gpu.map(|gpu| gpu.last_report()).unwrap_or_default();
        if !std::thread::panicking() {
            assert_eq!(report, "");
        }
    }
}

/// All precisions, each with its device in turn.
fn in_each_precision(check: impl Fn(&Device, Precision)) {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        check(&cuda(precision), precision);
    }
}

/// A backend whose layers take tensors of its own kind.
trait Layers: Backend {
    /// A tensor as layers take it.
    fn activations<S: Into<Shape>>(&self, shape: S, values: &[f64]) -> Tensor<Self>;

    /// A tensor as parameters are, in full precision.
    fn parameter<S: Into<Shape>>(&self, shape: S, values: &[f64]) -> Tensor<Self> {
        self.upload(shape.into(), values).unwrap()
    }

    fn read(&self, x: &Tensor<Self>) -> Vec<f64> {
        self.download(x).unwrap()
    }
}

impl<T: Real> Layers for Cpu<T> {
    fn activations<S: Into<Shape>>(&self, shape: S, values: &[f64]) -> Tensor<Self> {
        self.parameter(shape, values)
    }
}

impl Layers for Cuda {
    fn activations<S: Into<Shape>>(&self, shape: S, values: &[f64]) -> Tensor<Self> {
        self.to_activations(&self.parameter(shape, values)).unwrap()
    }
}

/// Reproducible numbers of both signs, mostly below `size`, that the precision's products take as they are: others for each
/// count and each size.
fn numbers(precision: Precision, count: usize, size: f64) -> Vec<f64> {
    let mut stream = stream(size.to_bits(), Purpose::Probe, 0, count as u64, 0);
    (0..count).map(|_| held(precision, (size * stream.normal()) as f32).into()).collect()
}

/// The nearest number that the precision's products take as it is.
fn held(precision: Precision, x: f32) -> f32 {
    /// Bits of an f32 that tf32 has not.
    const DROPPED: u32 = 13;
    match precision {
        Precision::F32 => x,
        Precision::Tf32 => f32::from_bits((x.to_bits() + (1 << (DROPPED - 1))) >> DROPPED << DROPPED),
        Precision::Bf16 => bf16::from_f32(x).to_f32(),
    }
}
