//! Sound inputs with a few bytes changed, cut out or doubled at random: whatever they have become, nothing panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use disentangle::data::source::decode;
use safetensors::SafeTensors;

use crate::inputs::{FIXTURE, good, npy, tar_entry, tar_of, write};

/// Random bits that are the same in every run (xorshift).
struct Bits(u32);

impl Bits {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % n.max(1)
    }

    /// Changes 1 to 4 places of `bytes`, mostly where headers are.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            let reach = if self.below(3) > 0 { bytes.len().min(700) } else { bytes.len() };
            let at = self.below(reach);
            match self.below(5) {
                0 => bytes.truncate(at.max(1)),
                1 => drop(bytes.drain(at..(at + 1 + self.below(20)).min(bytes.len()))),
                2 => bytes.splice(at..at, [0xff, 0, 0x80, 0x7f][..1 + self.below(4)].to_vec()).for_each(drop),
                3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                _ => bytes[at] = self.below(256) as u8,
            }
            if bytes.is_empty() {
                return;
            }
        }
    }
}

#[test]
fn spoilt_pictures_never_panic() {
    let _alone = crate::alone();
    let tensors = SafeTensors::deserialize(FIXTURE).expect("the fixture");
    let mut bits = Bits(0x2545_f491);
    for name in tensors.names().into_iter().filter(|name| name.ends_with("/file")) {
        let whole = tensors.tensor(name).expect("a picture").data().to_vec();
        for round in 0..300 {
            let mut spoilt = whole.clone();
            bits.spoil(&mut spoilt);
            if let Err(reason) = decode(&spoilt) {
                assert!(!reason.contains('\n') && !reason.contains("panicked"), "{name}, {round}: {reason}");
            }
        }
    }
}

#[test]
fn spoilt_files_never_panic() {
    let _alone = crate::alone();
    let entry = |name: &[u8]| tar_entry(name, b'0', b"", &good());
    let long = tar_entry(b"././@LongLink", b'L', b"", &[&b"a/".repeat(60)[..], b"x.png\0"].concat());
    let pax = tar_entry(b"./PaxHeaders/x", b'x', b"", b"19 path=a/pax.png\n\n");
    let tar = tar_of(&[tar_entry(b"a/", b'5', b"", b""), entry(b"a/1.png"), long, entry(b"l"), pax, entry(b"p")]);
    let inputs: [(&str, Vec<u8>); 6] = [
        ("x.tar", tar),
        ("x.npy", npy("|u1", "(2, 4, 4, 3)", &[7; 96])),
        ("x_labels.npy", npy("<i4", "(2,)", &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])),
        ("x.txt", b"# list\ngood.png cat\nmissing.png\tdog\nsub folder/x.jpg, 3\n".to_vec()),
        ("x.csv", b"path,label\n\"good.png\",cat\n\"a, b.png\",\"dog\"\n".to_vec()),
        ("data_batch_1.bin", vec![3; 2 * 3073]),
    ];
    let mut bits = Bits(0x9e37_79b9);
    for (name, whole) in inputs {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), "good.png", good());
        write(dir.path(), "x.npy", npy("|u1", "(2, 4, 4, 3)", &[7; 96]));
        for round in 0..200 {
            let mut spoilt = whole.clone();
            bits.spoil(&mut spoilt);
            write(dir.path(), name, &spoilt);
            let open = match name {
                "x_labels.npy" => dir.path().join("x.npy"),
                "data_batch_1.bin" => dir.path().to_path_buf(),
                _ => dir.path().join(name),
            };
            let location = [open.to_str().expect("UTF-8").to_owned()];
            let loaded = catch_unwind(AssertUnwindSafe(|| crate::load(&location, &Default::default())));
            let Ok(loaded) = loaded else { panic!("{name}, {round}: a panic") };
            let text = match loaded {
                Ok(data) => data.excluded().iter().map(|e| e.reason.clone()).collect::<Vec<_>>().join("; "),
                Err(error) => error.to_string(),
            };
            assert!(!text.contains('\n') && !text.contains("panicked"), "{name}, {round}: {text}");
        }
    }
}
