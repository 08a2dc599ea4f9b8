//! The whole training step of ResNet-18 on two views of a batch: forward, three losses, backward, clipping, Adam.
//! Throughput counts views: "elem/s" reads views/s.
//!
//! Floor. Convolutions without their padding taps (see the bench `conv2d`), three products each (forward and both
//! gradients) but for the images' gradient: 32.2 and 84.4 Gflop; heads and losses add 0.8 and 0.3. Everything else passes
//! over memory: batch norm with ReLU and addition reads or writes what the convolutions gave about 3 times forward and 5
//! times backward.
//!
//! | case             | views | useful Gflop | at 192 Gflop/s | convolutions' outputs | 8 passes at 20 GB/s | floor  |
//! |------------------|-------|--------------|----------------|-----------------------|---------------------|--------|
//! | 32 px, batch 128 | 256   | 33.0         | 172 ms         | 52 MB                 | 21 ms               | 193 ms |
//! | 64 px, batch 64  | 128   | 84.7         | 441 ms         | 104 MB                | 42 ms               | 483 ms |
//!
//! (192 Gflop/s: two cores with AVX2 at 3 GHz; `peak` of the bench `conv2d` tells what the machine at hand has.)
//! For scale, PyTorch 2.15 with nothing else on two such cores: 381 ms (672 views/s) and 653 ms (196 views/s).

#![allow(missing_docs)] // criterion's macros make public functions

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use disentangle::backend::cpu::Cpu;
use disentangle::config::{Config, Overrides};
use disentangle::data::loader::{Batch, Position};
use disentangle::trainer::Trainer;

/// ResNet-18 as the paper has it, but for the size of its input.
fn config(px: usize, batch: usize) -> Config {
    let set = ["data=shapes".into(), "base_width=64".into(), format!("image_size={px}"), format!("batch_size={batch}")];
    Overrides { set: set.into(), ..Overrides::default() }.resolve().expect("a valid configuration")
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("train_step");
    group.sampling_mode(SamplingMode::Flat);
    for (px, size) in [(32, 128), (64, 64)] {
        let noise = (0..(2 * size * px * px * 3) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8);
        let position = Position { epoch: 0, step: 0 };
        let batch = Batch { position, samples: (0..size).collect(), views: noise.collect() };
        // An epoch that does not end.
        let mut trainer = Trainer::new(Cpu::<f32>::new(), config(px, size), usize::MAX).expect("a network");
        let mut lane = Some(trainer.lane().expect("a lane"));
        group.throughput(Throughput::Elements(2 * size as u64));
        group.bench_function(format!("resnet18, {px} px, batch {size}"), |b| {
            b.iter(|| lane = lane.take().map(|lane| trainer.step(lane, &batch).expect("a finite loss").1))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_secs(2))
        .measurement_time(Duration::from_secs(8));
    targets = bench
}
criterion_main!(benches);
