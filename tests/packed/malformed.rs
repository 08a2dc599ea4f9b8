//! Every way in which a packed file can be wrong ends in an error that says so, before anything is read that is not there.

use std::ops::Range;
use std::path::{Path, PathBuf};

use disentangle::data::{Catalog, Dataset, Encoding, GatherOptions, packed};

use crate::{images, pack, pictures, problems, refused};

/// Places of the header's fields, as the format is documented.
const VERSION: Range<usize> = 12..16;
const FILE_BYTES: Range<usize> = 16..24;
const PAYLOAD_BYTES: Range<usize> = 24..32;
const SAMPLES: Range<usize> = 32..40;
const FACTORS: Range<usize> = 40..44;
const BLOCK_BYTES: Range<usize> = 44..48;
const NAMES_BYTES: Range<usize> = 48..56;
const META_BYTES: Range<usize> = 56..64;
const TABLES_CRC: Range<usize> = 68..72;
const HEADER_CRC: Range<usize> = 76..80;
const PAYLOAD_START: usize = 4096;

/// Bytes of an image's record, and places in it.
const RECORD: usize = 40;
const OFFSET: Range<usize> = 0..8;
const NAME_END: Range<usize> = 8..16;
const BYTES: Range<usize> = 16..20;
const WIDTH: Range<usize> = 20..24;
const LABEL: Range<usize> = 28..32;
const ENCODING: Range<usize> = 32..36;

/// A good file, to be spoiled.
struct Specimen {
    bytes: Vec<u8>,
    /// Where the tables begin.
    tables: usize,
    samples: usize,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Specimen {
    fn new() -> Specimen {
        let (source, folder) = (pictures(), tempfile::tempdir().unwrap());
        let options = GatherOptions { payload: Encoding::Jpeg, ..GatherOptions::default() };
        let (catalog, path): (Catalog, PathBuf) =
            pack(source.path().to_str().unwrap(), &options, folder.path()).unwrap();
        let tables = (PAYLOAD_START + catalog.payload_bytes() as usize).next_multiple_of(64);
        Specimen { bytes: std::fs::read(&path).unwrap(), tables, samples: catalog.samples.len(), path, _folder: folder }
    }

    /// The file as `spoil` leaves it, with checksums that fit: a writer that lies, not a disk that fails.
    fn lie(&self, spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        spoil(&mut bytes);
        let tables = crc32fast::hash(&bytes[self.tables.min(bytes.len())..]);
        bytes[TABLES_CRC].copy_from_slice(&tables.to_le_bytes());
        let header = crc32fast::hash(&bytes[..HEADER_CRC.start]);
        bytes[HEADER_CRC].copy_from_slice(&header.to_le_bytes());
        bytes
    }

    /// A place in the record of image `i`.
    fn record(&self, i: usize, place: Range<usize>) -> Range<usize> {
        let start = self.tables + i * RECORD;
        start + place.start..start + place.end
    }

    /// What opening a file of `bytes` says against it.
    #[track_caller]
    fn refused(&self, bytes: &[u8]) -> String {
        std::fs::write(&self.path, bytes).unwrap();
        let error = refused(Dataset::open(&self.path));
        assert!(error.contains("images.pack") && !error.contains('\n'), "{error}");
        assert_eq!(packed::parse(bytes).err().map(|problem| error.contains(&problem)), Some(true));
        error
    }
}

fn put(bytes: &mut [u8], place: Range<usize>, value: u64) {
    let length = place.len();
    bytes[place].copy_from_slice(&value.to_le_bytes()[..length]);
}

#[test]
fn a_file_cut_short_anywhere() {
    let good = Specimen::new();
    let tables = good.tables..good.bytes.len();
    let boundaries = [0, 1, 7, 8, 12, 16, 79, 80, 81, 4095, 4096, 4097, good.tables - 1];
    let lengths = boundaries.into_iter().chain(tables.step_by(41)).chain([good.bytes.len() - 1]);
    for length in lengths {
        let error = good.refused(&good.bytes[..length]);
        let expected = if length < 8 {
            "not a packed file"
        } else if length < 4096 {
            "cut short"
        } else {
            "were written"
        };
        assert!(error.contains(expected), "{length}: {error}");
    }
    let longer = [&good.bytes[..], b"x"].concat();
    assert!(good.refused(&longer).contains("were written"));
}

#[test]
fn any_flipped_bit_of_header_or_tables() {
    let good = Specimen::new();
    let places = (0..80).chain(good.tables..good.bytes.len());
    for (i, place) in places.enumerate() {
        let mut bytes = good.bytes.clone();
        bytes[place] ^= 1 << (i % 8);
        assert!(packed::parse(&bytes).is_err(), "byte {place}");
    }
}

#[test]
fn a_flipped_bit_of_the_payload_is_found_where_it_is_used_and_by_verify() {
    let good = Specimen::new();
    let middle = (PAYLOAD_START + good.tables) / 2;
    for place in [PAYLOAD_START, middle, good.tables - 64] {
        let mut bytes = good.bytes.clone();
        bytes[place] ^= 4;
        std::fs::write(&good.path, &bytes).unwrap();
        // Opening does not look, reading does.
        let error = refused(images(&Dataset::open(&good.path).unwrap()));
        assert!(error.contains("damaged between bytes 4096 to"), "{error}");
        assert!(!problems(&good.path).is_empty());
    }
    // The zeros around the payload belong to nobody.
    std::fs::write(&good.path, &good.bytes).unwrap();
    assert_eq!(problems(&good.path), [""; 0]);
}

#[test]
fn headers_that_lie() {
    let good = Specimen::new();
    let counts = [FILE_BYTES, PAYLOAD_BYTES, SAMPLES, FACTORS, NAMES_BYTES, META_BYTES];
    let read = |place: &Range<usize>| place.clone().rev().fold(0u64, |value, i| value << 8 | u64::from(good.bytes[i]));
    for place in counts {
        let value = read(&place);
        let lies = [0, 1, value.wrapping_sub(1), value + 1, value * 2, 1 << 31, 1 << 40, u64::MAX / 40, u64::MAX];
        for lie in lies.into_iter().filter(|&lie| lie != value) {
            let bytes = good.lie(|bytes| put(bytes, place.clone(), lie));
            // A count of 4 bytes may be cut to what it was.
            if bytes[place.clone()] != good.bytes[place.clone()] {
                good.refused(&bytes);
            }
        }
    }
    for blocks in [0, 1, 1 << 17, u32::MAX] {
        assert!(good.refused(&good.lie(|bytes| put(bytes, BLOCK_BYTES, blocks.into()))).contains("blocks of"));
    }
    let future = good.refused(&good.lie(|bytes| put(bytes, VERSION, 2)));
    assert!(future.contains("version 2 of the format, this program reads 1"), "{future}");
    let swapped = good.refused(&good.lie(|bytes| bytes[8..12].reverse()));
    assert!(swapped.contains("byte order"), "{swapped}");
}

#[test]
fn records_that_lie() {
    let good = Specimen::new();
    let last = good.samples - 1;
    let read = |place: Range<usize>| place.rev().fold(0u64, |value, i| value << 8 | u64::from(good.bytes[i]));
    for image in [0, 1, last] {
        let value = |place: &Range<usize>| read(good.record(image, place.clone()));
        let mut lies: Vec<(Range<usize>, u64)> = Vec::new();
        // Overlapping, gaps, out of the file, overflowing.
        lies.extend([1, 4096, 1 << 40, u64::MAX, u64::MAX - 10].map(|lie| (OFFSET, lie)));
        lies.extend([value(&OFFSET) + 1, value(&OFFSET).wrapping_sub(1)].map(|lie| (OFFSET, lie)));
        lies.extend([0, value(&BYTES) + 1, value(&BYTES) - 1, u32::MAX.into()].map(|lie| (BYTES, lie)));
        lies.extend([0, u32::MAX.into(), 1 << 30].map(|lie| (WIDTH, lie)));
        lies.extend([2, 1000, (u32::MAX - 1).into()].map(|lie| (LABEL, lie)));
        lies.extend([2, u32::MAX.into()].map(|lie| (ENCODING, lie)));
        lies.extend([0, value(&NAME_END) + 1, value(&NAME_END) - 1, u64::MAX].map(|lie| (NAME_END, lie)));
        for (place, lie) in lies {
            let bytes = good.lie(|bytes| put(bytes, good.record(image, place.clone()), lie));
            if bytes != good.bytes {
                // A name that ends elsewhere only moves its neighbour's beginning, unless it is the last.
                let moved = place == NAME_END && lie != 0 && lie != u64::MAX && image != last;
                if !moved {
                    let error = good.refused(&bytes);
                    assert!(error.contains("image") || error.contains("fill"), "{error}");
                }
            }
        }
    }
}

#[test]
fn names_twice_and_names_that_are_no_text() {
    let good = Specimen::new();
    let blocks = good.bytes[good.tables + good.samples * RECORD..].windows(4).position(|four| four == b"cats").unwrap();
    let names = good.tables + good.samples * RECORD + blocks;
    // The names are cats/00.jpg, cats/02.jpg, ...
    let twice = good.refused(&good.lie(|bytes| bytes[names + 11 + 6] = b'0'));
    assert!(twice.contains("a second image called cats/00.jpg"), "{twice}");
    assert!(good.refused(&good.lie(|bytes| bytes[names] = 0xff)).contains("UTF-8"));
}

#[test]
fn descriptions_that_lie() {
    let good = Specimen::new();
    let meta = good.bytes.windows(7).position(|window| window == b"{\"kind\"").unwrap();
    for spoil in [&b"{}"[..], b"]]]]]]", b"\0\0\0\0", b"\xff\xff"] {
        let error = good.refused(&good.lie(|bytes| bytes[meta..meta + spoil.len()].copy_from_slice(spoil)));
        assert!(error.contains("description"), "{error}");
    }
    // One class less than the labels say.
    let at = good.bytes.windows(13).position(|window| window == b"\"cats\",\"dogs\"").unwrap();
    let error = good.refused(&good.lie(|bytes| bytes[at..at + 13].copy_from_slice(b"\"cats,-,dogs\"")));
    assert!(error.contains("label 1 of 1 classes"), "{error}");
}

#[test]
fn a_jpeg_that_is_none_and_one_of_another_size() {
    let good = Specimen::new();
    // With the block's checksum right, only decoding finds it: the first four bytes of each 256 KiB block's CRC follow the records.
    let crcs = good.tables + good.samples * RECORD;
    let with_crc = |spoil: &dyn Fn(&mut [u8])| {
        good.lie(|bytes| {
            spoil(bytes);
            let payload_bytes = u64::from_le_bytes(bytes[PAYLOAD_BYTES].try_into().unwrap()) as usize;
            let crc = crc32fast::hash(&bytes[PAYLOAD_START..PAYLOAD_START + payload_bytes]);
            bytes[crcs..crcs + 4].copy_from_slice(&crc.to_le_bytes());
        })
    };
    let record = good.record(0, WIDTH);
    let none = with_crc(&|bytes| bytes[PAYLOAD_START] = 0);
    let resized = with_crc(&|bytes| put(bytes, record.clone(), 21));
    for (bytes, reason) in [(none, "not JPEG, PNG or WebP"), (resized, "instead of (21, 40)")] {
        std::fs::write(&good.path, bytes).unwrap();
        let error = refused(images(&Dataset::open(&good.path).unwrap()));
        assert!(error.contains("cats/00.jpg") && error.contains(reason), "{error}");
        assert!(problems(&good.path).iter().any(|problem| problem.contains(reason)), "{:?}", problems(&good.path));
    }
}

#[test]
fn what_is_no_packed_file_at_all() {
    assert!(!packed::is_packed(Path::new("/")));
    assert!(!packed::is_packed(Path::new("/dev/null")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    for bytes in [&b""[..], b"\x89CDPACK", b"\x89CDPACK\r\n", b"PK\x03\x04"] {
        std::fs::write(&path, bytes).unwrap();
        assert!(!packed::is_packed(&path));
        assert!(refused(Dataset::open(&path)).contains("not a packed file"));
    }
}
