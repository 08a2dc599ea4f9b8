//! Gives the shared library the name under which programs ask for cuDNN, so that a copy loaded by absolute path answers
//! for it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcudnn.so.9");
}
