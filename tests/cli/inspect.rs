//! `inspect`: the report in words and numbers, and its pictures.

use std::sync::Arc;

use disentangle::config::Overrides;
use disentangle::data::loader::{Loader, LoaderConfig, Position};
use disentangle::data::{Dataset, GatherOptions, SourceOptions, source};
use disentangle::inspect::pictures::{CONTACT_CELL, views_layout};
use disentangle::inspect::sheet::Layout;
use image::RgbImage;
use serde_json::{Value, json};

use crate::{Folder, encode, picture};

/// A PNG of one colour.
fn plain(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    encode(RgbImage::from_pixel(width, height, image::Rgb(colour)), image::ImageFormat::Png)
}

fn json_of(folder: &Folder, words: &str) -> Value {
    serde_json::from_str(&folder.done(&format!("inspect {words} --json"))).unwrap()
}

fn png(folder: &Folder, name: &str) -> RgbImage {
    image::load_from_memory(&folder.read(name)).unwrap().into_rgb8()
}

/// The pixel in the middle of a cell.
fn middle(sheet: &RgbImage, layout: &Layout, row: usize, column: usize) -> [u8; 3] {
    let (x, y) = layout.origin(row, column);
    sheet.get_pixel((x + layout.cell / 2) as u32, (y + layout.cell / 2) as u32).0
}

/// Two classes, sizes, a duplicate within a class and one across, grey pictures, and things that are no pictures.
fn odd_folder() -> Folder {
    let folder = Folder::new();
    folder.write("set/cats/a.png", plain(20, 10, [255, 0, 0]));
    folder.write("set/cats/b.png", plain(20, 10, [255, 0, 0]));
    folder.write("set/cats/c.PNG", plain(10, 30, [7, 7, 7]));
    folder.write("set/dogs/d.png", plain(20, 10, [255, 0, 0]));
    folder.write("set/dogs/e.png", plain(10, 30, [8, 8, 8]));
    folder.write("set/dogs/f.png", plain(10, 30, [8, 8, 8]));
    let jpeg = encode(image::RgbImage::new(40, 40), image::ImageFormat::Jpeg);
    folder.write("set/dogs/cut.jpg", &jpeg[..jpeg.len() - 2]);
    folder.write("set/dogs/empty.png", "");
    folder.write("set/dogs/void.png", "");
    folder.write("set/notes.txt", "");
    folder
}

#[test]
fn the_report_in_numbers() {
    let folder = odd_folder();
    let report = json_of(&folder, "set");
    assert_eq!(report["images"], 6);
    assert_eq!(report["classes"], json!([{"name": "cats", "images": 3}, {"name": "dogs", "images": 3}]));
    assert_eq!(report["unlabelled"], 0);
    assert_eq!(report["kinds"], json!({"PNG RGB 8": 6}));
    assert_eq!(report["width"], json!({"min": 10, "median": 20, "max": 20}));
    assert_eq!(report["height"], json!({"min": 10, "median": 30, "max": 30}));
    assert_eq!((&report["distinct_sizes"], &report["grey"]), (&json!(2), &json!(3)));
    assert_eq!(report["sizes"][0]["images"], 3);
    // Red 3 x 200 pixels; grey 300 of 7, 600 of 8.
    let sum = 600.0 * 255.0 + 300.0 * 7.0 + 600.0 * 8.0;
    let squares = 600.0 * 255.0f64.powi(2) + 300.0 * 49.0 + 600.0 * 64.0;
    let mean: f64 = sum / 1500.0;
    let close = |value: &Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 1e-12;
    assert!(close(&report["mean"][0], mean / 255.0), "{}", report["mean"]);
    assert!(close(&report["std"][0], (squares / 1500.0 - mean * mean).sqrt() / 255.0), "{}", report["std"]);
    let duplicates = json!([["cats/a.png", "cats/b.png", "dogs/d.png"], ["dogs/e.png", "dogs/f.png"]]);
    assert_eq!((&report["duplicates"], &report["conflicting_duplicates"]), (&duplicates, &json!(1)));
    let excluded = report["excluded"].as_array().unwrap();
    let names: Vec<&str> = excluded.iter().map(|excluded| excluded["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["notes.txt", "dogs/cut.jpg", "dogs/empty.png", "dogs/void.png"]);
    assert!(report.get("grid").is_none() && report.get("views").is_none());
    assert_eq!(report, json_of(&folder, "set --threads 1"));
}

#[test]
fn the_report_in_words() {
    let folder = odd_folder();
    let text = folder.done("inspect set");
    for part in [
        "image folder, 6 images, 2 classes; 3 bad, set aside; 1 ignored",
        "classes     cats 3, dogs 3\n",
        "sizes       width 10 to 20, median 20; height 10 to 30, median 30; 2 sizes, most often",
        "colour      3 in colour, 3 grey\n",
        "stored as   6 PNG RGB 8 bit\n",
        "duplicates  3 images repeat another one's pixels (2 groups, 1 of them in different classes)\n",
        "  cats/a.png = cats/b.png = dogs/d.png\n",
        "bad         3\n  2 x the file is empty: dogs/empty.png, dogs/void.png\n",
        "ignored     1\n  1 x ",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    folder.pictures("flat", 5);
    let text = folder.done("inspect flat");
    for part in ["5 images, unlabelled", "sizes       20 x 16, all\n", "all in colour", "duplicates  none\n"] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    assert!(!text.contains("classes  ") && !text.contains("bad  "), "{text}");
    let text = folder.done("inspect shapes:40 flat");
    assert!(text.contains("45 images") && text.contains("; 5 images without a class"), "{text}");
}

#[test]
fn a_set_that_is_mostly_bad_is_what_one_inspects() {
    let folder = Folder::new();
    folder.pictures("set", 1);
    (0..9).for_each(|i| folder.write(&format!("set/bad{i}.jpg"), "no JPEG"));
    let report = json_of(&folder, "set");
    assert_eq!((&report["images"], report["excluded"].as_array().unwrap().len()), (&json!(1), 9));
}

#[test]
fn a_contact_sheet_with_a_row_a_class() {
    let folder = odd_folder();
    let grid = json_of(&folder, "set --grid grid.png --columns 2")["grid"].clone();
    assert_eq!(grid["path"], "grid.png");
    let row = |caption: &str, images: [&str; 2]| json!({"caption": caption, "images": images});
    let rows = [row("cats", ["cats/a.png", "cats/b.png"]), row("dogs", ["dogs/d.png", "dogs/e.png"])];
    assert_eq!(grid["rows"], json!(rows));
    let layout = Layout { columns: 2, group: 2, rows: 2, cell: CONTACT_CELL };
    let sheet = png(&folder, "grid.png");
    assert_eq!((sheet.width() as usize, sheet.height() as usize), (layout.size().width, layout.size().height));
    assert_eq!(middle(&sheet, &layout, 0, 0), [255, 0, 0]);
    assert_eq!(middle(&sheet, &layout, 1, 1), [8, 8, 8]);
    // 20 x 10 is drawn 4 times as large, in the middle of 96: columns 8 to 87, rows 28 to 67.
    let (x, y) = layout.origin(0, 0);
    let at = |dx: usize, dy: usize| sheet.get_pixel((x + dx) as u32, (y + dy) as u32).0;
    let red = [255, 0, 0];
    assert!(at(8, 28) == red && at(87, 67) == red && at(7, 28) != red && at(88, 67) != red && at(8, 27) != red);
}

#[test]
fn a_contact_sheet_without_classes() {
    let folder = Folder::new();
    folder.pictures("flat", 25);
    let grid = json_of(&folder, "flat --grid grid.png --columns 4 --rows 3")["grid"].clone();
    let shown: Vec<&str> = grid["rows"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row["images"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    let expected: Vec<String> = (0..12).map(|i| format!("{:02}.png", i * 25 / 12)).collect();
    assert_eq!(shown, expected);
    let size = Layout { columns: 4, group: 4, rows: 3, cell: CONTACT_CELL }.size();
    assert_eq!(png(&folder, "grid.png").dimensions(), (size.width as u32, size.height as u32));
    // Fewer images than cells, one larger than a cell, one a line: all there, within their cells.
    folder.write("three/a.png", picture(300, 200, 1));
    folder.write("three/b.png", picture(1, 500, 2));
    folder.write("three/c.png", picture(96, 96, 3));
    folder.done("inspect three --grid grid.png");
    let size = Layout { columns: 3, group: 3, rows: 1, cell: CONTACT_CELL }.size();
    assert_eq!(png(&folder, "grid.png").dimensions(), (size.width as u32, size.height as u32));
}

/// Every view on the sheet is the loader's, byte for byte.
#[test]
fn views_are_what_the_network_sees() {
    let folder = Folder::new();
    folder.pictures("flat", 7);
    for (options, side, samples) in [("--image-size 24 --samples 3 --seed 7", 24, 3), ("--image-size 200", 200, 7)] {
        let words = format!("flat {options} --set augment.blur=0.5 --set split=all --preset cifar10 --views views.png");
        let shown: Vec<usize> = json_of(&folder, &words)["views"]["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["images"][0].as_str().unwrap()[..2].parse().unwrap())
            .collect();
        assert_eq!(shown.len(), samples);
        let sheet = png(&folder, "views.png");
        let layout = views_layout(samples, side);
        assert_eq!(sheet.dimensions(), (layout.size().width as u32, layout.size().height as u32));

        let source = source::open(folder.path("flat").to_str().unwrap(), &SourceOptions::default()).unwrap();
        let dataset = Arc::new(Dataset::load(source, &GatherOptions::default(), &|_, _| ()).unwrap());
        let options = vec![("data", "flat".into()), ("preset", "cifar10".into())];
        let overrides = Overrides { file: None, options, set: vec!["augment.blur=0.5".into()] };
        let augment = overrides.resolve().unwrap().augment;
        let seed = if samples == 3 { 7 } else { 42 };
        let start = Position { epoch: 0, step: 0 };
        let config = LoaderConfig { seed, batch_size: 7, image_size: side, augment, start, epochs: 1 };
        let slots = config.plain_slots();
        let batch = Loader::start(dataset, config, slots).unwrap().next_batch().unwrap().unwrap();
        for (sample, image) in shown.into_iter().enumerate() {
            let place = batch.samples.iter().position(|&other| other == image).unwrap();
            for view in 0..2 {
                let bytes = 3 * side * side;
                let expected = &batch.views[(view * 7 + place) * bytes..][..bytes];
                let (x, y) = layout.origin(sample / 2, 3 * (sample % 2) + 1 + view);
                let factor = layout.cell / side;
                let pixel = |i: usize| {
                    sheet.get_pixel((x + i % side * factor) as u32, (y + i / side * factor + factor - 1) as u32).0
                };
                let drawn: Vec<u8> = (0..side * side).flat_map(pixel).collect();
                assert!(drawn == expected, "view {view} of image {image} at {side} px");
            }
        }
    }
}

#[test]
fn what_cannot_be_inspected_or_drawn() {
    let folder = Folder::new();
    folder.pictures("flat", 3);
    folder.refused("inspect nowhere", 2, &["nowhere does not exist"]);
    folder.refused("inspect flat --grid grid.jpg", 2, &["grid.jpg", "ends in .png"]);
    folder.refused("inspect flat --views views", 2, &["views", "ends in .png"]);
    folder.refused("inspect flat --grid nowhere/grid.png", 1, &["nowhere/grid.png"]);
    folder.refused("inspect flat --set split=test", 2, &["test"]);
    folder.refused("inspect flat --preset cifar11", 2, &["did you mean 'cifar10'"]);
    folder.refused(
        "inspect shapes:40 --image-size 2048 --samples 40 --views v.png",
        2,
        &["too large", "fewer pictures"],
    );
    for words in ["", "flat --rows 0", "flat --columns 101", "flat --samples 0", "flat --json=yes"] {
        assert_eq!(folder.run(&format!("inspect {words}")).code, 2, "{words}");
    }
    assert_eq!(folder.names("."), ["flat"]);
    // Pictures replace what had their name.
    folder.write("grid.png", "old");
    folder.done("inspect flat --grid grid.png");
    assert_eq!(
        png(&folder, "grid.png").height() as usize,
        Layout { columns: 3, group: 3, rows: 1, cell: 96 }.size().height
    );
}
