//! What a stream does: launches, copies, fills, stream-ordered allocation, events, host functions.

use super::Driver;
use super::capture::Graph;
use super::library::LibraryCall;
use crate::device::{self, Allocation, Life};
use crate::exec::{self, Launch};
use crate::report::{self, Finding, Kind};
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

/// A function of the host in a stream.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

/// Work in a stream.
#[derive(Clone)]
pub enum Work {
    Launch(Arc<Launch>),
    /// Elements of 1, 2 or 4 bytes.
    Fill {
        to: u64,
        value: u32,
        width: u32,
        count: u64,
    },
    /// From pageable memory, which is read when the call is made.
    UploadBytes {
        to: u64,
        bytes: Arc<Vec<u8>>,
    },
    /// From page-locked memory, which is read when the copy happens.
    Upload {
        to: u64,
        from: usize,
        bytes: u64,
    },
    Download {
        from: u64,
        to: usize,
        bytes: u64,
    },
    Copy {
        from: u64,
        to: u64,
        bytes: u64,
    },
    Allocate(u64),
    Free(u64),
    Record(u64),
    Graph(Arc<Graph>),
    Host(HostFunction, usize),
    /// Of a stand-in library.
    Library(Arc<LibraryCall>),
}

fn report(kind: Kind, by: &str, detail: String) {
    report::add(Finding { kind, by: by.into(), place: "the driver".into(), thread: None, detail });
}

/// The allocation of a range that the host or a copy touches, with the offset; reports if there is none.
fn range(by: &str, address: u64, n: u64) -> Option<(Arc<Allocation>, u64)> {
    let list = device::snapshot();
    match device::find(&list, address, n) {
        Some(i) if list[i].life() == Life::Live => Some((list[i].clone(), address - list[i].base)),
        Some(_) => {
            report(
                Kind::UseAfterFree,
                by,
                format!("{n} bytes at {address:#x}, before or after their stream-ordered life"),
            );
            None
        }
        None => {
            let (freed, detail) = device::describe(address, n);
            report(if freed { Kind::UseAfterFree } else { Kind::OutOfBounds }, by, detail);
            None
        }
    }
}

impl Driver {
    /// Counts work by its name: a kernel's, a library's function with what it computes.
    fn tally(&mut self, work: &Work) {
        let title;
        let name = match work {
            Work::Launch(launch) => launch.module.kernels[launch.kernel].name.as_str(),
            Work::Library(call) => {
                title = call.title();
                &title
            }
            Work::Fill { .. } => "fill",
            Work::UploadBytes { .. } | Work::Upload { .. } => "copy to the device",
            Work::Download { .. } => "copy to the host",
            Work::Copy { .. } => "copy on the device",
            Work::Graph(_) => "graph",
            Work::Host(..) => "host function",
            Work::Allocate(_) | Work::Free(_) | Work::Record(_) => return,
        };
        match self.done.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.done.insert(name.to_owned(), 1)),
        }
    }

    /// Does the work. What goes wrong is reported, and is then the context's error.
    pub fn perform(&mut self, work: Work) {
        self.tally(&work);
        match work {
            Work::Launch(launch) => {
                let (counts, findings) = exec::run(&launch);
                self.counts += counts;
                findings.into_iter().for_each(report::add);
            }
            Work::Fill { to, value, width, count } => fill(to, value, width, count),
            Work::UploadBytes { to, bytes } => upload(to, bytes.as_ptr(), bytes.len() as u64),
            Work::Upload { to, from, bytes } => upload(to, from as *const u8, bytes),
            Work::Download { from, to, bytes } => download(from, to as *mut u8, bytes),
            Work::Copy { from, to, bytes } => {
                if let (Some((a, i)), Some((b, j))) = (range("a copy", from, bytes), range("a copy", to, bytes)) {
                    if from < to + bytes && to < from + bytes {
                        report(Kind::Race, "a copy", format!("{bytes} bytes from {from:#x} to {to:#x} overlap"));
                    }
                    b.copy_from(j, &a, i, bytes);
                }
            }
            Work::Allocate(base) => set_life(base, Life::Live),
            Work::Free(base) => {
                set_life(base, Life::Freed);
                device::remove(base);
            }
            Work::Record(event) => {
                if let Some(e) = self.events.get_mut(&event) {
                    e.time = Some(Instant::now());
                }
            }
            Work::Graph(graph) => self.perform_graph(&graph),
            Work::Library(call) => call.perform(),
            Work::Host(function, data) => {
                // SAFETY: the caller of `cuLaunchHostFunc` vouches for the function and its data.
                unsafe { function(data as *mut c_void) }
            }
        }
    }
}

fn set_life(base: u64, life: Life) {
    let list = device::snapshot();
    if let Some(i) = device::find(&list, base, 0) {
        list[i].set_life(life);
    }
}

fn fill(to: u64, value: u32, width: u32, count: u64) {
    let Some((a, offset)) = range("a fill", to, count * width as u64) else { return };
    let (pattern, width) = (value.to_le_bytes(), width as usize);
    let to = a.host(offset, count * width as u64);
    // SAFETY: these bytes lie within the allocation; no kernel runs while the driver's lock is held.
    let bytes = unsafe { std::slice::from_raw_parts_mut(to, count as usize * width) };
    bytes.chunks_exact_mut(width).for_each(|element| element.copy_from_slice(&pattern[..width]));
    a.mark_host(offset, count * width as u64);
}

fn upload(to: u64, from: *const u8, n: u64) {
    let Some((a, offset)) = range("a copy from the host", to, n) else { return };
    // SAFETY: the caller of the copy vouches for the host's side until the copy is done; the device's is in bounds.
    unsafe { std::ptr::copy_nonoverlapping(from, a.host(offset, n), n as usize) };
    a.mark_host(offset, n);
}

fn download(from: u64, to: *mut u8, n: u64) {
    let Some((a, offset)) = range("a copy to the host", from, n) else { return };
    if let Some(at) = a.first_unwritten(offset, n) {
        let detail = format!("byte {at} of an allocation of {} bytes was never written", a.len);
        report(Kind::Uninitialised, "a copy to the host", detail);
    }
    // SAFETY: as in `upload`.
    unsafe { std::ptr::copy_nonoverlapping(a.host(offset, n), to, n as usize) };
}
