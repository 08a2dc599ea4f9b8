//! cuDNN's graph interface, as far as convolutions need it: descriptors, engines, plans.
//!
//! One graph of one operation a convolution. cuDNN proposes engines; those that are not deterministic, or round more than
//! the precision allows, are left out; each remaining one is timed on the tensors at hand, and the fastest stays.

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type, cudnnBackendDescriptor_t,
    cudnnBackendDescriptorType_t as Kind, cudnnBackendHeurMode_t as Heuristic, cudnnBackendNumericalNote_t as Note,
    cudnnConvolutionMode_t, cudnnDataType_t, cudnnStatus_t,
};
use cudarc::driver::{CudaStream, sys::CUevent_flags};

use super::convolution::{Convolution, Direction, Multiplication, Operands, Written};
use super::engines::Choice;
use super::kernel::{Address, Dtype};
use super::memory::Pool;
use crate::{Error, Result};

/// Engines that are timed, at most.
const CANDIDATES: usize = 32;
/// Engines that cuDNN is asked to propose.
const PROPOSALS: usize = 64;
/// Timed rounds of an engine.
const ROUNDS: usize = 3;
/// An engine may ask for this much workspace, at most.
const WORKSPACE: i64 = 1 << 30;

/// A library handle, bound to a stream.
pub struct Cudnn {
    handle: sys::cudnnHandle_t,
    stream: Arc<CudaStream>,
}

/// An engine that was chosen, ready to run.
pub struct Plan {
    plan: Descriptor,
    workspace: usize,
    /// Which it is.
    pub choice: Choice,
    /// Of the fastest of its timed rounds; 0 where an earlier run timed it.
    pub milliseconds: f32,
}

struct Descriptor(cudnnBackendDescriptor_t);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: made by cuDNN, destroyed once.
        unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

fn check(what: &str, status: cudnnStatus_t) -> Result<()> {
    if status == cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    let mut text = [0 as std::ffi::c_char; 256];
    // SAFETY: room of the stated size; cuDNN ends the text with a zero.
    let text = unsafe {
        sys::cudnnGetLastErrorString(text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    };
    Err(Error::Device(format!("cuDNN, {what}: {status:?} {text}")))
}

impl Descriptor {
    fn new(kind: Kind) -> Result<Self> {
        let mut raw: cudnnBackendDescriptor_t = null_mut();
        // SAFETY: room for a pointer.
        check("making a descriptor", unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut raw) })?;
        Ok(Descriptor(raw))
    }

    fn set<T>(&self, name: Name, kind: Type, values: &[T]) -> Result<()> {
        let (count, values) = (values.len() as i64, values.as_ptr().cast());
        // SAFETY: `values` are as many as stated, and of the C type that `kind` names at each call below.
        let status = unsafe { sys::cudnnBackendSetAttribute(self.0, name, kind, count, values) };
        check(&format!("{name:?}"), status)
    }

    fn set_descriptors(&self, name: Name, values: &[&Descriptor]) -> Result<()> {
        let raw: Vec<_> = values.iter().map(|d| d.0).collect();
        self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &raw)
    }

    fn finalize(self, what: &str) -> Result<Self> {
        // SAFETY: a descriptor that is not yet finished.
        check(what, unsafe { sys::cudnnBackendFinalize(self.0) })?;
        Ok(self)
    }

    /// Fills `values`; gives how many there are.
    fn get<T>(&self, name: Name, kind: Type, values: &mut [T]) -> Result<usize> {
        let mut count = 0;
        let room = values.len() as i64;
        // SAFETY: room as stated, of the C type that `kind` names.
        let status =
            unsafe { sys::cudnnBackendGetAttribute(self.0, name, kind, room, &mut count, values.as_mut_ptr().cast()) };
        check(&format!("{name:?}"), status)?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

fn data_type(dtype: Dtype) -> cudnnDataType_t {
    match dtype {
        Dtype::F32 => cudnnDataType_t::CUDNN_DATA_FLOAT,
        Dtype::Bf16 => cudnnDataType_t::CUDNN_DATA_BFLOAT16,
        Dtype::U8 => cudnnDataType_t::CUDNN_DATA_UINT8,
    }
}

/// cuDNN's order of dimensions is N, C, H, W whatever the layout; the strides say that channels are innermost.
fn tensor(id: i64, [n, h, w, c]: [usize; 4], dtype: Dtype) -> Result<Descriptor> {
    let [n, h, w, c] = [n, h, w, c].map(|size| size as i64);
    let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[data_type(dtype)])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, Type::CUDNN_TYPE_INT64, &[n, c, h, w])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_STRIDES, Type::CUDNN_TYPE_INT64, &[h * w * c, 1, w * c, c])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, Type::CUDNN_TYPE_INT64, &[id])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, Type::CUDNN_TYPE_INT64, &[16i64])?;
    tensor.finalize("a tensor")
}

const X: i64 = b'x' as i64;
const W: i64 = b'w' as i64;
const Y: i64 = b'y' as i64;

impl Convolution {
    fn operation(&self) -> Result<Descriptor> {
        use Name::*;
        let dtype = |made: Direction| if self.direction == made { self.output } else { self.input };
        let x = tensor(X, self.x, dtype(Direction::BackwardData))?;
        let w = tensor(W, self.w, dtype(Direction::BackwardFilter))?;
        let y = tensor(Y, self.y, dtype(Direction::Forward))?;
        let window = self.window()?;
        let (kind, names) = match self.direction {
            Direction::Forward => (
                Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                [
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                ],
            ),
            Direction::BackwardData => (
                Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                [
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                ],
            ),
            Direction::BackwardFilter => (
                Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                [
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                ],
            ),
        };
        let operation = Descriptor::new(kind)?;
        for (name, descriptor) in names.into_iter().zip([&x, &w, &y, &window]) {
            operation.set_descriptors(name, &[descriptor])?;
        }
        operation.set(names[4], Type::CUDNN_TYPE_FLOAT, &[1.0f32])?;
        let beta = if self.result == Written::Added { 1.0f32 } else { 0.0 };
        operation.set(names[5], Type::CUDNN_TYPE_FLOAT, &[beta])?;
        operation.finalize("a convolution")
    }

    fn window(&self) -> Result<Descriptor> {
        let window = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
        let both = |size: usize| [size as i64; 2];
        let int = Type::CUDNN_TYPE_INT64;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int, &[2i64])?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[data_type(Dtype::F32)])?;
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, Type::CUDNN_TYPE_CONVOLUTION_MODE, &[mode])?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, int, &both(self.padding))?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, int, &both(self.padding))?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, int, &both(self.stride))?;
        window.set(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, int, &both(1))?;
        window.finalize("a window")
    }

    /// Whether an engine with these notes gives the same bits every time, rounded no more than asked for.
    fn accepts(&self, notes: &[Note]) -> bool {
        let refused = [
            Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC,
            Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
            Note::CUDNN_NUMERICAL_NOTE_FFT,
            Note::CUDNN_NUMERICAL_NOTE_WINOGRAD,
        ];
        let rounding = [Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE, Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS];
        let exact = self.multiplication == Multiplication::Exact;
        !notes.iter().any(|note| refused.contains(note) || exact && rounding.contains(note))
    }
}

impl Cudnn {
    /// Opens the library, whose work goes to `stream`.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self> {
        let mut handle = null_mut();
        // SAFETY: room for a handle; the stream outlives it.
        unsafe {
            check("opening", sys::cudnnCreate(&mut handle))?;
            check("setting the stream", sys::cudnnSetStream(handle, stream.cu_stream().cast()))?;
        }
        Ok(Cudnn { handle, stream })
    }

    /// As cuDNN counts: 91900 is 9.19.0.
    pub fn version(&self) -> usize {
        // SAFETY: takes nothing.
        unsafe { sys::cudnnGetVersion() }
    }

    /// The fastest engine for a convolution on these tensors, the result among which is overwritten. Errors, with each
    /// engine's reason, if none does it.
    pub fn tune(&self, convolution: &Convolution, operands: Operands, pool: &Arc<Pool>) -> Result<Plan> {
        let graph = self.graph(convolution)?;
        let mut best: Option<Plan> = None;
        let (mut timed, mut refusals) = (0, Vec::new());
        for fallback in [false, true] {
            if best.is_some() {
                break;
            }
            for (engine, config) in proposals(&graph, fallback)?.into_iter().enumerate() {
                if timed == CANDIDATES {
                    break;
                }
                match self.candidate(convolution, &config, Choice { fallback, engine }, operands, pool) {
                    Ok(plan) => {
                        timed += 1;
                        if best.as_ref().is_none_or(|best| plan.milliseconds < best.milliseconds) {
                            best = Some(plan);
                        }
                    }
                    Err(refusal) => refusals.push(refusal.to_string()),
                }
            }
        }
        best.ok_or_else(|| {
            Error::Device(format!("cuDNN has no engine for {convolution:?}; it said: {}", refusals.join("; ")))
        })
    }

    /// An engine, timed, if it may be used.
    fn candidate(
        &self,
        convolution: &Convolution,
        config: &Descriptor,
        choice: Choice,
        operands: Operands,
        pool: &Arc<Pool>,
    ) -> Result<Plan> {
        let plan = self.accepted(convolution, config, choice)?;
        let milliseconds = self.time(&plan, operands, pool)?;
        Ok(Plan { milliseconds, ..plan })
    }

    /// The engine of an earlier choice. Errors if cuDNN does not have it any more.
    pub fn chosen(&self, convolution: &Convolution, choice: Choice) -> Result<Plan> {
        let configs = proposals(&self.graph(convolution)?, choice.fallback)?;
        let config = configs.get(choice.engine).ok_or_else(|| Error::Device(format!("there is no {choice:?}")))?;
        self.accepted(convolution, config, choice)
    }

    fn graph(&self, convolution: &Convolution) -> Result<Descriptor> {
        let operation = convolution.operation()?;
        let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
        graph.set(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Type::CUDNN_TYPE_HANDLE, &[self.handle])?;
        graph.set_descriptors(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[&operation])?;
        graph.finalize("a graph")
    }

    fn accepted(&self, convolution: &Convolution, config: &Descriptor, choice: Choice) -> Result<Plan> {
        let notes = notes(config)?;
        if !convolution.accepts(&notes) {
            return Err(Error::Device(format!("engine {} is {notes:?}", choice.engine)));
        }
        let (plan, workspace) = self.plan(config)?;
        Ok(Plan { plan, workspace, choice, milliseconds: 0.0 })
    }

    fn plan(&self, config: &Descriptor) -> Result<(Descriptor, usize)> {
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
        plan.set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Type::CUDNN_TYPE_HANDLE, &[self.handle])?;
        plan.set_descriptors(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &[config])?;
        let plan = plan.finalize("a plan")?;
        let mut workspace = [0i64];
        plan.get(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, Type::CUDNN_TYPE_INT64, &mut workspace)?;
        match workspace[0] {
            bytes @ 0..=WORKSPACE => Ok((plan, bytes as usize)),
            bytes => Err(Error::Device(format!("a workspace of {bytes} bytes"))),
        }
    }

    fn time(&self, plan: &Plan, operands: Operands, pool: &Arc<Pool>) -> Result<f32> {
        let failed = |problem| Error::Device(format!("timing an engine: {problem}"));
        self.run(plan, operands, pool)?;
        let event = || self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed);
        let mut best = f32::INFINITY;
        for _ in 0..ROUNDS {
            let start = event()?;
            self.run(plan, operands, pool)?;
            best = best.min(start.elapsed_ms(&event()?).map_err(failed)?);
        }
        Ok(best)
    }

    /// Puts a convolution on the stream.
    pub fn run(&self, plan: &Plan, operands: Operands, pool: &Arc<Pool>) -> Result<()> {
        let workspace = pool.workspace(plan.workspace.max(1))?;
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
        let pointer = |address: Address| address.0 as *mut c_void;
        let pointers = [pointer(operands.x), pointer(operands.w), pointer(operands.y)];
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, Type::CUDNN_TYPE_INT64, &[X, W, Y])?;
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &pointers)?;
        let workspace = [pointer(workspace.address())];
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Type::CUDNN_TYPE_VOID_PTR, &workspace)?;
        let pack = pack.finalize("the tensors of a convolution")?;
        // SAFETY: a finished plan and its tensors, which the caller keeps until the stream has passed this point; the
        // workspace returns to a pool of this stream.
        check("running a convolution", unsafe { sys::cudnnBackendExecute(self.handle, plan.plan.0, pack.0) })
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once.
        unsafe { sys::cudnnDestroy(self.handle) };
    }
}

/// Engine configurations that cuDNN thinks good for a graph, the best first.
fn proposals(graph: &Descriptor, fallback: bool) -> Result<Vec<Descriptor>> {
    let heuristic = if fallback { Heuristic::CUDNN_HEUR_MODE_FALLBACK } else { Heuristic::CUDNN_HEUR_MODE_A };
    let heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
    heuristics.set_descriptors(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[graph])?;
    heuristics.set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, &[heuristic])?;
    let heuristics = heuristics.finalize("heuristics")?;
    let (results, kind) = (Name::CUDNN_ATTR_ENGINEHEUR_RESULTS, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR);
    let mut configs = Vec::new();
    for _ in 0..PROPOSALS {
        configs.push(Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)?);
    }
    let mut raw: Vec<_> = configs.iter().map(|config| config.0).collect();
    let found = heuristics.get(results, kind, &mut raw)?;
    configs.truncate(found);
    Ok(configs)
}

/// What an engine says of its arithmetic.
fn notes(config: &Descriptor) -> Result<Vec<Note>> {
    let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
    config.get(Name::CUDNN_ATTR_ENGINECFG_ENGINE, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut [engine.0])?;
    let mut notes = [0u32; Note::CUDNN_NUMERICAL_NOTE_TYPE_COUNT as usize];
    let found = engine.get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Type::CUDNN_TYPE_NUMERICAL_NOTE, &mut notes)?;
    Ok(KNOWN_NOTES.into_iter().filter(|&note| notes[..found.min(notes.len())].contains(&(note as u32))).collect())
}

/// The notes that decide; a newer library may have others, which are no values of the type.
const KNOWN_NOTES: [Note; 6] = [
    Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
    Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
    Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
    Note::CUDNN_NUMERICAL_NOTE_FFT,
    Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC,
    Note::CUDNN_NUMERICAL_NOTE_WINOGRAD,
];
