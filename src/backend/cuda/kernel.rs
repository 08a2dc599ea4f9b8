//! What every launch wrapper shares: device memory as typed slices, the loaded entry points, and the macro that declares a
//! kernel's arguments once.
//!
//! A kernel is a structure with a named field an argument, declared in the kernel's own order, so that nothing at a call
//! can be out of order or of the wrong type:
//!
//! ```
//! use disentangle::backend::cuda::binary_entropy::SigmoidForward;
//! use disentangle::backend::cuda::kernel::{Kernels, Slice, SliceMut};
//!
//! fn sigmoid(kernels: &Kernels, x: Slice<f32>, y: SliceMut<f32>, count: u64) -> disentangle::Result<()> {
//!     SigmoidForward { x, y, count }.launch(kernels)
//! }
//! ```
//!
//! Neither input and output exchanged,
//!
//! ```compile_fail,E0308
//! # use disentangle::backend::cuda::binary_entropy::SigmoidForward;
//! # use disentangle::backend::cuda::kernel::{Kernels, Slice, SliceMut};
//! fn sigmoid(kernels: &Kernels, x: Slice<f32>, y: SliceMut<f32>, count: u64) -> disentangle::Result<()> {
//!     SigmoidForward { x: y, y: x, count }.launch(kernels)
//! }
//! ```
//!
//! nor an output of another type than the input,
//!
//! ```compile_fail,E0308
//! # use disentangle::backend::cuda::binary_entropy::SigmoidForward;
//! # use disentangle::backend::cuda::kernel::{Kernels, Slice, SliceMut};
//! fn sigmoid(kernels: &Kernels, x: Slice<f32>, y: SliceMut<half::bf16>, count: u64) -> disentangle::Result<()> {
//!     SigmoidForward { x, y, count }.launch(kernels)
//! }
//! ```
//!
//! nor a size of another type, nor a missing argument compiles:
//!
//! ```compile_fail,E0308
//! # use disentangle::backend::cuda::binary_entropy::SigmoidForward;
//! # use disentangle::backend::cuda::kernel::{Kernels, Slice, SliceMut};
//! fn sigmoid(kernels: &Kernels, x: Slice<f32>, y: SliceMut<f32>, count: u32) -> disentangle::Result<()> {
//!     SigmoidForward { x, y, count }.launch(kernels)
//! }
//! ```
//!
//! ```compile_fail,E0063
//! # use disentangle::backend::cuda::binary_entropy::SigmoidForward;
//! # use disentangle::backend::cuda::kernel::{Kernels, Slice, SliceMut};
//! fn sigmoid(kernels: &Kernels, x: Slice<f32>, y: SliceMut<f32>) -> disentangle::Result<()> {
//!     SigmoidForward { x, y }.launch(kernels)
//! }
//! ```
//!
//! That the declaration itself fits what was compiled is a test's business: it compares each [`Signature`] with the
//! parameters in the PTX.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr};
use cudarc::nvrtc::Ptx;
use half::bf16;

use super::ptx;
use crate::{Error, Result};

/// Types of tensors in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit floating point: parameters, statistics, losses; activations of the precisions f32 and tf32.
    F32,
    /// bfloat16: activations of the precision bf16.
    Bf16,
    /// Bytes: images, whose values are 255 times as large, until the first convolution.
    U8,
}

impl Dtype {
    /// Of an element.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
            Dtype::U8 => 1,
        }
    }
}

/// What activations are made of.
pub trait Element: DeviceRepr + Copy + 'static {
    /// Its name at run time.
    const DTYPE: Dtype;
    /// The entry point for this type.
    fn entry(f32: &'static str, bf16: &'static str) -> &'static str;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    fn entry(f32: &'static str, _: &'static str) -> &'static str {
        f32
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    fn entry(_: &'static str, bf16: &'static str) -> &'static str {
        bf16
    }
}

/// An address in device memory, as a kernel gets it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub(super) CUdeviceptr);

// SAFETY: a transparent 64-bit integer without invalid values.
unsafe impl DeviceRepr for Address {}

impl Address {
    /// No memory.
    pub(super) const NULL: Address = Address(0);

    /// The address of element `first` of what begins here.
    pub(super) fn offset<T>(self, first: usize) -> Self {
        Address(self.0 + (first * size_of::<T>()) as CUdeviceptr)
    }
}

/// Device memory that a kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a, T> {
    address: Address,
    elems: usize,
    memory: PhantomData<&'a [T]>,
}

/// Device memory that a kernel writes.
#[derive(Debug)]
pub struct SliceMut<'a, T> {
    address: Address,
    elems: usize,
    memory: PhantomData<&'a mut [T]>,
}

impl<'a, T> Slice<'a, T> {
    /// `elems` elements at `address`, which live and are not written for `'a`.
    pub(super) fn at(address: Address, elems: usize) -> Self {
        Slice { address, elems, memory: PhantomData }
    }

    /// All of `memory`, for kernels on `stream`.
    pub fn of(memory: &'a CudaSlice<T>, stream: &CudaStream) -> Self {
        let (address, _) = memory.device_ptr(stream);
        Slice { address: Address(address), elems: memory.len(), memory: PhantomData }
    }

    /// Elements.
    pub fn elems(&self) -> usize {
        self.elems
    }
}

impl<'a, T> SliceMut<'a, T> {
    /// `elems` elements at `address`, which live and are nobody else's for `'a`.
    pub(super) fn at(address: Address, elems: usize) -> Self {
        SliceMut { address, elems, memory: PhantomData }
    }

    /// All of `memory`, for kernels on `stream`.
    pub fn of(memory: &'a mut CudaSlice<T>, stream: &CudaStream) -> Self {
        let elems = memory.len();
        let (address, _) = memory.device_ptr_mut(stream);
        SliceMut { address: Address(address), elems, memory: PhantomData }
    }

    /// Elements.
    pub fn elems(&self) -> usize {
        self.elems
    }
}

/// Something a kernel takes as one parameter.
pub trait Argument {
    /// What is copied to the kernel.
    type Parameter: DeviceRepr;
    /// The value.
    fn parameter(&self) -> &Self::Parameter;
    /// Whether four elements at a time can be loaded from it; true for what is no memory.
    fn is_aligned(&self) -> bool {
        true
    }
}

/// Kernels load four elements at once: of f32, 16 bytes.
const ALIGNMENT: CUdeviceptr = 16;

macro_rules! memory_argument {
    ($slice:ident) => {
        impl<T> Argument for $slice<'_, T> {
            type Parameter = Address;
            fn parameter(&self) -> &Address {
                &self.address
            }
            fn is_aligned(&self) -> bool {
                self.address.0 % ALIGNMENT == 0
            }
        }
        impl<T> Argument for Option<$slice<'_, T>> {
            type Parameter = Address;
            fn parameter(&self) -> &Address {
                self.as_ref().map_or(&Address::NULL, |slice| &slice.address)
            }
            fn is_aligned(&self) -> bool {
                self.as_ref().is_none_or(Argument::is_aligned)
            }
        }
    };
}
memory_argument!(Slice);
memory_argument!(SliceMut);

/// Values that are their own parameter.
macro_rules! value_argument {
    ($($value:ty),*) => {
        $(impl $crate::backend::cuda::kernel::Argument for $value {
            type Parameter = $value;
            fn parameter(&self) -> &$value {
                self
            }
        })*
    };
}
pub(super) use value_argument;
value_argument!(u32, u64, f64);

/// An entry point's name and the bytes of its parameters, as its wrapper has them.
pub type Signature = (&'static str, Vec<usize>);

/// Every entry point, loaded into a context, and the stream they run on.
pub struct Kernels {
    stream: Arc<CudaStream>,
    functions: HashMap<&'static str, CudaFunction>,
}

impl Kernels {
    /// Loads all modules; the driver compiles them for the device. Errors if it does not take them (it is older than
    /// 460.27, or the device older than sm_80).
    pub fn load(context: &Arc<CudaContext>, stream: Arc<CudaStream>) -> Result<Self> {
        let mut functions = HashMap::new();
        for (stem, text) in ptx::MODULES {
            let failed = |problem| Error::Device(format!("the driver does not load the kernels of {stem}: {problem}"));
            let module = context.load_module(Ptx::from_src(*text)).map_err(failed)?;
            for (name, _) in ptx::entry_points(text) {
                functions.insert(name, module.load_function(name).map_err(failed)?);
            }
        }
        Ok(Kernels { stream, functions })
    }

    /// The stream kernels run on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The loaded entry point.
    pub fn function(&self, entry: &'static str) -> Result<&CudaFunction> {
        self.functions.get(entry).ok_or_else(|| Error::Device(format!("there is no kernel {entry}")))
    }
}

/// Declares a kernel's arguments, in the kernel's order, and how they reach it.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident [$($generics:tt)*] [$($given:tt)*] $entry:expr; {
        $($(#[$field_doc:meta])* $field:ident: $kind:ty,)*
    }) => {
        $(#[$doc])*
        pub struct $name<$($generics)*> {
            $($(#[$field_doc])* pub $field: $kind,)*
        }

        impl<$($generics)*> $name<$($given)*> {
            /// Entry point and parameters.
            pub fn signature() -> $crate::backend::cuda::kernel::Signature {
                use $crate::backend::cuda::kernel::Argument;
                ($entry, vec![$(size_of::<<$kind as Argument>::Parameter>()),*])
            }

            /// Puts a launch on the stream.
            ///
            /// # Safety
            /// The lengths of all memory are what the kernel takes them for, with this grid.
            unsafe fn enqueue(
                &self,
                kernels: &$crate::backend::cuda::kernel::Kernels,
                grid: (u32, u32, u32),
                block: u32,
            ) -> $crate::Result<()> {
                use cudarc::driver::{LaunchConfig, PushKernelArg};
                use $crate::backend::cuda::kernel::Argument;
                $(if !self.$field.is_aligned() {
                    let problem = concat!("the memory of ", stringify!($field), " does not begin at a multiple of 16 bytes");
                    return Err($crate::Error::shape($entry, problem));
                })*
                let mut launch = kernels.stream().launch_builder(kernels.function($entry)?);
                $(launch.arg(self.$field.parameter());)*
                let config = LaunchConfig { grid_dim: grid, block_dim: (block, 1, 1), shared_mem_bytes: 0 };
                // SAFETY: the parameters are declared in the kernel's order (a test compares them with the PTX); the
                // caller vouches for the rest.
                let launched = unsafe { launch.launch(config) };
                launched.map(drop).map_err(|problem| $crate::Error::Device(format!("launching {}: {problem}", $entry)))
            }
        }
    };
}
pub(super) use kernel;

/// Fails unless each memory has the elements it must have.
pub(super) fn check_elems(op: &'static str, lengths: &[(&str, usize, usize)]) -> Result<()> {
    match lengths.iter().find(|(_, found, wanted)| found != wanted) {
        None => Ok(()),
        Some((name, found, wanted)) => Err(Error::shape(op, format!("{name} has {found} elements, not {wanted}"))),
    }
}

/// The product of sizes, or an error past what a machine addresses.
pub(super) fn product(op: &'static str, sizes: &[usize]) -> Result<usize> {
    let product = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    product.ok_or_else(|| Error::shape(op, format!("the product of {sizes:?} is too large")))
}

/// Blocks for `count` items at `each` a block; a grid's first dimension. Errors if there is no item or there are too many.
pub(super) fn blocks(op: &'static str, count: usize, each: usize) -> Result<u32> {
    match i32::try_from(count.div_ceil(each)) {
        Ok(blocks @ 1..) => Ok(blocks as u32),
        _ => Err(Error::shape(op, format!("{count} is no size for a launch"))),
    }
}

/// A size as the kernel takes it.
pub(super) fn size(op: &'static str, size: usize) -> Result<u32> {
    u32::try_from(size).map_err(|_| Error::shape(op, format!("{size} does not fit in 32 bits")))
}
