//! Every kind of JPEG and PNG to RGB, and what must not get through.

use std::io::Write;

use disentangle::data::source::decode;
use image::{DynamicImage, ImageFormat};

use crate::{encode, png, ramp};

/// Largest difference of a channel between the decoded picture and [`ramp`], which it must match in size.
fn error_to_ramp(bytes: &[u8]) -> u8 {
    let decoded = decode(bytes).unwrap();
    let expected = ramp(128);
    assert_eq!((decoded.as_ref().width(), decoded.as_ref().height()), (24, 16));
    decoded.as_ref().pixels().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
    ramp(128).write_with_encoder(encoder).unwrap();
    bytes
}

/// JPEG at quality 95 quantises the strongest coefficients in steps of 2, the weakest in steps of about 10: 8 is twice what a
/// few of those can add up to on a ramp. A wrong colour space or channel order is off by over 100.
const JPEG_ERROR: u8 = 8;

#[test]
fn jpegs() {
    assert!(error_to_ramp(&jpeg()) <= JPEG_ERROR);
    assert!(error_to_ramp(include_bytes!("../fixtures/ramp_progressive.jpg")) <= JPEG_ERROR);
    assert!(error_to_ramp(include_bytes!("../fixtures/ramp_cmyk.jpg")) <= JPEG_ERROR);
    let grey = encode(DynamicImage::from(ramp(128)).into_luma8(), ImageFormat::Jpeg);
    let grey = decode(&grey).unwrap();
    assert!(grey.as_ref().pixels().chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
    assert_eq!(grey.as_ref().pixels().len(), 24 * 16 * 3);
    // Bytes after the end, as phones append videos.
    assert!(error_to_ramp(&[&jpeg()[..], b"trailing bytes"].concat()) <= JPEG_ERROR);
}

#[test]
fn exif_orientation_is_applied() {
    let mut bytes = jpeg();
    let exif = |orientation: u8| {
        // APP1, "Exif", big-endian TIFF, one directory with one entry: tag 0x112, SHORT, count 1.
        let mut segment = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        segment.extend([orientation, 0, 0, 0, 0, 0, 0]);
        segment
    };
    // Orientation 6: the stored picture is to be turned by 90 degrees clockwise.
    bytes.splice(2..2, exif(6));
    let turned = decode(&bytes).unwrap();
    assert_eq!((turned.as_ref().width(), turned.as_ref().height()), (16, 24));
    let expected = image::imageops::rotate90(&ramp(128));
    let error = turned.as_ref().pixels().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(error.unwrap() <= JPEG_ERROR);
    for no_such in [0, 1, 9, 255] {
        let mut bytes = jpeg();
        bytes.splice(2..2, exif(no_such));
        assert!(error_to_ramp(&bytes) <= JPEG_ERROR);
    }
}

#[test]
fn pngs() {
    assert_eq!(error_to_ramp(&png(128)), 0);
    let rgba = image::RgbaImage::from_fn(24, 16, |x, y| {
        let [r, g, b] = ramp(128).get_pixel(x, y).0;
        image::Rgba([r, g, b, (x * y) as u8]) // the colour under a transparent pixel shows
    });
    assert_eq!(error_to_ramp(&encode(rgba, ImageFormat::Png)), 0);
    // 16 bits: 257 v scales to v exactly, and so does what rounds to it.
    let deep: image::ImageBuffer<image::Rgb<u16>, _> = image::ImageBuffer::from_fn(24, 16, |x, y| {
        image::Rgb(ramp(128).get_pixel(x, y).0.map(|v| (u16::from(v) * 257).saturating_add(100)))
    });
    assert_eq!(error_to_ramp(&encode(DynamicImage::ImageRgb16(deep), ImageFormat::Png)), 0);
    let grey = image::GrayImage::from_fn(5, 3, |x, y| image::Luma([(x * 50 + y) as u8]));
    let expected: Vec<u8> = grey.as_raw().iter().flat_map(|&v| [v; 3]).collect();
    assert_eq!(decode(&encode(grey, ImageFormat::Png)).unwrap().as_ref().pixels(), expected);
    let one = decode(&encode(image::RgbImage::from_pixel(1, 1, image::Rgb([1, 2, 3])), ImageFormat::Png)).unwrap();
    assert_eq!(one.as_ref().pixels(), [1, 2, 3]);
    let one = encode(image::RgbImage::from_pixel(1, 1, image::Rgb([90; 3])), ImageFormat::Jpeg);
    assert!(decode(&one).unwrap().as_ref().pixels().iter().all(|v| v.abs_diff(90) <= JPEG_ERROR));
}

/// A PNG from its chunks; `data` is compressed into the IDAT chunk.
fn png_of(width: u32, height: u32, depth_and_colour: [u8; 2], palette: &[u8], data: &[u8]) -> Vec<u8> {
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(data).unwrap();
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend(depth_and_colour);
    header.extend([0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in
        [(b"IHDR", &header[..]), (b"PLTE", palette), (b"IDAT", &deflate.finish().unwrap()), (b"IEND", b"")]
    {
        if kind == b"PLTE" && content.is_empty() {
            continue;
        }
        bytes.extend((content.len() as u32).to_be_bytes());
        let checked = [&kind[..], content].concat();
        bytes.extend(&checked);
        bytes.extend(crc32fast::hash(&checked).to_be_bytes());
    }
    bytes
}

#[test]
fn palettes_and_few_bits() {
    let palette = [10, 20, 30, 40, 50, 60, 70, 80, 90];
    let byte = png_of(2, 2, [8, 3], &palette, &[0, 0, 1, 0, 2, 2]);
    assert_eq!(decode(&byte).unwrap().as_ref().pixels(), [10, 20, 30, 40, 50, 60, 70, 80, 90, 70, 80, 90]);
    let two_bits = png_of(3, 1, [2, 3], &palette, &[0, 0b0110_0000]);
    assert_eq!(decode(&two_bits).unwrap().as_ref().pixels(), [40, 50, 60, 70, 80, 90, 10, 20, 30]);
    let one_bit_grey = png_of(2, 1, [1, 0], &[], &[0, 0b0100_0000]);
    assert_eq!(decode(&one_bit_grey).unwrap().as_ref().pixels(), [0, 0, 0, 255, 255, 255]);
}

#[test]
fn bombs_are_refused_before_they_are_decoded() {
    let bomb = png_of(20_000, 20_000, [8, 2], &[], &[0; 100]);
    assert_eq!(decode(&bomb).unwrap_err(), "20000 x 20000 pixels, over the limit of 100 million");
    let lying = png_of(5_000, 5_000, [8, 2], &[], &[0; 100]);
    let problem = decode(&lying).unwrap_err();
    assert!(problem.starts_with("5000 x 5000 pixels cannot be in a file of "), "{problem}");
    assert!(decode(&png_of(0, 5, [8, 2], &[], &[])).is_err());
    let mut jpeg = jpeg();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    assert_eq!(decode(&jpeg).unwrap_err(), "65535 x 65535 pixels, over the limit of 100 million");
}

#[test]
fn cut_files_never_pass() {
    let progressive = include_bytes!("../fixtures/ramp_progressive.jpg").to_vec();
    for whole in [jpeg(), progressive, include_bytes!("../fixtures/ramp_cmyk.jpg").to_vec()] {
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "JPEG of {} bytes passes after {len}", whole.len());
        }
    }
    let whole = png(1);
    // Without the 12 bytes of the last chunk, which says nothing, the picture is whole.
    for len in 0..whole.len() - 12 {
        assert!(decode(&whole[..len]).is_err(), "PNG of {} bytes passes after {len}", whole.len());
    }
}

#[test]
fn damage_is_an_error_or_a_picture_but_never_a_panic() {
    let mut bits = 0x2545_f491u32;
    let mut next = move || {
        bits ^= bits << 13;
        bits ^= bits >> 17;
        bits ^= bits << 5;
        bits
    };
    let progressive = include_bytes!("../fixtures/ramp_progressive.jpg").to_vec();
    for whole in [jpeg(), progressive, include_bytes!("../fixtures/ramp_cmyk.jpg").to_vec(), png(1)] {
        for _ in 0..400 {
            let mut damaged = whole.clone();
            for _ in 0..1 + next() % 4 {
                let at = next() as usize % damaged.len();
                damaged[at] = next() as u8;
            }
            if let Err(reason) = decode(&damaged) {
                assert!(!reason.contains('\n') && !reason.contains("panicked"), "{reason}");
            }
        }
    }
    assert_eq!(decode(b"").unwrap_err(), "the file is empty");
    assert_eq!(decode(b"GIF89a....").unwrap_err(), "not JPEG, PNG or WebP content");
}
