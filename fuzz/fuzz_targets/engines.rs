//! Any bytes as the memory of cuDNN's engines: useless, perhaps, but never in the way of a new choice.
#![no_main]

use disentangle::backend::cuda::engines::{Choice, Engines};
use disentangle::data::cache::CACHE_VARIABLE;

libfuzzer_sys::fuzz_target!(init: start(), |bytes: &[u8]| {
    disentangle_fuzz::write("engines.json", bytes);
    let choice = Choice { fallback: false, engine: 3 };
    let mut engines = Engines::of("device".to_owned());
    let known = engines.get("convolution").unwrap_or(choice);
    assert_eq!(engines.settle("convolution".to_owned(), known), known);
    assert_eq!(Engines::of("device".to_owned()).get("convolution"), Some(known));
});

fn start() {
    disentangle_fuzz::start();
    let folder = disentangle_fuzz::write("engines.json", b"");
    // SAFETY: the fuzzer has not started a thread yet.
    unsafe { std::env::set_var(CACHE_VARIABLE, folder.parent().expect("it lies in a folder")) };
}
