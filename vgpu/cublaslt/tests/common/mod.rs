//! cuBLASLt as a program calls it, through cudarc, on the virtual GPU.
#![allow(dead_code)] // each test file takes what it needs

use cudarc::cublaslt::sys::{self, *};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use half::bf16;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vgpu::{Preload, VirtualGpu, preload};

pub use cublasStatus_t::*;

static ONE: Mutex<()> = Mutex::new(());

/// The library on a clean virtual GPU; one test at a time, since findings are the process's.
pub struct Lt {
    pub handle: cublasLtHandle_t,
    pub stream: Arc<CudaStream>,
    pub context: Arc<CudaContext>,
    pub gpu: VirtualGpu,
    _one: MutexGuard<'static, ()>,
}

pub fn lt() -> Lt {
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: every test comes through here first, under the lock, and nothing else reads the environment meanwhile.
    unsafe { std::env::set_var("VGPU", "1") };
    let gpu = match preload() {
        Preload::Virtual(gpu) => gpu,
        other => panic!("{other:?}"),
    };
    gpu.last_report();
    gpu.set_seed(0);
    let context = CudaContext::new(0).unwrap();
    // SAFETY: each test uses one stream, or events of its own.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let mut handle = null_mut();
    // SAFETY: a variable of ours.
    assert_eq!(unsafe { cublasLtCreate(&mut handle) }, CUBLAS_STATUS_SUCCESS);
    Lt { handle, stream, context, gpu, _one: one }
}

impl Drop for Lt {
    fn drop(&mut self) {
        // SAFETY: made by `lt`.
        assert_eq!(unsafe { cublasLtDestroy(self.handle) }, CUBLAS_STATUS_SUCCESS);
    }
}

/// The address of device memory; each test orders its work by one stream.
pub fn address<T>(slice: &CudaSlice<T>) -> u64 {
    slice.device_ptr(slice.stream()).0
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lay {
    pub number: cudaDataType,
    pub rows: u64,
    pub cols: u64,
    pub ld: u64,
    pub by_rows: bool,
}

impl Lay {
    /// By columns, with `gap` elements between them.
    pub fn columns(number: cudaDataType, rows: u64, cols: u64, gap: u64) -> Lay {
        Lay { number, rows, cols, ld: rows + gap, by_rows: false }
    }
    pub fn rows(number: cudaDataType, rows: u64, cols: u64, gap: u64) -> Lay {
        Lay { number, rows, cols, ld: cols + gap, by_rows: true }
    }
    pub fn place(&self, i: u64, j: u64) -> usize {
        (if self.by_rows { i * self.ld + j } else { j * self.ld + i }) as usize
    }
    /// Elements of the whole buffer, gaps and all.
    pub fn len(&self) -> usize {
        (self.ld * if self.by_rows { self.rows } else { self.cols }) as usize
    }
    pub fn make(&self) -> cublasLtMatrixLayout_t {
        let mut to = null_mut();
        // SAFETY: a variable of ours, here and below.
        let status = unsafe { cublasLtMatrixLayoutCreate(&mut to, self.number, self.rows, self.cols, self.ld as i64) };
        assert_eq!(status, CUBLAS_STATUS_SUCCESS);
        let order = self.by_rows as i32;
        use cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_ORDER as ORDER;
        // SAFETY: as above.
        let status = unsafe { cublasLtMatrixLayoutSetAttribute(to, ORDER, (&raw const order).cast(), 4) };
        assert_eq!(status, CUBLAS_STATUS_SUCCESS);
        to
    }
}

pub fn set<T>(desc: cublasLtMatmulDesc_t, attribute: cublasLtMatmulDescAttributes_t, value: T) -> cublasStatus_t {
    // SAFETY: the value's size is its type's.
    unsafe { cublasLtMatmulDescSetAttribute(desc, attribute, (&raw const value).cast::<c_void>(), size_of::<T>()) }
}

/// A product and its descriptors.
pub struct Product {
    pub desc: cublasLtMatmulDesc_t,
    pub layouts: [cublasLtMatrixLayout_t; 4],
    pub lays: [Lay; 4],
    pub preference: cublasLtMatmulPreference_t,
    pub algorithms: Vec<cublasLtMatmulHeuristicResult_t>,
}

/// What a product is made of.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub a: Lay,
    pub b: Lay,
    pub c: Lay,
    pub d: Lay,
    pub transposed: [bool; 2],
    pub compute: cublasComputeType_t,
    pub epilogue: cublasLtEpilogue_t,
    pub bias: u64,
    pub workspace: u64,
    pub alignment: u32,
}

impl Spec {
    /// `m` by `n` by `k`, by columns, without gaps.
    pub fn plain(number: cudaDataType, m: u64, n: u64, k: u64) -> Spec {
        let d = Lay::columns(number, m, n, 0);
        Spec {
            a: Lay::columns(number, m, k, 0),
            b: Lay::columns(number, k, n, 0),
            c: d,
            d,
            transposed: [false; 2],
            compute: cublasComputeType_t::CUBLAS_COMPUTE_32F,
            epilogue: cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            bias: 0,
            workspace: 1 << 20,
            alignment: 256,
        }
    }
}

impl Product {
    pub fn new(lt: &Lt, spec: &Spec) -> Product {
        let (mut desc, mut preference) = (null_mut(), null_mut());
        use cublasLtMatmulDescAttributes_t::*;
        use cublasLtMatmulPreferenceAttributes_t::*;
        // SAFETY: variables of ours.
        unsafe {
            assert_eq!(
                cublasLtMatmulDescCreate(&mut desc, spec.compute, cudaDataType_t::CUDA_R_32F),
                CUBLAS_STATUS_SUCCESS
            );
            assert_eq!(cublasLtMatmulPreferenceCreate(&mut preference), CUBLAS_STATUS_SUCCESS);
        }
        for (attribute, transposed) in [(CUBLASLT_MATMUL_DESC_TRANSA, 0), (CUBLASLT_MATMUL_DESC_TRANSB, 1)] {
            assert_eq!(set(desc, attribute, spec.transposed[transposed] as i32), CUBLAS_STATUS_SUCCESS);
        }
        assert_eq!(set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, spec.epilogue), CUBLAS_STATUS_SUCCESS);
        assert_eq!(set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, spec.bias), CUBLAS_STATUS_SUCCESS);
        let prefer = |attribute, value: &[u8]| {
            // SAFETY: the value's bytes.
            let status = unsafe {
                cublasLtMatmulPreferenceSetAttribute(preference, attribute, value.as_ptr().cast(), value.len())
            };
            assert_eq!(status, CUBLAS_STATUS_SUCCESS);
        };
        prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &spec.workspace.to_le_bytes());
        for attribute in [
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            prefer(attribute, &spec.alignment.to_le_bytes());
        }
        let lays = [spec.a, spec.b, spec.c, spec.d];
        let mut product = Product { desc, layouts: lays.map(|l| l.make()), lays, preference, algorithms: Vec::new() };
        product.algorithms = product.heuristic(lt, 8).unwrap_or_default();
        product
    }

    pub fn heuristic(&self, lt: &Lt, count: i32) -> Result<Vec<cublasLtMatmulHeuristicResult_t>, cublasStatus_t> {
        // SAFETY: a plain structure.
        let mut results = vec![unsafe { std::mem::zeroed::<cublasLtMatmulHeuristicResult_t>() }; count.max(1) as usize];
        let mut returned = 0;
        let [a, b, c, d] = self.layouts;
        // SAFETY: room for `count` results.
        let status = unsafe {
            let to = results.as_mut_ptr();
            cublasLtMatmulAlgoGetHeuristic(lt.handle, self.desc, a, b, c, d, self.preference, count, to, &mut returned)
        };
        results.truncate(returned as usize);
        if status == CUBLAS_STATUS_SUCCESS { Ok(results) } else { Err(status) }
    }

    /// Queues the product on addresses of A, B, C and D.
    pub fn run(
        &self,
        lt: &Lt,
        at: [u64; 4],
        scalars: [f32; 2],
        algo: Option<usize>,
        workspace: (u64, usize),
    ) -> cublasStatus_t {
        let [a, b, c, d] = self.layouts;
        let algo = algo.map_or(std::ptr::null(), |i| &raw const self.algorithms[i].algo);
        let stream = lt.stream.cu_stream() as sys::cudaStream_t;
        // SAFETY: live descriptors; addresses are what tests are about.
        unsafe {
            cublasLtMatmul(
                lt.handle,
                self.desc,
                (&raw const scalars[0]).cast(),
                at[0] as *const c_void,
                a,
                at[1] as *const c_void,
                b,
                (&raw const scalars[1]).cast(),
                at[2] as *const c_void,
                c,
                at[3] as *mut c_void,
                d,
                algo,
                workspace.0 as *mut c_void,
                workspace.1,
                stream,
            )
        }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: made by `new`; some tests destroy one before.
        unsafe {
            cublasLtMatmulDescDestroy(self.desc);
            cublasLtMatmulPreferenceDestroy(self.preference);
            self.layouts.into_iter().for_each(|l| assert_eq!(cublasLtMatrixLayoutDestroy(l), CUBLAS_STATUS_SUCCESS));
        }
    }
}

/// Numbers between -1 and 1, the same every time.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A matrix's buffer on the device, and what it holds (rounded to its type).
pub fn upload(lt: &Lt, lay: &Lay, values: &[f32]) -> (CudaSlice<u8>, Vec<f32>) {
    let (bytes, kept): (Vec<u8>, Vec<f32>) = match lay.number {
        cudaDataType_t::CUDA_R_16BF => {
            let rounded: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
            (rounded.iter().flat_map(|v| v.to_le_bytes()).collect(), rounded.iter().map(|v| v.to_f32()).collect())
        }
        _ => (values.iter().flat_map(|v| v.to_le_bytes()).collect(), values.to_vec()),
    };
    (lt.stream.clone_htod(&bytes).unwrap(), kept)
}

/// A buffer's numbers.
pub fn download(lt: &Lt, number: cudaDataType, slice: &CudaSlice<u8>) -> Vec<f32> {
    let bytes = lt.stream.clone_dtoh(slice).unwrap();
    match number {
        cudaDataType_t::CUDA_R_16BF => bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        _ => bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}
