//! t-SNE against scikit-learn on the golden blobs.

use disentangle::report::tsne::Tsne;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;

#[test]
fn the_divergence_is_scikit_learns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fixture: Value =
        serde_json::from_slice(&std::fs::read(root.join("tests/fixtures/tsne.json")).unwrap()).unwrap();
    let golden = std::fs::read(root.join("tests/golden").join(fixture["points"].as_str().unwrap())).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    for (case, figures) in fixture["cases"].as_object().unwrap() {
        let tensor = golden.tensor(&format!("{case}/x")).unwrap();
        let points: Vec<f32> =
            tensor.data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        let map = Tsne::default().map(&points, tensor.shape()[1]).unwrap();
        let [barnes_hut, exact] = ["barnes_hut", "exact"].map(|method| figures[method].as_f64().unwrap());
        println!("{case}: {:.4}, scikit-learn {barnes_hut:.4} (Barnes-Hut), {exact:.4} (exact)", map.kl_divergence);
        for (method, expected) in [("Barnes-Hut", barnes_hut), ("exact", exact)] {
            let ratio = map.kl_divergence / expected;
            assert!((0.95..=1.05).contains(&ratio), "{case}, {method}: {} for {expected}", map.kl_divergence);
        }
    }
}
