//! Any bytes as a picture.
#![no_main]

use disentangle::data::source::{MAX_PIXELS, decode_into};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    let mut pixels = Vec::new();
    if let Ok((width, height)) = decode_into(bytes, &mut pixels) {
        assert!(width > 0 && height > 0 && (width * height) as u64 <= MAX_PIXELS);
        assert_eq!(pixels.len(), 3 * width * height);
    }
});
