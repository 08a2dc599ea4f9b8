//! The C interface between a stand-in library and the virtual driver, `vgpu_enqueue` and `vgpu_refuse`. Stand-ins find both
//! by `dlsym` in the global namespace.

use std::ffi::{c_char, c_void};

/// The call reads these bytes: they must have been written.
pub const READ: u32 = 1;
/// The call writes these bytes: they count as written afterwards.
pub const WRITE: u32 = 2;

/// Bytes that lie together.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First byte, from the operand's address on.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// Device memory that a call touches. All runs must lie in one live allocation when the call happens.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// What reports call it: a C string.
    pub name: *const c_char,
    /// Device address.
    pub address: u64,
    /// [`READ`], [`WRITE`], both, or 0: the memory must be there, whether or not it is touched.
    pub access: u32,
    /// The bytes it touches.
    pub runs: *const Run,
    /// How many runs.
    pub run_count: usize,
}

/// Does a call's work: the call's data, and the host's address of each operand's first byte. 0 if it worked. Runs under the
/// driver's lock, so it must not call the driver.
pub type Work = unsafe extern "C" fn(data: *const c_void, operands: *const *mut u8) -> u32;

/// A library's work in a stream.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The library's function: a C string.
    pub name: *const c_char,
    /// What it does there: a C string.
    pub place: *const c_char,
    /// Does it, each time the stream (or a graph) comes to it.
    pub work: Work,
    /// What `work` is given. The driver's from here on, whatever `vgpu_enqueue` answers.
    pub data: *const c_void,
    /// Frees `data`, once, when nothing can come to the call any more.
    pub release: unsafe extern "C" fn(data: *const c_void),
    /// The device memory it touches.
    pub operands: *const Operand,
    /// How many operands.
    pub operand_count: usize,
}

/// `CUresult vgpu_enqueue(CUstream, const Call *)`: queues the call, or records it if the stream captures. Everything but
/// `data` is copied.
pub type Enqueue = unsafe extern "C" fn(stream: u64, call: *const Call) -> u32;

/// `CUresult vgpu_refuse(const char *name, const char *detail)`: reports a call that was refused.
pub type Refuse = unsafe extern "C" fn(name: *const c_char, detail: *const c_char) -> u32;
