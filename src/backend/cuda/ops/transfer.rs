//! Between host and device, and what computes next to nothing.

use cudarc::driver::result;
use cudarc::driver::sys;
use half::bf16;

use super::{CudaTensor, by_dtype};
use crate::backend::NonFinite;
use crate::backend::cuda::cast::{CastToBf16, CastToF32};
use crate::backend::cuda::device::{Cuda, failed};
use crate::backend::cuda::elementwise::{AddAssign, Scale, WeightedSum};
use crate::backend::cuda::kernel::{Address, Dtype};
use crate::tensor::Shape;
use crate::{Error, Result};

/// Copies to the device, in the order of its stream; `values` may go once this returns.
pub fn copy_to_device<T>(cuda: &Cuda, values: &[T], to: Address) -> Result<()> {
    let stream = &cuda.device.compute;
    stream.context().bind_to_thread().map_err(failed("using the device"))?;
    // SAFETY: the caller has memory there for all of `values`; pageable memory is staged before the call returns, and the
    // wait makes that true of all memory.
    unsafe { result::memcpy_htod_async(to.0, values, stream.cu_stream()) }.map_err(failed("copying to the device"))?;
    stream.synchronize().map_err(failed("copying to the device"))
}

/// Copies to the host, waiting for all work before it.
fn copy_to_host<T: Clone + Default>(cuda: &Cuda, from: Address, elems: usize) -> Result<Vec<T>> {
    let mut values = vec![T::default(); elems];
    let stream = &cuda.device.compute;
    // SAFETY: the caller has `elems` elements there; the wait ends the copy.
    unsafe { result::memcpy_dtoh_async(&mut values, from.0, stream.cu_stream()) }
        .map_err(failed("copying from the device"))?;
    stream.synchronize().map_err(failed("computing on the device"))?;
    Ok(values)
}

pub fn upload(cuda: &Cuda, shape: Shape, values: &[f64]) -> Result<CudaTensor> {
    if values.len() != shape.elems() {
        return Err(Error::shape("upload", format!("{} values for shape {shape:?}", values.len())));
    }
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    let x = cuda.tensor(shape, Dtype::F32)?;
    copy_to_device(cuda, &values, x.buffer().address())?;
    Ok(x)
}

pub fn download(cuda: &Cuda, x: &CudaTensor) -> Result<Vec<f64>> {
    let (elems, address) = (x.shape().elems(), x.buffer().address());
    Ok(match x.buffer().dtype() {
        Dtype::F32 => copy_to_host::<f32>(cuda, address, elems)?.into_iter().map(f64::from).collect(),
        Dtype::Bf16 => copy_to_host::<bf16>(cuda, address, elems)?.into_iter().map(bf16::to_f64).collect(),
        Dtype::U8 => copy_to_host::<u8>(cuda, address, elems)?.into_iter().map(|p| f64::from(p) / 255.0).collect(),
    })
}

/// Elements that are looked at at once: bounds the memory of the host.
const LOOK: usize = 1 << 24;

/// The elements that are infinite or NaN, if there are any.
pub fn non_finite(cuda: &Cuda, x: &CudaTensor) -> Result<Option<NonFinite>> {
    fn look<T: Copy + Clone + Default + Into<f64>>(cuda: &Cuda, x: &CudaTensor) -> Result<Option<NonFinite>> {
        let (elems, address) = (x.shape().elems(), x.buffer().address());
        let mut found: Option<NonFinite> = None;
        for start in (0..elems).step_by(LOOK) {
            let values = copy_to_host::<T>(cuda, address.offset::<T>(start), LOOK.min(elems - start))?;
            for (i, value) in values.into_iter().map(Into::into).enumerate().filter(|(_, value)| !value.is_finite()) {
                found.get_or_insert(NonFinite { count: 0, first: start + i, value }).count += 1;
            }
        }
        Ok(found)
    }
    match x.buffer().dtype() {
        Dtype::F32 => look::<f32>(cuda, x),
        Dtype::Bf16 => look::<bf16>(cuda, x),
        Dtype::U8 => Ok(None),
    }
}

/// Like [`AdamState`](crate::backend::cuda::adam::State), read back.
pub fn download_state(cuda: &Cuda, from: Address) -> Result<crate::backend::cuda::adam::State> {
    copy_to_host(cuda, from, 1)?.pop().ok_or_else(|| Error::Device("no state".into()))
}

/// As bytes: the first convolution divides them by 255.
pub fn upload_images(cuda: &Cuda, shape: Shape, pixels: &[u8]) -> Result<CudaTensor> {
    if pixels.len() != shape.elems() {
        return Err(Error::shape("upload_images", format!("{} bytes for shape {shape:?}", pixels.len())));
    }
    let images = cuda.tensor(shape, Dtype::U8)?;
    copy_to_device(cuda, pixels, images.buffer().address())?;
    Ok(images)
}

pub fn scalar(cuda: &Cuda, x: &CudaTensor) -> Result<f64> {
    match download(cuda, x)?[..] {
        [value] => Ok(value),
        _ => Err(Error::shape("scalar", format!("{:?} is not a scalar", x.shape()))),
    }
}

/// Every element `value`, in f32.
pub fn full(cuda: &Cuda, shape: Shape, value: f64) -> Result<CudaTensor> {
    let x = cuda.tensor(shape, Dtype::F32)?;
    let (address, stream) = (x.buffer().address().0, cuda.device.compute.cu_stream());
    // SAFETY: memory of as many 32-bit words.
    let done = unsafe { sys::cuMemsetD32Async(address, (value as f32).to_bits(), shape.elems(), stream) };
    done.result().map_err(failed("filling memory"))?;
    Ok(x)
}

/// The same values as activations: a handle to them, or a rounded copy.
pub fn as_activations(cuda: &Cuda, x: &CudaTensor) -> Result<CudaTensor> {
    if x.buffer().dtype() == cuda.activations() {
        return Ok(x.clone());
    }
    let mut y = cuda.tensor(x.shape(), Dtype::Bf16)?;
    let cast = CastToBf16 { x: x.buffer().slice()?, y: y.buffer_mut().slice_mut()?, count: x.shape().elems() as u64 };
    cast.launch(cuda.kernels())?;
    Ok(y)
}

/// The same values in f32: a handle to them, or a copy.
pub fn as_f32(cuda: &Cuda, x: &CudaTensor) -> Result<CudaTensor> {
    if x.buffer().dtype() == Dtype::F32 {
        return Ok(x.clone());
    }
    let mut y = cuda.tensor(x.shape(), Dtype::F32)?;
    let cast = CastToF32 { x: x.buffer().slice()?, y: y.buffer_mut().slice_mut()?, count: x.shape().elems() as u64 };
    cast.launch(cuda.kernels())?;
    Ok(y)
}

pub fn add_assign(cuda: &Cuda, x: &mut CudaTensor, y: &CudaTensor) -> Result<()> {
    let count = x.shape().elems() as u64;
    // A shared buffer keeps its value for the others; the sum moves to a new one.
    if !x.buffer_mut().is_unique() {
        *x = scale(cuda, x, 1.0)?;
    }
    by_dtype!(x.buffer().dtype(), T => {
        let add = AddAssign::<T> { x: x.buffer_mut().slice_mut()?, y: y.buffer().slice()?, count };
        add.launch(cuda.kernels())
    })
}

pub fn scale(cuda: &Cuda, x: &CudaTensor, factor: f64) -> Result<CudaTensor> {
    let mut y = cuda.tensor(x.shape(), x.buffer().dtype())?;
    by_dtype!(x.buffer().dtype(), T => {
        let count = x.shape().elems() as u64;
        Scale::<T> { x: x.buffer().slice()?, y: y.buffer_mut().slice_mut()?, count, factor }.launch(cuda.kernels())?;
    });
    Ok(y)
}

pub fn weighted_sum(cuda: &Cuda, terms: &[&CudaTensor], weights: &[f64]) -> Result<CudaTensor> {
    if terms.len() > 3 || terms.len() != weights.len() {
        return Err(Error::shape("weighted_sum", format!("{} terms, {} weights", terms.len(), weights.len())));
    }
    let term = |i: usize| terms.get(i).map(|term| term.buffer().slice()).transpose();
    let weight = |i: usize| weights.get(i).copied().unwrap_or(0.0);
    let mut total = cuda.tensor(Shape::SCALAR, Dtype::F32)?;
    let sum = WeightedSum {
        a: term(0)?,
        b: term(1)?,
        c: term(2)?,
        total: total.buffer_mut().slice_mut()?,
        weight_a: weight(0),
        weight_b: weight(1),
        weight_c: weight(2),
    };
    sum.launch(cuda.kernels())?;
    Ok(total)
}
