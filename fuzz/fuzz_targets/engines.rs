//! Any bytes as the memory of cuDNN's engines: useless, perhaps, but never in the way of a new choice.
#![no_main]

use disentangle::backend::cuda::engines::{Choice, Engines};

libfuzzer_sys::fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    let file = disentangle_fuzz::write("engines.json", bytes);
    let open = || Engines::new("device".to_owned()).in_file(file.clone());
    let mut engines = open();
    let known = engines.get("convolution").unwrap_or(Choice { fallback: false, engine: 3 });
    assert_eq!(engines.settle("convolution".to_owned(), known), known);
    assert_eq!(open().get("convolution"), Some(known));
});
