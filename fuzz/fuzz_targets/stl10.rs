//! Any bytes as the training images of STL-10. The first one says how many of them are the labels, and whether there is a
//! file of these.
#![no_main]

use disentangle::data::SourceOptions;

libfuzzer_sys::fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    let (labels, images) = rest.split_at(rest.len().min(usize::from(choice >> 1)));
    let beside = disentangle_fuzz::write("with-train_X.bin/train_y.bin", labels);
    if choice & 1 == 1 {
        std::fs::remove_file(beside).expect("it was just written");
    }
    disentangle_fuzz::read_folder("train_X.bin", images, &SourceOptions::default());
});
