//! Packed files: what goes in comes out, damage of any kind is found, and the cache makes them once.

mod cache;
mod malformed;
mod roundtrip;

use std::path::{Path, PathBuf};

use disentangle::data::packed::{self, Verified};
use disentangle::data::source::{self, SourceOptions};
use disentangle::data::{Catalog, Dataset, GatherOptions, Image, Source};
use disentangle::{Error, Result};
use image::RgbImage;

/// A folder of pictures: three sizes, two classes, JPEG and PNG, and one file that is broken.
fn pictures() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..12u32 {
        let (class, width) = (["cats", "dogs"][i as usize % 2], 20 + 30 * (i % 3));
        let picture = RgbImage::from_fn(width, 40, |x, y| image::Rgb([x * 2, y * 5, i * 20].map(|v| v as u8)));
        let name = format!("{class}/{i:02}.{}", if i < 8 { "jpg" } else { "png" });
        std::fs::create_dir_all(folder.path().join(class)).unwrap();
        picture.save(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("cats/broken.jpg"), b"\xff\xd8\xff\xe0 nothing").unwrap();
    folder
}

fn open_source(location: &str) -> Box<dyn Source> {
    source::open(location, &SourceOptions::default()).unwrap()
}

/// Packs a source into a file `images.pack` in `folder`.
fn pack(location: &str, options: &GatherOptions, folder: &Path) -> Result<(Catalog, PathBuf)> {
    let path = folder.join("images.pack");
    let catalog = packed::pack(&*open_source(location), options, &path, &|_, _| ())?;
    Ok((catalog, path))
}

/// Every image of a data set.
fn images(data: &Dataset) -> Result<Vec<Image>> {
    let mut buffer = Vec::new();
    let all = (0..data.len()).map(|i| {
        let image = data.image(i, &mut buffer)?;
        Image::new(image.width(), image.height(), image.pixels().to_vec())
    });
    all.collect()
}

/// What is wrong with the file at `path`; nothing if every byte is right.
fn problems(path: &Path) -> Vec<String> {
    match packed::verify(path, &|_, _| ()) {
        Ok(Verified { problems, .. }) => problems,
        Err(e) => vec![e.to_string()],
    }
}

/// The content error that `result` has to be; its text.
#[track_caller]
fn refused<T>(result: Result<T>) -> String {
    match result {
        Err(e @ Error::Format { .. }) => e.to_string(),
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("it was taken"),
    }
}
