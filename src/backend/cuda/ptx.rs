//! The kernels as PTX, compiled from kernels/*.cu when this crate was built (see build.rs).

/// A kernel file's stem (`nt_xent`, ...) and its PTX for sm_80 and later, sorted by stem.
pub static MODULES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/ptx.rs"));

/// The PTX of the kernel file with this stem.
pub fn module(stem: &str) -> Option<&'static str> {
    MODULES.iter().find(|(name, _)| *name == stem).map(|(_, text)| *text)
}
