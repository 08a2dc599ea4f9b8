//! Kernels do not get more expensive unnoticed: instructions, operations and bytes of every launch of small cases, counted by
//! the virtual GPU, against the table in benches/kernels/counts.json.
//!
//! The counts are exact and the same on every machine. This file is one test, because they are the whole process's.

#[path = "../benches/kernels/cases/mod.rs"]
mod cases;

use std::collections::BTreeSet;

use cases::{Device, Scale, counts, plans};
use disentangle::backend::cuda::ptx;

/// A real GPU counts nothing: the virtual one is asked for even where there is one.
#[test]
fn no_count_grew() {
    // SAFETY: the only thread of this process that is under way.
    unsafe { std::env::set_var("VGPU", "1") };
    let device = Device::open().unwrap();
    let gpu = device.virtual_gpu.expect("the virtual GPU");
    let found = counts::count(&device, gpu).unwrap();
    if std::env::var_os(counts::UPDATE).is_some() {
        counts::commit(&found).unwrap();
    }
    let regressions = counts::regressions(&found, &counts::committed().unwrap_or_default());
    assert!(
        regressions.is_empty(),
        "more than {} % above benches/kernels/counts.json ({}=1 writes it anew):\n{}",
        100.0 * counts::TOLERANCE,
        counts::UPDATE,
        regressions.join("\n")
    );

    // All kernels are counted, and what is counted small is timed at the paper's sizes.
    let counted: BTreeSet<&str> = found.keys().filter_map(|name| name.rsplit(": ").next()).collect();
    let compiled: BTreeSet<&str> =
        ptx::MODULES.iter().flat_map(|(_, text)| ptx::entry_points(text)).map(|(name, _)| name).collect();
    assert_eq!(counted, compiled);
    let names = |scale| plans(scale).iter().map(|plan| plan.name).collect::<BTreeSet<_>>();
    assert_eq!(names(Scale::Tiny), names(Scale::Paper));
}
