//! Stand-ins for CUDA's libraries beside the driver's: found by name, in its streams, in a program that knows of none of it.

use cudarc::cublaslt::sys as lt;
use cudarc::cudnn::sys as dnn;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use std::process::Command;
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vgpu::{Preload, VirtualGpu, preload};

static ONE: Mutex<()> = Mutex::new(());

fn gpu() -> (MutexGuard<'static, ()>, VirtualGpu, Arc<CudaContext>) {
    let lock = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: every test comes through here first, under the lock, and nothing else reads the environment meanwhile.
    unsafe { std::env::set_var("VGPU", "1") };
    let Preload::Virtual(gpu) = preload() else { panic!("no virtual GPU") };
    gpu.last_report();
    let context = CudaContext::new(0).unwrap();
    // SAFETY: the events are what these tests are about.
    unsafe { context.disable_event_tracking() };
    (lock, gpu, context)
}

/// A program's first calls of both libraries.
fn greet() {
    // SAFETY: variables of ours.
    unsafe {
        assert!(dnn::is_culib_present() && lt::is_culib_present());
        assert!(dnn::cudnnGetVersion() >= 90_800 && lt::cublasLtGetVersion() >= 130_000);
        let (mut one, mut two) = (null_mut(), null_mut());
        assert_eq!(dnn::cudnnCreate(&mut one), dnn::cudnnStatus_t::CUDNN_STATUS_SUCCESS);
        assert_eq!(lt::cublasLtCreate(&mut two), lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        assert_eq!(dnn::cudnnDestroy(one), dnn::cudnnStatus_t::CUDNN_STATUS_SUCCESS);
        assert_eq!(lt::cublasLtDestroy(two), lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
    }
}

#[test]
fn preload_loads_them() {
    let (_lock, gpu, _context) = gpu();
    greet();
    assert_eq!(gpu.last_report(), "");
}

/// What `a_program_that_knows_of_none_of_it` runs in a process of its own; alone it finds no driver.
#[test]
#[ignore = "run by a_program_that_knows_of_none_of_it"]
fn program() {
    assert_eq!(CudaContext::device_count(), Ok(1));
    let _context = CudaContext::new(0).unwrap();
    greet();
}

#[test]
fn a_program_that_knows_of_none_of_it() {
    let exe = std::env::current_exe().unwrap();
    let files = ["libvgpu.so", "libvgpu_cudnn.so", "libvgpu_cublaslt.so"].map(|f| exe.with_file_name(f));
    let list = files.map(|f| f.into_os_string().into_string().unwrap()).join(":");
    let arguments = ["--exact", "program", "--ignored"];
    let done = Command::new(exe).args(arguments).env("LD_PRELOAD", list).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&done.stderr));
}

/// Adds a 2x2 matrix to itself, by a product with the identity: `d += a`.
struct Sum {
    handle: lt::cublasLtHandle_t,
    desc: lt::cublasLtMatmulDesc_t,
    layout: lt::cublasLtMatrixLayout_t,
    identity: CudaSlice<f32>,
}

fn address(slice: &CudaSlice<f32>) -> *mut std::ffi::c_void {
    slice.device_ptr(slice.stream()).0 as *mut _
}

impl Sum {
    fn new(stream: &Arc<CudaStream>) -> Sum {
        let identity = stream.clone_htod(&[1f32, 0.0, 0.0, 1.0]).unwrap();
        stream.synchronize().unwrap();
        let (mut handle, mut desc, mut layout) = (null_mut(), null_mut(), null_mut());
        let (compute, single) = (lt::cublasComputeType_t::CUBLAS_COMPUTE_32F, lt::cudaDataType_t::CUDA_R_32F);
        // SAFETY: variables of ours.
        unsafe {
            lt::cublasLtCreate(&mut handle);
            lt::cublasLtMatmulDescCreate(&mut desc, compute, single);
            lt::cublasLtMatrixLayoutCreate(&mut layout, single, 2, 2, 2);
        }
        Sum { handle, desc, layout, identity }
    }

    fn run(&self, stream: &CudaStream, a: &CudaSlice<f32>, d: &CudaSlice<f32>) {
        let (one, l) = ((&raw const ONE_POINT_ZERO).cast(), self.layout);
        let (a, b, d, stream) = (address(a), address(&self.identity), address(d), stream.cu_stream().cast());
        // SAFETY: live descriptors and matrices of four numbers.
        let status = unsafe {
            lt::cublasLtMatmul(self.handle, self.desc, one, a, l, b, l, one, d, l, d, l, null(), null_mut(), 0, stream)
        };
        assert_eq!(status, lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
    }
}

static ONE_POINT_ZERO: f32 = 1.0;

impl Drop for Sum {
    fn drop(&mut self) {
        // SAFETY: made by `new`.
        unsafe {
            lt::cublasLtMatrixLayoutDestroy(self.layout);
            lt::cublasLtMatmulDescDestroy(self.desc);
            lt::cublasLtDestroy(self.handle);
        }
    }
}

/// A library's work on one stream reads what a copy on another writes: always right with an event, for some seeds wrong
/// without.
fn exchange(gpu: &VirtualGpu, context: &Arc<CudaContext>, seed: u64, with_event: bool) -> Option<Vec<f32>> {
    gpu.set_seed(seed);
    let (one, two) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let sum = Sum::new(&one);
    let (mut a, d) = (one.alloc_zeros::<f32>(4).unwrap(), one.alloc_zeros::<f32>(4).unwrap());
    one.synchronize().unwrap();
    one.memcpy_htod(&[1f32, 2.0, 3.0, 4.0], &mut a).unwrap();
    if with_event {
        two.wait(&one.record_event(None).unwrap()).unwrap();
    }
    sum.run(&two, &a, &d);
    let out = two.clone_dtoh(&d).ok();
    one.synchronize().unwrap();
    gpu.last_report();
    out
}

#[test]
fn a_missing_event_before_a_librarys_work_is_seen() {
    let (_lock, gpu, context) = gpu();
    let right = Some(vec![1.0, 2.0, 3.0, 4.0]);
    assert!((0..20).all(|seed| exchange(&gpu, &context, seed, true) == right));
    let wrong = (0..20).filter(|&seed| exchange(&gpu, &context, seed, false) != right).count();
    assert!(wrong > 2, "{wrong} of 20 seeds show it");
}

#[test]
fn a_capture_that_is_given_up_frees_a_librarys_work() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    let sum = Sum::new(&stream);
    let (a, d) = (stream.alloc_zeros::<f32>(4).unwrap(), stream.alloc_zeros::<f32>(4).unwrap());
    stream.synchronize().unwrap();
    use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode::*};
    stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    sum.run(&stream, &a, &d);
    assert!(stream.synchronize().is_err());
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    assert!(stream.end_capture(flags).is_err());
    sum.run(&stream, &a, &d);
    assert_eq!(stream.clone_dtoh(&d).unwrap(), [0.0; 4]);
    assert_eq!(gpu.last_report(), "");
}
