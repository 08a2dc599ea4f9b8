//! Any bytes as a packed file: opened as training opens it, as a source among others, and verified.
#![no_main]

use disentangle::data::{Dataset, packed};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    disentangle_fuzz::read_file("set.pack", bytes);
    let path = disentangle_fuzz::write("set.pack", bytes);
    let whole = packed::verify(&path, &|_, _| ()).is_ok_and(|verified| verified.problems.is_empty());
    let Ok(dataset) = Dataset::open(&path) else { return assert!(!whole, "verified, but cannot be opened") };
    let mut buffer = Vec::new();
    for i in 0..dataset.len().min(disentangle_fuzz::READ) {
        let image = dataset.image(i, &mut buffer).map(|image| (image.width(), image.height()));
        assert!(!whole || image.is_ok(), "verified, but image {i} cannot be read");
        assert!(image.is_err() || image.ok() == Some(dataset.size(i)));
    }
    dataset.check().expect("nobody else writes here");
});

// Nothing is believed behind a wrong checksum: most mutations are given the right ones.
fuzz_mutator!(|bytes: &mut [u8], len: usize, max_len: usize, seed: u32| {
    let len = fuzzer_mutate(bytes, len, max_len);
    if !seed.is_multiple_of(8) {
        repair(&mut bytes[..len]);
    }
    len
});

/// Where the payload begins, and the bytes under one checksum.
const PAYLOAD: usize = 4096;
const BLOCK: usize = 1 << 18;
/// Bytes of an image's record.
const RECORD: usize = 40;

/// Writes the file's length and the checksums of payload, tables and header, where they belong if the counts are right.
fn repair(file: &mut [u8]) {
    if file.len() < PAYLOAD {
        return;
    }
    let len = file.len();
    file[16..24].copy_from_slice(&(len as u64).to_ne_bytes());
    let [payload, samples] = [24, 32].map(|at| number(file, at) as usize);
    let factors = number(file, 40) as u32 as usize;
    let tables = payload.checked_add(PAYLOAD).and_then(|end| end.checked_next_multiple_of(64));
    if let Some(tables) = tables.filter(|&tables| tables <= len) {
        let records = factors.checked_mul(4).and_then(|labels| samples.checked_mul(labels.checked_add(RECORD)?));
        let mut at = records.and_then(|records| records.checked_add(tables)).unwrap_or(len);
        for start in (PAYLOAD..PAYLOAD + payload).step_by(BLOCK) {
            let crc = crc32fast::hash(&file[start..(start + BLOCK).min(PAYLOAD + payload)]);
            let Some(place) = at.checked_add(4).and_then(|end| file.get_mut(at..end)) else { break };
            place.copy_from_slice(&crc.to_ne_bytes());
            at += 4;
        }
        let crc = crc32fast::hash(&file[tables..]);
        file[68..72].copy_from_slice(&crc.to_ne_bytes());
    }
    let crc = crc32fast::hash(&file[..76]);
    file[76..80].copy_from_slice(&crc.to_ne_bytes());
}

fn number(file: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(file[at..at + 8].try_into().expect("eight bytes"))
}
