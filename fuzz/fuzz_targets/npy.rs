//! Any bytes as an array of images; what follows a second signature is the array of their labels.
#![no_main]

const SIGNATURE: &[u8] = b"\x93NUMPY";

libfuzzer_sys::fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    let second = bytes.windows(SIGNATURE.len()).skip(1).position(|window| window == SIGNATURE);
    let (images, labels) = bytes.split_at(second.map_or(bytes.len(), |before| before + 1));
    let beside = disentangle_fuzz::write("set_labels.npy", labels);
    if labels.is_empty() {
        std::fs::remove_file(beside).expect("it was just written");
    }
    disentangle_fuzz::read_file("set.npy", images);
});
