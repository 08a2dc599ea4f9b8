//! The functions of the driver and of the libraries that this backend calls, by itself or through `cudarc`.
//!
//! They are looked up when they are first called, and one that is not there would be a panic then. So all of them are looked for
//! before the first call: a driver or a library that is too old, or that is not whole, is an error that says so.

use std::ffi::{CStr, CString};

/// Of the driver.
pub const DRIVER: &[&str] = &[
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphUpload",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAllocAsync",
    "cuMemFreeAsync",
    "cuMemFreeHost",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD32Async",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamGetFlags",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// Of cuDNN.
pub const CUDNN: &[&str] = &[
    "cudnnBackendCreateDescriptor",
    "cudnnBackendDestroyDescriptor",
    "cudnnBackendExecute",
    "cudnnBackendFinalize",
    "cudnnBackendGetAttribute",
    "cudnnBackendSetAttribute",
    "cudnnCreate",
    "cudnnDestroy",
    "cudnnGetLastErrorString",
    "cudnnGetVersion",
    "cudnnSetStream",
];

/// Of cuBLASLt.
pub const CUBLASLT: &[&str] = &[
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtGetVersion",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
];

/// Those of `functions` that the first library that opens under one of the `names` does not have; all if none opens.
pub fn absent<'a>(names: &[&str], functions: &[&'a str]) -> Vec<&'a str> {
    let open = |name: &&str| CString::new(*name).ok().and_then(|name| Library::open(&name));
    let Some(library) = names.iter().find_map(open) else { return functions.to_vec() };
    functions.iter().copied().filter(|name| CString::new(*name).map_or(true, |name| !library.has(&name))).collect()
}

/// A library that is open, for the whole process and for good, as whoever calls it expects.
pub struct Library(*mut libc::c_void);

impl Library {
    /// By its name or its whole path; `None` if that is none, or no library.
    pub fn open(name: &CStr) -> Option<Self> {
        // SAFETY: a string; the library's initialisers run, as they would for any program that uses it.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        (!handle.is_null()).then_some(Library(handle))
    }

    fn has(&self, function: &CStr) -> bool {
        // SAFETY: an open library and a string.
        !unsafe { libc::dlsym(self.0, function.as_ptr()) }.is_null()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_library_lacks_is_found() {
        assert_eq!(absent(&["no such library", "libc.so.6"], &["getpid", "cuInit", "malloc"]), ["cuInit"]);
        assert_eq!(absent(&["no such library"], &["getpid"]), ["getpid"]);
    }

    /// The names in the sources, but for what `cudarc` calls on their behalf.
    #[test]
    fn functions_that_are_called_are_in_the_lists() {
        let all: Vec<&str> = [DRIVER, CUDNN, CUBLASLT].concat();
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/backend/cuda"))];
        let mut called = 0;
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for name in text.split("sys::").skip(1).filter_map(|rest| rest.split('(').next()) {
                    let function = ["cu", "cudnn", "cublasLt"]
                        .iter()
                        .any(|prefix| name.strip_prefix(prefix).is_some_and(|n| n.starts_with(char::is_uppercase)));
                    if function && name.chars().all(char::is_alphanumeric) {
                        assert!(all.contains(&name), "{name} in {}", path.display());
                        called += 1;
                    }
                }
            }
        }
        assert!(called > 10, "{called} calls found");
    }
}
