//! Checkpoints: what is saved comes back to the bit; what is damaged is refused by name and never panics.

use disentangle::checkpoint::{
    Checkpoint, DataStamp, Meta, NamedTensor, best, find, list, load_newest, newest, path_at, prune, weights_hash,
};
use disentangle::config::Overrides;
use disentangle::data::loader::Position;
use disentangle::loss::LossValues;
use disentangle::rng::{Purpose, stream};
use std::path::{Path, PathBuf};

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

/// The position after whole epochs.
fn after(epoch: u64) -> Position {
    Position { epoch, step: 0 }
}

/// Writes a checkpoint of this position and loss into `run`.
fn save(run: &Path, position: Position, loss: f64) -> PathBuf {
    let mut checkpoint = example();
    (checkpoint.meta.epoch, checkpoint.meta.step_in_epoch) = (position.epoch, position.step);
    checkpoint.meta.losses.total = loss;
    let path = path_at(run, position);
    checkpoint.save(&path).unwrap();
    path
}

#[test]
fn the_newest_is_found_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    assert_eq!(newest(run).unwrap(), None);
    assert!(find(run).unwrap_err().to_string().contains("holds no checkpoint"));
    assert!(find(&run.join("missing")).unwrap_err().to_string().contains("does not exist"));
    let positions = [(0, 7), (1, 0), (3, 0), (3, 12), (20, 0), (9999, 1_000_000), (10000, 0)];
    let positions = positions.map(|(epoch, step)| Position { epoch, step });
    for position in positions.iter().rev() {
        std::fs::write(path_at(run, *position), b"").unwrap();
    }
    for other in [
        "checkpoint-epoch.safetensors",
        "checkpoint-epoch+1.safetensors",
        "checkpoint-epoch0001-step.safetensors",
        "checkpoint-epoch0001-step000000.safetensors",
        "checkpoint-epoch0001-stepx.safetensors",
        "checkpoint-epoch0099.safetensors.tmp",
    ] {
        std::fs::write(run.join(other), b"").unwrap();
    }
    assert_eq!(path_at(run, after(7)), run.join("checkpoint-epoch0007.safetensors"));
    assert_eq!(path_at(run, Position { epoch: 7, step: 12 }), run.join("checkpoint-epoch0007-step000012.safetensors"));
    assert_eq!(list(run).unwrap().into_iter().map(|(position, _)| position).collect::<Vec<_>>(), positions);
    assert_eq!(newest(run).unwrap(), Some(path_at(run, after(10000))));
    assert_eq!(find(run).unwrap(), path_at(run, after(10000)));
    assert_eq!(find(&path_at(run, after(3))).unwrap(), path_at(run, after(3)));
    assert!(newest(&run.join("missing")).is_err());
}

#[test]
fn the_newest_and_the_best_stay() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    assert_eq!((best(run).unwrap(), prune(run, 2).unwrap()), (None, Vec::new()));
    // Inside an epoch a mean says little: only epochs' ends can be the best. Of equals it is the first.
    let losses = [(1, 0, f64::NAN), (2, 0, 3.0), (2, 5, 1.0), (3, 0, 2.0), (4, 0, 2.0), (4, 5, 0.5), (5, 0, 2.5)];
    let paths = losses.map(|(epoch, step, loss)| save(run, Position { epoch, step }, loss));
    assert_eq!(best(run).unwrap(), Some((paths[3].clone(), 2.0)));
    assert_eq!(prune(run, 0).unwrap().len(), 0);
    assert_eq!(prune(run, 2).unwrap(), [0, 1, 2, 4].map(|i| paths[i].clone()));
    assert_eq!(prune(run, 2).unwrap().len(), 0);
    // A later process knows it from the files alone, and from their headers alone.
    let bytes = std::fs::read(&paths[3]).unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&paths[3], flipped).unwrap();
    assert_eq!(best(run).unwrap(), Some((paths[3].clone(), 2.0)));
    // What is cut short is not the best of anything.
    std::fs::write(&paths[3], &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(best(run).unwrap(), Some((paths[6].clone(), 2.5)));
}

#[test]
fn a_header_alone_says_where_a_run_stood() {
    let folder = tempfile::tempdir().unwrap();
    let path = save(folder.path(), after(3), 1.5);
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(Meta::read(&path).unwrap(), Checkpoint::load(&path).unwrap().meta);
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let damaged = [&b""[..], &whole[..7], &whole[..100], &whole[..whole.len() - 1], &huge];
    for bytes in damaged.into_iter().chain([&replaced(&whole, "format_version", "format_versiom")[..]]) {
        std::fs::write(&path, bytes).unwrap();
        let problem = Meta::read(&path).unwrap_err().to_string();
        assert!(problem.starts_with(&path.display().to_string()), "{problem}");
    }
    assert!(Meta::read(&folder.path().join("missing")).is_err());
}

#[test]
fn a_damaged_newest_gives_way_to_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    assert!(load_newest(run).unwrap().is_none());
    let paths = [1, 2, 3].map(|epoch| save(run, after(epoch), 1.0));
    assert_eq!(load_newest(run).unwrap().unwrap().path, paths[2]);
    let whole = std::fs::read(&paths[2]).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 0x10;
    for damage in [&whole[..whole.len() / 2], &flipped, b"", b"garbage"] {
        std::fs::write(&paths[2], damage).unwrap();
        let found = load_newest(run).unwrap().unwrap();
        assert_eq!((&found.path, found.checkpoint.meta.epoch), (&paths[1], 2));
        let [damaged] = &found.damaged[..] else { panic!("{:?}", found.damaged) };
        assert!(damaged.path == paths[2] && damaged.reason.to_string().contains("epoch0003"), "{damaged:?}");
    }
    // A folder in its place cannot be read either.
    std::fs::remove_file(&paths[1]).unwrap();
    std::fs::create_dir(&paths[1]).unwrap();
    let found = load_newest(run).unwrap().unwrap();
    assert_eq!((&found.path, found.damaged.len()), (&paths[0], 2));
    std::fs::write(&paths[0], b"").unwrap();
    let problem = load_newest(run).unwrap_err().to_string();
    assert!([1, 2, 3].iter().all(|n| problem.contains(&format!("epoch000{n}"))), "{problem}");
    // A later version knew something we do not: it is not passed over.
    std::fs::write(&paths[2], replaced(&whole, r#""format_version":"1""#, r#""format_version":"2""#)).unwrap();
    let problem = load_newest(run).unwrap_err();
    assert!(problem.exit_code() == 2 && problem.to_string().contains("checkpoint format 2"), "{problem}");
}

#[test]
fn the_hash_is_of_names_shapes_and_numbers_of_the_model() {
    let tensors = example().tensors;
    let hash = weights_hash(&tensors);
    assert!(hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
    let changed = |change: &dyn Fn(&mut Vec<NamedTensor>)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        weights_hash(&tensors)
    };
    let optimizer = tensors.iter().position(|t| t.name.starts_with("optimizer.")).unwrap();
    assert_eq!(changed(&|t| t.reverse()), hash);
    assert_eq!(changed(&|t| t[optimizer].data[0] += 1.0), hash);
    assert_eq!(changed(&|t| drop(t.remove(optimizer))), hash);
    let others = [
        changed(&|t| t[0].data[0] += 1.0),
        changed(&|t| t[0].shape = vec![3, 4, 7, 7]),
        changed(&|t| t[0].name.push('x')),
        changed(&|t| drop(t.pop())),
    ];
    assert!(others.iter().enumerate().all(|(i, other)| *other != hash && !others[..i].contains(other)));
}
