//! Using a trained network: `eval`, `embed`, and data without labels.

use serde_json::Value;

use crate::{Folder, TINY, picture};

#[test]
fn eval_gives_the_scores_of_the_run() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    let json: Value = serde_json::from_str(&folder.done("eval run --json")).unwrap();
    assert_eq!(json, folder.json("run/results.json"));
    assert_eq!(json["images"], 64);
    for row in ["pixels", "backbone", "feature"] {
        for score in ["nmi", "ari", "acc"] {
            let value = json[row][score].as_f64();
            assert!(value.is_some_and(|value| (-1.0..=1.0).contains(&value)), "{row}.{score}: {value:?}");
        }
    }
    assert_eq!(
        folder.done("eval run/checkpoint-epoch0001.safetensors --json --threads 1"),
        folder.done("eval run --json")
    );
    let table = folder.done("eval run");
    ["raw pixels", "untrained network", "backbone", "feature"].iter().for_each(|row| assert!(table.contains(row)));
    // Another k: the baselines of the run do not count any more.
    let three: Value = serde_json::from_str(&folder.done("eval run --clusters 3 --json")).unwrap();
    assert_eq!((&three["clusters"], &three["untrained"]), (&3.into(), &Value::Null));
    assert_ne!(three["backbone"], json["backbone"]);
    // Other data.
    let other: Value = serde_json::from_str(&folder.done("eval run --data shapes:50 --json")).unwrap();
    assert_eq!((&other["images"], &other["untrained"]), (&50.into(), &Value::Null));
    assert!(other["pixels"]["nmi"].is_f64());
    assert_eq!(folder.names("run").len(), 8, "eval writes nothing");
}

/// The rows and columns of a float32 array, and its numbers.
fn read_npy(bytes: &[u8]) -> (Vec<u64>, Vec<f32>) {
    let file = npyz::NpyFile::new(bytes).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

fn read_csv(bytes: &[u8]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().unwrap().iter().map(String::from).collect();
    (header, reader.records().map(|row| row.unwrap().iter().map(String::from).collect()).collect())
}

#[test]
fn embed_writes_arrays_and_a_table() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    let text = folder.done("embed run --data shapes:40 --out deep/embeddings");
    assert!(text.contains("40 images") && text.contains("deep/embeddings"), "{text}");
    assert_eq!(folder.names("deep/embeddings"), ["embeddings.parquet", "h.npy", "samples.csv", "y.npy", "z.npy"]);
    for (name, columns) in [("h", 32), ("z", 16), ("y", 16)] {
        let (shape, values) = read_npy(&folder.read(&format!("deep/embeddings/{name}.npy")));
        assert_eq!(shape, [40, columns]);
        assert!(values.iter().all(|v| v.is_finite()) && (name != "y" || values.iter().all(|&v| v > 0.0 && v < 1.0)));
    }
    let (header, rows) = read_csv(&folder.read("deep/embeddings/samples.csv"));
    assert_eq!(header, ["index", "name", "label", "class", "cluster_h", "cluster_y"]);
    assert_eq!(rows.len(), 40);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!((&row[0], &row[1]), (&i.to_string(), &format!("shapes#{i}")));
        assert!(row[2].parse::<u32>().unwrap() < 10 && !row[3].is_empty());
        assert!(row[4..].iter().all(|cluster| cluster.parse::<u32>().unwrap() < 10), "{row:?}");
    }
    // A row does not depend on the images beside it.
    folder.done("embed run/checkpoint-epoch0001.safetensors --data shapes:40 --out again --clusters 3");
    assert_eq!(folder.read("again/h.npy"), folder.read("deep/embeddings/h.npy"));
    folder.done("embed run --data shapes:7 --out few --clusters 2");
    let (all, few) = (read_npy(&folder.read("again/h.npy")).1, read_npy(&folder.read("few/h.npy")).1);
    // The same sums in products of another size: their order may differ, by some roundings of 2^-24.
    let largest = all.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(few.iter().zip(&all).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
}

/// Whether a score is told somewhere in `text`.
fn tells_scores(text: &str) -> bool {
    ["NMI", "nmi", "ARI", "acc\"", "ACC"].iter().any(|word| text.contains(word))
}

#[test]
fn images_without_labels_get_no_scores() {
    let folder = Folder::new();
    folder.pictures("photos", 24);
    let tiny = TINY.replace("shapes:64", "photos").replace("--batch-size 16", "--batch-size 8");
    let said = folder.run(&format!("{tiny} --epochs 2 --set eval.every=1 --out run"));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("24 images without labels: no scores") && said.err.contains("unlabelled"), "{said:?}");
    assert!(!tells_scores(&said.out) && !tells_scores(&said.err), "{said:?}");
    for name in ["results.json", "metrics.jsonl"] {
        let text = String::from_utf8(folder.read(&format!("run/{name}"))).unwrap();
        assert!(!tells_scores(&text), "{name}: {text}");
    }
    let json: Value = serde_json::from_str(&folder.done("eval run --json")).unwrap();
    assert_eq!(json, folder.json("run/results.json"));
    assert_eq!((&json["images"], &json["clusters"]), (&24.into(), &Value::Null));
    // With a number of clusters: clusters, but still nothing to score them by.
    let text = folder.done("eval run --clusters 6");
    assert!(text.contains("6 clusters") && !tells_scores(&text), "{text}");
    let sizes = text.rsplit_once("images in each: ").unwrap().1.trim().split(", ");
    assert_eq!(sizes.map(|n| n.parse::<u32>().unwrap()).sum::<u32>(), 24);
    let json: Value = serde_json::from_str(&folder.done("eval run --clusters 6 --json")).unwrap();
    assert_eq!((&json["clusters"], &json["backbone"], &json["pixels"]), (&6.into(), &Value::Null, &Value::Null));
    folder.done("embed run --data photos --out without");
    let (header, rows) = read_csv(&folder.read("without/samples.csv"));
    assert_eq!(header, ["index", "name", "label", "class"]);
    assert!(rows.len() == 24 && rows[3] == ["3", "03.png", "", ""], "{:?}", rows[3]);
    folder.done("embed run --data photos --out with --clusters 6");
    let (header, rows) = read_csv(&folder.read("with/samples.csv"));
    assert_eq!(header[4..], ["cluster_h", "cluster_y"]);
    assert!(rows.iter().all(|row| row[4].parse::<u32>().unwrap() < 6));
}

#[test]
fn classes_come_from_folders_and_sources_join() {
    let folder = Folder::new();
    for (class, seed) in [("cats", 0), ("dogs", 100)] {
        (0..8).for_each(|i| folder.write(&format!("pets/{class}/{i}.png"), picture(24, 24, seed + i)));
    }
    let tiny = TINY.replace("shapes:64", "pets").replace("--batch-size 16", "--batch-size 8");
    folder.done(&format!("{tiny} --epochs 1 --out run"));
    let results = folder.json("run/results.json");
    assert_eq!((&results["images"], &results["clusters"]), (&16.into(), &2.into()));
    folder.done("embed run --data pets/cats --data shapes:5 --out both");
    let (_, rows) = read_csv(&folder.read("both/samples.csv"));
    assert_eq!(rows.len(), 13);
}

#[test]
fn a_single_image_can_be_embedded() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    folder.write("one/pixel.png", picture(1, 1, 3));
    folder.done("embed run --data one --out out");
    assert_eq!(read_npy(&folder.read("out/h.npy")).0, [1, 32]);
    let json: Value = serde_json::from_str(&folder.done("eval run --data one --json")).unwrap();
    assert_eq!(json["images"], 1);
}
