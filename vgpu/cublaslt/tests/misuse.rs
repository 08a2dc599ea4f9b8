//! Every class of misuse is refused with a status and named in the report.

mod common;

use common::*;
use cudarc::cublaslt::sys::*;
use std::ptr::{null, null_mut};

const F32: cudaDataType = cudaDataType_t::CUDA_R_32F;
const BF16: cudaDataType = cudaDataType_t::CUDA_R_16BF;

/// The report has one line, of this function, that says this.
fn named(lt: &Lt, function: &str, what: &str) {
    let report = lt.gpu.last_report();
    assert!(report.starts_with(&format!("bad call: `{function}`")) && report.contains(what), "{what}: {report}");
    assert_eq!(report.lines().count(), 1, "{report}");
}

/// Matrices of 16x16 numbers, at addresses that divide by 512.
struct Buffers {
    a: cudarc::driver::CudaSlice<u8>,
    b: cudarc::driver::CudaSlice<u8>,
    d: cudarc::driver::CudaSlice<u8>,
    workspace: cudarc::driver::CudaSlice<u8>,
}

impl Buffers {
    fn new(lt: &Lt) -> Buffers {
        let zeros = |n| lt.stream.alloc_zeros::<u8>(n).unwrap();
        Buffers { a: zeros(1040), b: zeros(1040), d: zeros(1040), workspace: zeros(4096) }
    }
    fn at(&self) -> [u64; 4] {
        [&self.a, &self.b, &self.d, &self.d].map(address)
    }
}

#[test]
fn descriptors_are_checked() {
    let lt = lt();
    let product = Product::new(&lt, &Spec::plain(F32, 4, 4, 4));
    use cublasLtMatmulDescAttributes_t::*;
    let function = "cublasLtMatmulDescSetAttribute";
    assert_eq!(set(product.desc, CUBLASLT_MATMUL_DESC_TRANSA, 1i64), CUBLAS_STATUS_INVALID_VALUE);
    named(&lt, function, "attribute 3 of the operation descriptor has 4 bytes, not 8");
    assert_eq!(set(product.desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, 1i8), CUBLAS_STATUS_NOT_SUPPORTED);
    named(&lt, function, "attribute 25 of the operation descriptor is not covered");
    assert_eq!(set(null_mut(), CUBLASLT_MATMUL_DESC_TRANSA, 1i32), CUBLAS_STATUS_INVALID_VALUE);
    named(&lt, function, "the operation descriptor is null");
    assert_eq!(set(product.layouts[0].cast(), CUBLASLT_MATMUL_DESC_TRANSA, 1i32), CUBLAS_STATUS_INVALID_VALUE);
    named(&lt, function, "none of this library's");
    // SAFETY: wrong on purpose, here and below.
    let status = unsafe { cublasLtMatmulDescSetAttribute(product.desc, CUBLASLT_MATMUL_DESC_TRANSA, null(), 4) };
    assert_eq!(status, CUBLAS_STATUS_INVALID_VALUE);
    named(&lt, function, "the value of attribute 3 is null");
    // SAFETY: as above.
    unsafe {
        assert_eq!(cublasLtMatmulDescDestroy(product.desc), CUBLAS_STATUS_SUCCESS);
        assert_eq!(cublasLtMatmulDescDestroy(null_mut()), CUBLAS_STATUS_SUCCESS);
        assert_eq!(lt.gpu.last_report(), "");
        assert_eq!(cublasLtMatmulDescDestroy(product.desc), CUBLAS_STATUS_INVALID_VALUE);
    }
    named(&lt, "cublasLtMatmulDescDestroy", "destroyed before");
    assert_eq!(product.heuristic(&lt, 1), Err(CUBLAS_STATUS_INVALID_VALUE));
    named(&lt, "cublasLtMatmulAlgoGetHeuristic", "the operation descriptor is destroyed before");
    drop(product);
    lt.gpu.last_report();
}

#[test]
fn attributes_can_be_asked() {
    let lt = lt();
    let product = Product::new(&lt, &Spec::plain(F32, 4, 5, 6));
    let (mut rows, mut written) = (0u64, 0usize);
    use cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_COLS as COLS;
    // SAFETY: variables of these sizes; too small a size is wrong on purpose.
    unsafe {
        let to = (&raw mut rows).cast();
        let get = |bytes, written| cublasLtMatrixLayoutGetAttribute(product.layouts[3], COLS, to, bytes, written);
        assert_eq!(get(8, &mut written), CUBLAS_STATUS_SUCCESS);
        assert_eq!((rows, written), (5, 8));
        assert_eq!(get(0, &mut written), CUBLAS_STATUS_SUCCESS);
        assert_eq!(lt.gpu.last_report(), "");
        assert_eq!(get(4, &mut written), CUBLAS_STATUS_INVALID_VALUE);
    }
    named(&lt, "cublasLtMatrixLayoutGetAttribute", "has 8 bytes, not 4");
}

#[test]
fn handles_are_checked() {
    let lt = lt();
    let spec = Spec::plain(F32, 4, 4, 4);
    let mut other = null_mut();
    // SAFETY: a variable of ours; what is wrong is so on purpose.
    unsafe {
        assert_eq!(cublasLtCreate(&mut other), CUBLAS_STATUS_SUCCESS);
        assert_eq!(cublasLtDestroy(other), CUBLAS_STATUS_SUCCESS);
        assert_eq!(cublasLtDestroy(other), CUBLAS_STATUS_INVALID_VALUE);
        named(&lt, "cublasLtDestroy", "the handle is destroyed before");
        assert_eq!(cublasLtCreate(null_mut()), CUBLAS_STATUS_INVALID_VALUE);
        named(&lt, "cublasLtCreate", "nowhere to write");
    }
    let product = Product::new(&lt, &spec);
    let [a, b, c, d] = product.layouts;
    // SAFETY: as above.
    let status = unsafe {
        let (mut result, mut count) = (std::mem::zeroed(), 0);
        let preference = product.preference;
        cublasLtMatmulAlgoGetHeuristic(other, product.desc, a, b, c, d, preference, 1, &mut result, &mut count)
    };
    assert_eq!(status, CUBLAS_STATUS_NOT_INITIALIZED);
    named(&lt, "cublasLtMatmulAlgoGetHeuristic", "the handle is destroyed before");
    assert_eq!(product.heuristic(&lt, 0), Err(CUBLAS_STATUS_INVALID_VALUE));
    named(&lt, "cublasLtMatmulAlgoGetHeuristic", "0 algorithms are requested");
}

#[test]
fn shapes_that_do_not_fit() {
    let lt = lt();
    let good = Spec::plain(F32, 16, 16, 16);
    let function = "cublasLtMatmulAlgoGetHeuristic";
    let refused = |spec: &Spec, what: &str| {
        let product = Product::new(&lt, spec);
        named(&lt, function, what);
        assert_eq!(product.heuristic(&lt, 1), Err(CUBLAS_STATUS_INVALID_VALUE));
        lt.gpu.last_report();
    };
    refused(&Spec { b: Lay::columns(F32, 15, 16, 0), ..good }, "op(A) is 16x16 and op(B) is 15x16, not 16x16");
    refused(&Spec { d: Lay::columns(F32, 16, 17, 0), ..good }, "D is 16x17, not 16x16");
    refused(&Spec { c: Lay::columns(F32, 8, 16, 0), ..good }, "C is 8x16");
    refused(&Spec { a: Lay { ld: 15, ..good.a }, ..good }, "A is 16x16 by columns, and its leading dimension is 15");
    refused(&Spec { a: Lay { rows: 0, ..good.a }, ..good }, "A has 0 rows");
    refused(&Spec { alignment: 24, ..good }, "an alignment of 24 bytes");
}

#[test]
fn what_is_not_supported_is_an_answer_to_the_heuristic_and_a_mistake_in_a_product() {
    let lt = lt();
    let good = Spec::plain(F32, 16, 16, 16);
    let buffers = Buffers::new(&lt);
    let bias = Spec { epilogue: cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS, bias: address(&buffers.workspace), ..good };
    let by_rows = Lay::rows(F32, 16, 16, 0);
    for (spec, what) in [
        (Spec { b: Lay { number: BF16, ..good.b }, ..good }, "A f32, B bf16"),
        (Spec { c: Lay { number: BF16, ..good.c }, d: Lay { number: BF16, ..good.d }, ..good }, "D bf16"),
        (Spec { a: Lay { number: cudaDataType_t::CUDA_R_16F, ..good.a }, ..good }, "data type 2 of A"),
        (Spec { compute: cublasComputeType_t::CUBLAS_COMPUTE_16F, ..good }, "compute type 64"),
        (Spec { c: by_rows, ..good }, "different orders"),
        (Spec { c: by_rows, d: by_rows, ..bias }, "an epilogue on a D by rows"),
        (Spec { epilogue: cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU, ..good }, "epilogue 32"),
    ] {
        let product = Product::new(&lt, &spec);
        assert_eq!(product.heuristic(&lt, 1), Err(CUBLAS_STATUS_NOT_SUPPORTED));
        assert_eq!(lt.gpu.last_report(), "");
        let status = product.run(&lt, buffers.at(), [1.0, 0.0], None, (0, 0));
        assert_eq!(status, CUBLAS_STATUS_NOT_SUPPORTED);
        named(&lt, "cublasLtMatmul", what);
    }
}

#[test]
fn addresses_and_workspaces() {
    let lt = lt();
    let spec = Spec::plain(F32, 16, 16, 16);
    let product = Product::new(&lt, &spec);
    let buffers = Buffers::new(&lt);
    let (at, workspace) = (buffers.at(), address(&buffers.workspace));
    let refused = |at: [u64; 4], beta: f32, algo: Option<usize>, workspace: (u64, usize), what: &str| {
        assert_eq!(product.run(&lt, at, [1.0, beta], algo, workspace), CUBLAS_STATUS_INVALID_VALUE);
        named(&lt, "cublasLtMatmul", what);
    };
    let moved = |i: usize, by: u64| std::array::from_fn(|j| if i == j { at[j] + by } else { at[j] });
    refused(moved(0, 16), 0.0, Some(1), (0, 0), "A is at");
    refused(moved(3, 16), 0.0, Some(1), (0, 0), "256 bytes' alignment");
    refused([at[0], 0, at[2], at[3]], 0.0, Some(1), (0, 0), "B is null");
    refused([at[0], at[1], 0, at[3]], 1.0, Some(1), (0, 0), "C is null");
    refused([at[0], at[1], at[2], at[0]], 0.0, Some(1), (0, 0), "A and D overlap");
    refused(at, 0.0, Some(0), (workspace, 2047), "needs a workspace of 2048 bytes, not 2047");
    refused(at, 0.0, Some(0), (0, 2048), "the workspace of 2048 bytes is null");
    refused(at, 0.0, Some(0), (workspace + 16, 2048), "does not divide by 256");
    refused(at, 0.0, Some(0), (at[1], 2048), "B and the workspace overlap");
    let other = Product::new(&lt, &Spec::plain(F32, 16, 16, 8));
    let mut mixed = Product::new(&lt, &spec);
    mixed.algorithms = other.algorithms.clone();
    assert_eq!(mixed.run(&lt, at, [1.0, 0.0], Some(1), (0, 0)), CUBLAS_STATUS_INVALID_VALUE);
    named(&lt, "cublasLtMatmul", "for another problem");
    let bias = Spec { epilogue: cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS, ..spec };
    assert_eq!(Product::new(&lt, &bias).run(&lt, at, [1.0, 0.0], None, (0, 0)), CUBLAS_STATUS_INVALID_VALUE);
    named(&lt, "cublasLtMatmul", "needs a bias pointer");
    let layouts = Product::new(&lt, &Spec { c: Lay { ld: 32, ..spec.c }, ..spec });
    assert_eq!(layouts.run(&lt, at, [1.0, 1.0], None, (0, 0)), CUBLAS_STATUS_INVALID_VALUE);
    named(&lt, "cublasLtMatmul", "at the same address with different layouts");
}

#[test]
fn memory_is_checked_when_the_stream_comes_to_it() {
    let lt = lt();
    let product = Product::new(&lt, &Spec::plain(F32, 16, 16, 16));
    let buffers = Buffers::new(&lt);
    let at = buffers.at();
    let found = |at: [u64; 4], workspace: (u64, usize), what: &str| {
        let algo = if workspace.1 > 0 { 0 } else { 1 };
        assert_eq!(product.run(&lt, at, [1.0, 0.0], Some(algo), workspace), CUBLAS_STATUS_SUCCESS);
        assert!(lt.stream.synchronize().is_err(), "{what}");
        let report = lt.gpu.last_report();
        assert!(report.contains(what), "{what}: {report}");
    };
    // SAFETY: not written before it is read, on purpose.
    let unwritten = unsafe { lt.stream.alloc::<u8>(1024) }.unwrap();
    let place = "uninitialised read: `cublasLtMatmul` at 16x16x16, Tiled, B: byte 0 of 1024 bytes was never written";
    found([at[0], address(&unwritten), at[2], at[3]], (0, 0), place);
    let small = lt.stream.alloc_zeros::<u8>(1023).unwrap();
    found([at[0], at[1], at[2], address(&small)], (0, 0), "out of bounds: `cublasLtMatmul` at 16x16x16, Tiled, D");
    found(at, (address(&small), 2048), "SplitK, the workspace");
    found(at, (address(&buffers.workspace), 4097), "SplitK, the stated workspace: 4097 bytes");
    let freed = address(&small);
    drop(small);
    lt.stream.synchronize().unwrap();
    found([freed, at[1], at[2], at[3]], (0, 0), "use after free: `cublasLtMatmul`");
}

#[test]
fn a_stream_that_is_none_and_one_that_may_not() {
    let lt = lt();
    let product = Product::new(&lt, &Spec::plain(F32, 16, 16, 16));
    let buffers = Buffers::new(&lt);
    let [a, b, _, d] = buffers.at();
    let run = |stream: u64| {
        let [la, lb, lc, ld] = product.layouts;
        let (one, zero) = (1f32, 0f32);
        let (one, zero) = ((&raw const one).cast(), (&raw const zero).cast());
        let [a, b, d] = [a, b, d].map(|p| p as *mut std::ffi::c_void);
        let stream = stream as cudaStream_t;
        // SAFETY: the stream is wrong on purpose.
        unsafe {
            cublasLtMatmul(
                lt.handle,
                product.desc,
                one,
                a,
                la,
                b,
                lb,
                zero,
                d,
                lc,
                d,
                ld,
                null(),
                null_mut(),
                0,
                stream,
            )
        }
    };
    assert_eq!(run(0x1234), CUBLAS_STATUS_EXECUTION_FAILED);
    named(&lt, "cublasLtMatmul", "0x1234 is no stream");
    let blocking = lt.context.new_stream().unwrap();
    use cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as LOCAL;
    lt.stream.synchronize().unwrap();
    blocking.begin_capture(LOCAL).unwrap();
    let status = run(0);
    let flags = cudarc::driver::sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    drop(blocking.end_capture(flags));
    // cudarc's streams do not block, so the legacy stream may be used beside a capture.
    assert_eq!(status, CUBLAS_STATUS_SUCCESS);
    lt.stream.synchronize().unwrap();
    assert_eq!(lt.gpu.last_report(), "");
}
