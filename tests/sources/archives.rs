//! Tar archives: the same as the folder inside, without trust in names, links and sizes.

use std::io::Write;
use std::path::PathBuf;

use disentangle::data::ExclusionKind;
use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::{excluded, image, load, names, png, refused, write};

/// An entry with the bytes of `name` as they are, which `tar::Builder` would refuse.
fn append(tar: &mut Builder<Vec<u8>>, name: &[u8], kind: EntryType, content: &[u8]) {
    let mut header = Header::new_old();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn tar_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &content[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn file(bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("archive.dat"); // the name says nothing
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn an_archive_is_the_folder_inside() {
    let long = format!("set/cat/{}.png", "x".repeat(150)); // needs a GNU long-name entry
    let files = [("./set/dog/1.png", png(1)), ("set/cat/2.png", png(2)), (long.as_str(), png(3))];
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, content)| write(dir.path(), name, content));
    let folder = load(dir.path()).unwrap();
    let bytes = tar_of(&files);
    // Two gzip members in a row are one stream, as `cat a.gz b.gz` makes them.
    let members = [gzip(&bytes[..700]), gzip(&bytes[700..])].concat();
    for (bytes, kind) in [(gzip(&bytes), "tar.gz"), (members, "tar.gz"), (bytes, "tar")] {
        let (_dir, path) = file(bytes);
        let archive = load(&path).unwrap();
        assert_eq!(names(&archive), names(&folder));
        assert_eq!((archive.labels(), archive.classes()), (Some(vec![0, 0, 1]), folder.classes()));
        assert_eq!(archive.fingerprint(), folder.fingerprint());
        assert_eq!(archive.describe(), format!("{kind} archive of images, 3 images, 2 classes"));
    }
}

#[test]
fn cifar_in_an_archive() {
    let records = [vec![7u8; 3073], vec![8; 3073], vec![9; 10]].concat();
    let bytes = tar_of(&[("cifar-10-batches-bin/data_batch_1.bin", records)]);
    for bytes in [gzip(&bytes), bytes] {
        let (_dir, path) = file(bytes);
        let data = load(&path).unwrap();
        assert_eq!((data.labels(), excluded(&data).len()), (Some(vec![7, 8]), 1));
    }
}

#[test]
fn odd_entries_are_left_out_and_listed() {
    let mut tar = Builder::new(Vec::new());
    let mut add = |name: &[u8], kind, content: &[u8]| append(&mut tar, name, kind, content);
    add(b"a/", EntryType::Directory, b"");
    add(b"old_folder/", EntryType::Regular, b"");
    add(b"a/1.png", EntryType::Regular, &png(1));
    add(b"../up.png", EntryType::Regular, &png(2));
    add(b"a/../../up.png", EntryType::Regular, &png(2));
    add(b"/root.png", EntryType::Regular, &png(2));
    add(b"a/link.png", EntryType::Symlink, b"");
    add(b"a/hard.png", EntryType::Link, b"");
    add(b"a/pipe.png", EntryType::Fifo, b"");
    add(b"a/._1.png", EntryType::Regular, b"resource fork");
    add(b"__MACOSX/a/1.png", EntryType::Regular, b"resource fork");
    add(b"b/\xff.png", EntryType::Regular, &png(3));
    add(b"b/twice.png", EntryType::Regular, b"first");
    add(b"b/twice.png", EntryType::Regular, &png(4));
    add(b"b/note.txt", EntryType::Regular, b"note");
    let (_dir, path) = file(tar.into_inner().unwrap());
    let data = load(&path).unwrap();
    assert_eq!(names(&data), ["a/1.png", "b/\\xFF.png", "b/twice.png"]);
    assert_eq!(image(&data, 2).as_ref().pixels()[2], 4, "the later entry of a name counts");
    let leads_out = "its name leads out of the archive";
    let link = "a link: links inside archives are not followed";
    let expected = [
        ("../up.png", leads_out),
        ("/root.png", leads_out),
        ("__MACOSX/a/1.png", "hidden"),
        ("a/../../up.png", leads_out),
        ("a/._1.png", "hidden"),
        ("a/hard.png", link),
        ("a/link.png", link),
        ("a/pipe.png", "not a regular file"),
        ("b/twice.png", "replaced by a later entry of the same name"),
        ("old_folder", "empty folder"),
        ("b/note.txt", "not an image"),
    ];
    let expected: Vec<_> = expected.iter().map(|&(name, why)| (name, ExclusionKind::Ignored, why)).collect();
    assert_eq!(excluded(&data), expected);
}

#[test]
fn cut_or_damaged_archives_are_refused() {
    let bytes = tar_of(&[("a/1.png", png(1)), ("b/2.png", png(2))]);
    // Cut inside the second entry's content, and inside its header.
    let second = bytes.len() - 1024 - 512 - png(2).len().next_multiple_of(512);
    // The last: between two entries, where what is left looks whole but for its end.
    for (cut, says) in [
        (second + 600, "cut short: entry b/2.png claims"),
        (second + 100, "cut short after 1 entries"),
        (second, "cut short after 1 files: the mark of its end is missing"),
    ] {
        let (_dir, path) = file(&bytes[..cut]);
        refused(&path, 1, &[says, "copy or download it again"]);
    }
    let zipped = gzip(&bytes);
    for cut in [30, zipped.len() / 2, zipped.len() - 4] {
        let (_dir, path) = file(&zipped[..cut]);
        refused(&path, 1, &["cut short after", "copy or download it again"]);
    }
    let mut flipped = zipped.clone();
    let last = flipped.len() - 5; // in the checksum
    flipped[last] ^= 1;
    let (_dir, path) = file(flipped);
    refused(&path, 1, &["damaged gzip data", "copy or download it again"]);
    let mut damaged = bytes.clone();
    damaged[second + 3] ^= 0xff;
    let (_dir, path) = file(damaged);
    refused(&path, 1, &["damaged or cut short after 1 entries"]);
}

#[test]
fn lying_sizes_are_refused() {
    let mut tar = Builder::new(Vec::new());
    append(&mut tar, b"a.png", EntryType::Regular, &png(1));
    let honest = tar.into_inner().unwrap();
    // Octal, the largest octal, and GNU's binary form up to 2^63.
    for size in [&b"00000007777\0"[..], b"77777777777\0", b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"] {
        let mut bytes = honest.clone();
        bytes[124..136].copy_from_slice(size);
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|&b| u32::from(b)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let (_dir, path) = file(bytes);
        refused(&path, 1, &["copy or download it again"]);
    }
}

#[test]
fn files_that_are_no_archives_are_refused() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "the file is empty"),
        (b"just text", "not a tar archive"),
        (b"PK\x03\x04....", "a zip archive: unpack it"),
        (b"\xfd7zXZ\0....", "compressed with xz"),
        (b"BZh9....", "compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd....", "compressed with zstd"),
        (&png(0), "a single PNG image: give the folder"),
        (&gzip(b"text"), "gzip, but not of a tar archive"),
    ];
    for (bytes, says) in cases {
        let (_dir, path) = file(bytes);
        refused(&path, 1, &[says]);
    }
    let (_dir, path) = file([0; 1024]);
    refused(&path, 1, &["no JPEG, PNG or WebP image in it (it is empty)"]);
    #[cfg(unix)]
    refused(std::path::Path::new("/dev/null"), 1, &["neither a folder nor a regular file"]);
}
