//! `pack` and `verify`, training from packed files, and the cache of `train`.

use crate::{Folder, TINY};

/// `train` with a tiny network, without data.
const TRAIN: &str =
    "train --preset images --set base_width=4 --image-size 32 --batch-size 16 --epochs 1 --set eval.restarts=1";

#[test]
fn a_packed_file_trains_to_the_same_bits_as_its_source() {
    let folder = Folder::new();
    folder.pictures("photos", 20);
    folder.write("photos/broken.png", b"\x89PNG\r\n\x1a\n...");
    let said = folder.done("pack photos photos.pack");
    assert!(
        said.contains("20 images (decoded)") && said.contains("next: disentangle train --data photos.pack"),
        "{said}"
    );
    assert!(String::from_utf8(folder.read("photos.pack.quarantine.jsonl")).unwrap().contains("broken.png"));
    assert!(folder.done("verify photos.pack").contains("every byte is right: image folder, 20 images"));
    folder.done(&format!("{TRAIN} --data photos --out a"));
    folder.done(&format!("{TRAIN} --data photos.pack --out b"));
    assert_eq!(folder.metrics("a"), folder.metrics("b"));
    assert_eq!(folder.read("a/quarantine.jsonl"), folder.read("b/quarantine.jsonl"));
    assert_eq!(folder.read("a/quarantine.jsonl").iter().filter(|&&byte| byte == b'\n').count(), 1);
}

#[test]
fn train_packs_once_and_says_so() {
    let folder = Folder::new();
    folder.pictures("photos", 20);
    let first = folder.run(&format!("{TRAIN} --data photos --out a"));
    assert!(
        first.code == 0 && first.err.contains("packing image folder, 20 images, unlabelled once, to "),
        "{}",
        first.err
    );
    let second = folder.run(&format!("{TRAIN} --data photos --out b"));
    assert!(second.code == 0 && !second.err.contains("packing"), "{}", second.err);
    assert_eq!(folder.metrics("a"), folder.metrics("b"));
    // The built-in set is computed, so there is nothing to keep.
    assert!(!folder.run(&format!("{TINY} --epochs 1 --out c")).err.contains("packing"));
}

#[test]
fn without_a_place_for_copies_images_are_held_in_memory() {
    let folder = Folder::new();
    folder.pictures("photos", 20);
    folder.write("../cache", "a file where the folder should be");
    let said = folder.run(&format!("{TRAIN} --data photos --out a"));
    assert!(said.code == 0 && said.err.contains("holding the images in memory"), "{}", said.err);
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let folder = Folder::new();
    folder.write("out.pack", "mine");
    folder.refused("pack shapes:20 out.pack", 2, &["out.pack exists", "--force"]);
    assert_eq!(folder.read("out.pack"), b"mine");
    folder.done("pack shapes:20 out.pack --force");
    folder.done("verify out.pack");
    folder.refused("pack shapes:20 missing/out.pack", 2, &["the folder missing does not exist"]);
    folder.refused("pack shapes:20 .", 2, &["is a folder"]);
    folder.refused("pack nowhere out2.pack", 2, &["nowhere does not exist"]);
    let said = folder.run("pack shapes:20 out2.pack --max-bad 101%");
    assert!(said.code == 2 && said.err.contains("expected a share, such as 1%"), "{}", said.err);
    assert_eq!(folder.names("."), ["out.pack"]);
}

#[test]
fn more_lost_images_than_allowed_stop_a_run() {
    let folder = Folder::new();
    folder.pictures("photos", 38);
    folder.write("photos/broken.png", b"\x89PNG\r\n\x1a\n...");
    folder.write("photos/empty.jpg", b"");
    let parts = ["2 of 40 images cannot be used, more than max_bad = 1%", "broken.png", "--max-bad"];
    folder.refused(&format!("{TRAIN} --data photos --out a --max-bad 1%"), 1, &parts);
    folder.refused("pack photos photos.pack --max-bad 0.01", 1, &parts);
    folder.done(&format!("{TRAIN} --data photos --out a --max-bad 5%"));
    // The copy is there now; the stricter rule holds all the same.
    folder.refused(&format!("{TRAIN} --data photos --out b --max-bad 1%"), 1, &parts);
    assert_eq!(folder.names(".").iter().filter(|name| name.starts_with(['a', 'b'])).count(), 1);
}

#[test]
fn damage_is_found_by_verify_and_never_trained_on() {
    let folder = Folder::new();
    folder.done("pack shapes:64 good.pack");
    let good = folder.read("good.pack");
    let mut flipped = good.clone();
    flipped[300_000] ^= 1;
    folder.write("flipped.pack", &flipped);
    let said = folder.refused("verify flipped.pack", 1, &["flipped.pack", "damaged in 1 place,"]);
    let expected = "damaged between bytes 266240 to 446464: copy or pack it again (27 images, shapes#37 to shapes#63)";
    assert_eq!(said.out.trim(), expected);
    folder.refused(&format!("{TRAIN} --data flipped.pack --out a"), 1, &["flipped.pack", "damaged between"]);
    for length in [0, 100, 5000, good.len() - 1] {
        folder.write("cut.pack", &good[..length]);
        folder.refused("verify cut.pack", 1, &["cut.pack"]);
    }
    folder.refused(&format!("{TRAIN} --data cut.pack --out a"), 1, &["cut.pack", "bytes long"]);
    folder.refused("verify nowhere.pack", 1, &["nowhere.pack"]);
    folder.refused(&format!("{TRAIN} --data good.pack --set split=test --out a"), 2, &["has no train and test parts"]);
}

#[test]
fn payloads_and_sizes() {
    let folder = Folder::new();
    folder.pictures("photos", 5);
    let raw = folder.done("pack photos shapes:10 both.pack --resize-short 8");
    assert!(raw.contains("15 images (decoded)"), "{raw}");
    // 20 x 16 becomes 10 x 8, 64 x 64 becomes 8 x 8.
    assert_eq!(folder.read("both.pack")[24..32], (5 * 10 * 8 * 3 + 10 * 8 * 8 * 3u64).to_le_bytes());
    let jpeg = folder.done("pack photos jpeg.pack --payload jpeg");
    assert!(jpeg.contains("(0 as JPEG, 5 decoded)"), "{jpeg}");
}
