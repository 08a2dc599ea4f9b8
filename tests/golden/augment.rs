//! Augmentation against Pillow, torchvision and OpenCV. The sidecar alone says what a tensor is: the stem of its name is the
//! operation, `params` its arguments.
//!
//! Every byte must be equal. All operations are defined on integers or on single f32 roundings that are repeated here, so
//! there is no rounding for a tolerance to cover.

use disentangle::data::ImageRef;
use disentangle::data::augment::{
    Adjust, Blur, CropBox, Flip, InstructionSet, Scratch, Size, ViewParams, render, resize,
};
use serde_json::Value;

use super::reader::{Golden, Kind, each};

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
            ..plain
        },
        _ => return None,
    })
}

/// Compares every tensor of one file with what an instruction set makes; returns how many.
fn check_file(golden: &Golden, set: InstructionSet) -> usize {
    let mut scratch = Scratch::with(set);
    let mut compared = 0;
    for name in golden.names() {
        let (source, operation) = name.rsplit_once('/').expect("image/operation");
        if operation == "image" {
            continue;
        }
        let place = format!("{} on {set:?}: {name}", golden.path.display());
        let (pixels, shape) = golden.raw(&format!("{source}/image"));
        let image = ImageRef::new(shape[1], shape[0], pixels).unwrap();
        let (expected, shape) = golden.raw(name);
        let size = Size { width: shape[1], height: shape[0] };
        let plain = ViewParams::plain(image.width(), image.height());
        let params = view(operation, &golden.entry(name)["params"], plain);
        let params = params.unwrap_or_else(|| panic!("{place}: unknown operation"));
        let mut out = vec![0; expected.len()];
        render(image, &params, size, &mut scratch, &mut out).unwrap();
        let wrong = out.iter().zip(expected).filter(|(ours, theirs)| ours != theirs).count();
        assert_eq!(wrong, 0, "{place}: {wrong} of {} bytes differ ({params:?})", out.len());
        if operation.starts_with("resize_") {
            out.fill(0);
            resize(image, size, &mut scratch, &mut out).unwrap();
            assert_eq!(out, expected, "{place}: resize");
        }
        compared += 1;
    }
    compared
}

#[test]
fn every_operation_is_equal_to_the_byte_on_every_instruction_set() {
    each(Kind::Augment, |golden| {
        for set in InstructionSet::available() {
            let compared = check_file(golden, set);
            assert!(compared > 0, "{}: nothing to compare", golden.path.display());
            println!("{}: {compared} tensors equal on {set:?}", golden.path.display());
        }
    });
}
