//! The engine against reference tensors: every golden file in `tests/golden` and in the directories of `GOLDEN_DIR`
//! (separated by colons). The `.json` sidecars alone say what a file holds, so files with other seeds, shapes, widths and
//! depths run as well. `--nocapture` shows the worst error of each file.

#[path = "golden/adam.rs"]
mod adam;
#[path = "golden/augment.rs"]
mod augment;
#[path = "golden/cosine.rs"]
mod cosine;
#[path = "golden/feature.rs"]
mod feature;
#[path = "golden/judge.rs"]
mod judge;
#[path = "golden/layers.rs"]
mod layers;
#[path = "golden/metrics.rs"]
mod metrics;
#[path = "golden/model.rs"]
mod model;
#[path = "golden/network.rs"]
mod network;
#[path = "golden/nt_xent.rs"]
mod nt_xent;
#[path = "golden/reader.rs"]
mod reader;

/// No file is passed over because its kind is not recognised, and no directory because it is empty.
#[test]
fn every_directory_holds_golden_files_of_known_kinds() {
    for directory in reader::directories() {
        let files = reader::files(&directory);
        assert!(!files.is_empty(), "{} holds no golden file", directory.display());
        println!("{}: {} golden files", directory.display(), files.len());
    }
}
