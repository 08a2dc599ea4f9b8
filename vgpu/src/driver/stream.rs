//! Entry points: streams, events, capture and graphs.

use super::queue::{Event, Stream};
use super::{INVALID_HANDLE, INVALID_VALUE, NOT_READY, entry_points, put};
use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

const NON_BLOCKING: c_uint = 1;
const DISABLE_TIMING: c_uint = 2;

entry_points! {
    fn cuStreamCreate(d, to: *mut u64, flags: c_uint) {
        let handle = d.handle();
        d.streams.insert(handle, Stream { non_blocking: flags & NON_BLOCKING != 0, ..Stream::default() });
        // SAFETY: the caller's variable.
        unsafe { put(to, handle) }
    }
    fn cuStreamCreateWithPriority(d, to: *mut u64, flags: c_uint, priority: c_int) {
        let handle = d.handle();
        d.streams.insert(handle, Stream { non_blocking: flags & NON_BLOCKING != 0, priority, ..Stream::default() });
        // SAFETY: the caller's variable.
        unsafe { put(to, handle) }
    }
    fn cuStreamGetPriority(d, stream: u64, to: *mut c_int) {
        let priority = d.stream(stream)?.priority;
        // SAFETY: the caller's variable.
        unsafe { put(to, priority) }
    }
    fn cuStreamGetFlags(d, stream: u64, to: *mut c_uint) {
        let flags = d.stream(stream)?.non_blocking as c_uint;
        // SAFETY: the caller's variable.
        unsafe { put(to, flags) }
    }
    fn cuStreamDestroy_v2(d, stream: u64) {
        let count = d.streams.get(&stream).ok_or(INVALID_HANDLE)?.issued;
        d.reach((stream, count)); // its work still happens
        d.streams.remove(&stream);
        Ok(())
    }
    fn cuStreamSynchronize(d, stream: u64) { d.synchronize(stream) }
    fn cuStreamQuery(d, stream: u64) {
        d.healthy()?;
        if d.stream(stream)?.queue.is_empty() { return Ok(()); }
        if d.draw(2) == 0 { return Err(NOT_READY); }
        d.synchronize(stream)
    }
    fn cuStreamWaitEvent(d, stream: u64, event: u64, _flags: c_uint) { d.wait(stream, event) }
    fn cuStreamAttachMemAsync(d, stream: u64, _address: u64, _n: usize, _flags: c_uint) { d.stream(stream).map(drop) }
    fn cuCtxSynchronize(d) { d.synchronize_all() }

    fn cuEventCreate(d, to: *mut u64, flags: c_uint) {
        let handle = d.handle();
        d.events.insert(handle, Event { no_timing: flags & DISABLE_TIMING != 0, ..Event::default() });
        // SAFETY: the caller's variable.
        unsafe { put(to, handle) }
    }
    fn cuEventRecord(d, event: u64, stream: u64) { d.record(event, stream) }
    fn cuEventRecordWithFlags(d, event: u64, stream: u64, _flags: c_uint) { d.record(event, stream) }
    fn cuEventQuery(d, event: u64) {
        d.healthy()?;
        if d.event_done(event)? { return Ok(()); }
        // A program that polls must come to an end: sometimes the time has come.
        if d.draw(2) == 0 { return Err(NOT_READY); }
        if let Some(point) = d.events.get(&event).and_then(|e| e.point) { d.reach(point); }
        d.healthy()
    }
    fn cuEventSynchronize(d, event: u64) {
        d.event_done(event)?;
        d.calls.synchronisations += 1;
        if let Some(point) = d.events.get(&event).and_then(|e| e.point) { d.reach(point); }
        d.healthy()
    }
    fn cuEventDestroy_v2(d, event: u64) { d.events.remove(&event).map(drop).ok_or(INVALID_HANDLE) }
    fn cuEventElapsedTime_v2(d, milliseconds: *mut f32, from: u64, to: u64) {
        let (a, b) = (d.events.get(&from).ok_or(INVALID_HANDLE)?, d.events.get(&to).ok_or(INVALID_HANDLE)?);
        if a.no_timing || b.no_timing || a.point.is_none() || b.point.is_none() { return Err(INVALID_HANDLE); }
        let (Some(a), Some(b)) = (a.time, b.time) else { return Err(NOT_READY) };
        let elapsed = match b.checked_duration_since(a) {
            Some(later) => later.as_secs_f32(),
            None => -(a - b).as_secs_f32(),
        };
        // SAFETY: the caller's variable.
        unsafe { put(milliseconds, elapsed * 1e3) }
    }

    fn cuStreamBeginCapture_v2(d, stream: u64, mode: c_uint) { d.begin_capture(stream, mode) }
    fn cuStreamEndCapture(d, stream: u64, graph: *mut u64) {
        let ended = d.end_capture(stream);
        // SAFETY: the caller's variable.
        unsafe { put(graph, *ended.as_ref().unwrap_or(&0))? };
        ended.map(drop)
    }
    fn cuStreamIsCapturing(d, stream: u64, to: *mut c_uint) {
        let capture = d.stream(stream)?.capture;
        // SAFETY: the caller's variable.
        unsafe { put(to, capture.map_or(0, |c| if d.is_valid(c) { 1 } else { 2 })) }
    }
    fn cuThreadExchangeStreamCaptureMode(_d, mode: *mut c_uint) {
        // SAFETY: the caller's variable.
        unsafe { put(mode, 0) }
    }
    fn cuGraphInstantiateWithFlags(d, to: *mut u64, graph: u64, _flags: c_ulonglong) {
        let graph = d.graphs.get(&graph).ok_or(INVALID_VALUE)?.clone();
        let handle = d.handle();
        d.executables.insert(handle, graph);
        d.calls.instantiations += 1;
        // SAFETY: the caller's variable.
        unsafe { put(to, handle) }
    }
    fn cuGraphUpload(d, graph: u64, _stream: u64) {
        if d.executables.contains_key(&graph) { Ok(()) } else { Err(INVALID_VALUE) }
    }
    fn cuGraphLaunch(d, graph: u64, stream: u64) {
        d.launch_graph(graph, stream)?;
        d.count(stream, |calls| calls.graph_launches += 1);
        Ok(())
    }
    fn cuGraphExecDestroy(d, graph: u64) { d.executables.remove(&graph).map(drop).ok_or(INVALID_VALUE) }
    fn cuGraphDestroy(d, graph: u64) { d.graphs.remove(&graph).map(drop).ok_or(INVALID_VALUE) }
    fn cuProfilerStart(_d) { Ok(()) }
    fn cuProfilerStop(_d) { Ok(()) }
    fn cuGetProcAddress_v2(
        _d, _symbol: *const std::ffi::c_char, to: *mut *mut c_void, _version: c_int, _flags: c_ulonglong, _status: *mut c_int
    ) {
        // SAFETY: the caller's variable. Entry points are found by name (`dlsym`) here.
        unsafe { put(to, std::ptr::null_mut())? };
        Err(super::NOT_FOUND)
    }
}
