//! Any bytes as an archive, plain or compressed: its index, and every image in it.
#![no_main]

libfuzzer_sys::fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| disentangle_fuzz::read_file("set.tar", bytes));
