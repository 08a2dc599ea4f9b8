//! Data that vanish while a run reads them.

use crate::{Place, said, start};

/// 60 epochs of 4 steps: long enough to lose its data in the middle.
const LONGER: &str = "train --set base_width=4 --image-size 16 --batch-size 16 --epochs 60 --device cpu --threads 2 --set eval.every=0 --set report=false \
                      --set eval.restarts=1 --checkpoint-every 8steps --out run";

/// Fills the folder `pictures` with 64 pictures, no two alike.
fn pictures(place: &Place) {
    std::fs::create_dir_all(place.path("pictures")).unwrap();
    for i in 0..64u32 {
        let colour =
            |x: u32, y: u32| image::Rgb([x * 12 + i * 31, y * 15 + i * 57, (x * y + i * 83) * 3].map(|v| v as u8));
        image::RgbImage::from_fn(20, 16, colour).save(place.path(&format!("pictures/{i:02}.png"))).unwrap();
    }
}

#[test]
fn a_packed_file_that_is_cut_short_ends_the_run_and_nothing_else() {
    let place = Place::new();
    pictures(&place);
    place.done("pack pictures set.pack");
    let train = format!("{LONGER} --data set.pack");
    place.done(&train);
    let whole = std::fs::read(place.path("set.pack")).unwrap();

    let cut = Place::new();
    std::fs::write(cut.path("set.pack"), &whole).unwrap();
    let child = start(cut.command(&train, ""), &cut.path("run/metrics.jsonl"), 20);
    std::fs::File::options().write(true).open(cut.path("set.pack")).unwrap().set_len(4096).unwrap();
    said(child, &train).expect(1, &["error: ", "set.pack", "cut short"]);
    assert!(!cut.checkpoints().is_empty());
    // Without the data there is nothing to resume; with them it goes on as if nothing had been.
    cut.run("train --resume --out run", "").expect(1, &["set.pack"]);
    std::fs::write(cut.path("set.pack"), &whole).unwrap();
    cut.done("train --resume --out run");
    place.assert_same_run(&cut, "cut short");
}

#[test]
fn pictures_that_are_removed_while_a_run_reads_them_are_in_its_copy() {
    let place = Place::new();
    pictures(&place);
    let train = format!("{LONGER} --data pictures");
    place.done(&train);
    let other = Place::new();
    pictures(&other);
    let child = start(other.command(&train, ""), &other.path("run/metrics.jsonl"), 20);
    std::fs::remove_dir_all(other.path("pictures")).unwrap();
    said(child, &train).expect(0, &[]);
    place.assert_same_run(&other, "removed");
}
