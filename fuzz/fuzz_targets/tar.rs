//! Any bytes as an archive, plain or compressed: its index, and every image in it.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| disentangle_fuzz::read_file("set.tar", bytes));

// Few mutations would leave a header's checksum right, and nothing behind a wrong one is read: most are put right.
fuzz_mutator!(|bytes: &mut [u8], len: usize, max_len: usize, seed: u32| {
    let len = fuzzer_mutate(bytes, len, max_len);
    if !seed.is_multiple_of(8) {
        repair(&mut bytes[..len]);
    }
    len
});

/// Writes the checksum of every header that is found by following the sizes.
fn repair(archive: &mut [u8]) {
    let mut rest = archive;
    while let Some((header, behind)) = rest.split_first_chunk_mut::<512>() {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        if sum == 8 * 32 {
            header.fill(0); // the empty block that ends an archive
        } else {
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        let octal = header[124..136].iter().take_while(|byte| (b'0'..=b'7').contains(byte));
        let size = octal.fold(0u64, |size, digit| size << 3 | u64::from(digit - b'0'));
        let Some((_, next)) = behind.split_at_mut_checked(size.div_ceil(512) as usize * 512) else { return };
        rest = next;
    }
}
