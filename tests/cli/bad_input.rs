//! Everything that can be wrong: an exit code, one clear line, no panic, and nothing spoilt.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Folder, TINY, encode, picture};

fn tiny(data: &str) -> String {
    TINY.replace("shapes:64", data).replace("--batch-size 16", "--batch-size 8") + " --epochs 1 --out run"
}

#[test]
fn data_that_are_not_there() {
    let folder = Folder::new();
    folder.refused(&tiny("nowhere"), 2, &["nowhere does not exist", "shapes"]);
    std::fs::create_dir(folder.path("empty")).unwrap();
    folder.refused(&tiny("empty"), 1, &["empty: no JPEG, PNG or WebP image in it (it is empty)"]);
    folder.write("text/notes.txt", "no pictures");
    folder.refused(&tiny("text"), 1, &["no JPEG, PNG or WebP image in it (1 file: not an image)"]);
    folder.write("data.tar", "this is no archive");
    folder.refused(&tiny("data.tar"), 1, &["data.tar"]);
    folder.write("data.tar.gz", [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]);
    folder.refused(&tiny("data.tar.gz"), 1, &["data.tar.gz"]);
    folder.write("broken/a.jpg", "no JPEG");
    folder.write("broken/b.png", "");
    folder.refused(&tiny("broken"), 1, &["none of the images can be used", "a.jpg", "the file is empty"]);
    folder.refused(&tiny("shapes:0"), 2, &["shapes"]);
    folder.refused(&tiny("shapes:many"), 2, &["`many` is not a number"]);
    assert!(!folder.path("run").exists(), "a run that cannot start leaves no folder");
}

#[test]
fn a_truncated_cifar_record_is_set_aside() {
    let folder = Folder::new();
    let mut records: Vec<u8> =
        (0..17u32).flat_map(|i| (0..3073u32).map(move |b| ((i * 7 + b * 3) % 10) as u8)).collect();
    records.truncate(16 * 3073 + 1000);
    folder.write("cifar/data_batch_1.bin", records);
    let said = folder.run(&tiny("cifar"));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("CIFAR-10 binary, 16 images, 10 classes; 1 bad, set aside"), "{}", said.err);
    assert!(said.err.contains("data_batch_1.bin#16"), "{}", said.err);
    assert_eq!(folder.json("run/results.json")["images"], 16);
    assert!(String::from_utf8(folder.read("run/quarantine.jsonl")).unwrap().contains("data_batch_1.bin#16"));
}

#[test]
fn bad_pictures_are_counted_and_listed_and_odd_ones_are_read() {
    let folder = Folder::new();
    folder.pictures("photos", 6);
    // Odd, but pictures.
    folder.write("photos/cmyk.jpg", include_bytes!("../fixtures/ramp_cmyk.jpg"));
    folder.write("photos/progressive.jpg", include_bytes!("../fixtures/ramp_progressive.jpg"));
    folder.write("photos/palette.png", include_bytes!("../fixtures/ramp_palette.png"));
    let deep = image::ImageBuffer::from_fn(9, 5, |x, y| image::Rgb([x as u16 * 7000, y as u16 * 9000, 65535]));
    folder.write("photos/sixteen_bits.png", encode(image::DynamicImage::ImageRgb16(deep), image::ImageFormat::Png));
    folder.write("photos/one_pixel.png", picture(1, 1, 9));
    folder.write("photos/grey.png", encode(image::GrayImage::new(30, 2), image::ImageFormat::Png));
    // Not pictures, or no longer.
    let jpeg = encode(image::RgbImage::new(40, 40), image::ImageFormat::Jpeg);
    folder.write("photos/cut.jpg", &jpeg[..jpeg.len() / 2]);
    let mut damaged = picture(20, 20, 1);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    folder.write("photos/damaged.png", damaged);
    folder.write("photos/empty.jpg", "");
    folder.write("photos/text.jpg", "a picture of a thousand words");
    folder.write("photos/animation.gif", "GIF89a");
    folder.write("photos/notes.txt", "ignored");
    let said = folder.run(&tiny("photos"));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("12 images, unlabelled; 5 bad, set aside; 1 ignored"), "{}", said.err);
    assert!(said.err.contains("... and 2 more"), "{}", said.err);
    assert_eq!(folder.json("run/results.json")["images"], 12);
    let text = String::from_utf8(folder.read("run/quarantine.jsonl")).unwrap();
    let mut listed: Vec<(String, String)> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .inspect(|line| assert!(!line["reason"].as_str().unwrap().is_empty(), "{line}"))
        .map(|line| (line["name"].as_str().unwrap().to_owned(), line["kind"].as_str().unwrap().to_owned()))
        .collect();
    listed.sort();
    let expected = [
        ("animation.gif", "bad"),
        ("cut.jpg", "bad"),
        ("damaged.png", "bad"),
        ("empty.jpg", "bad"),
        ("notes.txt", "ignored"),
        ("text.jpg", "bad"),
    ];
    assert_eq!(listed, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    folder.done("embed run --data photos --out out");
    assert_eq!(folder.read("out/quarantine.jsonl"), text.as_bytes());
}

#[test]
fn options_that_make_no_sense() {
    let folder = Folder::new();
    for (options, parts) in [
        ("--set lerning_rate=1", &["unknown key 'lerning_rate'", "did you mean 'learning_rate'"][..]),
        ("--set learning_rate=1e10", &["learning_rate = 10000000000: must be above 0, to 10"]),
        ("--set learning_rate=fast", &["learning_rate", "expected a number"]),
        ("--preset cifar11", &["unknown preset 'cifar11'", "did you mean 'cifar10'"]),
        ("--batch-size 65", &["64 images do not fill a batch of 65", "--batch-size 64"]),
        ("--batch-size 1", &["batch_size = 1: must be 2 to 65536"]),
        ("--image-size 4", &["image_size = 4: must be 8 to 2048"]),
        ("--epochs 0", &["epochs = 0"]),
        ("--set eval.clusters=65", &["64 images cannot form 65 clusters"]),
        ("--set split=test", &["`shapes` has no train and test parts"]),
        ("--classes circle,squre", &["no class 'squre' in shapes:64", "did you mean 'square'?"]),
        ("--classes circle,square", &["14 images do not fill a batch of 16"]), // 7 of each
        ("--config nowhere.toml", &[]),
    ] {
        let code = if options.contains("--config") { 1 } else { 2 };
        // No option may be given twice.
        let batch = if options.contains("--batch-size") { "" } else { "--batch-size 16" };
        let words = format!("train --data shapes:64 --set base_width=4 --out run {batch} {options}");
        folder.refused(&words, code, parts);
        let dry = folder.run(&format!("{words} --dry-run"));
        // Whether there are as many images as clusters is not known before they are decoded.
        assert_eq!(dry.code, if options.contains("clusters") { 0 } else { code }, "{options}: {}", dry.err);
    }
    // What clap refuses takes more than a line, with the usage.
    for options in ["--data", "--backbone resnet19", "--device gpu", "--seed -1", "--epoch 3", "--batch-size 8"] {
        let said = folder.run(&format!("{TINY} --out run {options}"));
        assert!(said.code == 2 && said.err.starts_with("error: "), "{options}: {}", said.err);
    }
    folder.refused(&TINY.replace("shapes:64", "shapes:1"), 2, &["a contrast needs two"]);
    assert!(folder.names(".").is_empty(), "{:?}", folder.names("."));
}

#[test]
fn models_that_do_not_fit() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    let checkpoint = "run/checkpoint-epoch0001.safetensors";
    folder.refused("eval run --set base_width=8", 1, &[checkpoint, "backbone.conv1.weight", "[4, 3, 7, 7]"]);
    folder.refused("eval run --set backbone=resnet34", 1, &[checkpoint, "is missing: it is of another network"]);
    folder.refused("eval run --clusters 65", 2, &["64 images cannot form 65 clusters"]);
    folder.refused("embed run --data shapes:5 --out out --clusters 6", 2, &["5 images cannot form 6 clusters"]);
    folder.refused("eval nowhere", 2, &["nowhere does not exist"]);
    folder.refused("eval run --data nowhere", 2, &["nowhere does not exist"]);
    std::fs::create_dir(folder.path("empty")).unwrap();
    folder.refused("eval empty", 2, &["empty holds no checkpoint"]);
    folder.refused("embed empty --data shapes:5 --out out", 2, &["empty holds no checkpoint"]);
    let bytes = folder.read(checkpoint);
    folder.write("random.safetensors", (0..5000u32).map(|i| (i * i % 251) as u8).collect::<Vec<_>>());
    folder.refused("eval random.safetensors", 1, &["random.safetensors: not a checkpoint"]);
    folder.write("empty.safetensors", "");
    folder.refused("eval empty.safetensors", 1, &["empty.safetensors: not a checkpoint"]);
    folder.write("cut.safetensors", &bytes[..bytes.len() / 2]);
    folder.refused("eval cut.safetensors", 1, &["cut.safetensors", "cut short or damaged"]);
    let mut flipped = bytes.clone();
    flipped[bytes.len() - 1000] ^= 1;
    folder.write("flipped.safetensors", flipped);
    folder.refused("eval flipped.safetensors", 1, &["flipped.safetensors: checksum mismatch in tensor"]);
    assert!(!folder.path("out").exists());
}

#[test]
fn places_that_cannot_be_written() {
    let folder = Folder::new();
    folder.write("file", "in the way");
    folder.refused(&tiny("shapes:16").replace("--out run", "--out file"), 1, &["cannot create the folder file"]);
    folder.refused(
        &tiny("shapes:16").replace("--out run", "--out file/run"),
        1,
        &["cannot create the folder file/run"],
    );
    folder.refused(&tiny("shapes:16").replace("--out run", "--out /dev/null/run"), 1, &["/dev/null/run"]);
    folder.done(&tiny("shapes:16"));
    folder.refused("embed run --data shapes:16 --out file/out", 1, &["cannot create the folder file/out"]);
    assert_eq!(folder.read("file"), b"in the way");
}

/// Weights so large that the sums of a convolution overflow single precision: what a diverged run looks like.
#[test]
fn a_run_that_diverges_keeps_its_last_checkpoint() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 3 --set keep=0 --out run"));
    ["2", "3"]
        .iter()
        .for_each(|n| std::fs::remove_file(folder.path(&format!("run/checkpoint-epoch000{n}.safetensors"))).unwrap());
    let name = "run/checkpoint-epoch0001.safetensors";
    let mut checkpoint = folder.checkpoint(name);
    checkpoint.tensors.iter_mut().find(|t| t.name == "backbone.conv1.weight").unwrap().data.fill(3e38);
    checkpoint.save(&folder.path(name)).unwrap();
    let before = folder.read(name);
    folder.refused(
        "train --resume --out run",
        1,
        &["the loss is NaN", "in epoch 2, step 1", "the last checkpoint is intact", "learning_rate"],
    );
    assert_eq!(folder.read(name), before);
    assert_eq!(folder.names("run").iter().filter(|name| name.starts_with("checkpoint-")).count(), 1);
    // Steps of the first epoch, its mean, what was measured at its end, and the bad step.
    assert_eq!(folder.metrics("run").len(), 7);
    folder.refused("eval run", 1, &["not finite"]);
}

#[test]
fn readers_that_leave_early() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    for words in
        ["--help", "train --help", "info", "eval run", "eval run --json", "embed run --data shapes:8 --out out"]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_disentangle"));
        command.current_dir(folder.path(".")).args(words.split_whitespace());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(0) && !err.contains("panicked"), "{words}: {:?} {err}", output.status);
    }
    // `2>&1 | head -1`: the run goes on without its reader.
    let mut command = Command::new(env!("CARGO_BIN_EXE_disentangle"));
    command.current_dir(folder.path(".")).args(TINY.split_whitespace());
    command.args(["--epochs", "2", "--set", "log_every=1", "--out", "unread"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(folder.path("unread/results.json").exists());
}
