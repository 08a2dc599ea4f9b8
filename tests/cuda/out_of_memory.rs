//! What happens when memory does not suffice. The virtual GPU's can be bounded, a real device's cannot: there these tests show
//! nothing, and scripts/gpu-check leaves them out by the name of this file.

use crate::program::{Driver, Folder};
use crate::virtual_gpu;

fn can_be_bounded() -> bool {
    virtual_gpu().is_some()
}

/// Options of runs whose steps take some 0.2 MiB an image, on top of 34 MiB.
const RUN: &str = "--data shapes:220 --set base_width=4 --image-size 32 --set eval.restarts=1 --set report=false --epochs 1 --precision f32 \
                   --device cuda";

#[test]
fn a_batch_that_fits_is_named() {
    if !can_be_bounded() {
        return;
    }
    let folder = Folder::new().with("VGPU_MEMORY", (43 << 20).to_string());
    let train = |batch: usize| {
        let out = format!("run{batch}");
        folder.run(&format!("train {RUN} --batch-size {batch} --out {out}"), Driver::Here)
    };
    let said = train(220);
    assert_eq!(said.code, Some(1), "{}", said.err);
    let error = said.err.lines().last().unwrap_or_default();
    for part in
        ["error: out of device memory: ", " were asked for; tensors hold ", " of 43.0 MiB left", "--batch-size "]
    {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
    let named = error.split("--batch-size ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let named = named.unwrap_or_else(|| panic!("no number in {error}"));
    // It fits, recorded steps included, of which there is one after two steps. How much more would have fitted depends on
    // which engines were the fastest, for they differ in workspace: an eighth of what does not fit is the least that is of use.
    assert!((220 / 8..220).contains(&named), "{error}");
    let said = train(named);
    assert_eq!(said.code, Some(0), "--batch-size {named}: {}", said.err);
    assert!(!said.err.contains("kernel by kernel"), "--batch-size {named}: {}", said.err);
}

/// Embedding goes on with fewer images at once.
#[test]
fn embedding_makes_do_with_less() {
    if !can_be_bounded() {
        return;
    }
    let folder = Folder::new();
    folder.done(&format!("train {RUN} --batch-size 8 --data shapes:8 --out run").replace("--data shapes:220 ", ""));
    folder.done("embed run --data shapes:100 --device cuda --out all");
    // What 100 images take depends on which engines were the fastest: less and less memory, until they do not fit.
    let made_do = (0..24).map(|less| (35 << 20) - (less << 17)).find(|memory: &usize| {
        let said = folder
            .done_with("embed run --data shapes:100 --device cuda --out some", &[("VGPU_MEMORY", memory.to_string())]);
        said.err.contains("images at once instead of 100: out of device memory")
    });
    assert!(made_do.is_some(), "100 images fit into whatever memory there is");
    let [all, some] = ["all", "some"].map(|out| folder.array(&format!("{out}/h.npy")));
    let largest = all.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    assert!(all.iter().zip(&some).all(|(a, b)| (a - b).abs() <= 1e-4 * largest));
}

#[test]
fn page_locked_memory_that_is_not_there_is_named() {
    if !can_be_bounded() {
        return;
    }
    let folder = Folder::new().with("VGPU_PINNED", "10000".to_string());
    let said = folder.run(&format!("train {RUN} --batch-size 8 --out run"), Driver::Here);
    assert_eq!(said.code, Some(1));
    let error = said.err.lines().last().unwrap_or_default();
    for part in ["error: out of page-locked memory of the host: ", "MiB were asked for", "--batch-size"] {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
}
