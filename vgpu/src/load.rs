//! Making the shared library known before a program asks for the driver.

use crate::driver::Calls;
use crate::exec::Counts;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What [`preload`] came to.
#[derive(Clone, Debug)]
pub enum Preload {
    /// The virtual GPU answers for `libcuda.so.1` from now on.
    Virtual(VirtualGpu),
    /// A real driver is here: nothing was loaded, tests run on it.
    Real,
    /// The virtual GPU could not be loaded, and why.
    Failed(String),
}

type Access = unsafe extern "C" fn(*mut c_char, usize, *mut usize) -> u32;

/// The loaded virtual GPU, for what tests ask of it. It is one for the whole process.
#[derive(Clone, Copy, Debug)]
pub struct VirtualGpu {
    last_report: Access,
    take_work: Access,
    set_seed: unsafe extern "C" fn(u64) -> u32,
    set_memory: unsafe extern "C" fn(u64) -> u32,
    set_pinned: unsafe extern "C" fn(u64) -> u32,
    take_counts: unsafe extern "C" fn(*mut Counts) -> u32,
    take_calls: unsafe extern "C" fn(*mut Calls) -> u32,
}

impl VirtualGpu {
    /// A text that the library hands out and forgets.
    fn take(access: Access) -> String {
        let mut length = 0;
        // SAFETY: asks for the length only.
        unsafe { access(std::ptr::null_mut(), 0, &mut length) };
        let mut text = vec![0u8; length + (1 << 16)]; // more may come in between
        // SAFETY: `text` has the room that is stated.
        unsafe { access(text.as_mut_ptr().cast(), text.len(), &mut length) };
        text.truncate(length);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Takes what the checks found since the last call, a line each, and clears the context's error.
    pub fn last_report(&self) -> String {
        VirtualGpu::take(self.last_report)
    }

    /// What streams and graphs did since the last call, by name, and how often: kernels, operations of libraries, copies, fills,
    /// graphs. Work that is queued and not done yet is not among it.
    pub fn take_work(&self) -> BTreeMap<String, u64> {
        let text = VirtualGpu::take(self.take_work);
        let line = |line: &str| line.split_once(' ').and_then(|(n, name)| Some((name.to_owned(), n.parse().ok()?)));
        text.lines().filter_map(line).collect()
    }

    /// From now on the device has so many bytes of memory (`VGPU_MEMORY` gives the first number); 0: as at the start.
    pub fn set_memory(&self, bytes: u64) {
        // SAFETY: takes a number.
        unsafe { (self.set_memory)(bytes) };
    }

    /// From now on there may be so many bytes of page-locked memory (`VGPU_PINNED`); 0: as at the start.
    pub fn set_pinned(&self, bytes: u64) {
        // SAFETY: takes a number.
        unsafe { (self.set_pinned)(bytes) };
    }

    /// Restarts the order of streams from a seed; `VGPU_SEED` gives the first.
    pub fn set_seed(&self, seed: u64) {
        // SAFETY: takes a number.
        unsafe { (self.set_seed)(seed) };
    }

    /// Instructions, operations and bytes since the last call.
    pub fn take_counts(&self) -> Counts {
        let mut counts = Counts::default();
        // SAFETY: the library is of this build, so the structure is the same.
        unsafe { (self.take_counts)(&mut counts) };
        counts
    }

    /// What the program asked of the driver since the last call, by kind: allocations, launches, copies, synchronisations.
    pub fn take_calls(&self) -> Calls {
        let mut calls = Calls::default();
        // SAFETY: as in `take_counts`.
        unsafe { (self.take_calls)(&mut calls) };
        calls
    }
}

/// Loads the virtual GPU under the driver's name, and the stand-in libraries beside it under theirs, unless a real driver is here and `VGPU=1` is not set. The first call
/// decides; it must come before the program's first call of CUDA.
pub fn preload() -> Preload {
    static DONE: OnceLock<Preload> = OnceLock::new();
    DONE.get_or_init(|| {
        let asked = std::env::var_os("VGPU").is_some_and(|v| v == "1");
        if !asked && real_driver() { Preload::Real } else { load().map_or_else(Preload::Failed, Preload::Virtual) }
    })
    .clone()
}

fn open(name: &CStr, flags: c_int) -> *mut c_void {
    // SAFETY: a string; libraries run their initialisers, as they would for the program.
    unsafe { libc::dlopen(name.as_ptr(), flags) }
}

fn symbol(library: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: an open library and a string.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

/// Whether the loader finds a driver that is not this one, under any name that programs try.
fn real_driver() -> bool {
    [c"libcuda.so.1", c"libcuda.so"].into_iter().any(|name| {
        let library = open(name, libc::RTLD_LAZY | libc::RTLD_LOCAL);
        if library.is_null() {
            return false;
        }
        let ours = !symbol(library, c"vgpu_present").is_null();
        // SAFETY: opened above.
        unsafe { libc::dlclose(library) };
        !ours
    })
}

/// Cargo puts the library beside the test (`target/*/deps`), and beside programs in `deps` below them.
fn candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("VGPU_LIBRARY") {
        return vec![path.into()];
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let folder = exe.parent().map(PathBuf::from).unwrap_or_default();
    [folder.clone(), folder.join("deps"), folder.join("../deps")].map(|f| f.join("libvgpu.so")).into()
}

/// Stand-ins for CUDA's libraries that lie beside the driver's if a dependent asked cargo for them: the file, and the names by
/// which programs may ask.
const LIBRARIES: [(&str, [&CStr; 2]); 2] = [
    ("libvgpu_cudnn.so", [c"libcudnn.so", c"libcudnn.so.9"]),
    ("libvgpu_cublaslt.so", [c"libcublasLt.so", c"libcublasLt.so.13"]),
];

fn open_file(path: &Path) -> Result<*mut c_void, String> {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
    let library = open(&name, libc::RTLD_NOW | libc::RTLD_GLOBAL);
    if library.is_null() {
        // SAFETY: the loader's last message, which lives until the next call.
        let message = unsafe { CStr::from_ptr(libc::dlerror()) };
        return Err(message.to_string_lossy().into_owned());
    }
    Ok(library)
}

/// Loads the stand-in libraries of a folder. A real library that programs would find before them does not stop the driver's
/// tests, but is told.
fn load_libraries(folder: &Path) -> Result<(), String> {
    for (file, names) in LIBRARIES {
        let path = folder.join(file);
        if !path.is_file() {
            continue;
        }
        let library = open_file(&path)?;
        for name in names {
            let found = open(name, libc::RTLD_LAZY | libc::RTLD_LOCAL);
            if !found.is_null() && found != library {
                eprintln!("vgpu: {name:?} leads to a real library, which programs find before {file}");
                // SAFETY: opened above.
                unsafe { libc::dlclose(found) };
            }
        }
    }
    Ok(())
}

fn load() -> Result<VirtualGpu, String> {
    let paths = candidates();
    let Some(path) = paths.iter().find(|p| p.is_file()).and_then(|p| p.canonicalize().ok()) else {
        return Err(format!("libvgpu.so is not at {paths:?}; VGPU_LIBRARY may name it"));
    };
    let library = open_file(&path)?;
    // A file `libcuda.so` would be found before the name that answers here.
    for name in [c"libcuda.so", c"libcuda.so.1"] {
        let found = open(name, libc::RTLD_LAZY | libc::RTLD_LOCAL);
        if !found.is_null() && symbol(found, c"vgpu_present").is_null() {
            return Err(format!("{name:?} leads to a real driver, which programs would find first"));
        }
    }
    load_libraries(path.parent().unwrap_or(Path::new(".")))?;
    let get = |name: &CStr| match symbol(library, name) {
        p if p.is_null() => Err(format!("{} has no {name:?}", path.display())),
        p => Ok(p),
    };
    let (report, work) = (get(c"vgpu_last_report")?, get(c"vgpu_take_work")?);
    let [seed, memory, pinned] = [get(c"vgpu_set_seed")?, get(c"vgpu_set_memory")?, get(c"vgpu_set_pinned")?];
    type Set = unsafe extern "C" fn(u64) -> u32;
    let (counts, calls) = (get(c"vgpu_take_counts")?, get(c"vgpu_take_calls")?);
    // SAFETY: the entry points of `driver::own`, with these signatures.
    unsafe {
        Ok(VirtualGpu {
            last_report: std::mem::transmute::<*mut c_void, Access>(report),
            take_work: std::mem::transmute::<*mut c_void, Access>(work),
            set_seed: std::mem::transmute::<*mut c_void, Set>(seed),
            set_memory: std::mem::transmute::<*mut c_void, Set>(memory),
            set_pinned: std::mem::transmute::<*mut c_void, Set>(pinned),
            take_counts: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut Counts) -> u32>(counts),
            take_calls: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut Calls) -> u32>(calls),
        })
    }
}
