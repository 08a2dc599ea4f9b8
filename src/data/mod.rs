//! From files to batches: sources of images, augmentation, the loader.

pub mod augment;
pub mod dataset;
pub mod image;
pub mod loader;
pub mod sampler;
pub mod source;

pub use dataset::{Dataset, DatasetImage, DatasetOptions};
pub use image::{Image, ImageRef};
pub use source::{Excluded, ExclusionKind, Factor, Source, SourceOptions};
