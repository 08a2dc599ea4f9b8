//! Finding the driver, cuDNN and cuBLASLt at run time.
//!
//! The driver and libraries on the loader's path are found by name. Those that came with Python wheels
//! (`site-packages/nvidia/*/lib`) are not on it: they are opened by their whole path, after which the loader knows them by
//! their own name.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use cudarc::driver;

use super::symbols::{self, Library};
use crate::{Error, Result};

/// Where to look for libraries before anywhere else: folders as in `PATH`.
pub const LIBRARIES_VARIABLE: &str = "DISENTANGLE_CUDA_LIBRARIES";

/// Fails, saying what to install, unless driver and libraries are here. A call of a library that is missing would panic.
pub fn check() -> Result<()> {
    driver()?;
    let wheels = folders();
    cudnn(&wheels)?;
    cublaslt(&wheels).map(drop)
}

/// What there is of the driver, its devices and the libraries, a line each; for what is missing, what to install.
pub fn inventory() -> Vec<String> {
    let count = match driver() {
        Ok(count) => count,
        Err(problem) => return vec![problem.to_string()],
    };
    let mut version = 0;
    // SAFETY: room for a number.
    let known = unsafe { driver::sys::cuDriverGetVersion(&mut version) }.result().is_ok();
    let mut lines = vec![match known {
        true => format!("driver for CUDA {}.{}", version / 1000, version % 1000 / 10),
        false => "a driver of unknown version".into(),
    }];
    lines.extend(
        (0..count)
            .map(|ordinal| device(ordinal).unwrap_or_else(|problem| format!("cuda:{ordinal}: not usable: {problem}"))),
    );
    let wheels = folders();
    let text = |what: &str, found: Result<[usize; 3]>| match found {
        Ok([major, minor, patch]) => format!("{what} {major}.{minor}.{patch}"),
        Err(problem) => problem.to_string(),
    };
    lines.push(text("cuDNN", cudnn(&wheels)));
    lines.push(text("cuBLASLt", cublaslt(&wheels)));
    lines
}

/// Name, compute capability and memory of a device.
fn device(ordinal: usize) -> std::result::Result<String, driver::DriverError> {
    use driver::sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = driver::result::device::get(ordinal as i32)?;
    let name = driver::result::device::get_name(device)?;
    // SAFETY: a device that the driver named.
    let (bytes, [major, minor]) = unsafe {
        let attribute = |which| driver::result::device::get_attribute(device, which);
        (driver::result::device::total_mem(device)?, [attribute(MAJOR)?, attribute(MINOR)?])
    };
    Ok(format!("cuda:{ordinal}: {name}, sm_{major}{minor}, {:.1} GiB", bytes as f64 / f64::from(1 << 30)))
}

/// Finds cuDNN; its version.
fn cudnn(folders: &[PathBuf]) -> Result<[usize; 3]> {
    let (what, file, wheel) = ("cuDNN", "libcudnn.so.9", "nvidia-cudnn-cu13");
    library(what, file, wheel, folders)?;
    whole(what, file, symbols::CUDNN, &format!("`pip install -U {wheel}`"))?;
    // SAFETY: asks whether the library can be opened, and then for its version.
    let version = unsafe { cudarc::cudnn::sys::is_culib_present().then(|| cudarc::cudnn::sys::cudnnGetVersion()) };
    let version = version.ok_or_else(|| missing(what, file, wheel))?;
    Ok([version / 10_000, version / 100 % 100, version % 100])
}

/// Finds cuBLASLt; its version.
fn cublaslt(folders: &[PathBuf]) -> Result<[usize; 3]> {
    let (what, file, wheel) = ("cuBLASLt", "libcublasLt.so.13", "nvidia-cublas");
    library(what, file, wheel, folders)?;
    whole(what, file, symbols::CUBLASLT, &format!("`pip install -U {wheel}`"))?;
    // SAFETY: as above.
    let version =
        unsafe { cudarc::cublaslt::sys::is_culib_present().then(|| cudarc::cublaslt::sys::cublasLtGetVersion()) };
    let version = version.ok_or_else(|| missing(what, file, wheel))?;
    Ok([version / 10_000, version / 100 % 100, version % 100])
}

/// Fails unless there is a driver with a device.
pub fn driver() -> Result<usize> {
    // SAFETY: asks whether the library can be opened.
    if !unsafe { driver::sys::is_culib_present() } {
        return Err(Error::Device("there is no NVIDIA driver (libcuda.so.1): install one to use a GPU".into()));
    }
    whole("the NVIDIA driver", "libcuda.so.1", symbols::DRIVER, "update the driver")?;
    match driver::CudaContext::device_count() {
        Ok(count @ 1..) => Ok(count as usize),
        Ok(_) => Err(Error::Device("the NVIDIA driver sees no device".into())),
        Err(problem) => Err(Error::Device(format!("the NVIDIA driver does not start: {problem}"))),
    }
}

/// Fails if a library that was found lacks functions that are called, and says what to do.
fn whole(what: &str, file: &str, functions: &[&str], remedy: &str) -> Result<()> {
    let absent = symbols::absent(&[file, stem(file)], functions);
    let Some(first) = absent.first() else { return Ok(()) };
    Err(Error::Device(format!(
        "{what} ({file}) is too old or not whole: it lacks {} of the {} functions that are called, such as {first}: {remedy}",
        absent.len(),
        functions.len()
    )))
}

/// A library's name without its version.
fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

fn missing(what: &str, file: &str, wheel: &str) -> Error {
    Error::Device(format!(
        "{what} ({file}) is not found: install it from NVIDIA, or with `pip install {wheel}`; {LIBRARIES_VARIABLE} may name \
         its folder"
    ))
}

/// Opens a library by name, else from the folders.
fn library(what: &str, file: &str, wheel: &str, folders: &[PathBuf]) -> Result<()> {
    let stem = stem(file);
    if std::env::var_os(LIBRARIES_VARIABLE).is_none() && [file, stem].iter().any(|name| open(Path::new(name))) {
        return Ok(());
    }
    let found = folders.iter().flat_map(|folder| matching(folder, stem)).any(|path| open(&path));
    if found || [file, stem].iter().any(|name| open(Path::new(name))) {
        return Ok(());
    }
    Err(missing(what, file, wheel))
}

/// Opens a library for the whole process, for good.
fn open(path: &Path) -> bool {
    CString::new(path.as_os_str().as_encoded_bytes()).is_ok_and(|path| Library::open(&path).is_some())
}

/// Files `stem` or `stem.N` in a folder.
fn matching(folder: &Path, stem: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> =
        entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem))).collect();
    found.sort();
    found
}

/// Folders that may hold libraries: the variable's, then those of wheels in the Pythons at hand.
fn folders() -> Vec<PathBuf> {
    let given = std::env::var_os(LIBRARIES_VARIABLE);
    let given = given.iter().flat_map(std::env::split_paths);
    given.chain(site_packages().iter().flat_map(|site| wheel_folders(site))).collect()
}

/// `nvidia/*/lib` of a site-packages folder.
fn wheel_folders(site: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(site.join("nvidia")).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path().join("lib")).filter(|lib| lib.is_dir()).collect();
    folders.sort();
    folders
}

fn site_packages() -> Vec<PathBuf> {
    let variables = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    // bin/python3 of an environment on PATH means its lib.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let pythons = std::env::split_paths(&path)
        .filter(|bin| bin.join("python3").exists())
        .filter_map(|bin| bin.parent().map(Path::to_path_buf))
        .collect::<Vec<_>>();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local"));
    let prefixes = variables.chain(pythons).chain(home).chain(["/usr/local", "/usr"].map(PathBuf::from));
    prefixes.flat_map(|prefix| packages_of(&prefix)).collect()
}

fn packages_of(prefix: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten();
    let pythons = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
    let mut found: Vec<_> = pythons
        .flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.path().join(name)))
        .filter(|site| site.is_dir())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_wheels_are_found_by_name() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("lib/python3.12/site-packages/nvidia/cudnn/lib");
        std::fs::create_dir_all(&lib).unwrap();
        for name in ["libcudnn.so.9", "libcudnn_graph.so.9", "other"] {
            std::fs::write(lib.join(name), "").unwrap();
        }
        let folders: Vec<_> = packages_of(root.path()).iter().flat_map(|site| wheel_folders(site)).collect();
        assert_eq!(folders, std::slice::from_ref(&lib));
        assert_eq!(matching(&lib, "libcudnn.so"), [lib.join("libcudnn.so.9")]);
        assert!(!open(&lib.join("libcudnn.so.9")), "an empty file is no library");
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = missing("cuDNN", "libcudnn.so.9", "nvidia-cudnn-cu13").to_string();
        assert!(text.contains("libcudnn.so.9") && text.contains("pip install nvidia-cudnn-cu13"), "{text}");
    }
}
