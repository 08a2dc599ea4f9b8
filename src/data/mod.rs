//! From files to batches: sources of images, augmentation, the loader.

pub mod augment;
pub mod cache;
pub mod catalog;
pub mod dataset;
pub mod gather;
pub mod image;
pub mod loader;
pub mod mapped;
pub mod packed;
pub mod sampler;
pub mod source;

pub use catalog::{Catalog, Encoding};
pub use dataset::Dataset;
pub use gather::GatherOptions;
pub use image::{Image, ImageRef};
pub use source::{Excluded, ExclusionKind, Factor, Source, SourceOptions};
