//! Augmentation: one random view of one picture, on uint8, as torchvision computes it through Pillow.
//!
//! ```text
//! AugmentConfig --sample(stream)--> ViewParams --render(picture)--> size x size x 3 uint8
//!
//! picture (HWC) -> crop -> resize -> flip -> [brightness, contrast, saturation, hue in random order] -> [gray] -> [blur]
//! ```
//!
//! Sampling and rendering are apart: [`ViewParams`] holds every decision as a number, so a view can be printed, stored,
//! rendered again, and compared with a reference that was given the same numbers.
//!
//! Every operation gives the same bytes as its reference: resizing, flips, enhancement, the trip through HSV and the grey
//! level those of Pillow 13 under torchvision 0.29, the blur that of OpenCV's `GaussianBlur` on uint8. They are the same on
//! every [`InstructionSet`]; [`Scratch`] holds the one in use. Only [`ColourOrder::Fast`] gives up that equality, for speed.
//!
//! Between the resize and the output a view is three planes, `[channel][row][column]`: each operation is then a loop over
//! contiguous numbers without shuffles, which compilers turn into vector code for whatever the machine has. The resize reads
//! each source row once and writes planes directly (flips are only the order in which it writes); all colour operations
//! take two passes over the planes at most, and the last one writes the pixels out.

mod blur;
mod colour;
mod config;
mod crop;
mod filter;
mod flip;
mod grayscale;
mod hue;
mod interleave;
mod jitter;
mod resize;
mod simd;
#[cfg(test)]
mod tests;
mod tile;
mod view;

pub use blur::Blur;
pub use config::{AugmentConfig, ColourOrder};
pub use crop::CropBox;
pub use flip::Flip;
pub use jitter::Adjust;
pub use simd::InstructionSet;
pub use view::{Scratch, Size, ViewParams, render, resize};
