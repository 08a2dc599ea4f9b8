//! Entry points: the device and its context.

use super::{CONTEXT, CURRENT, Driver, INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, Outcome, entry_points, put};
use crate::device;
use crate::report::{self, Finding, Kind};
use std::ffi::{c_char, c_int, c_uint};

/// What a program is told there are.
pub const MULTIPROCESSORS: c_int = 4;

const NAME: &[u8] = b"Virtual GPU (PTX on the CPU)\0";

/// `CUdevice_attribute`, as of an sm_90 with an sm_80's shared memory.
fn attribute(number: c_uint) -> c_int {
    match number {
        1..=3 => 1024,  // threads of a block; its x and y
        4 => 64,        // its z
        5 => i32::MAX,  // grid x
        6 | 7 => 65535, // grid y, z
        8 => super::module::SHARED_PLAIN,
        9 => 65536,      // constant memory
        10 => 32,        // warp
        12 => 65536,     // registers of a block
        13 => 1_000_000, // clock, kHz
        14 => 512,       // texture alignment
        16 => MULTIPROCESSORS,
        36 => 1_000_000,        // memory clock, kHz
        37 => 5120,             // memory bus, bits
        38 => 50 << 20,         // L2
        39 => 2048,             // threads of a multiprocessor
        31 | 40 | 41 | 78 => 1, // concurrent kernels, copy engines, unified addressing, stream priorities
        75 => 9,                // compute capability
        76 => 0,
        81 => 164 << 10, // shared memory of a multiprocessor
        82 => 65536,     // its registers
        97 => super::module::SHARED_MOST,
        106 => 32, // blocks of a multiprocessor
        115 => 1,  // memory pools
        _ => 0,
    }
}

impl Driver {
    /// The last holder of the context is gone: what is left was forgotten.
    fn end(&mut self) {
        let _ = self.drain();
        let mut leaks = Vec::new();
        for a in device::snapshot().iter().filter(|a| !a.of_module) {
            leaks.push(format!("{} bytes of device memory at {:#x}", a.len, a.base));
            device::remove(a.base);
        }
        leaks.extend(self.streams.keys().filter(|&&h| h > 2).map(|_| "a stream".to_string()));
        leaks.extend(self.events.keys().map(|_| "an event".to_string()));
        leaks.extend(self.pinned.values().map(|n| format!("{n} bytes of page-locked memory")));
        leaks.extend(self.graphs.keys().chain(self.executables.keys()).map(|_| "a graph".to_string()));
        let modules: Vec<u64> = self.modules.keys().copied().collect();
        for m in modules {
            leaks.push("a module".into());
            let _ = self.unload(m);
        }
        for detail in leaks {
            let by = "the context".into();
            report::add(Finding { kind: Kind::Leak, by, place: "its end".into(), thread: None, detail });
        }
        self.streams.clear();
        self.events.clear();
        self.graphs.clear();
        self.executables.clear();
        self.captures.clear();
    }

    fn device(&self, device: c_int) -> Outcome {
        if device == 0 { Ok(()) } else { Err(INVALID_DEVICE) }
    }
}

entry_points! {
    fn cuInit(_d, flags: c_uint) {
        if flags == 0 { Ok(()) } else { Err(INVALID_VALUE) }
    }
    fn cuDriverGetVersion(_d, to: *mut c_int) {
        // SAFETY: the caller's variable.
        unsafe { put(to, 13000) }
    }
    fn cuDeviceGetCount(_d, to: *mut c_int) {
        // SAFETY: the caller's variable.
        unsafe { put(to, 1) }
    }
    fn cuDeviceGet(d, to: *mut c_int, ordinal: c_int) {
        d.device(ordinal)?;
        // SAFETY: the caller's variable.
        unsafe { put(to, 0) }
    }
    fn cuDeviceGetName(d, to: *mut c_char, n: c_int, device: c_int) {
        d.device(device)?;
        if to.is_null() || n <= 0 { return Err(INVALID_VALUE); }
        let n = (n as usize).min(NAME.len());
        // SAFETY: the caller has room for `n` bytes; the last one written ends the string.
        unsafe {
            std::ptr::copy_nonoverlapping(NAME.as_ptr().cast(), to, n);
            to.add(n - 1).write(0);
        }
        Ok(())
    }
    fn cuDeviceGetUuid(_d, to: *mut [u8; 16], _device: c_int) {
        // SAFETY: the caller's variable.
        unsafe { put(to, *b"virtual gpu 0000") }
    }
    fn cuDeviceGetUuid_v2(_d, to: *mut [u8; 16], _device: c_int) {
        // SAFETY: the caller's variable.
        unsafe { put(to, *b"virtual gpu 0000") }
    }
    fn cuDeviceTotalMem_v2(_d, to: *mut usize, _device: c_int) {
        // SAFETY: the caller's variable.
        unsafe { put(to, device::total() as usize) }
    }
    fn cuDeviceGetAttribute(d, to: *mut c_int, number: c_uint, device: c_int) {
        d.device(device)?;
        // SAFETY: the caller's variable.
        unsafe { put(to, attribute(number)) }
    }
    fn cuDevicePrimaryCtxRetain(d, to: *mut u64, device: c_int) {
        d.device(device)?;
        d.retained += 1;
        // SAFETY: the caller's variable.
        unsafe { put(to, CONTEXT) }
    }
    fn cuDevicePrimaryCtxRelease_v2(d, device: c_int) {
        d.device(device)?;
        if d.retained == 0 { return Err(INVALID_CONTEXT); }
        d.retained -= 1;
        if d.retained == 0 { d.end(); }
        Ok(())
    }
    fn cuDevicePrimaryCtxGetState(d, _device: c_int, flags: *mut c_uint, active: *mut c_int) {
        // SAFETY: the caller's variables.
        unsafe {
            put(flags, 0)?;
            put(active, (d.retained > 0) as c_int)
        }
    }
    fn cuDevicePrimaryCtxSetFlags_v2(_d, _device: c_int, _flags: c_uint) { Ok(()) }
    fn cuCtxGetCurrent(_d, to: *mut u64) {
        // SAFETY: the caller's variable.
        unsafe { put(to, CURRENT.get()) }
    }
    fn cuCtxSetCurrent(_d, context: u64) {
        if context != 0 && context != CONTEXT { return Err(INVALID_CONTEXT); }
        CURRENT.set(context);
        Ok(())
    }
    fn cuCtxGetDevice(_d, to: *mut c_int) {
        if CURRENT.get() == 0 { return Err(INVALID_CONTEXT); }
        // SAFETY: the caller's variable.
        unsafe { put(to, 0) }
    }
    fn cuCtxSetFlags(_d, _flags: c_uint) { Ok(()) }
    fn cuCtxSetLimit(_d, _limit: c_uint, _value: usize) { Ok(()) }
    fn cuCtxGetLimit(_d, to: *mut usize, _limit: c_uint) {
        // SAFETY: the caller's variable.
        unsafe { put(to, 0) }
    }
    fn cuCtxSetCacheConfig(_d, _config: c_uint) { Ok(()) }
    fn cuCtxGetCacheConfig(_d, to: *mut c_uint) {
        // SAFETY: the caller's variable.
        unsafe { put(to, 0) }
    }
    fn cuCtxGetStreamPriorityRange(_d, least: *mut c_int, greatest: *mut c_int) {
        // SAFETY: the caller's variables.
        unsafe {
            put(least, 0)?;
            put(greatest, -5)
        }
    }
}
