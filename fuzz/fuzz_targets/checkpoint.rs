//! Any bytes as a checkpoint. What can be loaded can be saved, and is then the same for ever.
#![no_main]

use std::collections::BTreeMap;

use disentangle::checkpoint::Checkpoint;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use serde_json::Value;

fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    let path = disentangle_fuzz::write("any.safetensors", bytes);
    let Ok(checkpoint) = Checkpoint::load(&path).map_err(|error| disentangle_fuzz::check_error(&error)) else { return };
    let again = disentangle_fuzz::write("again.safetensors", b"");
    checkpoint.save(&again).expect("it was loaded");
    let first = std::fs::read(&again).expect("it was saved");
    Checkpoint::load(&again).expect("it was saved").save(&again).expect("it was loaded");
    assert!(std::fs::read(&again).expect("it was saved") == first, "saved twice, not the same twice");
});

// Nothing is believed behind a wrong checksum: most mutations are given the right ones.
fuzz_mutator!(|bytes: &mut [u8], len: usize, max_len: usize, seed: u32| {
    let len = fuzzer_mutate(bytes, len, max_len);
    if !seed.is_multiple_of(8) {
        repair(&mut bytes[..len]);
    }
    len
});

/// Writes checksums of eight digits where others stand: of each tensor, then of the metadata that hold these.
fn repair(file: &mut [u8]) -> Option<()> {
    let header_len = usize::try_from(u64::from_le_bytes(*file.first_chunk()?)).ok()?;
    let (header, numbers) = file.get_mut(8..)?.split_at_mut_checked(header_len)?;
    for (name, tensor) in serde_json::from_slice::<BTreeMap<String, Value>>(header).ok()? {
        let number = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
        let Some(range) = tensor.get("data_offsets").and_then(|at| Some(number(at.get(0)?)?..number(at.get(1)?)?))
        else {
            continue;
        };
        let (Some(shape), Some(data)) = (tensor.get("shape").and_then(Value::as_array), numbers.get(range)) else {
            continue;
        };
        let mut crc = crc32fast::Hasher::new();
        shape.iter().filter_map(Value::as_u64).for_each(|side| crc.update(&side.to_le_bytes()));
        crc.update(data);
        overwrite(header, &format!("\\\"{name}\\\":\\\""), crc.finalize());
    }
    let all: BTreeMap<String, Value> = serde_json::from_slice(header).ok()?;
    let metadata: BTreeMap<String, String> = serde_json::from_value(all.get("__metadata__")?.clone()).ok()?;
    let mut crc = crc32fast::Hasher::new();
    for (key, value) in metadata.iter().filter(|(key, _)| *key != "metadata_crc32") {
        [key.as_bytes(), &[0], value.as_bytes(), &[0]].iter().for_each(|bytes| crc.update(bytes));
    }
    overwrite(header, "\"metadata_crc32\":\"", crc.finalize());
    Some(())
}

/// Puts a checksum behind the first `before`.
fn overwrite(text: &mut [u8], before: &str, crc: u32) {
    let place = text.windows(before.len()).position(|window| window == before.as_bytes());
    if let Some(place) = place.and_then(|at| text.get_mut(at + before.len()..at + before.len() + 8)) {
        place.copy_from_slice(format!("{crc:08x}").as_bytes());
    }
}
