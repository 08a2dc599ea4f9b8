//! What the targets share: one crash for every fault, and a way to read any bytes as a data set.
//!
//! There is no sanitizer: the parsers are safe Rust, so what can go wrong are panics (bounds, overflow, assertions; all
//! checked in this build), allocations sized by an unchecked number (a limit on the allocator), and hangs (libFuzzer's
//! timeout).

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use disentangle::Error;
use disentangle::config::Config;
use disentangle::data::source::{self, MAX_PIXELS, SourceOptions};

/// Bytes that no single allocation may ask for: the largest picture there may be, with 16 bits and an alpha channel, is
/// smaller.
const LARGEST: usize = 1 << 30;
const _: () = assert!(MAX_PIXELS * 8 < LARGEST as u64);

/// Images of a source that are read.
pub const READ: usize = 64;

/// The system's allocator, with a limit.
struct Limited;

#[global_allocator]
static ALLOCATOR: Limited = Limited;

fn check(bytes: usize) {
    if bytes > LARGEST {
        eprintln!("an allocation of {bytes} bytes");
        std::process::abort();
    }
}

// SAFETY: everything is the system allocator's own doing; the check neither allocates nor unwinds.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

/// To be called once, before the first input. A panic in this project's code is a crash, even where it would be caught;
/// one in a dependency is only if nobody catches it (`decode` does: a decoder's bug must cost one image, not the run).
pub fn start() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_none_or(|place| !place.file().contains("/registry/src/")) {
            report(panic);
            std::process::abort();
        }
    }));
}

/// The folder that inputs are written to; the process's own.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("disentangle-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
});

/// Writes `bytes` as the file `name`; gives its path.
pub fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.join(name);
    fs::create_dir_all(path.parent().unwrap_or(&path)).expect("a temporary folder");
    fs::write(&path, bytes).expect("room for the input");
    path
}

/// Opens `bytes` as the file `name` (the name decides for some formats) and reads all there is.
pub fn read_file(name: &str, bytes: &[u8]) {
    read(&write(name, bytes), &SourceOptions::default());
}

/// Opens a folder `with-NAME` with the file `name` of these `bytes` (and what else was written there), and reads all there
/// is.
pub fn read_folder(name: &str, bytes: &[u8], options: &SourceOptions) {
    let path = write(&format!("with-{name}/{name}"), bytes);
    read(path.parent().unwrap_or(&path), options);
}

/// Every promise of `Source` that can be checked, for the first images.
fn read(path: &Path, options: &SourceOptions) {
    let source = match source::open(&path.display().to_string(), options) {
        Ok(source) => source,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(!source.is_empty(), "a source without images was opened");
    source.files();
    for excluded in source.excluded() {
        assert!(!excluded.reason.is_empty() && is_text(&excluded.reason) && is_text(&excluded.name), "{excluded:?}");
    }
    source.classes().iter().for_each(|class| assert!(is_text(class), "{class:?}"));
    for factor in source.factors() {
        assert_eq!(factor.labels.len(), source.len());
        assert!(factor.labels.iter().all(|&label| (label as usize) < factor.values.len()));
    }
    for i in 0..source.len().min(READ) {
        let name = source.name(i);
        assert!(!name.is_empty() && is_text(&name), "{name:?}");
        assert!(source.label(i).is_none_or(|label| (label as usize) < source.classes().len()));
        if let (Ok(image), Ok(Some(jpeg))) = (source.read(i), source.jpeg(i)) {
            assert_eq!(source::decode(&jpeg), Ok(image), "{name}: its JPEG is another image");
        }
    }
}

/// Whether a text may be printed as it is: nothing in it moves a cursor or ends a line.
fn is_text(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// What every error promises: to say something. (Printing it is what makes control characters visible.)
pub fn check_error(error: &Error) {
    assert!(!error.to_string().is_empty());
}

/// What every accepted configuration promises: it is written in full, and comes back the same.
pub fn check_config(config: &Config) {
    let text = config.to_toml();
    let again = Config::from_toml(&text, "its own text").unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(again == *config && again.diff(config).is_empty(), "{text}");
}
