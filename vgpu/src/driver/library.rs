//! Entry points for stand-in libraries: their work in streams, and the calls that they refuse. The C interface is
//! `vgpu_library::abi`.

use super::work::Work;
use super::{INVALID_VALUE, Outcome, entry_points};
use crate::device::{self, Allocation, Life};
use crate::report::{self, Finding, Kind};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;
use vgpu_library::abi::{Call, Operand, READ, Run, WRITE};

/// A call in a stream or a graph; the last holder of it frees its data.
pub struct LibraryCall {
    name: String,
    place: String,
    work: vgpu_library::abi::Work,
    release: unsafe extern "C" fn(*const c_void),
    data: *const c_void,
    operands: Vec<Touched>,
}

// SAFETY: the data is used by `work` alone, under the driver's lock, and freed once; libraries make it free to move.
unsafe impl Send for LibraryCall {}
// SAFETY: as above.
unsafe impl Sync for LibraryCall {}

/// Device memory that a call touches.
struct Touched {
    name: String,
    address: u64,
    access: u32,
    runs: Vec<Run>,
}

impl Drop for LibraryCall {
    fn drop(&mut self) {
        // SAFETY: the data passed to the driver with this call, and this is the only release.
        unsafe { (self.release)(self.data) }
    }
}

impl LibraryCall {
    /// The function, and what it computes but for sizes, engine and algorithm: what its place says up to the first comma or digit.
    pub fn title(&self) -> String {
        let what = self.place.split(|c: char| c == ',' || c.is_ascii_digit()).next().unwrap_or_default();
        format!("{} {what}", self.name).trim_end().to_owned()
    }

    fn found(&self, kind: Kind, operand: &str, detail: String) {
        let place = if operand.is_empty() { self.place.clone() } else { format!("{}, {operand}", self.place) };
        report::add(Finding { kind, by: format!("`{}`", self.name), place, thread: None, detail });
    }

    /// The allocation that holds an operand, with the operand's offset in it; reports if there is none.
    fn locate(&self, o: &Touched, list: &[Arc<Allocation>]) -> Option<(Arc<Allocation>, u64)> {
        let extent = o.runs.iter().map(|r| r.offset + r.bytes).max().unwrap_or(0);
        match device::find(list, o.address, extent) {
            Some(i) if list[i].life() != Life::Live => {
                let detail = format!("{extent} bytes at {:#x}, before or after their stream-ordered life", o.address);
                self.found(Kind::UseAfterFree, &o.name, detail);
                None
            }
            Some(i) if list[i].constant && o.access & WRITE != 0 => {
                self.found(Kind::WriteToConstant, &o.name, format!("{extent} bytes at {:#x}", o.address));
                None
            }
            Some(i) => Some((list[i].clone(), o.address - list[i].base)),
            None => {
                let (freed, detail) = device::describe(o.address, extent);
                self.found(if freed { Kind::UseAfterFree } else { Kind::OutOfBounds }, &o.name, detail);
                None
            }
        }
    }

    /// Reports the first byte of an operand that is read and was never written.
    fn check_written(&self, o: &Touched, a: &Allocation, base: u64) {
        if o.access & READ == 0 {
            return;
        }
        if let Some(at) = o.runs.iter().find_map(|r| a.first_unwritten(base + r.offset, r.bytes)) {
            let detail = format!("byte {} of {} bytes was never written", at - base, a.len - base);
            self.found(Kind::Uninitialised, &o.name, detail);
        }
    }

    /// Checks the operands, does the work, and marks what it wrote.
    pub fn perform(&self) {
        let list = device::snapshot();
        let places: Vec<_> = self.operands.iter().map(|o| self.locate(o, &list)).collect();
        let Some(places) = places.into_iter().collect::<Option<Vec<_>>>() else { return };
        for (o, (a, base)) in self.operands.iter().zip(&places) {
            self.check_written(o, a, *base);
        }
        let hosts: Vec<*mut u8> = places.iter().map(|(a, base)| a.host(*base, 0)).collect();
        // SAFETY: the library's function with the library's data; every operand lies in a live allocation, and no kernel runs
        // while the driver's lock is held.
        if unsafe { (self.work)(self.data, hosts.as_ptr()) } != 0 {
            return self.found(Kind::Trap, "", "the stand-in library failed".into());
        }
        for (o, (a, base)) in self.operands.iter().zip(&places).filter(|(o, _)| o.access & WRITE != 0) {
            o.runs.iter().for_each(|r| a.mark_host(base + r.offset, r.bytes));
        }
    }
}

/// # Safety
/// A C string.
unsafe fn text(from: *const c_char) -> String {
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}

/// # Safety
/// `call` is as `abi::Call` says.
unsafe fn copy(call: &Call) -> LibraryCall {
    // SAFETY: by contract, for this block and the next two.
    let operands = unsafe { std::slice::from_raw_parts(call.operands, call.operand_count) };
    let touched = |o: &Operand| Touched {
        // SAFETY: as above.
        name: unsafe { text(o.name) },
        address: o.address,
        access: o.access,
        // SAFETY: as above; an empty vector's pointer is not null.
        runs: unsafe { std::slice::from_raw_parts(o.runs, o.run_count) }.to_vec(),
    };
    LibraryCall {
        // SAFETY: as above.
        name: unsafe { text(call.name) },
        // SAFETY: as above.
        place: unsafe { text(call.place) },
        work: call.work,
        release: call.release,
        data: call.data,
        operands: operands.iter().map(touched).collect(),
    }
}

entry_points! {
    /// Queues a library's work in a stream, or records it if the stream captures.
    fn vgpu_enqueue(d, stream: u64, call: *const Call) {
        // SAFETY: null, or a call that lives through this one.
        let call = unsafe { call.as_ref() }.ok_or(INVALID_VALUE)?;
        // SAFETY: libraries pass a call as `abi` says.
        let call = Arc::new(unsafe { copy(call) });
        d.enqueue(stream, Work::Library(call)).map(drop)
    }
    /// Reports a call that a library refused.
    fn vgpu_refuse(_d, name: *const c_char, detail: *const c_char) {
        if name.is_null() || detail.is_null() { return Outcome::Err(INVALID_VALUE); }
        // SAFETY: two C strings.
        let (name, detail) = unsafe { (text(name), text(detail)) };
        report::add(Finding { kind: Kind::BadCall, by: format!("`{name}`"), place: "entry".into(), thread: None, detail });
        Ok(())
    }
}
