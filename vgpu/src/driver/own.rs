//! Entry points of this driver alone: what tests ask it. `preload` finds them by name.

use super::{Calls, INVALID_VALUE, entry_points, put};
use crate::device::{self, Life};
use crate::exec::Counts;
use crate::report;
use std::ffi::{c_char, c_int};
use std::sync::Mutex;

/// The text of the last report, so that a caller may ask for its length first.
static LAST: Mutex<String> = Mutex::new(String::new());

entry_points! {
    /// This is the virtual GPU.
    fn vgpu_present(_d) { Ok(()) }
    /// Restarts the order of streams from a seed.
    fn vgpu_set_seed(d, seed: u64) {
        d.set_seed(seed);
        Ok(())
    }
    /// What was counted since the last call.
    fn vgpu_take_counts(d, to: *mut Counts) {
        // SAFETY: the caller's variable.
        unsafe { put(to, std::mem::take(&mut d.counts)) }
    }
    /// What was asked of the driver since the last call.
    fn vgpu_take_calls(d, to: *mut Calls) {
        // SAFETY: the caller's variable.
        unsafe { put(to, std::mem::take(&mut d.calls)) }
    }
    /// From now on the device has so many bytes; 0: as at the start.
    fn vgpu_set_memory(_d, bytes: u64) {
        device::set_total(bytes);
        Ok(())
    }
    /// From now on there may be so many bytes of page-locked memory; 0: as at the start.
    fn vgpu_set_pinned(d, bytes: u64) {
        d.pinned_most = (bytes > 0).then_some(bytes as usize);
        Ok(())
    }
    /// Takes what streams and graphs did since the last call, a line a name: how often, a space, the name. With room for `capacity`
    /// bytes at `to`; `length` is what the text has. A text that does not fit is kept for the next call.
    fn vgpu_take_work(d, to: *mut c_char, capacity: usize, length: *mut usize) {
        let text: String = d.done.iter().map(|(name, count)| format!("{count} {name}\n")).collect();
        // SAFETY: the caller's variable.
        unsafe { put(length, text.len())? };
        if !to.is_null() && capacity >= text.len() {
            // SAFETY: the caller has room for `capacity` bytes.
            unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len()) };
            d.done.clear();
        }
        Ok(())
    }
    /// Takes the findings, a line each, and clears the context's error. With room for `capacity` bytes at `to`; `length`
    /// is what the text has. A text that does not fit is kept for the next call.
    fn vgpu_last_report(_d, to: *mut c_char, capacity: usize, length: *mut usize) {
        let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for finding in report::take() {
            last.push_str(&format!("{finding}\n"));
        }
        // SAFETY: the caller's variable.
        unsafe { put(length, last.len())? };
        if !to.is_null() && capacity >= last.len() {
            // SAFETY: the caller has room for `capacity` bytes.
            unsafe { std::ptr::copy_nonoverlapping(last.as_ptr().cast(), to, last.len()) };
            last.clear();
        }
        Ok(())
    }
    /// The host's address of device memory, for stand-in libraries whose work runs as a host function of a stream. Reads
    /// must have been written; what is to be written counts as written.
    fn vgpu_access(_d, address: u64, n: usize, write: c_int, to: *mut *mut u8) {
        let list = device::snapshot();
        let i = device::find(&list, address, n as u64).ok_or(INVALID_VALUE)?;
        let (a, offset) = (&list[i], address - list[i].base);
        if a.life() != Life::Live || (write == 0 && a.first_unwritten(offset, n as u64).is_some()) {
            return Err(INVALID_VALUE);
        }
        if write != 0 { a.mark_host(offset, n as u64); }
        // SAFETY: the caller's variable.
        unsafe { put(to, a.host(offset, n as u64)) }
    }
}
