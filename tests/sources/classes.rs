//! Some classes of a source, and sources joined.

use disentangle::data::{Dataset, GatherOptions, SourceOptions, source};

use crate::{excluded, load, names, npy, png, write};

fn options(classes: &[&str]) -> SourceOptions {
    SourceOptions { classes: classes.iter().map(|class| class.to_string()).collect(), ..Default::default() }
}

fn load_all(locations: &[&str], options: &SourceOptions) -> Result<Dataset, disentangle::Error> {
    let locations: Vec<String> = locations.iter().map(|l| l.to_string()).collect();
    Dataset::load(source::open_all(&locations, options)?, &GatherOptions::default(), &|_, _| ())
}

/// ImageNet as it is unpacked, with two of the classes of ImageNet-10 and others.
fn imagenet(ids: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, id) in ids.iter().enumerate() {
        write(dir.path(), &format!("ILSVRC/Data/CLS-LOC/train/{id}/images/{id}_1.JPEG"), png(i as u8));
    }
    write(dir.path(), "ILSVRC/Data/CLS-LOC/val/n01440764/ILSVRC2012_val_1.JPEG", png(99));
    dir
}

const IMAGENET_10: [&str; 10] = [
    "n02056570",
    "n02085936",
    "n02128757",
    "n02690373",
    "n02692877",
    "n03095699",
    "n04254680",
    "n04285008",
    "n04467665",
    "n07747607",
];

#[test]
fn imagenet_10_is_one_word() {
    let dir = imagenet(&[&["n01440764", "n01443537"], &IMAGENET_10[..], &["n09999999"]].concat());
    let root = dir.path().to_str().unwrap();
    assert_eq!(load(dir.path()).unwrap().classes().len(), 13);
    let data = load_all(&[root], &options(&["imagenet-10"])).unwrap();
    assert_eq!((data.classes(), data.labels()), (&IMAGENET_10.map(String::from)[..], Some((0..10).collect())));
    assert_eq!(data.name(0), "ILSVRC/Data/CLS-LOC/train/n02056570/images/n02056570_1.JPEG");
    assert_eq!(data.describe(), "image folder, 10 images, 10 classes");
    // The same in a file, with descriptions, in any order.
    let mut lines: Vec<String> = IMAGENET_10.iter().map(|id| format!("{id}\tking penguin, or what it is")).collect();
    lines.reverse();
    let file = dir.path().join("wnids.txt");
    std::fs::write(&file, format!("# ten of them\r\n\r\n{}\r\n", lines.join("\r\n"))).unwrap();
    let chosen = load_all(&[root], &options(&[&format!("@{}", file.display())])).unwrap();
    assert_eq!(chosen.fingerprint(), data.fingerprint());
    let part = load_all(&[root], &options(&["n04254680", "n02056570", "n04254680"])).unwrap();
    assert_eq!(
        (part.classes().to_vec(), part.labels()),
        (vec!["n02056570".into(), "n04254680".into()], Some(vec![0, 1]))
    );
}

#[test]
fn folders_with_a_description_behind_the_identifier() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["n02056570_king_penguin", "n02085936 maltese", "n020859360"] {
        write(dir.path(), &format!("{name}/1.png"), png(1));
    }
    let data = load_all(&[dir.path().to_str().unwrap()], &options(&["n02085936", "n02056570"])).unwrap();
    assert_eq!(data.classes(), ["n02056570_king_penguin", "n02085936 maltese"]);
}

#[test]
fn any_source_can_be_narrowed() {
    let dir = tempfile::tempdir().unwrap();
    let record = |label: u8| [vec![label], vec![label; 3072]].concat();
    write(dir.path(), "data_batch_1.bin", [record(3), record(5), record(3), record(0)].concat());
    write(dir.path(), "batches.meta.txt", "plane\ncar\nbird\ncat\ndeer\ndog\n");
    let root = dir.path().to_str().unwrap();
    let data = load_all(&[root], &options(&["dog", "cat"])).unwrap();
    assert_eq!((data.classes(), data.labels()), (&["cat".to_string(), "dog".into()][..], Some(vec![0, 1, 0])));
    assert_eq!(names(&data), ["data_batch_1.bin#0", "data_batch_1.bin#1", "data_batch_1.bin#2"]);
    let shapes = source::open("shapes:60", &SourceOptions::default()).unwrap();
    let class = shapes.classes()[1].clone();
    let narrowed = source::open("shapes:60", &options(&[&class])).unwrap();
    assert_eq!(narrowed.classes(), [class]);
    assert!(!narrowed.is_empty() && narrowed.len() < 60);
    assert!(narrowed.factors().iter().all(|factor| factor.labels.len() == narrowed.len()));
}

#[test]
fn classes_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["cat", "dog", "horse"] {
        write(dir.path(), &format!("{class}/1.png"), png(1));
    }
    std::fs::create_dir_all(dir.path().join("empty/inner")).unwrap();
    let root = dir.path().to_str().unwrap();
    let data = load(dir.path()).unwrap();
    assert_eq!(data.classes(), ["cat", "dog", "horse"]);
    assert_eq!(excluded(&data), [("empty/inner", disentangle::data::ExclusionKind::Ignored, "empty folder")]);
    let flat = tempfile::tempdir().unwrap();
    write(flat.path(), "1.png", png(1));
    write(flat.path(), "none.txt", "# no class\n");
    let none = format!("@{}", flat.path().join("none.txt").display());
    for (classes, says) in [
        (vec!["cat", "hors"], "(image folder, 3 images, 3 classes): did you mean 'horse'?"),
        (vec!["zebra", "ibis"], "no class 'zebra' (and 1 class more) in "),
        (vec!["imagenet10"], "did you mean 'imagenet-10'?"),
        (vec!["imagenet-10"], "no class 'n02056570' (and 9 classes more)"),
        (vec!["@absent.txt"], "the list of classes absent.txt cannot be read"),
        (vec![&none], "names no class"),
        (vec!["@/"], "is no list of classes"),
    ] {
        let error = load_all(&[root], &options(&classes)).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains(says), "{error}");
    }
    let error = load_all(&[flat.path().to_str().unwrap()], &options(&["cat"])).err().unwrap();
    assert!(error.to_string().contains("has no classes to choose from (image folder, 1 image, unlabelled)"), "{error}");
}

#[test]
fn every_kind_joins_and_classes_of_one_name_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "folder/cat/1.png", png(1));
    write(root, "folder/dog/1.png", png(2));
    write(root, "list.csv", "folder/dog/1.png,cat\nfolder/cat/1.png,4\n");
    write(root, "images.npy", npy("|u1", &[2, 2, 2, 3], &[9; 24]));
    write(root, "labels.npy", npy("|u1", &[2], &[4, 5]));
    write(root, "stl/train_X.bin", vec![7; 2 * 27648]);
    write(root, "stl/train_y.bin", [2, 1]);
    write(root, "stl/class_names.txt", "dog\ncat\n");
    let paths = ["folder", "list.csv", "images.npy", "stl"].map(|name| root.join(name).to_str().unwrap().to_owned());
    let data = load_all(&[&paths[0], &paths[1], &paths[2], &paths[3]], &SourceOptions::default()).unwrap();
    let classes: Vec<String> =
        (0..data.len()).map(|i| data.classes()[data.label(i).unwrap() as usize].clone()).collect();
    assert_eq!(classes, ["cat", "dog", "cat", "4", "4", "5", "cat", "dog"]);
    assert_eq!(data.classes()[..4], ["cat", "dog", "4", "5"]);
    assert_eq!(data.name(4), format!("{}:images.npy#0", paths[2]));
    // A class need not be in every part.
    let narrowed = load_all(&[&paths[0], &paths[2]], &options(&["dog", "5"])).unwrap();
    assert_eq!((narrowed.classes(), narrowed.labels()), (&["dog".to_string(), "5".into()][..], Some(vec![0, 1])));
}
