//! From files to batches: sources of images, augmentation, the loader.

pub mod augment;
pub mod image;
pub use image::{Image, ImageRef};
