//! Eighty odd pictures against what Pillow makes of them.
//!
//! `tests/fixtures/pictures.safetensors` holds for each the file (`NAME/file`) and the pixels that Pillow 13 (libjpeg-turbo,
//! libpng, libwebp) gives with `ImageOps.exif_transpose(image).convert("RGB")` (`NAME/rgb`, H x W x 3). The picture is a
//! pattern of waves with noise, 23 x 17 pixels or as the name says. The files were written by Pillow and OpenCV
//! (4:1:1 and 4:4:0), and where those write none by hand: interlaced, 16-bit and few-bit grey PNG; YCCK and RGB without
//! names by changing Adobe's marker and the names of the channels. Of 16 bits, Pillow takes the high byte; the pixels
//! here are rounded, v / 257.

use std::collections::BTreeSet;

use disentangle::data::source::{Colour, ImageFormat, decode, decode_into, picture_kind};
use safetensors::SafeTensors;

const FIXTURE: &[u8] = include_bytes!("../fixtures/pictures.safetensors");

/// Name, file, height and width, pixels.
type Picture = (String, Vec<u8>, [usize; 2], Vec<u8>);

fn pictures() -> Vec<Picture> {
    let tensors = SafeTensors::deserialize(FIXTURE).unwrap();
    let names: BTreeSet<String> =
        tensors.names().iter().map(|name| name.rsplit_once('/').unwrap().0.to_owned()).collect();
    let picture = |name: String| {
        let file = tensors.tensor(&format!("{name}/file")).unwrap().data().to_vec();
        let rgb = tensors.tensor(&format!("{name}/rgb")).unwrap();
        (name, file, [rgb.shape()[0], rgb.shape()[1]], rgb.data().to_vec())
    };
    names.into_iter().map(picture).collect()
}

/// The largest difference of a channel that rounding explains.
///
/// JPEG: libjpeg's inverse transform and ours round luma and both chromas apart by 1 each at most; blue, luma + 1.772 times
/// chroma, by 1 + 1.772, and the conversion rounds once more: 3. WebP: conversion from YUV alone. PNG and lossless WebP leave
/// no choice.
fn tolerance(name: &str) -> u8 {
    match name {
        // Halved chroma of so few columns or rows: libjpeg repeats it instead of interpolating, or has other neighbours
        // beyond the edge. No standard says which is right.
        "jpeg_1x17_420" | "jpeg_8x8_420" => 16,
        _ if name.starts_with("jpeg") => 3,
        "webp_lossy" | "webp_lossy_low" | "webp_lossy_alpha" | "webp_animated_lossy" => 1,
        _ if name.starts_with("webp_1") => 1,
        _ => 0,
    }
}

#[test]
fn odd_pictures_are_what_pillow_makes_of_them() {
    let mut wrong = Vec::new();
    // One buffer for all, with the remains of the last picture in it.
    let mut reused = vec![77; 10];
    for (name, file, [height, width], expected) in pictures() {
        match decode(&file) {
            Ok(picture) => {
                let picture = picture.as_ref();
                let sizes = (picture.height(), picture.width());
                let pairs = picture.pixels().iter().zip(&expected);
                let error = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(255);
                if sizes != (height, width) || error > tolerance(&name) {
                    wrong.push(format!("{name}: {sizes:?} for {:?}, off by {error}", (height, width)));
                }
                assert_eq!(decode_into(&file, &mut reused), Ok((picture.width(), picture.height())));
                assert_eq!(reused, picture.pixels(), "{name}");
            }
            Err(problem) => wrong.push(format!("{name}: {problem}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(pictures().len(), 80);
}

#[test]
fn a_large_enough_buffer_is_kept() {
    let (_, file, ..) = pictures().into_iter().find(|(name, ..)| name == "jpeg_420").unwrap();
    let mut buffer = Vec::with_capacity(64 * 64 * 3);
    let place = buffer.as_ptr();
    for _ in 0..3 {
        decode_into(&file, &mut buffer).unwrap();
        assert_eq!((buffer.as_ptr(), buffer.len()), (place, 23 * 17 * 3));
    }
}

#[test]
fn the_header_tells_the_kind() {
    for (name, file, shown, _) in pictures() {
        let kind = picture_kind(&file).unwrap_or_else(|| panic!("{name}"));
        let turned = ["exif_5", "exif_6", "exif_7", "exif_8"].iter().any(|turn| name.ends_with(turn));
        let [height, width] = if turned { [shown[1], shown[0]] } else { shown };
        assert_eq!([kind.height as usize, kind.width as usize], [height, width], "{name}");
        let format = match &name[..3] {
            "jpe" => ImageFormat::Jpeg,
            "png" => ImageFormat::Png,
            _ => ImageFormat::WebP,
        };
        assert_eq!(kind.format, format, "{name}");
        let colour = match name.as_str() {
            _ if name.contains("cmyk") || name.contains("ycck") => Colour::Cmyk,
            _ if name.contains("palette") => Colour::Palette,
            _ if name.contains("grey_alpha") => Colour::GreyAlpha,
            _ if name.contains("rgba") || name.starts_with("webp") && name.ends_with("alpha") => Colour::Rgba,
            "png_1bit" => Colour::Grey,
            _ if name.contains("grey") && format != ImageFormat::WebP => Colour::Grey,
            _ => Colour::Rgb,
        };
        assert_eq!(kind.colour, colour, "{name}");
        let bits = match name.as_str() {
            "png_1bit" | "png_grey_1" | "png_palette_1" => 1,
            "png_grey_2" | "png_palette_2" => 2,
            "png_grey_4" | "png_palette_4" => 4,
            _ if name.contains("_16") && format == ImageFormat::Png => 16,
            _ => 8,
        };
        assert_eq!(kind.bits, bits, "{name}");
        // A head that ends before the header tells nothing, and says so.
        for len in 0..file.len().min(26) {
            if let Some(early) = picture_kind(&file[..len]) {
                assert_eq!(early, kind, "{name}");
            }
        }
    }
}

#[test]
fn jpegs_that_are_not_read_say_why() {
    let (_, jpeg, ..) = pictures().into_iter().find(|(name, ..)| name == "jpeg_444").unwrap();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let mut twelve_bits = jpeg.clone();
    twelve_bits[frame + 4] = 12;
    assert_eq!(decode(&twelve_bits).unwrap_err(), "a JPEG of 12 bits a channel: only 8 are read");
    for (marker, says) in [(0xc9, "arithmetic-coded JPEG is not read"), (0xc3, "lossless JPEG is not read")] {
        let mut other = jpeg.clone();
        other[frame + 1] = marker;
        let problem = decode(&other).unwrap_err();
        assert!(problem.contains(says), "{problem}");
    }
}
