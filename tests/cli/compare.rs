//! Several runs in one table and one page.

use crate::{Folder, TINY};

#[test]
fn seeds_are_one_group_and_other_configurations_others() {
    let folder = Folder::new();
    for (name, words) in [("a", "--seed 1"), ("b", "--seed 2 --threads 1"), ("c", "--seed 3 --set alpha=0.5")] {
        folder.done(&format!("{TINY} --epochs 2 --set eval.every=1 {words} --out runs/{name}"));
    }
    let said = folder.done("compare runs/a runs/b runs/c --out page.html");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("NMI, backbone") && lines[0].contains("loss"), "{said}");
    assert!(lines[1].starts_with("a and 1 more") && lines[1].contains('±') && lines[2].starts_with("c "), "{said}");
    assert!(!lines[2].contains('±') && said.contains("alpha: 1.0 | 0.5"), "{said}");
    // Mean and standard deviation of the two, from their own results.
    let nmi = |run: &str| folder.json(&format!("runs/{run}/results.json"))["backbone"]["nmi"].as_f64().unwrap();
    let (a, b) = (nmi("a"), nmi("b"));
    let expected = format!("{:.3} ± {:.3}", (a + b) / 2.0, (a - b).abs() / 2f64.sqrt());
    assert!(lines[1].contains(&expected), "{expected} in {said}");
    let html = String::from_utf8(folder.read("page.html")).unwrap();
    for part in [&expected, "curve-nmi-backbone", "curve-loss", "alpha", "seeds", "1, 2", "runs/c"] {
        assert!(html.contains(part), "no {part}");
    }
    assert!(!html.contains("NaN") && !html.contains(" src=\""));
    assert!(folder.done("compare runs/a").lines().count() == 2);
    folder.refused("compare runs/a runs/a", 2, &["runs/a is named twice"]);
    folder.refused("compare runs/a runs", 2, &["runs holds no run"]);
}

#[test]
fn runs_without_labels_are_compared_by_what_there_is() {
    let folder = Folder::new();
    folder.pictures("photos", 16);
    let words = TINY.replace("shapes:64", "photos").replace("--batch-size 16", "--batch-size 8");
    folder.done(&format!("{words} --epochs 1 --out a"));
    folder.done(&format!("{words} --epochs 1 --set weight_decay=0.1 --out b"));
    let said = folder.done("compare a b --out page.html");
    let html = String::from_utf8(folder.read("page.html")).unwrap();
    for text in [&said, &html] {
        assert!(!text.contains("NMI") && !text.contains("NaN") && text.contains("effective rank"), "{text}");
    }
}
