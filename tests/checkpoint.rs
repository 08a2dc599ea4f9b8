//! Checkpoints: what is saved comes back to the bit; what is damaged is refused by name and never panics.

use disentangle::checkpoint::{Checkpoint, DataStamp, Meta, NamedTensor, find, newest, path_after, prune};
use disentangle::config::Overrides;
use disentangle::loss::LossValues;
use disentangle::rng::{Purpose, stream};
use std::path::Path;

/// Tensors with torchvision's names, among them a scalar, an empty one, and numbers a careless writer would lose.
fn example() -> Checkpoint {
    let mut random = stream(7, Purpose::Init, 0, 0, 0);
    let mut tensor = |name: &str, shape: &[usize]| {
        let data = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
        NamedTensor { name: name.to_owned(), shape: shape.to_vec(), data }
    };
    let mut tensors = vec![
        tensor("backbone.conv1.weight", &[4, 3, 7, 7]),
        tensor("backbone.bn1.running_mean", &[4]),
        tensor("instance_projector.0.weight", &[8, 8]),
        tensor("optimizer.exp_avg.backbone.conv1.weight", &[4, 3, 7, 7]),
        tensor("scalar", &[]),
        tensor("nothing", &[0, 3]),
    ];
    tensors[1].data = vec![f32::MIN_POSITIVE / 2.0, -0.0, f32::INFINITY, f32::MAX];
    let config = Overrides { set: vec!["out=Überlauf \"1\"".into()], ..Overrides::default() }.resolve().unwrap();
    let meta = Meta {
        program: "0.1.0".into(),
        config,
        epoch: 3,
        step: 1403,
        step_in_epoch: 5,
        data: DataStamp { description: "shapes: 1,000 images".into(), images: 1000, fingerprint: u64::MAX - 1 },
        losses: LossValues { total: 4.25, instance: 0.1 + 0.2, feature: f64::NEG_INFINITY, entropy: 1e-300 },
    };
    Checkpoint { tensors, meta }
}

/// Writes `bytes` as a file and loads it: the error must be one line that names the file.
fn refused(folder: &Path, bytes: &[u8]) -> String {
    let path = folder.join("damaged.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let message = Checkpoint::load(&path).map(drop).expect_err("should be refused").to_string();
    let (name, problem) = message.split_once(": ").unwrap();
    assert_eq!(name, path.display().to_string());
    assert!(!problem.contains('\n') && message.len() < 500, "{message}");
    problem.to_owned()
}

/// The example as bytes.
fn bytes(folder: &Path) -> Vec<u8> {
    let path = folder.join("whole.safetensors");
    example().save(&path).unwrap();
    std::fs::read(path).unwrap()
}

/// `bytes` with `from` in the header replaced by `to`, which must be as long.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
    [&bytes[..at], to.as_bytes(), &bytes[at + to.len()..]].concat()
}

#[test]
fn a_checkpoint_comes_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    example().save(&path).unwrap();
    let loaded = Checkpoint::load(&path).unwrap();
    assert_eq!(loaded.meta, example().meta);
    let bits = |c: &Checkpoint| -> Vec<_> {
        let one = |t: &NamedTensor| (t.name.clone(), t.shape.clone(), t.data.iter().map(|x| x.to_bits()).collect());
        let mut all: Vec<(String, Vec<usize>, Vec<u32>)> = c.tensors.iter().map(one).collect();
        all.sort();
        all
    };
    assert_eq!(bits(&loaded), bits(&example()));
    // The same state gives the same file.
    let again = folder.path().join("b.safetensors");
    loaded.save(&again).unwrap();
    assert_eq!(std::fs::read(&path).unwrap().len(), std::fs::read(again).unwrap().len());
    example().save(&folder.path().join("c")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(folder.path().join("c")).unwrap());
    // The published format: 8 bytes of length, a JSON header, data aligned to 8 bytes.
    let file = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.tensor("backbone.conv1.weight").unwrap().shape(), [4, 3, 7, 7]);
    assert_eq!(u64::from_le_bytes(file[..8].try_into().unwrap()) % 8, 0);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = bytes(folder.path());
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let everywhere = (0..64).chain((64..whole.len()).step_by(97)).chain(header - 2..header + 2);
    for cut in everywhere.chain([whole.len() - 4, whole.len() - 1]) {
        let problem = refused(folder.path(), &whole[..cut]);
        assert_eq!(problem.starts_with("a safetensors file that is cut short or damaged"), cut > 8, "{cut}: {problem}");
    }
    refused(folder.path(), &[&whole[..], &[0]].concat());
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = bytes(folder.path());
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&whole[8..header]).unwrap();
    let padding = 8 + text.trim_end().len()..header; // spaces that mean nothing
    for at in
        (0..8).chain((8..header).step_by(7)).chain((header..whole.len()).step_by(23)).filter(|at| !padding.contains(at))
    {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        refused(folder.path(), &damaged);
    }
}

#[test]
fn wrong_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |bytes: &[u8]| refused(folder.path(), bytes);
    let whole = bytes(folder.path());
    assert!(refused(b"").starts_with("not a checkpoint"));
    assert!(refused(b"epochs = 20\nseed = 42\n").starts_with("not a checkpoint"));
    assert!(refused(&[0xff; 100]).starts_with("not a checkpoint"));
    for length in [u64::MAX, 1 << 63, 100_000_001, 100_000_000, whole.len() as u64, 0] {
        let mut damaged = whole.clone();
        damaged[..8].copy_from_slice(&length.to_le_bytes());
        refused(&damaged);
    }
    let other = br#"{"__metadata__":{"format":"pt"}}"#;
    let other = [&(other.len() as u64).to_le_bytes()[..], other].concat();
    assert_eq!(refused(&other), "a safetensors file, but not a checkpoint of this program");
    let future = replaced(&whole, r#""format_version":"1""#, r#""format_version":"2""#);
    assert!(refused(&future).starts_with("checkpoint format 2, written by disentangle 0.1.0; this is "));
    let integers = replaced(&whole, r#""dtype":"F32""#, r#""dtype":"I32""#);
    assert_eq!(refused(&integers), "tensor 'backbone.bn1.running_mean' is I32, expected F32");
    let transposed = replaced(&whole, r#""shape":[4,3,7,7]"#, r#""shape":[7,7,3,4]"#);
    assert!(refused(&transposed).starts_with("checksum mismatch in tensor 'backbone.conv1.weight'"));
    let position = replaced(&whole, r#""step":"1403""#, r#""step":"1404""#);
    assert!(refused(&position).starts_with("checksum mismatch in the metadata"));
    let mut number = whole.clone();
    *number.last_mut().unwrap() ^= 0x40;
    assert!(refused(&number).starts_with("checksum mismatch in tensor 'scalar'"));
}

#[test]
fn offsets_that_overflow_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    // Eight tensors of 2^61 - 4 bytes and a rest: their end is near 2^64, past which careless sums wrap around.
    let side = (1u64 << 61) / 4 - 1;
    let mut entries = vec![r#""__metadata__":{"format":"disentangle.checkpoint"}"#.to_owned()];
    for i in 0..8u64 {
        let (start, end) = (i * side * 4, (i + 1) * side * 4);
        entries.push(format!(r#""t{i}":{{"dtype":"F32","shape":[{side}],"data_offsets":[{start},{end}]}}"#));
    }
    let header = format!("{{{}}}", entries.join(","));
    refused(folder.path(), &[&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat());
    let huge = r#"{"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
    refused(folder.path(), &[&(huge.len() as u64).to_le_bytes()[..], huge.as_bytes()].concat());
}

#[test]
fn what_does_not_fit_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let mut twice = example();
    twice.tensors[1].name = twice.tensors[0].name.clone();
    assert!(twice.save(&path).unwrap_err().to_string().contains("two tensors called backbone.conv1.weight"));
    let mut short = example();
    short.tensors[0].data.pop();
    assert!(short.save(&path).unwrap_err().to_string().contains("587 numbers for [4, 3, 7, 7]"));
    assert!(!path.exists());
    assert!(Checkpoint::load(&path).unwrap_err().to_string().starts_with("cannot read "));
    assert!(example().save(&folder.path().join("missing/x")).is_err());
}

#[test]
fn the_newest_is_found_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    assert_eq!(newest(run).unwrap(), None);
    assert!(find(run).unwrap_err().to_string().contains("holds no checkpoint"));
    assert!(find(&run.join("missing")).unwrap_err().to_string().contains("does not exist"));
    for epoch in [1, 20, 3, 10000, 9999] {
        std::fs::write(path_after(run, epoch), b"").unwrap();
    }
    for other in
        ["checkpoint-epoch.safetensors", "checkpoint-epoch+1.safetensors", "checkpoint-epoch0099.safetensors.tmp"]
    {
        std::fs::write(run.join(other), b"").unwrap();
    }
    assert_eq!(path_after(run, 7), run.join("checkpoint-epoch0007.safetensors"));
    assert_eq!(newest(run).unwrap(), Some(path_after(run, 10000)));
    assert_eq!(find(run).unwrap(), path_after(run, 10000));
    assert_eq!(find(&path_after(run, 3)).unwrap(), path_after(run, 3));
    assert_eq!(prune(run, 0).unwrap().len(), 0);
    assert_eq!(prune(run, 2).unwrap(), [1, 3, 20].map(|epoch| path_after(run, epoch)));
    assert_eq!(prune(run, 2).unwrap().len(), 0);
    assert_eq!(newest(run).unwrap(), Some(path_after(run, 10000)));
    assert_eq!(std::fs::read_dir(run).unwrap().count(), 5);
    assert!(newest(&run.join("missing")).is_err());
}
