//! cuBLASLt's matrix products, as far as linear layers need them.
//!
//! The library counts in columns: a row-major matrix `[rows, columns]` is for it a column-major one `[columns, rows]`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::ptr::{from_ref, null};
use std::sync::Arc;

use cudarc::cublaslt::result;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t as Compute, cublasLtEpilogue_t as Epilogue, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtReductionScheme_t as Reduction, cudaDataType,
};
use cudarc::driver::CudaStream;

use super::kernel::{Address, Dtype};
use super::memory::{Pool, Scratch};
use crate::{Error, Result};

/// What NVIDIA recommends for Hopper; others are content with less.
const WORKSPACE: usize = 32 << 20;

/// A library handle; its work goes to a stream.
pub struct CublasLt {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    workspace: Scratch<u8>,
    products: HashMap<Product, Prepared>,
}

/// Whether an operand is taken as it lies or transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// As it lies.
    Plain,
    /// Transposed.
    Transposed,
}

/// `d[m, n] = sum_k a[m, k] b[k, n]`, all row-major, after transposition where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Rows of d.
    pub m: usize,
    /// Columns of d.
    pub n: usize,
    /// Summed over.
    pub k: usize,
    /// `[m, k]`, or `[k, m]` transposed.
    pub a: Operand,
    /// `[k, n]`, or `[n, k]` transposed.
    pub b: Operand,
    /// Of a and b.
    pub input: Dtype,
    /// Of d and the bias.
    pub output: Dtype,
    /// How f32 is multiplied.
    pub compute: Multiplication,
    /// Whether a bias `[n]` is added to each row.
    pub bias: Bias,
}

pub use super::convolution::Multiplication;

/// Whether a bias is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bias {
    /// No.
    Absent,
    /// To each row.
    Added,
}

/// Where the matrices of a product are.
#[derive(Clone, Copy, Debug)]
pub struct Matrices {
    /// a
    pub a: Address,
    /// b
    pub b: Address,
    /// d, overwritten.
    pub d: Address,
    /// `[n]`, where one is added.
    pub bias: Option<Address>,
}

/// Descriptors and algorithm of a product.
struct Prepared {
    operation: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        unsafe {
            let _ = result::destroy_matmul_desc(self.operation);
            for layout in self.layouts {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

fn failed(what: &'static str) -> impl Fn(result::CublasError) -> Error {
    move |problem| Error::Device(format!("cuBLASLt, {what}: {problem}"))
}

fn data_type(dtype: Dtype) -> cudaDataType {
    match dtype {
        Dtype::F32 => cudaDataType::CUDA_R_32F,
        Dtype::Bf16 => cudaDataType::CUDA_R_16BF,
        Dtype::U8 => cudaDataType::CUDA_R_8U,
    }
}

/// `cublasOperation_t`: CUBLAS_OP_N or CUBLAS_OP_T.
fn transposition(operand: Operand) -> i32 {
    match operand {
        Operand::Plain => 0,
        Operand::Transposed => 1,
    }
}

impl Product {
    /// In the library's view d is `b^T a^T`, so the operands change places.
    fn layouts(&self) -> Result<[sys::cublasLtMatrixLayout_t; 3]> {
        let layout = |dtype, columns: usize, rows: usize| {
            result::create_matrix_layout(data_type(dtype), columns as u64, rows as u64, columns as i64)
                .map_err(failed("making a layout"))
        };
        let stored = |operand, rows, columns| match operand {
            Operand::Plain => (columns, rows),
            Operand::Transposed => (rows, columns),
        };
        let (a, b) = (stored(self.a, self.m, self.k), stored(self.b, self.k, self.n));
        Ok([layout(self.input, b.0, b.1)?, layout(self.input, a.0, a.1)?, layout(self.output, self.n, self.m)?])
    }

    fn operation(&self) -> Result<sys::cublasLtMatmulDesc_t> {
        let compute = match (self.input, self.compute) {
            (Dtype::F32, Multiplication::TensorCores) => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => Compute::CUBLAS_COMPUTE_32F,
        };
        let operation = result::create_matmul_desc(compute, cudaDataType::CUDA_R_32F);
        let operation = operation.map_err(failed("making a product"))?;
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &transposition(self.b))?;
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &transposition(self.a))?;
        if self.bias == Bias::Added {
            set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &Epilogue::CUBLASLT_EPILOGUE_BIAS)?;
        }
        Ok(operation)
    }
}

fn set<T>(operation: sys::cublasLtMatmulDesc_t, attribute: Attribute, value: &T) -> Result<()> {
    // SAFETY: a live descriptor; each attribute is given a value of its own type at the calls here.
    let done =
        unsafe { result::set_matmul_desc_attribute(operation, attribute, from_ref(value).cast(), size_of::<T>()) };
    done.map_err(failed("describing a product"))
}

impl CublasLt {
    /// Opens the library.
    pub fn new(stream: Arc<CudaStream>, pool: &Arc<Pool>) -> Result<Self> {
        let handle = result::create_handle().map_err(failed("opening"))?;
        Ok(CublasLt { handle, stream, workspace: Scratch::new(pool, WORKSPACE)?, products: HashMap::new() })
    }

    /// Puts a product on the stream.
    pub fn run(&mut self, product: &Product, matrices: Matrices) -> Result<()> {
        let prepared = match self.products.entry(*product) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(prepare(self.handle, product)?),
        };
        let Prepared { operation, layouts: [a, b, d], algorithm } = prepared;
        if let Some(Address(bias)) = matrices.bias {
            set(*operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        let (one, zero) = (1.0f32, 0.0f32);
        let pointer = |address: Address| address.0 as *mut c_void;
        // SAFETY: matrices of the sizes the layouts state (the caller checks), on this stream, in its order.
        let done = unsafe {
            result::matmul(
                self.handle,
                *operation,
                from_ref(&one).cast(),
                from_ref(&zero).cast(),
                pointer(matrices.b),
                *a,
                pointer(matrices.a),
                *b,
                pointer(matrices.d),
                *d,
                pointer(matrices.d),
                *d,
                algorithm,
                pointer(self.workspace.address()),
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        };
        done.map_err(failed("running a product"))
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        self.products.clear();
        // SAFETY: opened once, closed once.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// The algorithm the library thinks best, of those that give the same bits every time.
fn prepare(handle: sys::cublasLtHandle_t, product: &Product) -> Result<Prepared> {
    let (operation, layouts) = (product.operation()?, product.layouts()?);
    let preference = result::create_matmul_pref().map_err(failed("making a preference"))?;
    // Adding up in place takes atomics, in whatever order.
    let reductions = Reduction::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32
        | Reduction::CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE as u32;
    let prefer = |attribute, value: *const c_void, bytes| {
        // SAFETY: a live descriptor and a value of the attribute's type.
        let done = unsafe { result::set_matmul_pref_attribute(preference, attribute, value, bytes) };
        done.map_err(failed("stating a preference"))
    };
    let (bytes, mask) = (from_ref(&WORKSPACE).cast(), from_ref(&reductions).cast());
    prefer(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes, size_of::<usize>())?;
    prefer(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, mask, size_of::<u32>())?;
    let [a, b, d] = layouts;
    if product.bias == Bias::Added {
        // Some versions look at whether there is one.
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &null::<c_void>())?;
    }
    // SAFETY: live descriptors.
    let found = unsafe { result::get_matmul_algo_heuristic(handle, operation, a, b, d, d, preference) };
    // SAFETY: made above, not used any more.
    let _ = unsafe { result::destroy_matmul_pref(preference) };
    let found = found.map_err(|problem| Error::Device(format!("cuBLASLt has no algorithm for {product:?}: {problem}")));
    Ok(Prepared { operation, layouts, algorithm: found?.algo })
}
