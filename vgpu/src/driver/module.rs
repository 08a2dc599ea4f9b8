//! Entry points: modules and their functions.

use super::{
    Driver, INVALID_HANDLE, INVALID_PTX, INVALID_VALUE, NO_BINARY, NOT_FOUND, Outcome, Status, entry_points, put,
};
use crate::device::{self, Life};
use crate::ptx::{self, Kernel, Module};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

/// A module with memory for its variables.
pub struct Loaded {
    pub module: Arc<Module>,
    pub variables: Arc<Vec<u64>>,
}

/// A kernel's handle.
pub struct Function {
    pub owner: u64,
    pub kernel: usize,
    pub max_dynamic: i32,
}

/// Shared memory that a block may have without asking for more.
pub const SHARED_PLAIN: i32 = 48 << 10;
/// Shared memory that a block may have at most: an sm_80's, so that what runs here runs on every device aimed at.
pub const SHARED_MOST: i32 = 163 << 10;

impl Driver {
    pub fn kernel(&self, function: u64) -> Result<(&Function, &Loaded, &Kernel), Status> {
        let f = self.functions.get(&function).ok_or(INVALID_HANDLE)?;
        let m = self.modules.get(&f.owner).ok_or(INVALID_HANDLE)?;
        Ok((f, m, &m.module.kernels[f.kernel]))
    }

    fn load(&mut self, text: &str) -> Result<u64, Status> {
        let module = ptx::parse(text).map_err(|e| {
            eprintln!("vgpu: {e}");
            INVALID_PTX
        })?;
        let mut variables = Vec::new();
        for v in &module.variables {
            let a = device::allocate(v.size, Life::Live, Some(v.constant)).ok_or(super::OUT_OF_MEMORY)?;
            // SAFETY: the initial values fit the variable, which the reader of PTX saw to.
            unsafe { std::ptr::copy_nonoverlapping(v.initial.as_ptr(), a.host(0, v.size), v.initial.len()) };
            a.mark_host(0, v.size);
            variables.push(a.base);
        }
        let handle = self.handle();
        self.calls.modules += 1;
        self.modules.insert(handle, Loaded { module: Arc::new(module), variables: Arc::new(variables) });
        Ok(handle)
    }

    pub fn unload(&mut self, handle: u64) -> Outcome {
        let m = self.modules.remove(&handle).ok_or(INVALID_HANDLE)?;
        self.functions.retain(|_, f| f.owner != handle);
        m.variables.iter().for_each(|&base| drop(device::remove(base)));
        Ok(())
    }
}

/// The text of an image; anything but PTX is no image for this device.
///
/// # Safety
/// `image` is null or points to a string with a terminating zero.
unsafe fn text<'a>(image: *const c_void) -> Result<&'a str, Status> {
    if image.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: by contract.
    let text = unsafe { CStr::from_ptr(image.cast()) }.to_str().map_err(|_| NO_BINARY)?;
    if text.contains(".version") { Ok(text) } else { Err(NO_BINARY) }
}

entry_points! {
    fn cuModuleLoadData(d, to: *mut u64, image: *const c_void) {
        // SAFETY: the caller's image and variable.
        unsafe { put(to, d.load(text(image)?)?) }
    }
    fn cuModuleLoadDataEx(
        d, to: *mut u64, image: *const c_void, _count: c_uint, _options: *mut c_int, _values: *mut *mut c_void
    ) {
        // SAFETY: the caller's image and variable.
        unsafe { put(to, d.load(text(image)?)?) }
    }
    fn cuModuleLoad(d, to: *mut u64, path: *const c_char) {
        if path.is_null() { return Err(INVALID_VALUE); }
        // SAFETY: the caller's string.
        let path = unsafe { CStr::from_ptr(path) }.to_str().map_err(|_| INVALID_VALUE)?;
        let text = std::fs::read_to_string(path).map_err(|_| 301u32)?;
        // SAFETY: the caller's variable.
        unsafe { put(to, d.load(&text)?) }
    }
    fn cuModuleUnload(d, module: u64) {
        d.unsafe_in_capture()?;
        let ran = d.drain();
        d.unload(module)?;
        ran
    }
    fn cuModuleGetFunction(d, to: *mut u64, module: u64, name: *const c_char) {
        if name.is_null() { return Err(INVALID_VALUE); }
        // SAFETY: the caller's string.
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| INVALID_VALUE)?;
        let m = d.modules.get(&module).ok_or(INVALID_HANDLE)?;
        let kernel = m.module.kernels.iter().position(|k| k.name == name).ok_or(NOT_FOUND)?;
        let handle = d.handle();
        d.functions.insert(handle, Function { owner: module, kernel, max_dynamic: SHARED_PLAIN });
        // SAFETY: the caller's variable.
        unsafe { put(to, handle) }
    }
    fn cuModuleGetGlobal_v2(d, to: *mut u64, bytes: *mut usize, module: u64, name: *const c_char) {
        if name.is_null() { return Err(INVALID_VALUE); }
        // SAFETY: the caller's string.
        let name = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| INVALID_VALUE)?;
        let m = d.modules.get(&module).ok_or(INVALID_HANDLE)?;
        let i = m.module.variables.iter().position(|v| v.name == name).ok_or(NOT_FOUND)?;
        // SAFETY: the caller's variables, of which either may be null.
        unsafe {
            if !to.is_null() { put(to, m.variables[i])?; }
            if !bytes.is_null() { put(bytes, m.module.variables[i].size as usize)?; }
        }
        Ok(())
    }
    fn cuFuncGetAttribute(d, value: *mut c_int, attribute: c_uint, function: u64) {
        let (f, m, k) = d.kernel(function)?;
        let answer = match attribute {
            0 => k.max_threads as c_int,
            1 => k.shared_bytes as c_int,
            2 => 0,
            3 => k.local_bytes as c_int,
            4 => 64, // registers; the interpreter has no such limit
            5 => m.module.version as c_int,
            6 => m.module.target.trim_start_matches("sm_").trim_end_matches(['a', 'f']).parse().unwrap_or(80),
            8 => f.max_dynamic,
            9 => -1,
            _ => 0,
        };
        // SAFETY: the caller's variable.
        unsafe { put(value, answer) }
    }
    fn cuFuncSetAttribute(d, function: u64, attribute: c_uint, value: c_int) {
        let fixed = d.kernel(function)?.2.shared_bytes as i32;
        let f = d.functions.get_mut(&function).ok_or(INVALID_HANDLE)?;
        match attribute {
            8 if value >= 0 && value + fixed <= SHARED_MOST => f.max_dynamic = value,
            9 if (-1..=100).contains(&value) => {}
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    }
    fn cuFuncSetCacheConfig(_d, _function: u64, _config: c_uint) { Ok(()) }
    fn cuFuncGetParamInfo(d, function: u64, index: usize, offset: *mut usize, size: *mut usize) {
        let p = *d.kernel(function)?.2.params.get(index).ok_or(INVALID_VALUE)?;
        // SAFETY: the caller's variables; the size may be left out.
        unsafe {
            put(offset, p.offset as usize)?;
            if size.is_null() { Ok(()) } else { put(size, p.size as usize) }
        }
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(d, blocks: *mut c_int, function: u64, threads: c_int, shared: usize) {
        // SAFETY: the caller's variable.
        unsafe { put(blocks, occupancy(d, function, threads, shared)?) }
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        d, blocks: *mut c_int, function: u64, threads: c_int, shared: usize, _flags: c_uint
    ) {
        // SAFETY: the caller's variable.
        unsafe { put(blocks, occupancy(d, function, threads, shared)?) }
    }
    fn cuOccupancyAvailableDynamicSMemPerBlock(d, bytes: *mut usize, function: u64, blocks: c_int, _threads: c_int) {
        let fixed = d.kernel(function)?.2.shared_bytes as usize;
        let each = SHARED_MOST as usize / blocks.max(1) as usize;
        // SAFETY: the caller's variable.
        unsafe { put(bytes, each.saturating_sub(fixed)) }
    }
    fn cuOccupancyMaxPotentialBlockSize(
        d, grid: *mut c_int, threads: *mut c_int, function: u64, _shared_of: *const c_void, _shared: usize, limit: c_int
    ) {
        // SAFETY: the caller's variables.
        unsafe { potential(d, function, limit, grid, threads) }
    }
    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        d, grid: *mut c_int, threads: *mut c_int, function: u64, _shared_of: *const c_void, _shared: usize, limit: c_int,
        _flags: c_uint
    ) {
        // SAFETY: the caller's variables.
        unsafe { potential(d, function, limit, grid, threads) }
    }
}

/// The largest block, and as many of them as fill the device.
///
/// # Safety
/// `grid` and `threads` are null or a caller's variables.
unsafe fn potential(d: &Driver, function: u64, limit: c_int, grid: *mut c_int, threads: *mut c_int) -> Outcome {
    let most = d.kernel(function)?.2.max_threads as c_int;
    let most = if limit > 0 { most.min(limit) } else { most };
    let blocks = super::context::MULTIPROCESSORS * occupancy(d, function, most, 0)?.max(1);
    // SAFETY: by contract.
    unsafe {
        put(threads, most)?;
        put(grid, blocks)
    }
}

fn occupancy(d: &Driver, function: u64, threads: c_int, shared: usize) -> Result<c_int, Status> {
    let k = d.kernel(function)?.2;
    if threads <= 0 || threads as u32 > k.max_threads {
        return Err(INVALID_VALUE);
    }
    let by_threads = 2048 / ((threads + 31) / 32 * 32);
    let used = shared + k.shared_bytes as usize + 1024;
    Ok(by_threads.min(32).min((SHARED_MOST as usize + 1024).checked_div(used).unwrap_or(32) as c_int))
}
