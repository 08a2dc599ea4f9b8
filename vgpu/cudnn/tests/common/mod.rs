//! cuDNN's graph API as a program calls it, through cudarc, on the virtual GPU.
#![allow(dead_code)] // each test file takes what it needs

pub mod reference;

use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use cudarc::cudnn::sys::cudnnBackendAttributeType_t as T;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t as D;
use cudarc::cudnn::sys::*;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use half::bf16;
use reference::{Direction, Shape};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vgpu::{Preload, VirtualGpu, preload};

pub use cudnnStatus_t::*;

static ONE: Mutex<()> = Mutex::new(());

/// The library on a clean virtual GPU; one test at a time, since findings are the process's.
pub struct Dnn {
    pub handle: cudnnHandle_t,
    pub stream: Arc<CudaStream>,
    pub context: Arc<CudaContext>,
    pub gpu: VirtualGpu,
    _one: MutexGuard<'static, ()>,
}

pub fn dnn() -> Dnn {
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
    // SAFETY: a variable of ours, and a live stream.
    unsafe {
        assert_eq!(cudnnCreate(&mut handle), CUDNN_STATUS_SUCCESS);
        assert_eq!(cudnnSetStream(handle, stream.cu_stream() as cudaStream_t), CUDNN_STATUS_SUCCESS);
    }
    Dnn { handle, stream, context, gpu, _one: one }
}

impl Drop for Dnn {
    fn drop(&mut self) {
        // SAFETY: made by `dnn`.
        assert_eq!(unsafe { cudnnDestroy(self.handle) }, CUDNN_STATUS_SUCCESS);
    }
}

/// The address of device memory; each test orders its work by one stream.
pub fn address<X>(slice: &CudaSlice<X>) -> u64 {
    slice.device_ptr(slice.stream()).0
}

/// A descriptor.
pub struct Desc(pub cudnnBackendDescriptor_t);

impl Desc {
    pub fn new(kind: D) -> Desc {
        let mut to = null_mut();
        // SAFETY: a variable of ours.
        assert_eq!(unsafe { cudnnBackendCreateDescriptor(kind, &mut to) }, CUDNN_STATUS_SUCCESS);
        Desc(to)
    }
    pub fn try_set<X>(&self, name: A, ty: T, values: &[X]) -> cudnnStatus_t {
        // SAFETY: as many elements as are stated; their type is what tests are about.
        unsafe { cudnnBackendSetAttribute(self.0, name, ty, values.len() as i64, values.as_ptr().cast::<c_void>()) }
    }
    pub fn set<X>(self, name: A, ty: T, values: &[X]) -> Desc {
        assert_eq!(self.try_set(name, ty, values), CUDNN_STATUS_SUCCESS, "{name:?}");
        self
    }
    pub fn with(self, name: A, other: &Desc) -> Desc {
        self.set(name, T::CUDNN_TYPE_BACKEND_DESCRIPTOR, &[other.0])
    }
    pub fn finalize(&self) -> cudnnStatus_t {
        // SAFETY: a descriptor.
        unsafe { cudnnBackendFinalize(self.0) }
    }
    pub fn done(self) -> Desc {
        assert_eq!(self.finalize(), CUDNN_STATUS_SUCCESS);
        self
    }
    /// Up to `most` elements of an attribute.
    pub fn get<X: Copy + Default>(&self, name: A, ty: T, most: usize) -> Result<Vec<X>, cudnnStatus_t> {
        let (mut values, mut count) = (vec![X::default(); most], 0i64);
        // SAFETY: room for `most` elements.
        let status = unsafe {
            cudnnBackendGetAttribute(self.0, name, ty, most as i64, &mut count, values.as_mut_ptr().cast::<c_void>())
        };
        values.truncate(count as usize);
        if status == CUDNN_STATUS_SUCCESS { Ok(values) } else { Err(status) }
    }
    /// An attribute's descriptor, filled into a new one.
    pub fn part(&self, name: A, kind: D) -> Desc {
        let part = Desc::new(kind);
        let (mut list, mut count) = ([part.0], 0i64);
        let ty = T::CUDNN_TYPE_BACKEND_DESCRIPTOR;
        // SAFETY: room for one element.
        let status = unsafe { cudnnBackendGetAttribute(self.0, name, ty, 1, &mut count, list.as_mut_ptr().cast()) };
        assert_eq!((status, count), (CUDNN_STATUS_SUCCESS, 1));
        part
    }
}

impl Drop for Desc {
    fn drop(&mut self) {
        // SAFETY: a descriptor; tests that destroyed it before put null here.
        unsafe {
            if !self.0.is_null() {
                cudnnBackendDestroyDescriptor(self.0);
            }
        }
    }
}

pub const F32: cudnnDataType_t = cudnnDataType_t::CUDNN_DATA_FLOAT;
pub const BF16: cudnnDataType_t = cudnnDataType_t::CUDNN_DATA_BFLOAT16;

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// Channels innermost, with this many more of them in memory.
    Nhwc {
        gap: i64,
    },
    Nchw,
}

pub fn strides([_, c, h, w]: [i64; 4], layout: Layout) -> [i64; 4] {
    match layout {
        Layout::Nhwc { gap } => [h * w * (c + gap), 1, w * (c + gap), c + gap],
        Layout::Nchw => [c * h * w, h * w, w, 1],
    }
}

/// A tensor that is not finalised.
pub fn open_tensor(uid: i64, number: cudnnDataType_t, dims: [i64; 4], layout: Layout) -> Desc {
    Desc::new(D::CUDNN_BACKEND_TENSOR_DESCRIPTOR)
        .set(A::CUDNN_ATTR_TENSOR_UNIQUE_ID, T::CUDNN_TYPE_INT64, &[uid])
        .set(A::CUDNN_ATTR_TENSOR_DATA_TYPE, T::CUDNN_TYPE_DATA_TYPE, &[number])
        .set(A::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, T::CUDNN_TYPE_INT64, &[16i64])
        .set(A::CUDNN_ATTR_TENSOR_DIMENSIONS, T::CUDNN_TYPE_INT64, &dims)
        .set(A::CUDNN_ATTR_TENSOR_STRIDES, T::CUDNN_TYPE_INT64, &strides(dims, layout))
}

pub fn tensor(uid: i64, number: cudnnDataType_t, dims: [i64; 4], layout: Layout) -> Desc {
    open_tensor(uid, number, dims, layout).done()
}

pub fn virtual_tensor(uid: i64, dims: [i64; 4]) -> Desc {
    let open = open_tensor(uid, F32, dims, Layout::Nhwc { gap: 0 });
    open.set(A::CUDNN_ATTR_TENSOR_IS_VIRTUAL, T::CUDNN_TYPE_BOOLEAN, &[true]).done()
}

/// A convolution's parameters, not finalised.
pub fn open_convolution(shape: &Shape) -> Desc {
    let pair = |v: [usize; 2]| v.map(|v| v as i64);
    Desc::new(D::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)
        .set(A::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, T::CUDNN_TYPE_INT64, &[2i64])
        .set(A::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, T::CUDNN_TYPE_DATA_TYPE, &[F32])
        .set(
            A::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
            T::CUDNN_TYPE_CONVOLUTION_MODE,
            &[cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION],
        )
        .set(A::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, T::CUDNN_TYPE_INT64, &pair(shape.before))
        .set(A::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, T::CUDNN_TYPE_INT64, &pair(shape.after))
        .set(A::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, T::CUDNN_TYPE_INT64, &[shape.stride as i64; 2])
        .set(A::CUDNN_ATTR_CONVOLUTION_DILATIONS, T::CUDNN_TYPE_INT64, &[1i64; 2])
}

/// A convolution of tensors, not finalised.
pub fn open_operation(direction: Direction, convolution: &Desc, x: &Desc, w: &Desc, y: &Desc) -> Desc {
    open_operation_by(direction, 0.0, convolution, x, w, y)
}

/// A convolution of tensors that keeps a share (beta) of what was there, not finalised.
pub fn open_operation_by(direction: Direction, kept: f32, convolution: &Desc, x: &Desc, w: &Desc, y: &Desc) -> Desc {
    let (kind, [alpha, beta, parameters, to_x, to_w, to_y]) = match direction {
        Direction::Forward => (
            D::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
            ],
        ),
        Direction::Data => (
            D::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
            ],
        ),
        Direction::Filter => (
            D::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
            ],
        ),
    };
    Desc::new(kind)
        .set(alpha, T::CUDNN_TYPE_FLOAT, &[1f32])
        .set(beta, T::CUDNN_TYPE_FLOAT, &[kept])
        .with(parameters, convolution)
        .with(to_x, x)
        .with(to_w, w)
        .with(to_y, y)
}

/// A graph that is not finalised.
pub fn open_graph(dnn: &Dnn, operations: &[&Desc]) -> Desc {
    let operations: Vec<_> = operations.iter().map(|o| o.0).collect();
    Desc::new(D::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)
        .set(A::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, T::CUDNN_TYPE_HANDLE, &[dnn.handle])
        .set(A::CUDNN_ATTR_OPERATIONGRAPH_OPS, T::CUDNN_TYPE_BACKEND_DESCRIPTOR, &operations)
}

/// The graph of one convolution of tensors 1 (x), 2 (w) and 3 (y), all of one type.
pub fn convolution_graph(
    dnn: &Dnn,
    direction: Direction,
    shape: &Shape,
    number: cudnnDataType_t,
    layout: Layout,
) -> Desc {
    convolution_graph_into(dnn, direction, shape, [number; 2], layout)
}

/// The same with a type for the inputs and one for the result.
pub fn convolution_graph_into(
    dnn: &Dnn,
    direction: Direction,
    shape: &Shape,
    [input, result]: [cudnnDataType_t; 2],
    layout: Layout,
) -> Desc {
    let number = |made| if direction == made { result } else { input };
    let x = tensor(1, number(Direction::Data), shape.x(), layout);
    let w = tensor(2, number(Direction::Filter), shape.w(), layout);
    let y = tensor(3, number(Direction::Forward), shape.y(), layout);
    let operation = open_operation(direction, &open_convolution(shape).done(), &x, &w, &y).done();
    open_graph(dnn, &[&operation]).done()
}

/// What the heuristic lists.
pub fn configs(graph: &Desc, mode: cudnnBackendHeurMode_t) -> Result<Vec<Desc>, cudnnStatus_t> {
    let heuristic = Desc::new(D::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
        .with(A::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
        .set(A::CUDNN_ATTR_ENGINEHEUR_MODE, T::CUDNN_TYPE_HEUR_MODE, &[mode]);
    match heuristic.finalize() {
        CUDNN_STATUS_SUCCESS => {}
        status => return Err(status),
    }
    let (name, ty, mut count) = (A::CUDNN_ATTR_ENGINEHEUR_RESULTS, T::CUDNN_TYPE_BACKEND_DESCRIPTOR, 0i64);
    // SAFETY: asks for the number of results; then there is room for all of them.
    unsafe {
        assert_eq!(cudnnBackendGetAttribute(heuristic.0, name, ty, 0, &mut count, null_mut()), CUDNN_STATUS_SUCCESS);
        let list: Vec<Desc> = (0..count).map(|_| Desc::new(D::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)).collect();
        let mut raw: Vec<_> = list.iter().map(|d| d.0).collect();
        let status = cudnnBackendGetAttribute(heuristic.0, name, ty, count, &mut count, raw.as_mut_ptr().cast());
        assert_eq!((status, count as usize), (CUDNN_STATUS_SUCCESS, list.len()));
        Ok(list)
    }
}

/// A configuration's engine: its index and its numerical notes.
pub fn engine(config: &Desc) -> (i64, Vec<cudnnBackendNumericalNote_t>) {
    let engine = config.part(A::CUDNN_ATTR_ENGINECFG_ENGINE, D::CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    let index = engine.get(A::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, T::CUDNN_TYPE_INT64, 1).unwrap()[0];
    let notes: Vec<u32> = engine.get(A::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, T::CUDNN_TYPE_NUMERICAL_NOTE, 10).unwrap();
    use cudnnBackendNumericalNote_t::*;
    let known = [CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC];
    (index, known.into_iter().filter(|n| notes.contains(&(*n as u32))).collect())
}

pub fn plan(dnn: &Dnn, config: &Desc) -> Result<Desc, cudnnStatus_t> {
    let plan = Desc::new(D::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        .set(A::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, T::CUDNN_TYPE_HANDLE, &[dnn.handle])
        .with(A::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    match plan.finalize() {
        CUDNN_STATUS_SUCCESS => Ok(plan),
        status => Err(status),
    }
}

pub fn workspace(plan: &Desc) -> usize {
    plan.get::<i64>(A::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, T::CUDNN_TYPE_INT64, 1).unwrap()[0] as usize
}

/// A variant pack that is not finalised.
pub fn open_pack(pointers: &[(i64, u64)], workspace: u64) -> Desc {
    let (ids, addresses): (Vec<i64>, Vec<u64>) = pointers.iter().copied().unzip();
    Desc::new(D::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
        .set(A::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, T::CUDNN_TYPE_INT64, &ids)
        .set(A::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, T::CUDNN_TYPE_VOID_PTR, &addresses)
        .set(A::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, T::CUDNN_TYPE_VOID_PTR, &[workspace])
}

pub fn execute(dnn: &Dnn, plan: &Desc, pointers: &[(i64, u64)], workspace: u64) -> cudnnStatus_t {
    let pack = open_pack(pointers, workspace).done();
    // SAFETY: a finalised plan and pack; addresses are what tests are about.
    unsafe { cudnnBackendExecute(dnn.handle, plan.0, pack.0) }
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

/// A tensor's buffer: device memory, and its numbers as they were rounded.
pub struct Buffer {
    pub device: CudaSlice<u8>,
    pub values: Vec<f32>,
    pub number: cudnnDataType_t,
}

pub fn upload(dnn: &Dnn, number: cudnnDataType_t, values: &[f32]) -> Buffer {
    let rounded: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
    let (bytes, values): (Vec<u8>, Vec<f32>) = match number {
        BF16 => (rounded.iter().flat_map(|v| v.to_le_bytes()).collect(), rounded.iter().map(|v| v.to_f32()).collect()),
        _ => (values.iter().flat_map(|v| v.to_le_bytes()).collect(), values.to_vec()),
    };
    Buffer { device: dnn.stream.clone_htod(&bytes).unwrap(), values, number }
}

impl Buffer {
    pub fn at(&self) -> u64 {
        address(&self.device)
    }
    pub fn download(&self, dnn: &Dnn) -> Vec<f32> {
        let bytes = dnn.stream.clone_dtoh(&self.device).unwrap();
        match self.number {
            BF16 => bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            _ => bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        }
    }
}
