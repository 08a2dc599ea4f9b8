//! What a run learned as a page, as figures and as tables.

use std::collections::BTreeSet;

use base64::Engine as _;
use disentangle::tensorboard;

use crate::{Folder, TINY, picture};

/// [`TINY`] with a report at the end.
pub fn reported() -> String {
    format!("{TINY} --set report=true")
}

/// The values of an attribute, in the order of the page.
pub fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let mark = format!(" {name}=\"");
    html.split(&mark).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// A page without its pictures, in whose letters any word may occur.
fn without_pictures(html: &str) -> String {
    let mut parts = html.split("base64,");
    let first = parts.next().unwrap_or_default().to_owned();
    let coded = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    parts.fold(first, |text, part| text + part.trim_start_matches(coded))
}

fn page(folder: &Folder, name: &str) -> String {
    String::from_utf8(folder.read(name)).unwrap()
}

/// Ids of the page's sections.
fn sections(html: &str) -> Vec<&str> {
    html.split("<section id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn training_ends_with_a_report() {
    let folder = Folder::new();
    let said = folder.run(&format!("{} --epochs 2 --set eval.every=1 --out run", reported()));
    assert!(said.code == 0 && said.out.contains("report: run/report.html"), "{said:?}");
    let html = page(&folder, "run/report.html");
    let expected = ["configuration", "data", "scores", "training", "maps", "clusters", "neighbours", "heads", "method"];
    assert_eq!(sections(&html), expected);
    for figure in [
        "score-nmi",
        "score-ari",
        "score-acc",
        "loss",
        "loss-instance",
        "loss-feature",
        "entropy",
        "learning-rate",
        "gradient",
        "throughput",
        "effective-rank",
        "head-deviation",
        "tsne-h-cluster",
        "tsne-h-class",
        "tsne-y-cluster",
        "tsne-y-class",
        "confusion",
        "heads",
    ] {
        assert!(html.contains(&format!("<figure id=\"{figure}\"")), "no figure {figure}");
    }
    assert!(!without_pictures(&html).contains("NaN") && !html.contains("http-equiv=\"refresh\""));
    // Nothing went wrong: that the run was looked at for a collapse is no warning.
    assert!(!html.contains("class=\"warning\""));
    // Nothing is fetched from anywhere.
    for name in ["src", "href", "xlink:href"] {
        let outside =
            attributes(&html, name).into_iter().find(|link| !link.starts_with("data:") && !link.starts_with('#'));
        assert_eq!(outside, None);
    }
    for row in ["raw pixels", "untrained network", "backbone h", "feature heads y", "Mutual information", "MIG"] {
        assert!(html.contains(row), "no {row}");
    }
    assert!(!html.contains("paper:"), "figures of another data set");
    assert_eq!(attributes(&html, "data-cluster").len(), 10);
    assert_eq!(attributes(&html, "data-head").len(), 16);
    // The table has a line a record.
    let table = page(&folder, "run/metrics.csv");
    assert_eq!(table.lines().count(), 1 + folder.metrics("run").len());
    assert!(
        table.starts_with("kind,epoch,step,") && table.lines().next().unwrap().split(',').any(|name| name == "loss")
    );
    assert!(folder.names("run/tensorboard").contains(&tensorboard::FILE.to_owned()));

    // The command gives the same page, and the figures as files, each drawn.
    let said = folder.done("report run --figures figures --out again.html");
    assert!(said.contains("again.html") && said.contains("figures"), "{said}");
    let again = page(&folder, "again.html");
    let name = "checkpoint-epoch0002.safetensors";
    assert!(again.contains(name) && again.replace(name, "as it was after epoch 2") == html);
    let names = folder.names("figures");
    let shown = attributes(&html, "id").into_iter().filter(|id| html.contains(&format!("<figure id=\"{id}\"")));
    for id in shown.chain(["cluster-00", "neighbours"]) {
        assert!(names.contains(&format!("{id}.svg")), "no {id}.svg");
        let drawn = image::load_from_memory(&folder.read(&format!("figures/{id}.png"))).unwrap().into_rgb8();
        let colours: BTreeSet<[u8; 3]> = drawn.pixels().map(|p| p.0).collect();
        assert!(drawn.width() >= 400 && colours.len() > 10, "{id}: {} colours", colours.len());
    }
    // A report that cannot be written does not make a training fail.
    folder.write("blocked/report.html/file", "");
    let said = folder.run(&format!("{} --epochs 1 --out blocked", reported()));
    assert!(said.code == 0 && said.err.contains("no report: ") && !said.out.contains("report: "), "{said:?}");
}

/// The thumbnails in a page: RGB tiles in the order of the sheet.
struct Sheet {
    picture: image::RgbImage,
    side: u32,
}

impl Sheet {
    fn of(html: &str) -> Sheet {
        let uri = html.split("url(data:image/jpeg;base64,").nth(1).unwrap().split(')').next().unwrap();
        let jpeg = base64::engine::general_purpose::STANDARD.decode(uri).unwrap();
        let side = html.split(".t{--side:").nth(1).unwrap().split(';').next().unwrap();
        Sheet { picture: image::load_from_memory(&jpeg).unwrap().into_rgb8(), side: side.parse().unwrap() }
    }

    /// The picture in a tile.
    fn tile(&self, x: u32, y: u32) -> image::RgbImage {
        let at = |i: u32| i * (self.side + 2) + 1;
        image::imageops::crop_imm(&self.picture, at(x), at(y), self.side, self.side).to_image()
    }
}

/// Sum of squared differences.
fn distance(a: &image::RgbImage, b: &image::RgbImage) -> u64 {
    a.as_raw().iter().zip(b.as_raw()).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum()
}

#[test]
fn every_thumbnail_shows_the_image_it_claims() {
    let folder = Folder::new();
    folder.pictures("photos", 30);
    let words = reported().replace("shapes:64", "photos").replace("--batch-size 16", "--batch-size 8");
    folder.done(&format!("{words} --epochs 1 --set eval.clusters=3 --out run"));
    let html = page(&folder, "run/report.html");
    let sheet = Sheet::of(&html);
    // The images as they are, small: a picture of 20 x 16 lies in the middle of its square.
    let originals: Vec<image::RgbImage> = (0..30)
        .map(|i| {
            let image = image::load_from_memory(&picture(20, 16, i)).unwrap().into_rgb8();
            let inner = image::imageops::resize(&image, sheet.side, sheet.side * 16 / 20, image::imageops::Triangle);
            let mut tile = image::RgbImage::from_pixel(sheet.side, sheet.side, image::Rgb([128; 3]));
            image::imageops::overlay(&mut tile, &inner, 0, i64::from((sheet.side - inner.height()) / 2));
            tile
        })
        .collect();
    let mut seen = BTreeSet::new();
    for tag in html.split("<i class=\"t\" role=\"img\" ").skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let tag = format!(" {tag}");
        let id: usize = attributes(&tag, "data-image")[0].parse().unwrap();
        let style: Vec<u32> = attributes(&tag, "style")[0]
            .split(';')
            .map(|part| part.split(':').nth(1).unwrap().parse().unwrap())
            .collect();
        let tile = sheet.tile(style[0], style[1]);
        let nearest = (0..30).min_by_key(|&i| distance(&tile, &originals[i])).unwrap();
        assert_eq!(nearest, id, "{tag}");
        assert!(attributes(&tag, "title")[0].starts_with(&format!("{id:02}.png")), "{tag}");
        seen.insert(id);
    }
    assert_eq!(seen.len(), 30);
    // Every image is in one cluster, and each card's central images come before its doubtful ones.
    let sizes: Vec<usize> = html
        .split("Cluster ")
        .filter_map(|rest| rest.split_once(": ")?.1.split_once(" image")?.0.parse().ok())
        .collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (3, 30));
}

#[test]
fn images_without_labels_get_a_full_report_with_nothing_invented() {
    let folder = Folder::new();
    folder.pictures("photos", 20);
    let hostile = ["<img src=x onerror=alert(1)>.png", "\"' onload='x.png", "&lt;b&gt;.png", "</script><b>.png"];
    // A slash is no part of a file's name.
    hostile.iter().enumerate().for_each(|(i, name)| {
        folder.write(&format!("photos/{}", name.replace('/', "∕")), picture(20, 16, 90 + i as u32));
    });
    let words = reported().replace("shapes:64", "photos").replace("--batch-size 16", "--batch-size 8");
    folder.done(&format!("{words} --epochs 1 --out run"));
    let html = page(&folder, "run/report.html");
    assert_eq!(
        sections(&html),
        ["configuration", "data", "training", "maps", "clusters", "neighbours", "heads", "method"]
    );
    for invented in
        ["NMI", "ARI", "ACC", "NaN", "undefined", "confusion", "by class", "Mutual information", "raw pixels"]
    {
        assert!(!without_pictures(&html).contains(invented), "{invented}");
    }
    assert!(html.contains("The images have no classes"));
    assert!(html.contains("No number of clusters is proposed") || html.contains("clusters are proposed"));
    assert!(
        !html.contains("<img src=x")
            && !html.contains("<b>")
            && html.contains("&lt;img src=x onerror=alert(1)&gt;.png")
    );
    assert_eq!(html.matches("</script>").count(), 2);
    // Hostile classes.
    for (class, seed) in [("<script>alert(1)<", 0), ("b\"c'&d", 50)] {
        (0..8).for_each(|i| folder.write(&format!("pets/{class}/{i}.png"), picture(24, 24, seed + i)));
    }
    let words = words.replace("photos", "pets");
    folder.done(&format!("{words} --epochs 1 --out pets-run"));
    folder.done("report pets-run --figures figures");
    let html = page(&folder, "pets-run/report.html");
    assert!(!html.contains("<script>alert") && html.contains("&lt;script&gt;alert(1)&lt;") && html.contains("NMI"));
    let svg = page(&folder, "figures/tsne-h-class.svg");
    assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;"));
}

#[test]
fn a_run_is_reported_as_far_as_it_came() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    assert!(!folder.path("run/report.html").exists(), "report = false");
    // Half a line, as of a run that is being written or was killed.
    let mut log = folder.read("run/metrics.jsonl");
    log.extend(b"{\"kind\":\"step\",\"epo");
    folder.write("run/metrics.jsonl", log);
    std::fs::remove_file(folder.path("run/checkpoint-epoch0001.safetensors")).unwrap();
    let said = folder.run("report run");
    assert!(said.code == 0 && said.err.contains("no checkpoint"), "{said:?}");
    let html = page(&folder, "run/report.html");
    assert_eq!(sections(&html), ["configuration", "scores", "training", "method"]);
    assert!(html.contains("no checkpoint") && html.contains("1 line of the logs could not be read"));
    assert!(html.contains("<figure id=\"loss\"") && !without_pictures(&html).contains("NaN"));
    // Its data are gone.
    folder.pictures("photos", 16);
    let words = TINY.replace("shapes:64", "photos").replace("--batch-size 16", "--batch-size 8");
    folder.done(&format!("{words} --epochs 1 --out other"));
    std::fs::rename(folder.path("photos"), folder.path("moved")).unwrap();
    folder.done("report other");
    assert!(page(&folder, "other/report.html").contains("its data cannot be read: photos does not exist"));
    folder.done("report other --data moved");
    assert!(sections(&page(&folder, "other/report.html")).contains(&"heads"));
    // Nothing but a configuration.
    folder.write("empty/config.toml", folder.read("run/config.toml"));
    folder.done("report empty");
    assert!(page(&folder, "empty/report.html").contains("No step was logged."));
    folder.refused("report missing", 2, &["missing", "no folder"]);
    folder.refused("report moved", 2, &["moved", "holds no run"]);
    folder.refused("report other --data nowhere", 2, &["nowhere does not exist"]);
}
