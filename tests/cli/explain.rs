//! `explain`: pictures and numbers of what heads look at.

use serde_json::Value;

use crate::{Folder, TINY, picture};

#[test]
fn explain_draws_images_and_writes_what_it_found() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    let common = "explain run --data shapes:40 --samples 60 --superpixels 9 --device cpu";
    let said = folder.done(&format!("{common} --images 2 --above 0 --out a --threads 1"));
    assert!(said.contains("2 images explained"), "{said}");
    assert_eq!(folder.names("a"), ["explain.json", "image-000.png", "image-001.png"]);
    let json = folder.json("a/explain.json");
    assert_eq!((&json["heads"], &json["lime"]["samples"]), (&16.into(), &60.into()));
    let images = json["images"].as_array().unwrap();
    for image in images {
        // Every head is above 0: the five highest, highest first.
        let outputs: Vec<f64> =
            image["explanations"].as_array().unwrap().iter().map(|e| e["output"].as_f64().unwrap()).collect();
        assert!(outputs.len() == 5 && outputs.is_sorted_by(|a, b| a >= b) && image["above"] == true, "{outputs:?}");
        let weights = image["explanations"][0]["weights"].as_array().unwrap().len();
        assert_eq!(image["superpixels"].as_array().unwrap().len(), weights);
        let name = format!("shapes#{}", image["index"]);
        assert_eq!(image["name"], name.as_str());
    }
    // The same at any number of threads; another seed takes other images.
    folder.done(&format!("{common} --images 2 --above 0 --out b --threads 2"));
    assert!(folder.names("a").iter().all(|f| folder.read(&format!("a/{f}")) == folder.read(&format!("b/{f}"))));
    folder.done(&format!("{common} --images 2 --above 0 --out c --seed 1"));
    assert_ne!(folder.json("c/explain.json")["images"], json["images"]);
    // The output is the network's own.
    folder.done("embed run --data shapes:40 --out e --device cpu");
    let bytes = folder.read("e/y.npy");
    let y: Vec<f32> = npyz::NpyFile::new(&bytes[..]).unwrap().into_vec().unwrap();
    let first = &images[0]["explanations"][0];
    let [index, head] = [&images[0]["index"], &first["head"]].map(|v| v.as_u64().unwrap() as usize);
    // The batch differs, and with it the order of sums.
    assert!((f64::from(y[16 * index + head]) - first["output"].as_f64().unwrap()).abs() < 1e-5);
}

#[test]
fn explain_takes_heads_and_files_and_says_when_none_is_on() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    let common = "explain run --samples 40 --superpixels 9 --device cpu";
    folder.done(&format!("{common} --data shapes:40 --heads 3,0 --images 2 --above 0"));
    let names = folder.names("run/explain");
    assert!(
        ["heads-masked.png", "heads-occlusion.png", "heads-outlined.png"].iter().all(|n| names.contains(&(*n).into()))
    );
    let json: Value = folder.json("run/explain/explain.json");
    let images = json["images"].as_array().unwrap();
    let heads: Vec<&Value> =
        images.iter().flat_map(|i| i["explanations"].as_array().unwrap()).map(|e| &e["head"]).collect();
    assert!(heads.iter().filter(|&&h| h == 3).count() == 2 && heads.iter().filter(|&&h| h == 0).count() == 2);
    // No head reaches 0.999 after one epoch: the highest is taken, and it is said.
    folder.write("one.png", picture(50, 20, 1));
    let said = folder.done(&format!("{common} --image one.png --above 0.999 --out d"));
    assert!(said.contains("none is above the limit, this is the highest"), "{said}");
    let image = &folder.json("d/explain.json")["images"][0];
    assert!(
        image["above"] == false && image["explanations"].as_array().unwrap().len() == 1 && image["index"].is_null()
    );
    let refused = |words: &str, code, part: &str| {
        drop(folder.refused(&format!("explain run --samples 40 --device cpu {words}"), code, &[part]))
    };
    refused("--data shapes:10 --heads 16", 2, "heads are 0 to 15");
    refused("--data shapes:10 --superpixels 2000", 2, "superpixels");
    refused("--data shapes:10 --above 1.5", 2, "outputs are between 0 and 1");
    refused("--image missing.png", 1, "missing.png");
    folder.write("text.png", "no picture");
    refused("--image text.png", 1, "text.png");
}
