//! Where a step's memory goes.

use disentangle::autograd::profile::{Entry, Pass};
use disentangle::autograd::{Grads, Tape};
use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Activation, Samples, Window};
use disentangle::config::{Config, Precision};
use disentangle::data::loader::{Batch, Position};
use disentangle::memory_report::MemoryReport;
use disentangle::ops::batch_norm::Inputs;
use disentangle::trainer::Trainer;

use crate::program::Folder;
use crate::training::{config, fill};
use crate::{Layers, cuda};

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
