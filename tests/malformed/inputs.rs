//! Well-formed pieces that the cases then spoil.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use safetensors::SafeTensors;

/// Writes a file, with the folders it is in.
pub fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, bytes).expect("a file");
}

/// Bytes of all regular files below `root`, links not followed.
pub fn size_of(root: &Path) -> usize {
    let Ok(children) = std::fs::read_dir(root) else { return 0 };
    let size = |child: std::io::Result<std::fs::DirEntry>| {
        let Ok(child) = child else { return 0 };
        match child.file_type() {
            Ok(kind) if kind.is_dir() => size_of(&child.path()),
            Ok(kind) if kind.is_file() => child.metadata().map_or(0, |metadata| metadata.len() as usize),
            _ => 0,
        }
    };
    children.map(size).sum()
}

/// The names of the files directly in `root`.
pub fn names_in(root: &Path) -> Vec<String> {
    let Ok(children) = std::fs::read_dir(root) else { return Vec::new() };
    children.flatten().map(|child| child.file_name().to_string_lossy().into_owned()).collect()
}

/// Eighty odd pictures.
pub const FIXTURE: &[u8] = include_bytes!("../fixtures/pictures.safetensors");

/// A file of `tests/fixtures/pictures.safetensors`, by its name there (see `tests/sources/odd.rs`).
pub fn picture(name: &str) -> Vec<u8> {
    let tensors = SafeTensors::deserialize(FIXTURE).expect("the fixture");
    tensors.tensor(&format!("{name}/file")).expect("a picture").data().to_vec()
}

/// A sound picture, to stand beside the bad ones.
pub fn good() -> Vec<u8> {
    picture("png_grey")
}

const SECRET: [u8; 3] = [211, 17, 93];

/// A picture in one colour that is nowhere else.
pub fn secret() -> Vec<u8> {
    png(4, 4, &[0, 211, 17, 93, 211, 17, 93, 211, 17, 93, 211, 17, 93].repeat(4))
}

/// Whether the pixels are those of [`secret`].
pub fn is_secret(pixels: &[u8]) -> bool {
    pixels.chunks(3).any(|pixel| pixel == SECRET)
}

pub fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

/// A PNG chunk with its checksum.
pub fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let checked = [&kind[..], content].concat();
    let crc = crc32fast::hash(&checked).to_be_bytes();
    [&(content.len() as u32).to_be_bytes()[..], &checked, &crc].concat()
}

/// The first chunk of a PNG; `rest`: depth, colour, compression, filter, interlacing.
pub fn png_header(width: u32, height: u32, rest: [u8; 5]) -> Vec<u8> {
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &rest].concat())
}

pub const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// An RGB8 PNG; `rows` with their filter bytes.
pub fn png(width: u32, height: u32, rows: &[u8]) -> Vec<u8> {
    png_of(&[png_header(width, height, [8, 2, 0, 0, 0]), chunk(b"IDAT", &deflate(rows)), chunk(b"IEND", b"")])
}

/// A PNG of these chunks.
pub fn png_of(chunks: &[Vec<u8>]) -> Vec<u8> {
    [PNG_SIGNATURE, &chunks.concat()].concat()
}

/// A RIFF file of type WEBP with these chunks.
pub fn webp_of(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (kind, content) in chunks {
        body.extend(*kind);
        body.extend((content.len() as u32).to_le_bytes());
        body.extend(content);
        body.resize(body.len().next_multiple_of(2), 0);
    }
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// A tar entry with these header fields and this content behind it; the size and checksum are right.
pub fn tar_entry(name: &[u8], kind: u8, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut header);
    let mut entry = [&header[..], content].concat();
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// Puts the right checksum into a tar header.
pub fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|&b| u32::from(b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A whole archive of these entries.
pub fn tar_of(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

/// A NumPy file with this text as its header.
pub fn npy_of(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), data].concat()
}

/// A NumPy array, C order.
pub fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy_of(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"), data)
}
