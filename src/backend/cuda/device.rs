//! A CUDA device with all that computing on it takes: streams, kernels, libraries, memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys::CUdevice_attribute};

use super::adam::Chunk;
use super::convolution::{Convolution, Multiplication, Operands};
use super::cublaslt::{CublasLt, Matrices, Product};
use super::cudnn::{Cudnn, Plan};
use super::engines::Engines;
use super::kernel::{Address, Dtype, Kernels};
use super::libraries;
use super::memory::{Buffer, Pool, Scratch};
use super::ops::transfer::as_activations;
use crate::config::Precision;
use crate::tensor::{Shape, Tensor};
use crate::{Error, Result};

/// The CUDA backend; a clone is another handle to the same device.
#[derive(Clone)]
pub struct Cuda {
    pub(super) device: Rc<Device>,
}

/// What all handles share. Fields are dropped in order: memory and libraries before the streams.
pub(super) struct Device {
    plans: RefCell<HashMap<Convolution, std::result::Result<Rc<Plan>, String>>>,
    pub(super) engines: RefCell<Engines>,
    cudnn: Cudnn,
    cublaslt: RefCell<CublasLt>,
    pub(super) kernels: Kernels,
    pub(super) pool: Arc<Pool>,
    pub(super) precision: Precision,
    pub(super) recording: Cell<bool>,
    /// Tables that a recorded step reads: filled when the recording has ended.
    pub(super) deferred: RefCell<Vec<(Address, Vec<Chunk>)>>,
    pub(super) compute: Arc<CudaStream>,
    pub(super) copy: Arc<CudaStream>,
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuda").field("precision", &self.device.precision).finish_non_exhaustive()
    }
}

/// The error of a failed driver call.
pub(super) fn failed(what: &'static str) -> impl Fn(DriverError) -> Error {
    move |problem| Error::Device(format!("{what}: {problem}"))
}

impl Cuda {
    /// Opens device `ordinal`. Errors, saying what is missing and what to install, where there is no driver, no such device, or
    /// no library.
    pub fn new(ordinal: usize, precision: Precision) -> Result<Self> {
        libraries::check()?;
        let context = CudaContext::new(ordinal).map_err(failed("opening the CUDA device"))?;
        let (major, minor) = context.compute_capability().map_err(failed("asking the CUDA device"))?;
        if major < 8 {
            return Err(Error::Device(format!(
                "the CUDA device is of compute capability {major}.{minor}; 8.0 is needed"
            )));
        }
        // SAFETY: no memory was allocated yet; order is kept by streams and the events of `lane`.
        unsafe { context.disable_event_tracking() };
        let stream = || context.new_stream().map_err(failed("making a stream"));
        let (compute, copy) = (stream()?, stream()?);
        let pool = Pool::new(Arc::clone(&compute));
        let cudnn = Cudnn::new(Arc::clone(&compute))?;
        let name = context.name().map_err(failed("asking the CUDA device"))?;
        let device = Device {
            plans: RefCell::default(),
            engines: RefCell::new(Engines::new(format!("{name}, sm_{major}{minor}, cuDNN {}", cudnn.version()))),
            cudnn,
            cublaslt: RefCell::new(CublasLt::new(Arc::clone(&compute), &pool)?),
            kernels: Kernels::load(&context, Arc::clone(&compute))?,
            pool,
            precision,
            recording: Cell::new(false),
            deferred: RefCell::default(),
            compute,
            copy,
        };
        Ok(Cuda { device: Rc::new(device) })
    }

    /// Takes the engines that earlier runs kept in `file` (see [`engines`](super::engines)), and keeps in it what is chosen from
    /// now on. Without it two runs may differ in their last bits.
    pub fn with_engines_in(self, file: PathBuf) -> Self {
        let own = Engines::new(self.device.engines.borrow().device().to_owned());
        self.device.engines.replace(own.in_file(file));
        self
    }

    /// Name, compute capability, driver and memory, for people.
    pub fn describe(&self) -> String {
        let context = self.device.compute.context();
        let name = context.name().unwrap_or_else(|_| "CUDA device".into());
        let processors = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).unwrap_or(0);
        let (major, minor) = context.compute_capability().unwrap_or_default();
        let version = self.device.cudnn.version();
        format!(
            "{name}, sm_{major}{minor}, {processors} multiprocessors, {}; cuDNN {}.{}.{}",
            self.device.precision,
            version / 10_000,
            version / 100 % 100,
            version % 100
        )
    }

    /// Type of activations.
    pub(super) fn activations(&self) -> Dtype {
        match self.device.precision {
            Precision::Bf16 => Dtype::Bf16,
            Precision::Tf32 | Precision::F32 => Dtype::F32,
        }
    }

    /// The same values in the type that layers take and give in this precision: a handle to them, or a rounded copy.
    pub fn to_activations(&self, x: &Tensor<Self>) -> Result<Tensor<Self>> {
        as_activations(self, x)
    }

    pub(super) fn multiplication(&self) -> Multiplication {
        match self.device.precision {
            Precision::F32 => Multiplication::Exact,
            Precision::Bf16 | Precision::Tf32 => Multiplication::TensorCores,
        }
    }

    pub(super) fn kernels(&self) -> &Kernels {
        &self.device.kernels
    }

    /// A tensor with arbitrary contents.
    pub(super) fn tensor(&self, shape: Shape, dtype: Dtype) -> Result<Tensor<Self>> {
        Ok(Tensor::new(shape, Buffer::new(&self.device.pool, shape.elems(), dtype)?))
    }

    pub(super) fn scratch<T>(&self, elems: usize) -> Result<Scratch<T>> {
        Scratch::new(&self.device.pool, elems)
    }

    /// Runs a matrix product.
    pub(super) fn product(&self, product: &Product, matrices: Matrices) -> Result<()> {
        self.device.cublaslt.borrow_mut().run(product, matrices)
    }

    /// Whether an engine does a convolution that adds to its result. At its first time one is chosen, on tensors of its own, as
    /// each trial adds.
    pub(super) fn supports(&self, convolution: &Convolution) -> Result<bool> {
        let Device { plans, recording, .. } = &*self.device;
        if let Some(plan) = plans.borrow().get(convolution) {
            return Ok(plan.is_ok());
        }
        if recording.get() {
            return Ok(false);
        }
        let scratch = |dims: [usize; 4], dtype: Dtype| {
            let x = self.tensor(Shape::from(dims), dtype)?;
            let bytes = x.shape().elems() * dtype.bytes();
            // SAFETY: memory of as many bytes.
            let zeroed =
                unsafe { result::memset_d8_async(x.buffer().address().0, 0, bytes, self.device.compute.cu_stream()) };
            zeroed.map_err(failed("filling memory"))?;
            Ok::<_, Error>(x)
        };
        let Convolution { x, w, y, input, output, .. } = *convolution;
        let (x, w, y) = (scratch(x, output)?, scratch(w, input)?, scratch(y, input)?);
        let operands = Operands { x: x.buffer().address(), w: w.buffer().address(), y: y.buffer().address() };
        let plan = self.choose(convolution, operands);
        let supported = plan.is_ok();
        plans.borrow_mut().insert(*convolution, plan);
        Ok(supported)
    }

    /// The engine an earlier run chose, else the fastest.
    fn choose(&self, convolution: &Convolution, operands: Operands) -> std::result::Result<Rc<Plan>, String> {
        let Device { engines, cudnn, pool, .. } = &*self.device;
        let key = format!("{convolution:?}");
        let known = engines.borrow().get(&key).and_then(|choice| cudnn.chosen(convolution, choice).ok());
        if let Some(plan) = known {
            return Ok(Rc::new(plan));
        }
        let plan = cudnn.tune(convolution, operands, pool).map_err(|why| why.to_string())?;
        let settled = engines.borrow_mut().settle(key, plan.choice);
        let plan = if settled == plan.choice { plan } else { cudnn.chosen(convolution, settled).unwrap_or(plan) };
        Ok(Rc::new(plan))
    }

    /// Runs a convolution; at its first time, chooses an engine for it. Errors if no engine does it.
    pub(super) fn convolve(&self, convolution: &Convolution, operands: Operands) -> Result<()> {
        let Device { plans, cudnn, pool, recording, .. } = &*self.device;
        let known = plans.borrow().get(convolution).cloned();
        let plan = match known {
            Some(plan) => plan,
            None if recording.get() => return Err(Error::Device(format!("{convolution:?} is new in a recorded step"))),
            None => {
                let plan = self.choose(convolution, operands);
                plans.borrow_mut().insert(*convolution, plan.clone());
                plan
            }
        };
        cudnn.run(&*plan.map_err(Error::Device)?, operands, pool)
    }

    /// The convolutions met so far, with the engine chosen for each and its time in milliseconds.
    pub fn convolutions(&self) -> Vec<(Convolution, usize, f32)> {
        let plans = self.device.plans.borrow();
        let mut found: Vec<_> = plans
            .iter()
            .filter_map(|(c, plan)| plan.as_ref().ok().map(|p| (*c, p.choice.engine, p.milliseconds)))
            .collect();
        found.sort_by_key(|(c, ..)| (c.direction as u8, c.y, c.x, c.w));
        found
    }
}
