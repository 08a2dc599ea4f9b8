//! Tar and gzip.

use disentangle::data::SourceOptions;

use crate::inputs::{good, gzip, seal, tar_entry, tar_of};
use crate::{Case, Ends};

const REGULAR: u8 = b'0';

/// An archive that is refused.
fn refused(name: &str, bytes: Vec<u8>, says: &'static [&'static str]) -> Case {
    Case::file(name, "set.tar", bytes, Ends::Refused(says))
}

/// An archive with a good picture and `entries`, of which nothing may come.
fn noted(name: &str, entries: &[Vec<u8>]) -> Case {
    let bytes = tar_of(&[&[tar_entry(b"good.png", REGULAR, b"", &good())], entries].concat());
    Case::file(name, "set.tar", bytes, Ends::Noted)
}

pub fn cases() -> Vec<Case> {
    [truncated(), names_and_links(), headers(), gzips()].into_iter().flatten().collect()
}

fn sound() -> Vec<u8> {
    let entry = |name: &[u8]| tar_entry(name, REGULAR, b"", &good());
    tar_of(&[tar_entry(b"a/", b'5', b"", b""), entry(b"a/1.png"), entry(b"b/2.png")])
}

fn truncated() -> Vec<Case> {
    let whole = sound();
    let content = good().len();
    let second = 512 + 512 + content.next_multiple_of(512);
    // Inside and after each header, inside each content.
    let cuts = [1, 100, 511, 512 + 300, 1024, 1024 + content / 2, second + 1, second + 511, second + 512, second + 600];
    let mut cases: Vec<Case> =
        cuts.into_iter().map(|cut| refused(&format!("tar cut after {cut}"), whole[..cut].to_vec(), &[])).collect();
    let zipped = gzip(&whole);
    for cut in [2, 3, 9, 10, 11, 20, zipped.len() / 2, zipped.len() - 9, zipped.len() - 8, zipped.len() - 1] {
        cases.push(refused(&format!("tar.gz cut after {cut} of {}", zipped.len()), zipped[..cut].to_vec(), &["again"]));
    }
    cases
}

fn names_and_links() -> Vec<Case> {
    let picture = |name: &[u8]| vec![tar_entry(name, REGULAR, b"", &good())];
    let link = |name: &[u8], kind: u8, to: &[u8]| vec![tar_entry(name, kind, to, b"")];
    let mut cases = vec![
        noted("tar: a name that climbs", &picture(b"../secret.png")),
        noted("tar: a name that climbs later", &picture(b"a/b/../../../secret.png")),
        noted("tar: an absolute name", &picture(b"/etc/x.png")),
        noted("tar: a name of two slashes", &picture(b"//x.png")),
        noted("tar: a hidden name", &picture(b"a/.x.png")),
        noted("tar: a resource fork", &picture(b"__MACOSX/x.png")),
        noted("tar: a name that ends in dots", &picture(b"a/..")),
        noted("tar: a symbolic link out", &link(b"x.png", b'2', b"../secret.png")),
        noted("tar: an absolute symbolic link", &link(b"x.png", b'2', b"/etc/passwd")),
        noted("tar: a symbolic link to itself", &link(b"x.png", b'2', b"x.png")),
        noted("tar: a symbolic link to a folder", &link(b"x", b'2', b"..")),
        noted("tar: a hard link out", &link(b"x.png", b'1', b"../secret.png")),
        noted("tar: a hard link to a picture", &link(b"x.png", b'1', b"good.png")),
        noted("tar: a pipe", &link(b"x.png", b'6', b"")),
        noted("tar: a character device", &link(b"x.png", b'3', b"")),
        noted("tar: a block device", &link(b"x.png", b'4', b"")),
        noted("tar: one name twice", &[picture(b"a.png"), picture(b"a.png")].concat()),
        noted(
            "tar: one name three times, spelt differently",
            &[picture(b"a/b.png"), picture(b"./a/b.png"), picture(b"a//./b.png")].concat(),
        ),
        noted("tar: a link in the place of a folder", &[link(b"a", b'2', b".."), picture(b"a/x.png")].concat()),
        noted("tar: a note", &[tar_entry(b"note.txt", REGULAR, b"", b"text")]),
        noted("tar: an empty class", &[tar_entry(b"empty/", b'5', b"", b"")]),
    ];
    let lost = |name: &str, entry: &[u8], content: &[u8]| {
        let bytes = tar_of(&[tar_entry(b"good.png", REGULAR, b"", &good()), tar_entry(entry, REGULAR, b"", content)]);
        Case::file(name, "set.tar", bytes, Ends::Quarantined(1))
    };
    cases.extend([
        lost("tar: an empty picture", b"x.jpg", b""),
        lost("tar: a cut picture", b"x.png", &good()[..50]),
        lost("tar: no picture under a name that is not UTF-8", b"\xff\xfe.jpg", b"x"),
        lost("tar: no picture under a name with a line break", b"a\nb.jpg", b"x"),
        Case::file(
            "tar: the last of one name is bad",
            "set.tar",
            tar_of(
                &[&good()[..], b"x"]
                    .map(|content| tar_entry(b"a.png", REGULAR, b"", content))
                    .into_iter()
                    .chain([tar_entry(b"b.png", REGULAR, b"", &good())])
                    .collect::<Vec<_>>(),
            ),
            Ends::Quarantined(1),
        ),
    ]);
    cases
}

fn headers() -> Vec<Case> {
    let spoil = |name: &str, at: usize, bytes: &[u8], says| {
        let mut whole = tar_of(&[tar_entry(b"a.png", REGULAR, b"", &good())]);
        whole[at..at + bytes.len()].copy_from_slice(bytes);
        seal(&mut whole[..512]);
        refused(name, whole, says)
    };
    let again: &[&str] = &["again"];
    let wrong_sum = |field: &[u8; 8]| {
        let mut whole = sound();
        // Of the second entry: the first one's makes it a tar at all.
        whole[512 + 148..512 + 156].copy_from_slice(field);
        whole
    };
    let long = |kind: u8, content: &[u8], size: &[u8]| {
        let mut entry = tar_entry(b"././@LongLink", kind, b"", content);
        entry[124..124 + size.len()].copy_from_slice(size);
        seal(&mut entry[..512]);
        tar_of(&[tar_entry(b"good.png", REGULAR, b"", &good()), entry])
    };
    vec![
        spoil("tar: a size past the end", 124, b"00000077777\0", again),
        spoil("tar: the largest octal size", 124, b"777777777777", again),
        spoil("tar: a size of 2^63 - 1", 124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", again),
        spoil("tar: a size of 2^64 - 1", 124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", again),
        spoil("tar: a negative size", 124, &[0xff; 12], again),
        spoil("tar: a size that is no number", 124, b"hello world\0", again),
        refused("tar: a wrong sum", wrong_sum(b"0000000\0"), again),
        refused("tar: a sum that is no number", wrong_sum(b"xxxxxxxx"), again),
        refused("tar: a long name past the end", long(b'L', b"a/very/long.png\0", b"77777777777\0"), again),
        refused("tar: a long name without its entry", long(b'L', b"a/very/long.png\0", b""), &[]),
        refused("tar: pax records past the end", long(b'x', b"20 path=../x.png\n", b"77777777777\0"), again),
        refused("tar: pax records of a lying length", long(b'x', b"9999 path=x.png\n", b""), &[]),
        refused("tar: a sparse file", tar_of(&[tar_entry(b"a.png", b'S', b"", &good())]), &[]),
        refused("tar: nothing in it", vec![0; 1024], &["no JPEG, PNG or WebP image in it (it is empty)"]),
        refused("tar: folders only", tar_of(&[tar_entry(b"a/", b'5', b"", b"")]), &["1 file: empty folder"]),
        refused("tar: half a block of zeros", vec![0; 256], &["not a tar archive"]),
    ]
}

fn gzips() -> Vec<Case> {
    let limited = |name: &str, bytes: Vec<u8>, limit: usize, says| {
        let options = SourceOptions { max_inflated: limit, ..Default::default() };
        refused(name, bytes, says).with(options)
    };
    let too_much: &[&str] = &["too much for memory: give the .tar instead"];
    let zeros = gzip(&vec![0; 40 << 20]);
    let mut flipped = gzip(&sound());
    let last = flipped.len();
    flipped[last - 5] ^= 1; // in the checksum
    let mut wrong_length = gzip(&sound());
    wrong_length[last - 1] ^= 1;
    let mut extra = gzip(&sound());
    extra[3] = 4; // claims an extra field, of the length that the data happen to say
    let mut method = gzip(&sound());
    method[2] = 9;
    vec![
        limited("gzip bomb above a limit", zeros.clone(), 1 << 20, too_much),
        limited("gzip bomb of many members", zeros.repeat(50), 1 << 20, too_much),
        limited(
            "gzip of a sound tar above the limit",
            gzip(&tar_of(&vec![tar_entry(b"a", REGULAR, b"", &[7; 9000]); 300])),
            1 << 20,
            too_much,
        ),
        // What gzip shrinks more than 64-fold, beyond 64 MiB. The buffer doubles as it grows.
        refused("gzip bomb above the ratio", gzip(&vec![0; 90 << 20]), too_much).heap(300 << 20, 64),
        refused("gzip of nothing", gzip(b""), &["gzip, but not of a tar archive"]),
        refused("gzip of text", gzip(b"text"), &["gzip, but not of a tar archive"]),
        refused("gzip of gzip", gzip(&gzip(&sound())), &["gzip, but not of a tar archive"]),
        refused("gzip with a wrong sum", flipped, &["damaged gzip data"]),
        refused("gzip with a wrong length", wrong_length, &["damaged gzip data"]),
        refused("gzip with a false extra field", extra, &["again"]),
        refused("gzip of an unknown method", method, &["again"]),
        refused("gzip with noise behind it", [gzip(&sound()), vec![7; 100]].concat(), &["again"]),
        refused("gzip of noise", [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &[0xaa; 400]].concat(), &["again"]),
        refused("zip", b"PK\x03\x04....".to_vec(), &["a zip archive"]),
        refused("text as tar", b"text".repeat(300), &["not a tar archive"]),
        refused("empty tar", vec![], &["the file is empty"]),
    ]
}
