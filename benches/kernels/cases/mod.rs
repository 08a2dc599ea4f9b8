//! Every kernel of kernels/*.cu at the shapes of a training step, as launches that can be timed on a GPU or counted on the
//! virtual one.

mod adam;
mod batch_norm;
mod bias;
mod binary_entropy;
mod cast;
pub mod counts;
mod device;
mod elementwise;
mod fold;
mod kmeans;
mod nt_xent;
mod pool2d;

pub use device::Device;

/// What goes wrong, in words.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Which shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// ResNet-34 at 224 px, 128 and 256 images a view, and losses up to 32,768 samples.
    Paper,
    /// Small ones, with tails, that the virtual GPU runs in moments.
    Tiny,
}

/// What a launch's operations run on; each has a peak of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Fused multiply-add in f32.
    Fma,
    /// Tensor cores on tf32.
    Tf32,
    /// Tensor cores on bf16.
    Bf16,
}

/// A launch, with the least that it must do: the "Cost" of its file's header.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Entry point.
    pub kernel: &'static str,
    /// Bytes that must be read or written.
    pub bytes: u64,
    /// Operations.
    pub flops: u64,
    /// What they run on.
    pub unit: Unit,
}

impl Launch {
    /// One that computes outside of tensor cores.
    fn plain(kernel: &'static str, bytes: usize, flops: usize) -> Self {
        Launch { kernel, bytes: bytes as u64, flops: flops as u64, unit: Unit::Fma }
    }
}

/// Launches that belong together, with their memory. Each needs what those before it left.
pub trait Case {
    /// In order.
    fn launches(&self) -> &[Launch];
    /// Puts the launch at `index` on the device's stream.
    fn launch(&mut self, device: &Device, index: usize) -> Result<()>;

    /// All of them, in order.
    fn run(&mut self, device: &Device) -> Result<()> {
        (0..self.launches().len()).try_for_each(|index| self.launch(device, index))
    }
}

/// A case without its memory yet.
pub struct Plan {
    /// The operation: `batch_norm_forward`.
    pub name: &'static str,
    /// Its sizes and type: `2 x [401408, 64] bf16`.
    pub shape: String,
    make: Box<Make>,
}

type Make = dyn Fn(&Device) -> Result<Box<dyn Case>>;

impl Plan {
    fn new<C: Case + 'static>(
        name: &'static str,
        shape: String,
        make: impl Fn(&Device) -> Result<C> + 'static,
    ) -> Self {
        Plan { name, shape, make: Box::new(move |device| Ok(Box::new(make(device)?))) }
    }

    /// Allocates and fills the memory, and launches everything once, so that each launch can be repeated by itself.
    pub fn make(&self, device: &Device) -> Result<Box<dyn Case>> {
        let mut case = (self.make)(device)?;
        case.run(device)?;
        device.stream.synchronize()?;
        Ok(case)
    }
}

/// All cases.
pub fn plans(scale: Scale) -> Vec<Plan> {
    let parts = [
        cast::plans(scale),
        fold::plans(scale),
        batch_norm::plans(scale),
        pool2d::plans(scale),
        bias::plans(scale),
        elementwise::plans(scale),
        kmeans::plans(scale),
        nt_xent::plans(scale),
        binary_entropy::plans(scale),
        adam::plans(scale),
    ];
    parts.into_iter().flatten().collect()
}

/// The name of an element type in a case's shape.
fn type_name<T>() -> &'static str {
    if size_of::<T>() == 2 { "bf16" } else { "f32" }
}
