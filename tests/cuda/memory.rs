//! Where a step's memory goes, and what is said when there is not enough.

use disentangle::autograd::profile::{Entry, Pass};
use disentangle::autograd::{Grads, Tape};
use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Activation, Samples, Window};
use disentangle::config::{Config, Precision};
use disentangle::data::loader::{Batch, Position};
use disentangle::memory_report::MemoryReport;
use disentangle::ops::batch_norm::Inputs;
use disentangle::trainer::Trainer;

use crate::program::{Driver, Folder};
use crate::training::{config, fill};
use crate::{Layers, cuda, virtual_gpu};

/// Bytes that the pool takes for so many.
type Block = fn(usize) -> usize;

fn exactly(bytes: usize) -> usize {
    bytes
}

/// Blocks of the device's pool: of what is here, multiples of 512 bytes.
fn in_grains(bytes: usize) -> usize {
    bytes.next_multiple_of(512)
}

/// Two images of 4 x 4 pixels, a convolution to 8 channels, batch norm with ReLU, mean, NT-Xent: counted by hand in f32.
fn counted_by_hand<B: Layers>(backend: &B, block: Block) {
    let mut tape = Tape::new(backend.clone());
    let values = |count: usize| (0..count).map(|i| (i as f64 * 0.7).sin()).collect::<Vec<_>>();
    let images = backend.activations([2, 4, 4, 3], &values(96));
    let filter = backend.parameter([8, 3, 3, 3], &values(216));
    let [weight, bias] = [1.0, 0.1].map(|value| backend.parameter([8], &[value; 8]));
    let own = [&images, &filter, &weight, &bias].map(|x| backend.footprint(x));
    // Buffers that are there before: the convolution's engine is chosen at its first time.
    let window = Window { kernel: [3, 3], stride: 1, padding: 1 };
    backend.conv2d_forward(&images, &filter, window).unwrap();
    let base = backend.memory().live_bytes;
    tape.start_profile(own);
    let (x, w) = (tape.input(images), tape.leaf(filter));
    let (weight, bias) = (tape.leaf(weight), tape.leaf(bias));
    let x = tape.conv2d(x, w, window).unwrap();
    let x = tape.batch_norm(Inputs { x, weight, bias, residual: None }, None, 1, Activation::Relu).unwrap();
    let x = tape.global_avg_pool(x).unwrap();
    let loss = tape.nt_xent(x, Samples::Rows, 0.5).unwrap();
    let mut grads = Grads::new();
    tape.backward(loss, &mut grads).unwrap();
    let entries = tape.take_profile();
    let (forward, backward): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|e| e.pass == Pass::Forward);
    let by_hand = [
        ("leaf", 0, 0),
        ("leaf", 0, 0),
        ("leaf", 0, 0),
        ("leaf", 0, 0),
        // 2 x 4 x 4 x 8 numbers.
        ("conv2d", block(1024), 0),
        // Mean and deviation of 8 channels.
        ("batch_norm", block(1024), 2 * block(32)),
        ("global_avg_pool", block(64), 0),
        // Unit vectors, norms, and logarithms of sums of two samples.
        ("nt_xent", block(4), block(64) + 2 * block(8)),
    ];
    assert_eq!(forward.len(), by_hand.len());
    let mut live = base;
    for (entry, (op, value, saved)) in forward.iter().zip(by_hand) {
        assert_eq!((entry.op, entry.value, entry.saved), (op, value, saved));
        live += value + saved;
        assert_eq!((entry.memory.live_bytes, entry.activations), (live, live - base), "{op}");
        assert!(entry.memory.peak_bytes >= live);
    }
    // Behind the mean: the gradient of its input. Behind the convolution: those of the filter, of weight and of bias.
    let parameters = block(4 * 216) + 2 * block(32);
    let by_hand = [
        ("nt_xent", 2 * block(1024) + 2 * block(32) + block(64), block(64)),
        ("global_avg_pool", 2 * block(1024) + 2 * block(32), block(1024)),
        ("batch_norm", block(1024), block(1024) + 2 * block(32)),
        ("conv2d", 0, parameters),
    ];
    assert_eq!(backward.len(), by_hand.len());
    for (entry, (op, activations, gradients)) in backward.iter().zip(by_hand) {
        assert_eq!((entry.op, entry.activations, entry.gradients), (op, activations, gradients));
        assert_eq!(entry.memory.live_bytes, base + activations + gradients, "{op}");
    }
}

#[test]
fn a_small_networks_bytes_are_those_counted_by_hand() {
    counted_by_hand(&Cpu::<f32>::new(), exactly);
    counted_by_hand(&*cuda(Precision::F32), in_grains);
}

/// Of a whole step: weights, optimiser, activations, gradients and what is there throughout are all that lives, after every node.
fn parts_are_the_whole<B: Layers>(backend: &B, config: &Config) {
    let mut views = backend.pixels(2 * config.batch_size * config.image_size * config.image_size * 3).unwrap();
    fill(views.as_mut(), config, 0);
    let batch = Batch { position: Position { epoch: 0, step: 0 }, samples: vec![], views };
    let trainer = Trainer::new(backend.clone(), config.clone(), 1_000_000).unwrap();
    let report = MemoryReport::measure(trainer, &batch).unwrap();
    assert!(report.entries.len() > 100, "{}", report.entries.len());
    // The losses outlive the tape: they are on their way to the host.
    let losses = 4 * 512;
    for entry in &report.entries {
        let parts = report.weights + report.optimiser + report.other + entry.activations + entry.gradients;
        let rest = entry.memory.live_bytes.checked_sub(parts);
        let least = if entry.pass == Pass::Forward { 0 } else { losses };
        assert!(rest.is_some_and(|rest| rest <= least), "node {} {}: {rest:?}", entry.node, entry.op);
        assert!(entry.memory.peak_bytes >= entry.memory.live_bytes);
    }
    let text = report.to_string();
    for part in ["Forward", "Backward", "Totals", "backbone.layer4.1.conv2.weight", "nt_xent", "workspaces", "peak"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
}

#[test]
fn the_parts_of_a_step_are_the_whole() {
    let config = config(4, 2);
    parts_are_the_whole(&Cpu::<f32>::new(), &config);
    for precision in [Precision::F32, Precision::Bf16] {
        parts_are_the_whole(&*cuda(precision), &config);
    }
}

#[test]
fn the_program_reports_memory_and_stops() {
    let folder = Folder::new();
    let options = "--memory-report --data shapes:16 --set base_width=2 --image-size 16 --batch-size 4 --out run";
    for device in ["cpu", "cuda"] {
        let said = folder.done(&format!("train {options} --device {device}"));
        assert!(said.out.contains("Totals") && said.out.contains("peak"), "{}", said.out);
        assert!(!folder.exists("run"), "a run was begun");
    }
}

/// Options of runs whose steps take some 0.2 MiB an image, on top of 34 MiB.
const RUN: &str = "--data shapes:220 --set base_width=4 --image-size 32 --set eval.restarts=1 --set report=false --epochs 1 --precision f32 \
                   --device cuda";

/// Not on a real device, whose memory cannot be bounded.
#[test]
fn a_batch_that_fits_is_named() {
    let Some(_) = virtual_gpu() else { return };
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
    let Some(_) = virtual_gpu() else { return };
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
    let Some(_) = virtual_gpu() else { return };
    let folder = Folder::new().with("VGPU_PINNED", "10000".to_string());
    let said = folder.run(&format!("train {RUN} --batch-size 8 --out run"), Driver::Here);
    assert_eq!(said.code, Some(1));
    let error = said.err.lines().last().unwrap_or_default();
    for part in ["error: out of page-locked memory of the host: ", "MiB were asked for", "--batch-size"] {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
}
