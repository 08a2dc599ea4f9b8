//! Sources and data sets on inputs made here: every layout, every picture format, and everything that can be wrong.
//!
//! `tests/fixtures/ramp_*.jpg` (made with Pillow 13) show the picture of [`ramp`] in encodings that no encoder at hand writes.

mod archives;
mod arrays;
mod cifar;
mod classes;
mod folders;
mod lists;
mod odd;
mod pictures;
mod shapes;
mod stl10;

use std::path::Path;

use disentangle::Error;
use disentangle::data::{Dataset, ExclusionKind, GatherOptions, Image, SourceOptions, source};
use image::{ImageFormat, RgbImage};

/// A picture of 24 x 16 pixels: red grows to the right, green downwards; `seed` is the blue.
fn ramp(seed: u8) -> RgbImage {
    RgbImage::from_fn(24, 16, |x, y| image::Rgb([10 * x as u8, 16 * y as u8, seed]))
}

fn encode(picture: impl Into<image::DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.into().write_to(&mut std::io::Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn png(seed: u8) -> Vec<u8> {
    encode(ramp(seed), ImageFormat::Png)
}

/// A NumPy array, C order.
fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    [&bytes, header.as_bytes(), data].concat()
}

fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn load_with(path: &Path, options: &SourceOptions) -> Result<Dataset, Error> {
    let source = source::open(path.to_str().unwrap(), options)?;
    Dataset::load(source, &GatherOptions::default(), &|_, _| ())
}

fn load(path: &Path) -> Result<Dataset, Error> {
    load_with(path, &SourceOptions::default())
}

/// Image `i`, decoded.
fn image(data: &Dataset, i: usize) -> Image {
    let mut buffer = Vec::new();
    let image = data.image(i, &mut buffer).unwrap();
    Image::new(image.width(), image.height(), image.pixels().to_vec()).unwrap()
}

fn names(data: &Dataset) -> Vec<&str> {
    (0..data.len()).map(|i| data.name(i)).collect()
}

/// (name, kind, reason) of everything left out.
fn excluded(data: &Dataset) -> Vec<(&str, ExclusionKind, &str)> {
    data.excluded().iter().map(|e| (e.name.as_str(), e.kind, e.reason.as_str())).collect()
}

/// The error of loading `path`: one line, of the exit code, with all `parts` in it.
#[track_caller]
fn refused(path: &Path, exit_code: u8, parts: &[&str]) {
    let error = load(path).err().expect("an error");
    let text = error.to_string();
    assert_eq!(error.exit_code(), exit_code, "{text}");
    assert!(!text.contains('\n') && text.contains(path.to_str().unwrap()), "{text}");
    parts.iter().for_each(|part| assert!(text.contains(part), "no `{part}` in: {text}"));
}
