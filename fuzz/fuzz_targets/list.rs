//! Any bytes as a list of the pictures `a.png` and `b.png`. The first one chooses how the lines are written.
#![no_main]

use std::sync::Once;

/// A picture of one black pixel.
const PICTURE: &[u8] = include_bytes!("../corpus/decode/pixel.png");

libfuzzer_sys::fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    static PICTURES: Once = Once::new();
    PICTURES.call_once(|| ["a.png", "b.png"].iter().for_each(|name| drop(disentangle_fuzz::write(name, PICTURE))));
    let Some((&choice, list)) = bytes.split_first() else { return };
    let name = ["list.txt", "list.lst", "list.csv", "list.tsv"][usize::from(choice % 4)];
    disentangle_fuzz::read_file(name, list);
});
