//! Entry points: launches. A launch that does not fit its kernel is refused with `CUDA_ERROR_INVALID_VALUE`, and reported.

use super::work::{HostFunction, Work};
use super::{Driver, INVALID_VALUE, Outcome, Status, entry_points};
use crate::device;
use crate::exec::Launch;
use crate::ptx::{Kernel, Param};
use crate::report::{self, Finding, Kind};
use crate::window;
use std::ffi::{c_uint, c_void};
use std::sync::Arc;

const BUFFER_POINTER: usize = 1;
const BUFFER_SIZE: usize = 2;

fn refuse<T>(kernel: &Kernel, detail: String) -> Result<T, Status> {
    let by = format!("kernel `{}`", kernel.name);
    report::add(Finding { kind: Kind::BadLaunch, by, place: "its launch".into(), thread: None, detail });
    Err(INVALID_VALUE)
}

/// Whether the host can read these bytes. What cannot be found out counts as readable.
fn readable(address: usize, n: usize) -> bool {
    let mut bytes = vec![0u8; n];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: n };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: n };
    // SAFETY: reads this process's memory into `bytes`; the kernel checks the address.
    let got = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    got == n as isize || (got < 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT))
}

/// Copies the arguments of an array of pointers. The array does not say how many there are or how large, here or on a device, so
/// only what no right array can have is refused: an argument that is null, cannot be read, lies where no value of its size
/// would, or reaches into another one.
fn gather(kernel: &Kernel, arguments: *mut *mut c_void) -> Result<Vec<u8>, Status> {
    let n = kernel.params.len();
    let mut out = vec![0; kernel.param_bytes as usize];
    if n == 0 {
        return Ok(out);
    }
    if arguments.is_null() || !readable(arguments as usize, n * size_of::<*mut c_void>()) {
        return refuse(kernel, format!("{n} arguments are wanted, and fewer are given"));
    }
    let mut places: Vec<(usize, usize, usize)> = Vec::new(); // first byte, bytes, number
    for (i, &Param { offset, size, align }) in kernel.params.iter().enumerate() {
        // SAFETY: the array was just seen to be readable.
        let p = unsafe { arguments.add(i).read_unaligned() };
        if p.is_null() || !readable(p as usize, size as usize) {
            return refuse(kernel, format!("argument {i} of {n} is missing: its address is {p:?}"));
        }
        if size <= 8 && !(p as usize).is_multiple_of(align as usize) {
            let detail = format!("argument {i} has {size} bytes, and a value at {p:?} cannot: its type is another");
            return refuse(kernel, detail);
        }
        let (at, size_here) = (p as usize, size as usize);
        // The same variable may be passed twice; two do not overlap (a structure and a field of it may).
        if let Some(&(_, _, j)) =
            places.iter().find(|(b, n, _)| size_here.max(*n) <= 8 && *b != at && *b < at + size_here && at < b + n)
        {
            let (short, long) = if places[j].0 < at { (j, i) } else { (i, j) };
            let detail = format!(
                "argument {short} has fewer than its {} bytes: argument {long} begins within",
                kernel.params[short].size
            );
            return refuse(kernel, detail);
        }
        places.push((at, size_here, i));
        // SAFETY: `size` bytes were just seen to be readable.
        let bytes = unsafe { std::slice::from_raw_parts(p.cast::<u8>(), size as usize) };
        out[offset as usize..][..size as usize].copy_from_slice(bytes);
    }
    Ok(out)
}

/// Copies the arguments of a buffer whose size the caller states (`extra`).
///
/// # Safety
/// `extra` is a list as `cuLaunchKernel` takes it.
unsafe fn buffer(kernel: &Kernel, extra: *mut *mut c_void) -> Result<Vec<u8>, Status> {
    let (mut from, mut size) = (std::ptr::null::<u8>(), 0usize);
    for pair in 0..4 {
        // SAFETY: the list ends with a null key, which stops the loop.
        let (key, value) = unsafe { (*extra.add(2 * pair) as usize, *extra.add(2 * pair + 1)) };
        match key {
            0 => break,
            BUFFER_POINTER => from = value as *const u8,
            // SAFETY: this key's value points to a size.
            BUFFER_SIZE => size = unsafe { *(value as *const usize) },
            _ => return Err(INVALID_VALUE),
        }
    }
    if from.is_null() || size != kernel.param_bytes as usize {
        return refuse(kernel, format!("{size} bytes of arguments are given, {} are wanted", kernel.param_bytes));
    }
    // SAFETY: the caller states `size` bytes.
    Ok(unsafe { std::slice::from_raw_parts(from, size) }.to_vec())
}

fn check(kernel: &Kernel, grid: [u32; 3], block: [u32; 3], shared: u32, most: i32, params: &[u8]) -> Outcome {
    let threads = block.iter().try_fold(1u32, |n, &b| n.checked_mul(b)).unwrap_or(u32::MAX);
    if grid.contains(&0) || threads == 0 {
        return refuse(kernel, format!("grid {grid:?} of blocks {block:?} is empty"));
    }
    if grid[0] > i32::MAX as u32 || grid[1] > 65535 || grid[2] > 65535 || block[2] > 64 {
        return refuse(kernel, format!("grid {grid:?} of blocks {block:?} is too large"));
    }
    if threads > kernel.max_threads {
        return refuse(kernel, format!("blocks of {threads} threads, where it takes {}", kernel.max_threads));
    }
    if shared as i64 > (most as i64).min(super::module::SHARED_MOST as i64 - kernel.shared_bytes as i64) {
        return refuse(kernel, format!("{shared} bytes of dynamic shared memory, where it may have {most}"));
    }
    for (i, &p) in kernel.params.iter().enumerate().filter(|(i, _)| kernel.pointers.contains(i)) {
        let bytes = &params[p.offset as usize..][..8];
        let value = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        if value != 0 && (value < window::GLOBAL || !device::was_given(value)) {
            return refuse(kernel, format!("argument {i} is used as an address, and {value:#x} is none"));
        }
    }
    Ok(())
}

impl Driver {
    fn launch(
        &mut self,
        function: u64,
        [grid, block]: [[u32; 3]; 2],
        shared: u32,
        stream: u64,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> Outcome {
        let (f, m, k) = self.kernel(function)?;
        // SAFETY: the caller's list, by the contract of `cuLaunchKernel`.
        let params = if extra.is_null() { gather(k, arguments)? } else { unsafe { buffer(k, extra)? } };
        check(k, grid, block, shared, f.max_dynamic, &params)?;
        let launch = Launch {
            module: m.module.clone(),
            kernel: f.kernel,
            variables: m.variables.clone(),
            grid,
            block,
            dynamic_shared: shared,
            params,
        };
        self.enqueue(stream, Work::Launch(Arc::new(launch)))?;
        self.count(stream, |calls| calls.launches += 1);
        Ok(())
    }
}

entry_points! {
    fn cuLaunchKernel(
        d, function: u64, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
        stream: u64, arguments: *mut *mut c_void, extra: *mut *mut c_void
    ) {
        d.launch(function, [[gx, gy, gz], [bx, by, bz]], shared, stream, arguments, extra)
    }
    fn cuLaunchHostFunc(d, stream: u64, function: Option<HostFunction>, data: *mut c_void) {
        let function = function.ok_or(INVALID_VALUE)?;
        d.enqueue(stream, Work::Host(function, data as usize)).map(drop)
    }
}
