//! Statuses, and calls that are refused.

use cudarc::cudnn::sys::cudnnStatus_t as S;
use std::cell::RefCell;
use std::ffi::CStr;
use vgpu_library::driver;
use vgpu_library::handles::Stale;

/// `cudnnStatus_t`.
pub type Status = u32;
pub const NOT_INITIALIZED: Status = S::CUDNN_STATUS_NOT_INITIALIZED as u32;
pub const BAD_PARAM: Status = S::CUDNN_STATUS_BAD_PARAM as u32;
pub const NULL_POINTER: Status = S::CUDNN_STATUS_BAD_PARAM_NULL_POINTER as u32;
pub const MISALIGNED_POINTER: Status = S::CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER as u32;
pub const NOT_FINALIZED: Status = S::CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED as u32;
pub const ATTRIBUTE_TYPE: Status = S::CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE as u32;
pub const NOT_SUPPORTED: Status = S::CUDNN_STATUS_NOT_SUPPORTED as u32;
pub const INTERNAL_ERROR: Status = S::CUDNN_STATUS_INTERNAL_ERROR as u32;
pub const EXECUTION_FAILED: Status = S::CUDNN_STATUS_EXECUTION_FAILED as u32;

/// Whether a refused call is a mistake of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is: the report names it.
    Caller,
    /// It is not: the call asked whether something can be done, and it cannot.
    Nobody,
}

/// A call that is refused: with which status, and why.
#[derive(Debug)]
pub struct Refusal {
    pub status: Status,
    pub detail: String,
    pub fault: Fault,
}

/// Refuses.
pub fn refused<T>(status: Status, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, detail: detail.into(), fault: Fault::Caller })
}

/// Answers that something cannot be done.
pub fn unsupported<T>(detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status: NOT_SUPPORTED, detail: detail.into(), fault: Fault::Nobody })
}

/// Turns a stale handle or descriptor into a refusal.
pub fn live<T>(found: Result<T, Stale>, what: &str) -> Result<T, Refusal> {
    found.or_else(|stale| {
        let status = if stale == Stale::Null { NULL_POINTER } else { BAD_PARAM };
        refused(status, format!("the {what} is {stale}"))
    })
}

thread_local! {
    /// What `cudnnGetLastErrorString` answers.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Reports a refusal and keeps its text; its status.
pub fn tell(name: &str, refusal: Refusal) -> Status {
    if refusal.fault == Fault::Caller {
        driver::refuse(name, &refusal.detail);
    }
    LAST.with(|last| *last.borrow_mut() = format!("{name}: {}", refusal.detail));
    refusal.status
}

/// Takes the text of the thread's last refusal.
pub fn last() -> String {
    LAST.with(|last| std::mem::take(&mut *last.borrow_mut()))
}

/// `cudnnGetErrorString`
pub fn name(status: Status) -> &'static CStr {
    match status {
        0 => c"CUDNN_STATUS_SUCCESS",
        NOT_INITIALIZED => c"CUDNN_STATUS_NOT_INITIALIZED",
        BAD_PARAM => c"CUDNN_STATUS_BAD_PARAM",
        NULL_POINTER => c"CUDNN_STATUS_BAD_PARAM_NULL_POINTER",
        MISALIGNED_POINTER => c"CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER",
        NOT_FINALIZED => c"CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED",
        ATTRIBUTE_TYPE => c"CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE",
        NOT_SUPPORTED => c"CUDNN_STATUS_NOT_SUPPORTED",
        INTERNAL_ERROR => c"CUDNN_STATUS_INTERNAL_ERROR",
        EXECUTION_FAILED => c"CUDNN_STATUS_EXECUTION_FAILED",
        _ => c"CUDNN_UNKNOWN_STATUS",
    }
}
