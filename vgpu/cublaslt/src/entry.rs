//! Entry points: handles and descriptors, and the state behind them.

use crate::attributes::{Attributes, DESC, LAYOUT, PREFERENCE, Schema, desc, layout};
use cudarc::cublaslt::sys::cublasStatus_t as S;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};
use vgpu_library::driver;
use vgpu_library::handles::{Stale, Table};

/// `cublasStatus_t`.
pub type Status = u32;
pub const NOT_INITIALIZED: Status = S::CUBLAS_STATUS_NOT_INITIALIZED as u32;
pub const INVALID_VALUE: Status = S::CUBLAS_STATUS_INVALID_VALUE as u32;
pub const EXECUTION_FAILED: Status = S::CUBLAS_STATUS_EXECUTION_FAILED as u32;
pub const INTERNAL_ERROR: Status = S::CUBLAS_STATUS_INTERNAL_ERROR as u32;
pub const NOT_SUPPORTED: Status = S::CUBLAS_STATUS_NOT_SUPPORTED as u32;

/// A call that is refused: with which status, and why.
#[derive(Debug)]
pub struct Refusal {
    pub status: Status,
    /// Empty for an answer that is no finding.
    pub detail: String,
}

/// The answer of a query that finds no way to do what is asked: no mistake of the caller's, so it is said without a finding.
pub fn unsupported(why: &str) -> Result<(), Refusal> {
    eprintln!("vgpu: cuBLASLt: not supported: {why}");
    Err(Refusal { status: NOT_SUPPORTED, detail: String::new() })
}

/// Refuses.
pub fn refused<T>(status: Status, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, detail: detail.into() })
}

/// Handles and descriptors that are alive.
pub struct State {
    pub handles: Table<()>,
    pub descs: Table<Attributes>,
    pub layouts: Table<Attributes>,
    pub preferences: Table<Attributes>,
}

static STATE: Mutex<State> = Mutex::new(State {
    handles: Table::new(0xb1_0000_0000),
    descs: Table::new(0xb2_0000_0000),
    layouts: Table::new(0xb3_0000_0000),
    preferences: Table::new(0xb4_0000_0000),
});

/// Runs the entry point `name`; what it refuses is reported, a bug in it becomes an error rather than unwinding into C.
pub fn with(name: &'static str, f: impl FnOnce(&mut State) -> Result<(), Refusal>) -> Status {
    let run = || f(&mut STATE.lock().unwrap_or_else(PoisonError::into_inner));
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(Ok(())) => 0,
        Ok(Err(refusal)) => {
            if !refusal.detail.is_empty() {
                driver::refuse(name, &refusal.detail);
            }
            refusal.status
        }
        Err(_) => INTERNAL_ERROR,
    }
}

/// Declares entry points: `fn name(state; arguments) { ... }`.
macro_rules! entry_points {
    ($(fn $name:ident($state:ident $(, $argument:ident: $ty:ty)* $(,)?) $body:block)*) => { $(
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        unsafe extern "C" fn $name($($argument: $ty),*) -> $crate::entry::Status {
            $crate::entry::with(stringify!($name), |$state| $body)
        }
    )* };
}
pub(crate) use entry_points;

/// Turns a stale handle into a refusal.
pub fn live<T>(found: Result<T, Stale>, what: &str) -> Result<T, Refusal> {
    found.or_else(|stale| refused(INVALID_VALUE, format!("the {what} is {stale}")))
}

/// # Safety
/// `to` is null or a caller's variable of that type.
pub unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Refusal> {
    if to.is_null() {
        return refused(INVALID_VALUE, "nowhere to write the result to");
    }
    // SAFETY: not null, so by contract valid.
    unsafe { to.write(value) };
    Ok(())
}

/// # Safety
/// As for [`put`].
unsafe fn create(table: &mut Table<Attributes>, to: *mut u64, new: Attributes) -> Result<(), Refusal> {
    // SAFETY: by contract.
    unsafe { put(to, 0)? };
    let handle = table.insert(new);
    // SAFETY: by contract.
    unsafe { put(to, handle) }
}

/// Ends a descriptor; null is let pass, as by the real library.
fn destroy(table: &mut Table<Attributes>, handle: u64, schema: &Schema) -> Result<(), Refusal> {
    if handle == 0 { Ok(()) } else { live(table.remove(handle).map(drop), schema.name) }
}

entry_points! {
    fn cublasLtCreate(s, to: *mut u64) {
        if !driver::is_here() { return refused(NOT_INITIALIZED, "no virtual driver is loaded"); }
        // SAFETY: the caller's variable.
        unsafe { put(to, 0)? };
        let handle = s.handles.insert(());
        // SAFETY: the caller's variable.
        unsafe { put(to, handle) }
    }
    fn cublasLtDestroy(s, handle: u64) { live(s.handles.remove(handle), "handle") }

    fn cublasLtMatmulDescCreate(s, to: *mut u64, compute: u32, scale: u32) {
        let mut new = Attributes::new(&DESC);
        new.put(desc::COMPUTE_TYPE, compute as u64);
        new.put(desc::SCALE_TYPE, scale as u64);
        // SAFETY: the caller's variable.
        unsafe { create(&mut s.descs, to, new) }
    }
    fn cublasLtMatmulDescSetAttribute(s, handle: u64, number: u32, from: *const c_void, bytes: usize) {
        // SAFETY: the caller's value.
        unsafe { live(s.descs.get_mut(handle), DESC.name)?.set(number, from, bytes) }
    }
    fn cublasLtMatmulDescGetAttribute(
        s, handle: u64, number: u32, to: *mut c_void, bytes: usize, written: *mut usize
    ) {
        // SAFETY: the caller's variables.
        unsafe { live(s.descs.get(handle), DESC.name)?.get(number, to, bytes, written) }
    }
    fn cublasLtMatmulDescDestroy(s, handle: u64) { destroy(&mut s.descs, handle, &DESC) }

    fn cublasLtMatrixLayoutCreate(s, to: *mut u64, number: u32, rows: u64, cols: u64, ld: i64) {
        let mut new = Attributes::new(&LAYOUT);
        new.put(layout::TYPE, number as u64);
        new.put(layout::ROWS, rows);
        new.put(layout::COLS, cols);
        new.put(layout::LD, ld as u64);
        // SAFETY: the caller's variable.
        unsafe { create(&mut s.layouts, to, new) }
    }
    fn cublasLtMatrixLayoutSetAttribute(s, handle: u64, number: u32, from: *const c_void, bytes: usize) {
        // SAFETY: the caller's value.
        unsafe { live(s.layouts.get_mut(handle), LAYOUT.name)?.set(number, from, bytes) }
    }
    fn cublasLtMatrixLayoutGetAttribute(
        s, handle: u64, number: u32, to: *mut c_void, bytes: usize, written: *mut usize
    ) {
        // SAFETY: the caller's variables.
        unsafe { live(s.layouts.get(handle), LAYOUT.name)?.get(number, to, bytes, written) }
    }
    fn cublasLtMatrixLayoutDestroy(s, handle: u64) { destroy(&mut s.layouts, handle, &LAYOUT) }

    fn cublasLtMatmulPreferenceCreate(s, to: *mut u64) {
        // SAFETY: the caller's variable.
        unsafe { create(&mut s.preferences, to, Attributes::new(&PREFERENCE)) }
    }
    fn cublasLtMatmulPreferenceSetAttribute(s, handle: u64, number: u32, from: *const c_void, bytes: usize) {
        // SAFETY: the caller's value.
        unsafe { live(s.preferences.get_mut(handle), PREFERENCE.name)?.set(number, from, bytes) }
    }
    fn cublasLtMatmulPreferenceGetAttribute(
        s, handle: u64, number: u32, to: *mut c_void, bytes: usize, written: *mut usize
    ) {
        // SAFETY: the caller's variables.
        unsafe { live(s.preferences.get(handle), PREFERENCE.name)?.get(number, to, bytes, written) }
    }
    fn cublasLtMatmulPreferenceDestroy(s, handle: u64) { destroy(&mut s.preferences, handle, &PREFERENCE) }

    fn cublasLtGetProperty(_s, part: u32, to: *mut c_int) {
        let version = VERSION as c_int;
        let value = match part {
            0 => version / 10_000,
            1 => version / 100 % 100,
            2 => version % 100,
            _ => return refused(INVALID_VALUE, format!("no property {part}")),
        };
        // SAFETY: the caller's variable.
        unsafe { put(to, value) }
    }
}

/// That of CUDA 13.0, whose interface this is.
const VERSION: usize = 13_00_00;

#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn cublasLtGetVersion() -> usize {
    VERSION
}

#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn cublasLtGetCudartVersion() -> usize {
    13_000
}

fn names(status: Status) -> (&'static CStr, &'static CStr) {
    match status {
        0 => (c"CUBLAS_STATUS_SUCCESS", c"success"),
        NOT_INITIALIZED => (c"CUBLAS_STATUS_NOT_INITIALIZED", c"the library was not initialized"),
        INVALID_VALUE => {
            (c"CUBLAS_STATUS_INVALID_VALUE", c"an unsupported value or parameter was passed to the function")
        }
        EXECUTION_FAILED => (c"CUBLAS_STATUS_EXECUTION_FAILED", c"the function failed to launch on the GPU"),
        INTERNAL_ERROR => (c"CUBLAS_STATUS_INTERNAL_ERROR", c"an internal operation failed"),
        NOT_SUPPORTED => (c"CUBLAS_STATUS_NOT_SUPPORTED", c"the requested functionality is not supported"),
        _ => (c"unrecognized status", c"unrecognized status"),
    }
}

#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn cublasLtGetStatusName(status: Status) -> *const c_char {
    names(status).0.as_ptr()
}

#[unsafe(no_mangle)]
#[allow(non_snake_case)]
extern "C" fn cublasLtGetStatusString(status: Status) -> *const c_char {
    names(status).1.as_ptr()
}
