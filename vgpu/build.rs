//! Gives the shared library the name under which programs ask for the CUDA driver, so that a copy loaded by absolute
//! path answers for it. Tells tests whether there is an nvcc to compile kernels with; those that need one are ignored without.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    for variable in ["NVCC", "CUDA_HOME", "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rustc-check-cfg=cfg(nvcc)");
    if let Some(nvcc) = find() {
        println!("cargo:rustc-cfg=nvcc");
        println!("cargo:rustc-env=VGPU_NVCC={}", nvcc.display());
    }
}

/// The same places as those that the build of the kernels looks at.
fn find() -> Option<PathBuf> {
    let asked = env::var_os("NVCC").map(PathBuf::from);
    let home = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc"));
    let path = env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = env::split_paths(&path).map(|folder| folder.join("nvcc")).collect();
    let own = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?).join("../target/cuda-toolchain/nvidia/cu13/bin/nvcc");
    let usual = ["/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc"].map(PathBuf::from);
    let all = asked.into_iter().chain(home).chain(path).chain(usual).chain([own]);
    all.filter(|nvcc| nvcc.is_file())
        .find(|nvcc| Command::new(nvcc).arg("--version").output().is_ok_and(|o| o.status.success()))
}
