//! What a picture is, by its header alone.

use super::ImageFormat;

/// Bytes from the start of a file within which its header nearly always lies (metadata come before it in a JPEG).
pub const HEAD_BYTES: usize = 256 << 10;

/// A picture as it is stored, before any conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureKind {
    /// The file format.
    pub format: ImageFormat,
    /// Columns as stored: EXIF may turn them into rows.
    pub width: u32,
    /// Rows as stored.
    pub height: u32,
    /// What its channels mean.
    pub colour: Colour,
    /// Bits a channel; of a palette, bits an index.
    pub bits: u8,
}

/// The channels of a stored picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colour {
    /// One channel.
    Grey,
    /// Grey and opacity.
    GreyAlpha,
    /// Three channels, in JPEG mostly as luma and chroma.
    Rgb,
    /// Three and opacity.
    Rgba,
    /// One channel of indices into a table of colours.
    Palette,
    /// Four inks, or YCCK.
    Cmyk,
}

impl Colour {
    /// Channels as stored, 1 to 4.
    pub fn channels(self) -> usize {
        match self {
            Colour::Grey | Colour::Palette => 1,
            Colour::GreyAlpha => 2,
            Colour::Rgb => 3,
            Colour::Rgba | Colour::Cmyk => 4,
        }
    }
}

impl std::fmt::Display for Colour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Colour::Grey => "grey",
            Colour::GreyAlpha => "grey+alpha",
            Colour::Rgb => "RGB",
            Colour::Rgba => "RGBA",
            Colour::Palette => "palette",
            Colour::Cmyk => "CMYK",
        })
    }
}

/// Reads the header at the start of `bytes` ([`HEAD_BYTES`] of the file are enough); `None` if there is none.
pub fn picture_kind(bytes: &[u8]) -> Option<PictureKind> {
    match ImageFormat::of(bytes)? {
        ImageFormat::Jpeg => {
            let header = jpeg_header(bytes)?;
            let colour = match header.channels {
                1 => Colour::Grey,
                3 => Colour::Rgb,
                4 => Colour::Cmyk,
                _ => return None,
            };
            let (width, height) = (header.width.into(), header.height.into());
            Some(PictureKind { format: ImageFormat::Jpeg, width, height, colour, bits: header.bits })
        }
        ImageFormat::Png => png_kind(bytes),
        ImageFormat::WebP => webp_kind(bytes),
    }
}

/// Of a JPEG's frame header.
#[derive(Clone, Copy)]
pub struct JpegHeader {
    /// The second byte of the marker: the kind of compression.
    pub process: u8,
    pub bits: u8,
    pub width: u16,
    pub height: u16,
    pub channels: u8,
    /// Whether the channels call themselves R, G and B.
    pub ids_are_rgb: bool,
    /// Where the byte is with which Adobe's marker names the colour transform, if there is one.
    pub adobe_transform_at: Option<usize>,
}

/// Walks the segments up to the frame header.
pub fn jpeg_header(bytes: &[u8]) -> Option<JpegHeader> {
    let mut adobe_transform_at = None;
    let mut at = 2;
    loop {
        let &[0xff, marker, high, low] = bytes.get(at..at + 4)? else { return None };
        if marker == 0xff {
            at += 1; // fill byte
            continue;
        }
        let content = at + 4;
        match marker {
            // Start of frame, but for the tables DHT, JPG and DAC between.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let &[bits, h1, h0, w1, w0, channels] = bytes.get(content..content + 6)? else { return None };
                let id = |i: usize| bytes.get(content + 6 + 3 * i).copied();
                return Some(JpegHeader {
                    process: marker,
                    bits,
                    width: u16::from_be_bytes([w1, w0]),
                    height: u16::from_be_bytes([h1, h0]),
                    channels,
                    ids_are_rgb: (id(0), id(1), id(2)) == (Some(b'R'), Some(b'G'), Some(b'B')),
                    adobe_transform_at,
                });
            }
            0xda | 0xd9 => return None,
            // Of 12 bytes: "Adobe", version, two flags, transform.
            0xee if bytes.get(content..content + 5) == Some(b"Adobe") => adobe_transform_at = Some(content + 11),
            _ => {}
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
    }
}

fn png_kind(bytes: &[u8]) -> Option<PictureKind> {
    let header: &[u8; 10] = bytes.get(16..26)?.try_into().ok()?;
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let colour = match header[9] {
        0 => Colour::Grey,
        2 => Colour::Rgb,
        3 => Colour::Palette,
        4 => Colour::GreyAlpha,
        6 => Colour::Rgba,
        _ => return None,
    };
    Some(PictureKind { format: ImageFormat::Png, width: number(0), height: number(4), colour, bits: header[8] })
}

fn webp_kind(bytes: &[u8]) -> Option<PictureKind> {
    let content: &[u8; 10] = bytes.get(20..30)?.try_into().ok()?;
    let three = |at: usize| u32::from_le_bytes([content[at], content[at + 1], content[at + 2], 0]);
    let (width, height, alpha) = match bytes.get(12..16)? {
        b"VP8 " => {
            let two = |at: usize| u32::from(u16::from_le_bytes([content[at], content[at + 1]]) & 0x3fff);
            (two(6), two(8), false)
        }
        b"VP8L" => {
            let packed = u32::from_le_bytes([content[1], content[2], content[3], content[4]]);
            ((packed & 0x3fff) + 1, (packed >> 14 & 0x3fff) + 1, packed >> 28 & 1 == 1)
        }
        b"VP8X" => (three(4) + 1, three(7) + 1, content[0] & 0x10 != 0),
        _ => return None,
    };
    let colour = if alpha { Colour::Rgba } else { Colour::Rgb };
    Some(PictureKind { format: ImageFormat::WebP, width, height, colour, bits: 8 })
}
