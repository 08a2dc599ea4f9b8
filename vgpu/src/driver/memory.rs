//! Entry points: memory.

use super::queue::LEGACY;
use super::work::Work;
use super::{Calls, Driver, INVALID_VALUE, OUT_OF_MEMORY, Outcome, POOL, Status, entry_points, put};
use crate::device::{self, Life};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

const PAGE: usize = 4096;

impl Driver {
    /// Bytes of page-locked memory there may be: what was set, else `VGPU_PINNED`, else any number.
    fn pinned_most(&mut self) -> usize {
        let asked = || std::env::var("VGPU_PINNED").ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(usize::MAX);
        *self.pinned_most.get_or_insert_with(asked)
    }

    fn is_pinned(&self, from: usize, n: usize) -> bool {
        self.pinned.range(..=from).next_back().is_some_and(|(base, len)| from + n <= base + len)
    }

    fn upload(&mut self, to: u64, from: *const c_void, n: usize, stream: u64) -> Result<(u64, u64), Status> {
        if from.is_null() && n > 0 {
            return Err(INVALID_VALUE);
        }
        let work = if n == 0 {
            Work::UploadBytes { to, bytes: Arc::default() }
        } else if self.is_pinned(from as usize, n) || self.stream(stream)?.capture.is_some() {
            Work::Upload { to, from: from as usize, bytes: n as u64 }
        } else {
            // SAFETY: the caller passes `n` readable bytes.
            let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), n) };
            Work::UploadBytes { to, bytes: Arc::new(bytes.to_vec()) }
        };
        if n == 0 {
            return Ok((stream, 0));
        }
        let point = self.enqueue(stream, work)?;
        self.count(stream, |calls| calls.copies += 1);
        Ok(point)
    }

    fn download(&mut self, to: *mut c_void, from: u64, n: usize, stream: u64) -> Outcome {
        if n == 0 {
            return Ok(());
        }
        if to.is_null() {
            return Err(INVALID_VALUE);
        }
        let point = self.enqueue(stream, Work::Download { from, to: to as usize, bytes: n as u64 })?;
        self.count(stream, |calls| calls.copies += 1);
        if self.stream(stream)?.capture.is_none() && !self.is_pinned(to as usize, n) {
            self.calls.synchronisations += 1;
            self.reach(point); // a copy to pageable memory has happened when the call returns
            return self.healthy();
        }
        Ok(())
    }

    /// An allocation that is there at once; `for_stream` is one that its stream comes to later.
    fn allocate(&mut self, n: usize, for_stream: Option<u64>) -> Result<u64, Status> {
        self.healthy()?;
        if n == 0 {
            return Err(INVALID_VALUE);
        }
        if for_stream.is_none() {
            self.unsafe_in_capture()?;
        }
        let life = if for_stream.is_some() { Life::Pending } else { Life::Live };
        let a = device::allocate(n as u64, life, None).ok_or(OUT_OF_MEMORY)?;
        if let Some(stream) = for_stream
            && let Err(status) = self.enqueue(stream, Work::Allocate(a.base))
        {
            device::remove(a.base);
            return Err(status);
        }
        self.calls.allocations += 1;
        Ok(a.base)
    }

    fn is_allocation(&self, base: u64) -> bool {
        let list = device::snapshot();
        device::find(&list, base, 0).is_some_and(|i| list[i].base == base && !list[i].of_module)
    }

    fn fill(&mut self, to: u64, value: u32, width: u32, count: usize, stream: u64) -> Result<(u64, u64), Status> {
        if !to.is_multiple_of(width as u64) {
            return Err(INVALID_VALUE);
        }
        if count == 0 {
            return Ok((stream, 0));
        }
        let point = self.enqueue(stream, Work::Fill { to, value, width, count: count as u64 })?;
        self.count(stream, |calls| calls.fills += 1);
        Ok(point)
    }

    fn copy(&mut self, to: u64, from: u64, n: usize, stream: u64) -> Result<(u64, u64), Status> {
        if n == 0 {
            return Ok((stream, 0));
        }
        let point = self.enqueue(stream, Work::Copy { from, to, bytes: n as u64 })?;
        self.count(stream, |calls| calls.copies += 1);
        Ok(point)
    }

    /// Counts a call on a stream, unless a capture recorded it.
    pub fn count(&mut self, stream: u64, add: impl FnOnce(&mut Calls)) {
        if self.stream(stream).is_ok_and(|s| s.capture.is_none()) {
            add(&mut self.calls);
        }
    }

    fn now(&mut self, point: (u64, u64)) -> Outcome {
        self.calls.synchronisations += 1;
        self.reach(point);
        self.healthy()
    }
}

entry_points! {
    fn cuMemAlloc_v2(d, to: *mut u64, n: usize) {
        let base = d.allocate(n, None)?;
        // SAFETY: the caller's variable.
        unsafe { put(to, base) }
    }
    fn cuMemAllocAsync(d, to: *mut u64, n: usize, stream: u64) {
        let base = d.allocate(n, Some(stream))?;
        // SAFETY: the caller's variable.
        unsafe { put(to, base) }
    }
    fn cuMemAllocFromPoolAsync(d, to: *mut u64, n: usize, pool: u64, stream: u64) {
        if pool != POOL { return Err(INVALID_VALUE); }
        let base = d.allocate(n, Some(stream))?;
        // SAFETY: the caller's variable.
        unsafe { put(to, base) }
    }
    fn cuMemFree_v2(d, base: u64) {
        if base == 0 { return Ok(()); }
        d.unsafe_in_capture()?;
        let ran = d.drain(); // as the driver does
        if !d.is_allocation(base) { return Err(INVALID_VALUE); }
        device::remove(base);
        d.calls.frees += 1;
        ran
    }
    fn cuMemFreeAsync(d, base: u64, stream: u64) {
        if base == 0 { return Ok(()); }
        if !d.is_allocation(base) { return Err(INVALID_VALUE); }
        if d.healthy().is_err() {
            device::remove(base); // nothing runs any more
            return d.healthy();
        }
        d.enqueue(stream, Work::Free(base))?;
        d.calls.frees += 1;
        Ok(())
    }
    fn cuMemGetInfo_v2(_d, free: *mut usize, total: *mut usize) {
        // SAFETY: the caller's variables.
        unsafe {
            put(free, device::total().saturating_sub(device::usage().used) as usize)?;
            put(total, device::total() as usize)
        }
    }
    fn cuMemHostAlloc(d, to: *mut *mut c_void, n: usize, _flags: c_uint) {
        d.unsafe_in_capture()?;
        let layout = Layout::from_size_align(n.max(1), PAGE).map_err(|_| INVALID_VALUE)?;
        if n > d.pinned_most().saturating_sub(d.pinned.values().sum()) { return Err(OUT_OF_MEMORY); }
        // SAFETY: the size is not 0.
        let p = unsafe { alloc_zeroed(layout) };
        if p.is_null() { return Err(OUT_OF_MEMORY); }
        d.pinned.insert(p as usize, n.max(1));
        d.calls.host_allocations += 1;
        // SAFETY: the caller's variable.
        unsafe { put(to, p.cast()) }
    }
    fn cuMemFreeHost(d, p: *mut c_void) {
        d.unsafe_in_capture()?;
        let ran = d.drain(); // a copy may still be to happen
        let n = d.pinned.remove(&(p as usize)).ok_or(INVALID_VALUE)?;
        let layout = Layout::from_size_align(n, PAGE).map_err(|_| INVALID_VALUE)?;
        // SAFETY: allocated by `cuMemHostAlloc` with this layout, and no longer in the table.
        unsafe { dealloc(p.cast(), layout) };
        ran
    }
    fn cuMemcpyHtoD_v2(d, to: u64, from: *const c_void, n: usize) {
        d.unsafe_in_capture()?;
        let point = d.upload(to, from, n, LEGACY)?;
        d.now(point)
    }
    fn cuMemcpyHtoDAsync_v2(d, to: u64, from: *const c_void, n: usize, stream: u64) {
        d.upload(to, from, n, stream).map(drop)
    }
    fn cuMemcpyDtoH_v2(d, to: *mut c_void, from: u64, n: usize) {
        d.unsafe_in_capture()?;
        let waits = d.calls.synchronisations + 1; // one, however many parts it has here
        d.download(to, from, n, LEGACY)?;
        let ran = d.synchronize(LEGACY);
        d.calls.synchronisations = waits;
        ran
    }
    fn cuMemcpyDtoHAsync_v2(d, to: *mut c_void, from: u64, n: usize, stream: u64) {
        d.download(to, from, n, stream)
    }
    fn cuMemcpyDtoD_v2(d, to: u64, from: u64, n: usize) {
        d.unsafe_in_capture()?;
        d.copy(to, from, n, LEGACY).map(drop)
    }
    fn cuMemcpyDtoDAsync_v2(d, to: u64, from: u64, n: usize, stream: u64) {
        d.copy(to, from, n, stream).map(drop)
    }
    fn cuMemcpyPeerAsync(d, to: u64, _to_context: u64, from: u64, _from_context: u64, n: usize, stream: u64) {
        d.copy(to, from, n, stream).map(drop)
    }
    fn cuMemsetD8_v2(d, to: u64, value: u8, n: usize) {
        d.fill(to, value as u32, 1, n, LEGACY).map(drop)
    }
    fn cuMemsetD16_v2(d, to: u64, value: u16, n: usize) {
        d.fill(to, value as u32, 2, n, LEGACY).map(drop)
    }
    fn cuMemsetD32_v2(d, to: u64, value: u32, n: usize) {
        d.fill(to, value, 4, n, LEGACY).map(drop)
    }
    fn cuMemsetD8Async(d, to: u64, value: u8, n: usize, stream: u64) {
        d.fill(to, value as u32, 1, n, stream).map(drop)
    }
    fn cuMemsetD16Async(d, to: u64, value: u16, n: usize, stream: u64) {
        d.fill(to, value as u32, 2, n, stream).map(drop)
    }
    fn cuMemsetD32Async(d, to: u64, value: u32, n: usize, stream: u64) {
        d.fill(to, value, 4, n, stream).map(drop)
    }
    fn cuDeviceGetDefaultMemPool(_d, pool: *mut u64, _device: c_int) {
        // SAFETY: the caller's variable.
        unsafe { put(pool, POOL) }
    }
    fn cuDeviceGetMemPool(_d, pool: *mut u64, _device: c_int) {
        // SAFETY: the caller's variable.
        unsafe { put(pool, POOL) }
    }
    fn cuDeviceSetMemPool(_d, _device: c_int, pool: u64) {
        if pool == POOL { Ok(()) } else { Err(INVALID_VALUE) }
    }
    fn cuMemPoolGetAttribute(d, pool: u64, attribute: c_uint, value: *mut c_void) {
        let usage = device::usage();
        let answer = match attribute {
            1..=3 => {
                // SAFETY: these attributes are ints.
                return unsafe { put(value.cast::<c_int>(), 1) };
            }
            4 => d.release_threshold,
            5 | 7 => usage.used,
            6 | 8 => usage.used_high,
            _ => return Err(INVALID_VALUE),
        };
        if pool != POOL { return Err(INVALID_VALUE); }
        // SAFETY: these attributes are 64 bits.
        unsafe { put(value.cast::<u64>(), answer) }
    }
    fn cuMemPoolSetAttribute(d, pool: u64, attribute: c_uint, value: *mut c_void) {
        if pool != POOL || value.is_null() { return Err(INVALID_VALUE); }
        match attribute {
            1..=3 => Ok(()),
            4 => {
                // SAFETY: this attribute is 64 bits.
                d.release_threshold = unsafe { value.cast::<u64>().read() };
                Ok(())
            }
            // SAFETY: as above. A peak can only be forgotten.
            6 | 8 if unsafe { value.cast::<u64>().read() } == 0 => {
                device::reset_peak();
                Ok(())
            }
            _ => Err(INVALID_VALUE),
        }
    }
    fn cuMemPoolTrimTo(_d, pool: u64, _keep: usize) {
        if pool == POOL { Ok(()) } else { Err(INVALID_VALUE) }
    }
}
