//! Tensors: what a finalised tensor descriptor says.

use crate::descriptor::Descriptor;
use crate::status::{BAD_PARAM, NOT_SUPPORTED, Refusal, refused};
use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use cudarc::cudnn::sys::cudnnDataType_t as N;
use vgpu_library::number::Number;
use vgpu_library::strided::Strided;

/// Where a tensor's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In device memory, at the pointer that the variant pack gives.
    Device,
    /// A number in host memory, read when the plan is executed.
    Value,
    /// Nowhere: an operation makes it for others of its graph.
    Virtual,
}

/// A tensor; its dimensions are [n, c, h, w], or [k, c, r, s] of a filter, whatever the strides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub uid: i64,
    pub elements: Strided,
    pub alignment: u64,
    pub storage: Storage,
}

/// The number format of a data type that this stand-in covers.
pub fn number(data_type: i64, what: &str) -> Result<Number, Refusal> {
    match data_type as u32 {
        t if t == N::CUDNN_DATA_FLOAT as u32 => Ok(Number::F32),
        t if t == N::CUDNN_DATA_BFLOAT16 as u32 => Ok(Number::Bf16),
        t => refused(NOT_SUPPORTED, format!("data type {t} of {what} is not covered by this stand-in")),
    }
}

fn positive(values: &[i64], what: &str) -> Result<Vec<u64>, Refusal> {
    match values.iter().find(|v| **v <= 0) {
        Some(v) => refused(BAD_PARAM, format!("{v} among the {what} of the tensor {values:?}")),
        None => Ok(values.iter().map(|v| *v as u64).collect()),
    }
}

impl Tensor {
    /// Checks a tensor's attributes.
    pub fn new(d: &Descriptor) -> Result<Tensor, Refusal> {
        let number = number(d.number(A::CUDNN_ATTR_TENSOR_DATA_TYPE), "the tensor")?;
        let dims = positive(d.numbers(A::CUDNN_ATTR_TENSOR_DIMENSIONS), "dimensions")?;
        let strides = positive(d.numbers(A::CUDNN_ATTR_TENSOR_STRIDES), "strides")?;
        if dims.len() != strides.len() {
            return refused(BAD_PARAM, format!("a tensor of {} dimensions with {} strides", dims.len(), strides.len()));
        }
        let most = |n: u64, (d, s): (&u64, &u64)| n.checked_add((d - 1).checked_mul(*s)?);
        if dims.iter().zip(&strides).try_fold(1, most).is_none_or(|n| n > i64::MAX as u64 / 8) {
            return refused(BAD_PARAM, format!("a tensor of {dims:?} by {strides:?} is larger than memory"));
        }
        let alignment = d.number(A::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
        let size = number.bytes() as i64;
        if alignment <= 0 || alignment % size != 0 {
            let detail = format!("an alignment of {alignment} bytes for a tensor whose elements have {size}");
            return refused(BAD_PARAM, detail);
        }
        let is_virtual = d.number(A::CUDNN_ATTR_TENSOR_IS_VIRTUAL) & 0xff != 0;
        let by_value = d.number(A::CUDNN_ATTR_TENSOR_IS_BY_VALUE) & 0xff != 0;
        if by_value && (is_virtual || dims.iter().any(|d| *d != 1)) {
            return refused(BAD_PARAM, format!("a tensor by value has one element and is not virtual, not {dims:?}"));
        }
        let storage = match (is_virtual, by_value) {
            (true, _) => Storage::Virtual,
            (_, true) => Storage::Value,
            _ => Storage::Device,
        };
        Ok(Tensor {
            uid: d.number(A::CUDNN_ATTR_TENSOR_UNIQUE_ID),
            elements: Strided { number, dims, strides },
            alignment: alignment as u64,
            storage,
        })
    }

    pub fn dims(&self) -> &[u64] {
        &self.elements.dims
    }

    /// The tensor with its dimensions in another order: what `gather` then packs.
    pub fn ordered(&self, order: [usize; 4]) -> Strided {
        let pick = |of: &[u64]| order.iter().map(|i| of[*i]).collect();
        Strided { number: self.elements.number, dims: pick(&self.elements.dims), strides: pick(&self.elements.strides) }
    }
}
