//! Entry points: handles and descriptors, and the state behind them.

use crate::descriptor::{Descriptor, Made, Value, elements};
use crate::engine::{Config, Engine, Plan};
use crate::execute::{self, Pack};
use crate::graph::Graph;
use crate::operation::{self, Convolution, Operation, Pointwise};
use crate::schema::{self, DESCRIPTOR};
use crate::status::{
    self, BAD_PARAM, INTERNAL_ERROR, NOT_FINALIZED, NOT_INITIALIZED, NOT_SUPPORTED, NULL_POINTER, Refusal, Status,
    live, refused,
};
use crate::tensor::Tensor;
use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t as D;
use std::ffi::{c_char, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};
use vgpu_library::driver;
use vgpu_library::handles::Table;

/// Handles, with the stream of each, and descriptors that are alive.
pub struct State {
    pub handles: Table<u64>,
    pub descriptors: Table<Descriptor>,
}

static STATE: Mutex<State> =
    Mutex::new(State { handles: Table::new(0xd1_0000_0000), descriptors: Table::new(0xd2_0000_0000) });

/// Runs the entry point `name`; what it refuses is told, a bug in it becomes an error rather than unwinding into C.
fn with(name: &'static str, f: impl FnOnce(&mut State) -> Result<(), Refusal>) -> Status {
    let run = || f(&mut STATE.lock().unwrap_or_else(PoisonError::into_inner));
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(Ok(())) => 0,
        Ok(Err(refusal)) => status::tell(name, refusal),
        Err(_) => INTERNAL_ERROR,
    }
}

/// Declares entry points: `fn name(state; arguments) { ... }`.
macro_rules! entry_points {
    ($(fn $name:ident($state:ident $(, $argument:ident: $ty:ty)* $(,)?) $body:block)*) => { $(
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        unsafe extern "C" fn $name($($argument: $ty),*) -> Status {
            with(stringify!($name), |$state| $body)
        }
    )* };
}

/// # Safety
/// `to` is null or a caller's variable of that type.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Refusal> {
    if to.is_null() {
        return refused(NULL_POINTER, "nowhere to write the result to");
    }
    // SAFETY: not null, so by contract valid.
    unsafe { to.write(value) };
    Ok(())
}

impl Made {
    /// The kind of descriptor that says this; 0 for those that cannot be asked for.
    pub fn kind(&self) -> u32 {
        match self {
            Made::Graph(_) => D::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR as u32,
            Made::Engine(_) => D::CUDNN_BACKEND_ENGINE_DESCRIPTOR as u32,
            Made::Config(_) => D::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR as u32,
            _ => 0,
        }
    }
}

impl State {
    /// Descriptors that an attribute is set to, as they are now.
    fn snapshot(&self, handles: &[i64]) -> Result<Value, Refusal> {
        let one = |h: &i64| {
            let d = live(self.descriptors.get(*h as u64), "descriptor among the elements")?;
            Ok((d.schema, d.made.clone()))
        };
        Ok(Value::Descriptors(handles.iter().map(one).collect::<Result<_, Refusal>>()?))
    }

    /// What a descriptor's attributes say.
    fn make(&self, d: &Descriptor) -> Result<Made, Refusal> {
        let handle = |name| match self.handles.get(d.number(name) as u64) {
            Ok(_) => Ok(()),
            Err(stale) => refused(BAD_PARAM, format!("the handle of the {} is {stale}", d.schema.name)),
        };
        let is = |kind: D| d.schema.kind == kind as u32;
        Ok(match () {
            _ if is(D::CUDNN_BACKEND_TENSOR_DESCRIPTOR) => Made::Tensor(Arc::new(Tensor::new(d)?)),
            _ if is(D::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR) => Made::Convolution(Arc::new(Convolution::new(d)?)),
            _ if is(D::CUDNN_BACKEND_POINTWISE_DESCRIPTOR) => Made::Pointwise(Arc::new(Pointwise::new(d)?)),
            _ if is(D::CUDNN_BACKEND_REDUCTION_DESCRIPTOR) => {
                operation::check_reduction(d).map(|()| Made::Reduction)?
            }
            _ if is(D::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) => {
                handle(A::CUDNN_ATTR_OPERATIONGRAPH_HANDLE)?;
                Made::Graph(Arc::new(Graph::new(d)?))
            }
            _ if is(D::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR) => Made::Heuristic(Config::list(d)?),
            _ if is(D::CUDNN_BACKEND_ENGINE_DESCRIPTOR) => Made::Engine(Engine::new(d)?),
            _ if is(D::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR) => Made::Config(Config::new(d)?),
            _ if is(D::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) => {
                handle(A::CUDNN_ATTR_EXECUTION_PLAN_HANDLE)?;
                Made::Plan(Arc::new(Plan::new(d)?))
            }
            _ if is(D::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR) => Made::Pack(Arc::new(Pack::new(d)?)),
            _ => Made::Operation(Arc::new(Operation::new(d)?)),
        })
    }

    /// Fills the caller's descriptors with what an attribute holds.
    fn fill(&mut self, handles: &[u64], made: Vec<Made>) -> Result<(), Refusal> {
        for (handle, made) in handles.iter().zip(made) {
            let d = live(self.descriptors.get_mut(*handle), "descriptor to be filled")?;
            if d.schema.kind != made.kind() || d.made.is_some() {
                return refused(
                    BAD_PARAM,
                    format!("the descriptor to be filled is finalised or another one: {}", d.schema.name),
                );
            }
            d.made = Some(made);
        }
        Ok(())
    }
}

/// What a finalised descriptor of a kind says.
fn finalised<T>(s: &State, handle: u64, what: &str, want: impl Fn(&Made) -> Option<T>) -> Result<T, Refusal> {
    let d = live(s.descriptors.get(handle), what)?;
    match &d.made {
        None => refused(NOT_FINALIZED, format!("the {what} is not finalised: {}", d.schema.name)),
        Some(made) => want(made)
            .map_or_else(|| refused(BAD_PARAM, format!("the {what} is another descriptor: {}", d.schema.name)), Ok),
    }
}

entry_points! {
    fn cudnnCreate(s, to: *mut u64) {
        if !driver::is_here() { return refused(NOT_INITIALIZED, "no virtual driver is loaded"); }
        // SAFETY: the caller's variable.
        unsafe { put(to, 0)? };
        let handle = s.handles.insert(0);
        // SAFETY: the caller's variable.
        unsafe { put(to, handle) }
    }
    fn cudnnDestroy(s, handle: u64) { live(s.handles.remove(handle).map(drop), "handle") }
    fn cudnnSetStream(s, handle: u64, stream: u64) {
        let of_handle = live(s.handles.get_mut(handle), "handle")?;
        if !driver::stream_exists(stream) { return refused(BAD_PARAM, format!("{stream:#x} is no stream")); }
        *of_handle = stream;
        Ok(())
    }
    fn cudnnGetStream(s, handle: u64, to: *mut u64) {
        let stream = *live(s.handles.get(handle), "handle")?;
        // SAFETY: the caller's variable.
        unsafe { put(to, stream) }
    }
    fn cudnnGetProperty(_s, part: u32, to: *mut c_int) {
        let value = match part {
            0 => VERSION / 10_000,
            1 => VERSION / 100 % 100,
            2 => VERSION % 100,
            _ => return refused(BAD_PARAM, format!("no property {part}")),
        };
        // SAFETY: the caller's variable.
        unsafe { put(to, value as c_int) }
    }

    fn cudnnBackendCreateDescriptor(s, kind: u32, to: *mut u64) {
        // SAFETY: the caller's variable.
        unsafe { put(to, 0)? };
        let Some(schema) = schema::schema(kind) else {
            return refused(NOT_SUPPORTED, format!("descriptors of kind {kind} are not covered by this stand-in"));
        };
        let handle = s.descriptors.insert(Descriptor::new(schema));
        // SAFETY: the caller's variable.
        unsafe { put(to, handle) }
    }
    fn cudnnBackendDestroyDescriptor(s, handle: u64) { live(s.descriptors.remove(handle).map(drop), "descriptor") }
    fn cudnnBackendSetAttribute(s, handle: u64, number: u32, ty: u32, count: i64, from: *const c_void) {
        live(s.descriptors.get(handle), "descriptor")?.check_set(number, ty, count, from)?;
        // SAFETY: the caller's elements, as many as were checked.
        let mut value = unsafe { elements(from, ty, count as usize) };
        if let (DESCRIPTOR, Value::Numbers(handles)) = (ty, &value) { value = s.snapshot(handles)?; }
        live(s.descriptors.get_mut(handle), "descriptor")?.put(number, value);
        Ok(())
    }
    fn cudnnBackendGetAttribute(
        s, handle: u64, number: u32, ty: u32, requested: i64, count: *mut i64, to: *mut c_void
    ) {
        let d = live(s.descriptors.get(handle), "descriptor")?;
        // SAFETY: the caller's variables.
        let made = unsafe { d.get(number, ty, requested, count, to)? };
        // SAFETY: the caller's array holds as many descriptors as are asked for.
        let handles: Vec<u64> = (0..made.len()).map(|i| unsafe { to.cast::<u64>().add(i).read() }).collect();
        s.fill(&handles, made)
    }
    fn cudnnBackendFinalize(s, handle: u64) {
        let d = live(s.descriptors.get(handle), "descriptor")?;
        if d.made.is_some() { return refused(BAD_PARAM, format!("the {} is finalised already", d.schema.name)); }
        d.check_required()?;
        let made = s.make(d)?;
        live(s.descriptors.get_mut(handle), "descriptor")?.made = Some(made);
        Ok(())
    }
    fn cudnnBackendExecute(s, handle: u64, plan: u64, pack: u64) {
        let stream = *live(s.handles.get(handle), "handle")?;
        let plan = finalised(s, plan, "plan", |m| if let Made::Plan(p) = m { Some(p.clone()) } else { None })?;
        let pack = finalised(s, pack, "variant pack", |m| if let Made::Pack(p) = m { Some(p.clone()) } else { None })?;
        execute::execute(stream, &plan, &pack)
    }
}

/// 9.8.0, whose interface this is.
const VERSION: usize = 9_08_00;

#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn cudnnGetVersion() -> usize {
    VERSION
}

#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn cudnnGetCudartVersion() -> usize {
    13_000
}

#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn cudnnGetErrorString(status: Status) -> *const c_char {
    status::name(status).as_ptr()
}

#[unsafe(no_mangle)]
#[allow(non_snake_case)]
unsafe extern "C" fn cudnnGetLastErrorString(to: *mut c_char, most: usize) {
    let text = status::last();
    if to.is_null() || most == 0 {
        return;
    }
    let n = text.len().min(most - 1);
    // SAFETY: the caller has room for `most` bytes, of which one is the end.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to, n);
        to.add(n).write(0);
    }
}
