//! JPEG, PNG and WebP: cut at every structural boundary, with lying lengths and sizes, bombs.

use crate::inputs::{PNG_SIGNATURE, chunk, deflate, good, picture, png, png_header, png_of, webp_of};
use crate::{Case, Ends};

/// A picture beside a good one; it must be lost, and the good one kept.
fn bad(name: &str, extension: &str, bytes: Vec<u8>) -> Case {
    let files = vec![("good.png".to_owned(), good()), (format!("bad.{extension}"), bytes)];
    // Until the header's sizes are known, decoders take their tables; sizes are held against the file's length.
    Case::files(name, files, "", Ends::Quarantined(1)).heap(8 << 20, 64)
}

pub fn cases() -> Vec<Case> {
    [truncated(), jpegs(), pngs(), webps(), bombs(), harmless(), no_pictures()].into_iter().flatten().collect()
}

/// Offsets at which a part of the file begins.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut at = Vec::new();
    if bytes.starts_with(PNG_SIGNATURE) {
        let mut start = 8;
        while let Some(length) = bytes.get(start..start + 4) {
            let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            // Before the chunk, after its length, its name, its content.
            at.extend([start, start + 4, start + 8, start + 8 + length]);
            start += 12 + length;
        }
        at.retain(|&cut| cut + 12 < bytes.len()); // the last chunk says nothing
    } else if bytes.starts_with(b"RIFF") {
        at.extend([4, 8, 12]);
        let mut start = 12;
        while let Some(length) = bytes.get(start + 4..start + 8) {
            let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
            at.extend([start + 4, start + 8, start + 8 + length / 2]);
            start += 8 + length.next_multiple_of(2);
        }
    } else {
        // Markers; those inside compressed data are stuffed with 00.
        at = (1..bytes.len() - 1).filter(|&i| bytes[i] == 0xff && bytes[i + 1] != 0).collect();
        at.extend(at.clone().iter().map(|marker| marker + 2));
        at.retain(|&cut| cut < bytes.len());
    }
    at.extend([1, 3, bytes.len() / 2, bytes.len() * 3 / 4]);
    at.sort_unstable();
    at.dedup();
    at
}

fn truncated() -> Vec<Case> {
    let mut cases = Vec::new();
    let names = [
        ("jpeg_420", "jpg"),
        ("jpeg_progressive_444", "jpg"),
        ("jpeg_cmyk", "jpeg"),
        ("jpeg_restart_rows", "jpg"),
        ("jpeg_exif_6", "jpg"),
        ("png_rgb", "png"),
        ("png_palette_trns", "png"),
        ("png_rgb_16_interlaced", "png"),
        ("webp_lossy", "webp"),
        ("webp_lossless", "webp"),
        ("webp_lossy_alpha", "webp"),
    ];
    for (name, extension) in names {
        let whole = picture(name);
        for cut in boundaries(&whole) {
            cases.push(bad(&format!("{name} cut after {cut}"), extension, whole[..cut].to_vec()));
        }
    }
    cases
}

fn jpegs() -> Vec<Case> {
    let whole = picture("jpeg_444");
    let find = |marker: u8| whole.windows(2).position(|pair| pair == [0xff, marker]).expect("the marker");
    let (frame, tables, codes, scan) = (find(0xc0), find(0xdb), find(0xc4), find(0xda));
    let spoil = |name: &str, at: usize, bytes: &[u8]| {
        let mut spoilt = whole.clone();
        spoilt[at..at + bytes.len()].copy_from_slice(bytes);
        bad(&format!("JPEG {name}"), "jpg", spoilt)
    };
    let without = |name: &str, at: usize| {
        let length = usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
        bad(&format!("JPEG without {name}"), "jpg", [&whole[..at], &whole[at + 2 + length..]].concat())
    };
    let again = |name: &str, at: usize| {
        let length = usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
        bad(&format!("JPEG with two of {name}"), "jpg", [&whole[..at + 2 + length], &whole[at..]].concat())
    };
    vec![
        spoil("of 65535 x 65535", frame + 5, &[0xff; 4]),
        spoil("of 65535 x 1500", frame + 5, &[0x05, 0xdc, 0xff, 0xff]),
        spoil("of 5000 x 5000 in few bytes", frame + 5, &[0x13, 0x88, 0x13, 0x88]),
        spoil("without height", frame + 5, &[0, 0]),
        spoil("without width", frame + 7, &[0, 0]),
        spoil("of 12 bits", frame + 4, &[12]),
        spoil("of 0 bits", frame + 4, &[0]),
        spoil("without channels", frame + 9, &[0]),
        spoil("of 255 channels", frame + 9, &[255]),
        spoil("of 2 channels", frame + 9, &[2]),
        spoil("with a sampling of 0", frame + 11, &[0]),
        spoil("with a sampling of 15", frame + 11, &[0xff]),
        spoil("with a table that is not there", frame + 12, &[3]),
        spoil("with a frame of 65535 bytes", frame + 2, &[0xff, 0xff]),
        spoil("with a frame of 0 bytes", frame + 2, &[0, 0]),
        spoil("with tables of 0 bytes", tables + 2, &[0, 0]),
        spoil("with tables of 65535 bytes", tables + 2, &[0xff, 0xff]),
        spoil("with codes of 2 bytes", codes + 2, &[0, 2]),
        spoil("with codes of 65535 bytes", codes + 2, &[0xff, 0xff]),
        spoil("with more codes than fit", codes + 5, &[255; 16]),
        spoil("with a scan of 5 channels", scan + 4, &[5]),
        spoil("with a scan of 0 channels", scan + 4, &[0]),
        spoil("with a scan of an unknown channel", scan + 5, &[99]),
        spoil("of the lossless process", frame + 1, &[0xc3]),
        spoil("of the arithmetic process", frame + 1, &[0xc9]),
        spoil("of a hierarchical process", frame + 1, &[0xc5]),
        without("a frame", frame),
        without("quantisation", tables),
        without("codes", codes),
        again("the frame", frame),
        bad("JPEG that is all markers", "jpg", [&b"\xff\xd8"[..], &[0xff; 5000]].concat()),
        bad("JPEG that is an end", "jpg", b"\xff\xd8\xff\xd9".to_vec()),
        bad("JPEG of 2,000 comments", "jpg", [&b"\xff\xd8"[..], &b"\xff\xfe\0\x02".repeat(2000)].concat()),
    ]
}

fn pngs() -> Vec<Case> {
    let rows = [&[0u8][..], &[7; 12]].concat().repeat(4); // 4 x 4, RGB
    let head = |rest| png_header(4, 4, rest);
    let (idat, end) = (chunk(b"IDAT", &deflate(&rows)), chunk(b"IEND", b""));
    let made = |name: &str, chunks: &[Vec<u8>]| bad(&format!("PNG {name}"), "png", png_of(chunks));
    let rgb = head([8, 2, 0, 0, 0]);
    let with_length = |length: u32| [&length.to_be_bytes()[..], &idat[4..]].concat();
    let mut wrong_crc = idat.clone();
    *wrong_crc.last_mut().expect("bytes") ^= 1;
    let mut wrong_head = rgb.clone();
    *wrong_head.last_mut().expect("bytes") ^= 1;
    let palette = |bytes: usize| {
        let (head, palette) = (head([8, 3, 0, 0, 0]), chunk(b"PLTE", &vec![1; bytes]));
        made(
            &format!("with a palette of {bytes} bytes"),
            &[head, palette, chunk(b"IDAT", &deflate(&[0; 20])), end.clone()],
        )
    };
    let indices = chunk(b"IDAT", &deflate(&[0, 9, 9, 9, 9].repeat(4)));
    vec![
        made("without a header", &[idat.clone(), end.clone()]),
        made("without pixels", &[rgb.clone(), end.clone()]),
        made("of no columns", &[png_header(0, 4, [8, 2, 0, 0, 0]), idat.clone(), end.clone()]),
        made("of no rows", &[png_header(4, 0, [8, 2, 0, 0, 0]), idat.clone(), end.clone()]),
        made("of 2^32 - 1 squared", &[png_header(u32::MAX, u32::MAX, [8, 2, 0, 0, 0]), idat.clone(), end.clone()]),
        made("of 2^31 - 1 columns", &[png_header(i32::MAX as u32, 1, [8, 2, 0, 0, 0]), idat.clone(), end.clone()]),
        made("of 20,000 squared", &[png_header(20_000, 20_000, [8, 2, 0, 0, 0]), idat.clone(), end.clone()]),
        made("of 9,000 squared in few bytes", &[png_header(9_000, 9_000, [8, 2, 0, 0, 0]), idat.clone(), end.clone()]),
        made("with more rows than pixels", &[png_header(4, 40, [8, 2, 0, 0, 0]), idat.clone(), end.clone()]),
        made("of 3 bits", &[head([3, 2, 0, 0, 0]), idat.clone(), end.clone()]),
        made("of 1-bit RGB", &[head([1, 2, 0, 0, 0]), idat.clone(), end.clone()]),
        made("of colour type 5", &[head([8, 5, 0, 0, 0]), idat.clone(), end.clone()]),
        made("of compression 1", &[head([8, 2, 1, 0, 0]), idat.clone(), end.clone()]),
        made("of filter method 1", &[head([8, 2, 0, 1, 0]), idat.clone(), end.clone()]),
        made("of interlacing 2", &[head([8, 2, 0, 0, 2]), idat.clone(), end.clone()]),
        made("with a row filter of 9", &[rgb.clone(), chunk(b"IDAT", &deflate(&[9; 52])), end.clone()]),
        made("with a palette that is missing", &[head([8, 3, 0, 0, 0]), indices, end.clone()]),
        palette(0),
        palette(1),
        palette(4),
        palette(771),
        palette(3000),
        made("whose pixels claim 2^31 bytes", &[rgb.clone(), with_length(i32::MAX as u32), end.clone()]),
        made("whose pixels claim 2^32 - 1 bytes", &[rgb.clone(), with_length(u32::MAX), end.clone()]),
        made("whose pixels claim no bytes", &[rgb.clone(), with_length(0), end.clone()]),
        made("with a wrong sum of the pixels", &[rgb.clone(), wrong_crc, end.clone()]),
        made("with a wrong sum of the header", &[wrong_head, idat.clone(), end.clone()]),
        made("with two headers", &[rgb.clone(), rgb.clone(), idat, end.clone()]),
        made("of noise", &[rgb.clone(), chunk(b"IDAT", &[0x5a; 99]), end.clone()]),
        made("whose header claims 5 bytes", &[chunk(b"IHDR", &[0, 0, 0, 4, 0]), end]),
    ]
}

fn webps() -> Vec<Case> {
    let (lossy, lossless) = (picture("webp_lossy"), picture("webp_lossless"));
    let extended = picture("webp_lossy_alpha");
    let spoil = |name: &str, whole: &[u8], at: usize, bytes: &[u8]| {
        let mut spoilt = whole.to_vec();
        spoilt[at..at + bytes.len()].copy_from_slice(bytes);
        bad(&format!("WebP {name}"), "webp", spoilt)
    };
    let canvas = |width: u32, height: u32, flags: u8| {
        [&[flags, 0, 0, 0][..], &(width - 1).to_le_bytes()[..3], &(height - 1).to_le_bytes()[..3]].concat()
    };
    let frame = |x: u32, width: u32| {
        let three = |n: u32| n.to_le_bytes()[..3].to_vec();
        [
            three(x),
            three(0),
            three(width - 1),
            three(3),
            three(0),
            vec![0],
            b"VP8L\x08\0\0\0\x2f\x03\xc0\0\0\0\0\0".to_vec(),
        ]
        .concat()
    };
    let animation = |frame: Vec<u8>| webp_of(&[(b"VP8X", canvas(4, 4, 2)), (b"ANIM", vec![0; 6]), (b"ANMF", frame)]);
    vec![
        spoil("that claims 2^32 - 1 bytes", &lossy, 16, &[0xff; 4]),
        spoil("that claims no bytes", &lossy, 16, &[0; 4]),
        spoil("of an unknown chunk", &lossy, 12, b"VP9 "),
        spoil("lossy without a start code", &lossy, 23, &[0; 3]),
        spoil("lossy of 16383 x 16383", &lossy, 26, &[0xff, 0x3f, 0xff, 0x3f]),
        spoil("lossy of 0 x 0", &lossy, 26, &[0; 4]),
        spoil("lossy of 9000 x 9000", &lossy, 26, &[0x28, 0x23, 0x28, 0x23]),
        spoil("lossy of another frame", &lossy, 20, &[1]),
        spoil("lossless of 16384 x 16384", &lossless, 21, &[0xff; 4]),
        spoil("lossless without a signature", &lossless, 20, &[0]),
        spoil("lossless of version 7", &lossless, 24, &[0xe0]),
        spoil("on a canvas of 2^24 squared", &extended, 24, &[0xff; 6]),
        spoil("on a canvas of 9000 squared", &extended, 24, &[0x27, 0x23, 0, 0x27, 0x23, 0]),
        bad("WebP without a picture", "webp", webp_of(&[(b"VP8X", canvas(4, 4, 0))])),
        bad("WebP without chunks", "webp", webp_of(&[])),
        bad("WebP with an animation of nothing", "webp", webp_of(&[(b"VP8X", canvas(4, 4, 2)), (b"ANIM", vec![0; 6])])),
        bad("WebP with a frame beside the canvas", "webp", animation(frame(1000, 4))),
        bad("WebP with a frame of 2^24 columns", "webp", animation(frame(0, 1 << 24))),
        bad("WebP with a frame of 3 bytes", "webp", animation(vec![0; 3])),
    ]
}

/// Much from little: refused, or read in the memory that the pixels take.
fn bombs() -> Vec<Case> {
    let zeros = |len: usize| chunk(b"IDAT", &deflate(&vec![0; len]));
    let end = chunk(b"IEND", b"");
    let lossless = |side: u32| {
        // Every code of one symbol: no bits for any pixel.
        let packed = (side - 1) | (side - 1) << 14;
        let content = [&[0x2f][..], &packed.to_le_bytes(), &[0x88, 0x88, 0x08, 0, 0, 0, 0, 0]].concat();
        webp_of(&[(b"VP8L", content)])
    };
    vec![
        bad(
            "PNG bomb over the limit",
            "png",
            png_of(&[png_header(30_000, 3_400, [1, 0, 0, 0, 0]), zeros(3_751 * 3_400), end.clone()]),
        ),
        bad(
            "PNG bomb of rows that end early",
            "png",
            png_of(&[png_header(6_000, 6_000, [8, 2, 0, 0, 0]), zeros(18_001 * 500), end]),
        ),
        bad("WebP bomb of 10,000 squared", "webp", lossless(10_000)),
        bad("WebP bomb of 16,384 squared", "webp", lossless(16_384)),
    ]
}

/// Much from little where it does not count: what is not pixels is not inflated.
fn harmless() -> Vec<Case> {
    let rows = [&[0u8][..], &[7; 12]].concat().repeat(4); // 4 x 4, RGB
    let much = deflate(&vec![0; 30 << 20]);
    let head = || png_header(4, 4, [8, 2, 0, 0, 0]);
    let (idat, end) = (chunk(b"IDAT", &deflate(&rows)), chunk(b"IEND", b""));
    let profile = [&b"name\0\0"[..], &much].concat();
    let made = |name: &str, chunks: &[Vec<u8>]| {
        Case::files(format!("PNG with {name}"), vec![("x.png".into(), png_of(chunks))], "", Ends::Harmless)
    };
    vec![
        made("a profile of 30 MiB", &[head(), chunk(b"iCCP", &profile), idat.clone(), end.clone()]),
        made("a comment of 30 MiB", &[head(), chunk(b"zTXt", &profile), idat.clone(), end.clone()]),
        made("30 MiB behind its pixels", &[head(), chunk(b"IDAT", &deflate(&[rows, vec![0; 30 << 20]].concat())), end]),
    ]
}

fn no_pictures() -> Vec<Case> {
    let text = b"<html>404 not found</html>".to_vec();
    let many: Vec<(&str, &str, Vec<u8>)> = vec![
        ("empty JPEG", "jpg", vec![]),
        ("empty PNG", "png", vec![]),
        ("empty WebP", "webp", vec![]),
        ("a web page as JPEG", "jpg", text.clone()),
        ("a web page as PNG", "PNG", text),
        ("a GIF as JPEG", "jpeg", b"GIF89a\x01\0\x01\0".to_vec()),
        ("a GIF", "gif", b"GIF89a\x01\0\x01\0".to_vec()),
        ("a TIFF", "tiff", b"II*\0".to_vec()),
        ("zeros as JPEG", "jpg", vec![0; 4096]),
        ("a RIFF of sound as WebP", "webp", b"RIFF\x24\0\0\0WAVEfmt ".to_vec()),
        ("the signature of PNG alone", "png", PNG_SIGNATURE.to_vec()),
    ];
    let mut cases: Vec<Case> = many.into_iter().map(|(name, extension, bytes)| bad(name, extension, bytes)).collect();
    // Alone, there is nothing to train on.
    let whole = png(4, 4, &[0; 52]);
    let says: &[&str] = &["none of the images can be used", "alone.png"];
    cases.push(Case::files(
        "a bad picture alone",
        vec![("alone.png".into(), whole[..40].to_vec())],
        "",
        Ends::Refused(says),
    ));
    cases
}
