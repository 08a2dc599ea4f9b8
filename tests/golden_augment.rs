//! Augmentation against Pillow, torchvision and OpenCV: every `augment*.json` in `tests/golden` and in each directory of
//! `GOLDEN_DIR`. The sidecar alone says what a tensor is: the stem of its name is the operation, `params` its arguments.
//!
//! Every byte must be equal. All operations are defined on integers or on single f32 roundings that are repeated here, so
//! there is no rounding for a tolerance to cover.

use disentangle::data::ImageRef;
use disentangle::data::augment::{Adjust, Blur, CropBox, Flip, Scratch, Size, ViewParams, render, resize};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// `tests/golden` and the directories of `GOLDEN_DIR`.
fn directories() -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")];
    let further = std::env::var_os("GOLDEN_DIR").unwrap_or_default();
    all.extend(std::env::split_paths(&further).filter(|path| !path.as_os_str().is_empty()));
    all
}

/// The sidecars of augmentation files in `directory`.
fn sidecars(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("augment") && name.ends_with(".json")
    });
    found.sort();
    found
}

fn count(params: &Value, key: &str) -> usize {
    params[key].as_u64().unwrap_or_else(|| panic!("no count {key} in {params}")) as usize
}

fn number(params: &Value, key: &str) -> f64 {
    params[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {params}"))
}

fn crop(params: &Value) -> CropBox {
    let side = |key| count(params, key);
    CropBox { top: side("top"), left: side("left"), height: side("height"), width: side("width") }
}

/// Jitter of one adjustment.
fn only(adjust: Adjust) -> [Option<Adjust>; 4] {
    [Some(adjust), None, None, None]
}

/// The adjustments of a whole view, in its order (0 brightness, 1 contrast, 2 saturation, 3 hue).
fn jitter(params: &Value) -> [Option<Adjust>; 4] {
    let order = params["order"].as_array().expect("order");
    std::array::from_fn(|i| match order.get(i).and_then(Value::as_u64) {
        Some(0) => Some(Adjust::Brightness(number(params, "brightness"))),
        Some(1) => Some(Adjust::Contrast(number(params, "contrast"))),
        Some(2) => Some(Adjust::Saturation(number(params, "saturation"))),
        Some(3) => Some(Adjust::Hue(number(params, "hue"))),
        other => panic!("no adjustment {other:?}"),
    })
}

/// The view that the tensor `name` (without its image's name) shows; `None` for an operation this test does not know.
fn view(name: &str, params: &Value, plain: ViewParams) -> Option<ViewParams> {
    let operation = name.split('_').next().unwrap_or_default();
    let factor = || number(params, "factor");
    Some(match operation {
        "resized" => ViewParams { crop: crop(params), ..plain },
        "resize" => plain,
        "hflip" => ViewParams { flip: Flip { horizontal: true, vertical: false }, ..plain },
        "vflip" => ViewParams { flip: Flip { horizontal: false, vertical: true }, ..plain },
        "brightness" => ViewParams { jitter: only(Adjust::Brightness(factor())), ..plain },
        "contrast" => ViewParams { jitter: only(Adjust::Contrast(factor())), ..plain },
        "saturation" => ViewParams { jitter: only(Adjust::Saturation(factor())), ..plain },
        "hue" => ViewParams { jitter: only(Adjust::Hue(factor())), ..plain },
        "grayscale" => ViewParams { grayscale: true, ..plain },
        _ if operation.starts_with("blur") => {
            let kernel = operation.trim_start_matches("blur").parse().expect("kernel size in the name");
            ViewParams { blur: Some(Blur { kernel, sigma: number(params, "sigma") }), ..plain }
        }
        _ if operation.starts_with("view") => ViewParams {
            crop: crop(params),
            flip: Flip { horizontal: params["flip"].as_bool().expect("flip"), vertical: false },
            jitter: jitter(params),
            grayscale: params["grayscale"].as_bool().expect("grayscale"),
            blur: params["blur_sigma"].as_f64().map(|sigma| Blur { kernel: 23, sigma }),
        },
        _ => return None,
    })
}

/// Compares every tensor of one file; returns how many.
fn check_file(sidecar: &Path) -> usize {
    let document: Value = serde_json::from_slice(&std::fs::read(sidecar).unwrap()).unwrap();
    let bytes = std::fs::read(sidecar.with_file_name(document["file"].as_str().expect("file"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut scratch = Scratch::new();
    let mut compared = 0;
    for (name, entry) in document["tensors"].as_object().expect("tensors") {
        let (source, operation) = name.rsplit_once('/').expect("image/operation");
        if operation == "image" {
            continue;
        }
        let place = format!("{}: {name}", sidecar.display());
        let image = tensors.tensor(&format!("{source}/image")).unwrap();
        let image = ImageRef::new(image.shape()[1], image.shape()[0], image.data()).unwrap();
        let expected = tensors.tensor(name).unwrap();
        let size = Size { width: expected.shape()[1], height: expected.shape()[0] };
        let params = view(operation, &entry["params"], ViewParams::plain(image.width(), image.height()));
        let params = params.unwrap_or_else(|| panic!("{place}: unknown operation"));
        let mut out = vec![0; expected.data().len()];
        render(image, &params, size, &mut scratch, &mut out).unwrap();
        let wrong = out.iter().zip(expected.data()).filter(|(ours, theirs)| ours != theirs).count();
        assert_eq!(wrong, 0, "{place}: {wrong} of {} bytes differ ({params:?})", out.len());
        if operation.starts_with("resize_") {
            out.fill(0);
            resize(image, size, &mut scratch, &mut out).unwrap();
            assert_eq!(out, expected.data(), "{place}: resize");
        }
        compared += 1;
    }
    compared
}

#[test]
fn every_golden_operation_is_equal_to_the_byte() {
    for directory in directories() {
        for sidecar in sidecars(&directory) {
            let compared = check_file(&sidecar);
            assert!(compared > 0, "{}: nothing to compare", sidecar.display());
            println!("{}: {compared} tensors equal", sidecar.display());
        }
    }
    let own = sidecars(&directories()[0]);
    assert!(!own.is_empty(), "tests/golden has no augment*.json");
}
