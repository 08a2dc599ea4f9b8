//! NumPy arrays: headers that lie, labels that do not fit.

use crate::inputs::{npy, npy_of};
use crate::{Case, Ends};

pub fn cases() -> Vec<Case> {
    [truncated(), headers(), shapes(), labels()].into_iter().flatten().collect()
}

fn refused(name: &str, bytes: Vec<u8>, says: &'static [&'static str]) -> Case {
    Case::file(format!("npy: {name}"), "set.npy", bytes, Ends::Refused(says))
}

fn sound() -> Vec<u8> {
    npy("|u1", "(2, 4, 4, 3)", &[7; 96])
}

fn truncated() -> Vec<Case> {
    let whole = sound();
    let header = whole.len() - 96;
    let cuts = [6, 7, 8, 9, 10, 11, 30, header - 1, header, header + 1, header + 48, whole.len() - 1];
    let mut cases: Vec<Case> = cuts
        .into_iter()
        .map(|cut| refused(&format!("cut after {cut}"), whole[..cut].to_vec(), &["cut short"]))
        .collect();
    // Less than the signature is no array.
    cases.push(refused("cut after 5", whole[..5].to_vec(), &["not a tar archive"]));
    cases
}

fn headers() -> Vec<Case> {
    let spoil = |name: &str, at: usize, bytes: &[u8], says| {
        let mut spoilt = sound();
        spoilt[at..at + bytes.len()].copy_from_slice(bytes);
        refused(name, spoilt, says)
    };
    let header = |name: &str, text: &str, says| refused(name, npy_of(text, &[0; 96]), says);
    let damaged: &[&str] = &["damaged header"];
    vec![
        spoil("version 0", 6, &[0], &["version 0"]),
        spoil("version 4", 6, &[4], &["version 4"]),
        spoil("a header of 65535 bytes", 8, &[0xff, 0xff], &["cut short inside its header"]),
        spoil("a header of 2^32 - 1 bytes", 6, &[2, 0, 0xff, 0xff, 0xff, 0xff], &["cut short inside its header"]),
        spoil("a header of no bytes", 8, &[0, 0], damaged),
        spoil("a header that is no text", 12, &[0xff, 0xfe], &["its header is no text"]),
        header("an empty dictionary", "{}", damaged),
        header("no type", "{'fortran_order': False, 'shape': (2, 4, 4, 3)}", damaged),
        header("no order", "{'descr': '|u1', 'shape': (2, 4, 4, 3)}", damaged),
        header("no shape", "{'descr': '|u1', 'fortran_order': False}", damaged),
        header("a type that is empty", "{'descr': '', 'fortran_order': False, 'shape': (2, 4, 4, 3)}", damaged),
        header("a type that does not end", "{'fortran_order': False, 'shape': (2, 4, 4, 3), 'descr': '|u", damaged),
        header("a type of no width", "{'descr': '|u0', 'fortran_order': False, 'shape': (2, 4, 4, 3)}", damaged),
        header(
            "a type of 2^64 bytes",
            "{'descr': '|V18446744073709551616', 'fortran_order': False, 'shape': (1,)}",
            damaged,
        ),
        header(
            "a structure",
            "{'descr': [('x', '|u1')], 'fortran_order': False, 'shape': (2, 4, 4, 3)}",
            &["structured"],
        ),
        header("an object", "{'descr': '|O', 'fortran_order': False, 'shape': (2, 4, 4, 3)}", damaged),
        header("an order that is none", "{'descr': '|u1', 'fortran_order': Maybe, 'shape': (2, 4, 4, 3)}", damaged),
        header("10,000 brackets", &format!("{{'descr': {}", "(".repeat(10_000)), &["structured"]),
        header("Fortran's order", "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 4, 4, 3)}", &["Fortran order"]),
        refused("of floats", npy("<f4", "(2, 4, 4, 3)", &[0; 384]), &["an array of <f4"]),
        refused("of text", npy("<U9", "(2, 4)", &[0; 72]), &["an array of <U9"]),
    ]
}

fn shapes() -> Vec<Case> {
    let shape = |shape: &str, says| refused(&format!("shape {shape}"), npy("|u1", shape, &[0; 96]), says);
    let (damaged, lies): (&[&str], &[&str]) = (&["damaged header"], &["or its header lies"]);
    vec![
        shape("(-1, 4, 4, 3)", damaged),
        shape("(2, 4, 4, -3)", damaged),
        shape("(2.0, 4, 4, 3)", damaged),
        shape("(2, 4, x, 3)", damaged),
        shape("((2, 4), 4, 3)", damaged),
        shape("(2, 4, 4, 3", damaged),
        shape("[2, 4, 4, 3]", damaged),
        shape("()", damaged),
        shape("(,)", damaged),
        shape("None", damaged),
        shape(&format!("({})", "1, ".repeat(40)), damaged),
        shape("(18446744073709551616, 4, 4, 3)", damaged),
        shape("(18446744073709551615, 4, 4, 3)", lies),
        shape("(9223372036854775808, 2, 2, 3)", lies),
        shape("(4294967296, 4294967296, 1, 1)", lies),
        shape("(1000000000000, 4, 4, 3)", lies),
        shape("(3, 4, 4, 3)", lies),
        shape("(1, 65536, 65536, 3)", lies),
        shape("(0, 4, 4, 3)", &["no images"]),
        shape("(2, 0, 4, 3)", &["images without pixels"]),
        shape("(0, 18446744073709551615, 18446744073709551615, 3)", &[]),
        shape("(96,)", &["images are N,H,W,3 or N,H,W"]),
        shape("(2, 4, 4, 2)", &["images are N,H,W,3 or N,H,W"]),
        shape("(1, 3, 4, 8)", &["channels come last"]),
        shape("(4, 8, 3)", &["that of one image"]),
        shape("(1, 2, 2, 4, 6)", &["images are N,H,W,3 or N,H,W"]),
    ]
}

fn labels() -> Vec<Case> {
    let with = |name: &str, file: &str, labels: Vec<u8>, ends| {
        let files = vec![("set.npy".to_owned(), sound()), (file.to_owned(), labels)];
        Case::files(format!("npy labels: {name}"), files, "set.npy", ends)
    };
    let refused = |name: &str, labels: Vec<u8>, says| with(name, "set_labels.npy", labels, Ends::Refused(says));
    let numbers = |values: [i64; 2]| values.map(i64::to_le_bytes).concat();
    vec![
        refused("one too few", npy("|u1", "(1,)", &[0]), &["set_labels.npy: 1 label for 2 images"]),
        refused("one too many", npy("|u1", "(3,)", &[0; 3]), &["3 labels for 2 images"]),
        refused("none", npy("|u1", "(0,)", &[]), &["0 labels for 2 images"]),
        refused("of floats", npy("<f8", "(2,)", &[0; 16]), &["labels are whole numbers"]),
        refused("of text", npy("<U1", "(2,)", &[0; 8]), &["labels are whole numbers"]),
        refused("of objects", npy("|O8", "(2,)", &[0; 16]), &["labels are whole numbers"]),
        refused("of 3 bytes", npy("<i3", "(2,)", &[0; 6]), &["labels are whole numbers"]),
        refused("of 16 bytes", npy("<i16", "(2,)", &[0; 32]), &["labels are whole numbers"]),
        refused("of two columns", npy("|u1", "(2, 2)", &[0; 4]), &["labels are N numbers"]),
        refused("cut short", npy("<i8", "(2,)", &[0; 15]), &["needs 16 bytes, 15 are there"]),
        refused("of 2^60", npy("<i8", "(1152921504606846976,)", &[0; 16]), &["or its header lies"]),
        refused("that are no array", b"0\n1\n".to_vec(), &["not a NumPy array"]),
        refused("of no bytes", vec![], &["not a NumPy array"]),
        with("negative", "set_labels.npy", npy("<i8", "(2,)", &numbers([-2, 1])), Ends::Quarantined(1)),
        with("of -2^63", "set_labels.npy", npy("<i8", "(2,)", &numbers([i64::MIN, 1])), Ends::Quarantined(1)),
        with("of 2^64 - 2", "set_labels.npy", npy("<u8", "(2,)", &numbers([-2, 1])), Ends::Quarantined(1)),
        with(
            "all negative",
            "set_labels.npy",
            npy("|i1", "(2,)", &[0x80; 2]),
            Ends::Refused(&["no image of it can be used"]),
        ),
        with("of another array", "labels.npy", npy("|u1", "(9,)", &[0; 9]), Ends::Noted),
    ]
}
