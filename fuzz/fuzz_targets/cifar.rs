//! Any bytes as a batch of CIFAR. The first one chooses between the two data sets, their labels and parts.
#![no_main]

use disentangle::data::SourceOptions;
use disentangle::data::source::{Cifar100Labels, Split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    let Some((&choice, batch)) = bytes.split_first() else { return };
    let name = if choice & 1 == 0 { "data_batch_1.bin" } else { "train.bin" };
    let cifar100_labels = if choice & 2 == 0 { Cifar100Labels::Coarse } else { Cifar100Labels::Fine };
    let split = if choice & 4 == 0 { Split::All } else { Split::Test };
    let options = SourceOptions { cifar100_labels, split, ..SourceOptions::default() };
    disentangle_fuzz::read_folder(name, batch, &options);
});
