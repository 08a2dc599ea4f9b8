//! The virtual driver as a stand-in library uses it.

use crate::abi;
use std::ffi::{CStr, CString, c_uint, c_void};
use std::sync::OnceLock;

/// `CUresult`.
pub type Status = u32;
/// `CUDA_ERROR_NOT_FOUND`: no virtual driver in this process.
pub const NOT_FOUND: Status = 500;

struct Entries {
    enqueue: abi::Enqueue,
    refuse: abi::Refuse,
    stream_flags: unsafe extern "C" fn(u64, *mut c_uint) -> Status,
}

fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a string; the default namespace is what is loaded globally.
    let p = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!p.is_null()).then_some(p)
}

fn entries() -> Option<&'static Entries> {
    static ENTRIES: OnceLock<Option<Entries>> = OnceLock::new();
    ENTRIES
        .get_or_init(|| {
            let (enqueue, refuse) = (find(c"vgpu_enqueue")?, find(c"vgpu_refuse")?);
            let stream_flags = find(c"cuStreamGetFlags")?;
            // SAFETY: the virtual driver's entry points, with the signatures of `abi` and of `cuda.h`.
            unsafe {
                Some(Entries {
                    enqueue: std::mem::transmute::<*mut c_void, abi::Enqueue>(enqueue),
                    refuse: std::mem::transmute::<*mut c_void, abi::Refuse>(refuse),
                    stream_flags: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u64, *mut c_uint) -> Status>(
                        stream_flags,
                    ),
                })
            }
        })
        .as_ref()
}

/// Whether the virtual driver is in this process. Without it, a stand-in can do nothing.
pub fn is_here() -> bool {
    entries().is_some()
}

/// Whether a stream's handle is one.
pub fn stream_exists(stream: u64) -> bool {
    // SAFETY: a handle that is only compared, and a variable of ours.
    entries().is_some_and(|e| unsafe { (e.stream_flags)(stream, &mut 0) } == 0)
}

fn text(s: &str) -> CString {
    CString::new(s.replace('\0', " ")).unwrap_or_default()
}

/// Reports a call that was refused: the function, and what was wrong.
pub fn refuse(name: &str, detail: &str) {
    if let Some(e) = entries() {
        // SAFETY: two strings that live through the call.
        unsafe { (e.refuse)(text(name).as_ptr(), text(detail).as_ptr()) };
    }
}

/// How a call touches an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It must have been written before.
    Read,
    /// It counts as written afterwards.
    Write,
    /// Both.
    Update,
    /// Not at all, but the caller said that it is there.
    Claim,
}

/// Device memory that a call touches.
#[derive(Clone, Debug)]
pub struct Operand {
    /// What reports call it.
    pub name: String,
    /// Device address.
    pub address: u64,
    /// How it is touched.
    pub access: Access,
    /// Which bytes, from the address on.
    pub runs: Vec<abi::Run>,
}

impl Operand {
    /// Bytes from the address up to the end of the last run.
    pub fn extent(&self) -> u64 {
        self.runs.iter().map(|r| r.offset + r.bytes).max().unwrap_or(0)
    }

    /// Whether the two have bytes in common.
    pub fn overlaps(&self, other: &Operand) -> bool {
        let mut a: Vec<(u64, u64)> = self.ranges().collect();
        let mut b: Vec<(u64, u64)> = other.ranges().collect();
        a.sort_unstable();
        b.sort_unstable();
        let (mut i, mut j) = (0, 0);
        while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
            if x.0 < y.1 && y.0 < x.1 {
                return true;
            }
            if x.1 <= y.1 { i += 1 } else { j += 1 }
        }
        false
    }

    fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().map(|r| (self.address + r.offset, self.address + r.offset + r.bytes))
    }
}

/// An operand's memory on the host, while the work runs. Copies in and out, since operands may share memory.
#[derive(Debug)]
pub struct Memory {
    start: *mut u8,
    len: usize,
}

impl Memory {
    /// Its bytes from `at` on; bytes behind the operand's end are zeros, which no sound caller asks for.
    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let n = len.min(self.len.saturating_sub(at));
        // SAFETY: `n` bytes from `at` on lie within the operand, which the driver found to be in a live allocation; nobody
        // else touches device memory while the driver's lock is held.
        unsafe { std::ptr::copy_nonoverlapping(self.start.add(at.min(self.len)), out.as_mut_ptr(), n) };
        out
    }

    /// Replaces bytes from `at` on; what would lie behind the operand's end is dropped.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let n = bytes.len().min(self.len.saturating_sub(at));
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(at.min(self.len)), n) };
    }
}

type Job = dyn Fn(&[Memory]) + Send + Sync;

/// A library's work in a stream.
pub struct Call {
    /// The library's function.
    pub name: &'static str,
    /// What it does there, for reports.
    pub place: String,
    /// The device memory it touches.
    pub operands: Vec<Operand>,
    /// Does it, on the operands' memory in their order. Called once for each time the stream or a graph comes to it.
    pub work: Box<Job>,
}

struct Data {
    work: Box<Job>,
    extents: Vec<usize>,
}

unsafe extern "C" fn perform(data: *const c_void, operands: *const *mut u8) -> u32 {
    let run = || {
        // SAFETY: `enqueue` gave a `Data`, and `release` was not called.
        let data = unsafe { &*data.cast::<Data>() };
        let memory = |(i, &len): (usize, &usize)| Memory {
            // SAFETY: the driver gives an address for each operand.
            start: unsafe { *operands.add(i) },
            len,
        };
        let memories: Vec<Memory> = data.extents.iter().enumerate().map(memory).collect();
        (data.work)(&memories);
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() as u32
}

unsafe extern "C" fn release(data: *const c_void) {
    // SAFETY: made by `Box::into_raw` in `enqueue`; the driver releases once.
    drop(unsafe { Box::from_raw(data.cast_mut().cast::<Data>()) });
}

/// Queues a call in a stream, or records it if the stream captures.
pub fn enqueue(stream: u64, call: Call) -> Result<(), Status> {
    let e = entries().ok_or(NOT_FOUND)?;
    let names: Vec<CString> = call.operands.iter().map(|o| text(&o.name)).collect();
    let operands: Vec<abi::Operand> = call
        .operands
        .iter()
        .zip(&names)
        .map(|(o, name)| abi::Operand {
            name: name.as_ptr(),
            address: o.address,
            access: match o.access {
                Access::Read => abi::READ,
                Access::Write => abi::WRITE,
                Access::Update => abi::READ | abi::WRITE,
                Access::Claim => 0,
            },
            runs: o.runs.as_ptr(),
            run_count: o.runs.len(),
        })
        .collect();
    let (name, place) = (text(call.name), text(&call.place));
    let extents = call.operands.iter().map(|o| o.extent() as usize).collect();
    let data = Box::into_raw(Box::new(Data { work: call.work, extents }));
    let call = abi::Call {
        name: name.as_ptr(),
        place: place.as_ptr(),
        work: perform,
        data: data.cast(),
        release,
        operands: operands.as_ptr(),
        operand_count: operands.len(),
    };
    // SAFETY: everything that the call points to lives through it; `data` passes to the driver.
    match unsafe { (e.enqueue)(stream, &call) } {
        0 => Ok(()),
        error => Err(error),
    }
}
