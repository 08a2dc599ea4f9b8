//! Clusters as a table and as folders.

use std::path::{Path, PathBuf};

use crate::{Folder, TINY, picture};

/// A trained network, and pictures: two of one name in different folders.
fn with_pictures() -> Folder {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    for i in 0..12 {
        folder.write(&format!("photos/{}/{}.png", ["a", "b"][i % 2], i / 2), picture(20, 16, i as u32));
    }
    folder
}

/// Every file below a folder, sorted, relative to it.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { pending.push(path) } else { found.push(path.strip_prefix(root).unwrap().to_path_buf()) }
        }
    }
    found.sort();
    found
}

fn rows(folder: &Folder, name: &str) -> Vec<Vec<String>> {
    let bytes = folder.read(name);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&bytes[..]);
    reader.records().map(|row| row.unwrap().iter().map(String::from).collect()).collect()
}

#[test]
fn images_are_copied_into_a_folder_a_cluster() {
    let folder = with_pictures();
    let said = folder.done("cluster run --data photos --clusters 3 --out clusters.csv --copy-to sorted");
    assert!(said.contains("12 images in 3 clusters") && said.contains("sorted into sorted"), "{said}");
    let rows = rows(&folder, "clusters.csv");
    assert_eq!(rows[0], ["index", "name", "class", "cluster", "confidence"]);
    assert_eq!(rows.len(), 13);
    let mut expected: Vec<(String, Vec<u8>)> = Vec::new();
    for row in &rows[1..] {
        let (cluster, confidence): (u32, f32) = (row[3].parse().unwrap(), row[4].parse().unwrap());
        assert!(cluster < 3 && (0.0..=1.0).contains(&confidence), "{row:?}");
        let stem = row[1].rsplit_once('/').unwrap().1.trim_end_matches(".png");
        let place = |name: String| format!("cluster-{cluster:02}/{name}.png");
        let taken = expected.iter().any(|(path, _)| *path == place(stem.into()));
        let name = if taken { place(format!("{stem}-2")) } else { place(stem.into()) };
        expected.push((name, folder.read(&format!("photos/{}", row[1]))));
    }
    assert_eq!(files(&folder.path("sorted")).len(), 12);
    for (path, bytes) in &expected {
        assert!(folder.read(&format!("sorted/{path}")) == *bytes, "{path}");
    }
    // What is there is never touched.
    folder.refused("cluster run --data photos --clusters 3 --out c.csv --copy-to sorted", 2, &["sorted is not empty"]);
    assert!(!folder.path("c.csv").exists() && files(&folder.path("sorted")).len() == 12);
    std::fs::create_dir(folder.path("empty")).unwrap();
    folder.done("cluster run --data photos --clusters 2 --out t.parquet --copy-to empty");
    assert_eq!(files(&folder.path("empty")).len(), 12);
    assert!(folder.read("t.parquet").starts_with(b"PAR1"));
    // Nothing half-made stays behind.
    assert!(folder.names(".").iter().all(|name| !name.starts_with('.')), "{:?}", folder.names("."));
}

#[test]
fn links_lead_to_the_files_from_wherever_they_are() {
    let folder = with_pictures();
    folder.done("cluster run --data photos --clusters 2 --out c.csv --link-to deep/sorted");
    let absolute = folder.path("photos").display().to_string();
    folder.done(&format!("cluster run --data {absolute} --clusters 2 --out c.csv --link-to absolute"));
    for (place, is_absolute) in [("deep/sorted", false), ("absolute", true)] {
        let links = files(&folder.path(place));
        assert_eq!(links.len(), 12);
        for link in links {
            let path = folder.path(place).join(&link);
            assert_eq!(std::fs::read_link(&path).unwrap().is_absolute(), is_absolute, "{link:?}");
            assert!(image::load_from_memory(&std::fs::read(&path).unwrap()).is_ok(), "{link:?}");
        }
    }
    // Folders that move together keep their links.
    std::fs::create_dir(folder.path("elsewhere")).unwrap();
    for name in ["photos", "deep"] {
        std::fs::rename(folder.path(name), folder.path("elsewhere").join(name)).unwrap();
    }
    let links = files(&folder.path("elsewhere/deep/sorted"));
    assert!(links.iter().all(|link| folder.path("elsewhere/deep/sorted").join(link).exists()));
}

#[test]
fn archives_and_records_are_written_as_files_inside_the_folder() {
    let folder = with_pictures();
    let mut archive = tar::Builder::new(Vec::new());
    for (i, name) in ["x/../../escape.png", "/abs.png", "x/.png", "y/a.png", "z/a.png"].into_iter().enumerate() {
        let bytes = picture(20, 16, i as u32);
        let mut header = tar::Header::new_gnu();
        // Names that the library itself would refuse.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        archive.append(&header, &bytes[..]).unwrap();
    }
    folder.write("in/photos.tar", archive.into_inner().unwrap());
    let refused = ["--link-to", "archive", "--copy-to"];
    folder.refused("cluster run --data in/photos.tar --clusters 2 --out c.csv --link-to in/links", 2, &refused);
    folder.refused("cluster run --data shapes:8 --clusters 2 --out c.csv --link-to in/links", 2, &refused);
    let before = files(&folder.path("."));
    folder.done("cluster run --data in/photos.tar --clusters 2 --out c.csv --copy-to in/sorted");
    let table = rows(&folder, "c.csv");
    let sorted = files(&folder.path("in/sorted"));
    assert_eq!(sorted.len(), table.len() - 1);
    let after = files(&folder.path("."));
    assert_eq!(after.len(), before.len() + sorted.len() + 1, "{after:?}");
    folder.done("cluster run --data shapes:8 --clusters 2 --out c.csv --copy-to records");
    let records = files(&folder.path("records"));
    assert!(records.len() == 8 && records.iter().all(|path| path.extension().unwrap() == "png"), "{records:?}");
}

#[test]
fn a_number_of_clusters_is_proposed_with_its_curve() {
    let folder = with_pictures();
    let said = folder.run("cluster run --data shapes:40 --clusters auto --out c.csv");
    // Whatever is proposed of so little is said with its reason, and the curve is there.
    assert!(
        said.code == 0 && said.out.contains("are proposed")
            || said.code == 2 && said.err.contains("No number of clusters")
    );
    let curve = rows(&folder, "c.curve.csv");
    assert_eq!(curve[0], ["clusters", "silhouette", "without_structure", "difference"]);
    assert_eq!((curve[1][0].as_str(), curve.len()), ("2", 20));
    assert!(String::from_utf8(folder.read("c.curve.svg")).unwrap().starts_with("<svg"));
    assert_eq!(folder.path("c.csv").exists(), said.code == 0);
    for (words, parts) in [
        ("--clusters 1 --out c.csv", ["2 to 65536", "auto"]),
        ("--clusters 3 --out c.txt", [".csv", ".parquet"]),
        ("--clusters 3 --out c.csv --copy-to a --link-to b", ["--copy-to", "--link-to"]),
    ] {
        let said = folder.run(&format!("cluster run --data photos {words}"));
        assert!(said.code == 2 && parts.iter().all(|part| said.err.contains(part)), "{words}: {}", said.err);
    }
    folder.refused("cluster run --data photos --clusters 13 --out c.csv", 2, &["12 images cannot form 13 clusters"]);
}
