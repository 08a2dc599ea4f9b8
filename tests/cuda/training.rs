//! Training on the device: against the CPU, against itself, and under every order in which streams may make progress.
//!
//! How far two correct runs may part. Rounding errors of a step are like small relative changes of the weights; what becomes of
//! them over many steps, through batch norms of few values, kinks of ReLU, and Adam, which makes a step of full size of the
//! smallest gradient, is measured: training in f64 from weights changed at random by [`CHANGE`] roundings, three times, next to
//! training from the unchanged ones. Two runs with rounding errors of their own may each be [`MARGIN`] times as far off.

use std::collections::VecDeque;

use disentangle::backend::Backend;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::Cuda;
use disentangle::config::{Config, Overrides, Precision};
use disentangle::data::loader::{Batch, Position};
use disentangle::rng::{Purpose, stream};
use disentangle::trainer::{Finished, Trainer};

use crate::bounds::UNIT;
use crate::{SEEDS, cuda};

/// Relative changes of the first weights, in roundings: some hundred operations lie between the weights and the losses, each
/// with a rounding of its own, and their errors add up as a random walk does.
const CHANGE: f64 = 16.0;
const CHANGED_RUNS: u64 = 3;
const MARGIN: f64 = 4.0;

/// Half the distance of two neighbours among bf16, relative, at most.
const BF16_UNIT: f64 = 1.0 / 256.0;

/// A narrow ResNet-18; an epoch of it never ends.
pub fn config(base_width: usize, batch_size: usize) -> Config {
    let set = ["data=shapes", "backbone=resnet18", "image_size=32", "learning_rate=0.001", "epochs=1"];
    let sizes = [format!("base_width={base_width}"), format!("batch_size={batch_size}")];
    let set = set.iter().map(|text| text.to_string()).chain(sizes).collect();
    Overrides { set, ..Overrides::default() }.resolve().unwrap()
}

/// Images that differ in colour and pattern, two views of each: those of step `step`.
pub fn fill(views: &mut [u8], config: &Config, step: u64) {
    let (n, side) = (config.batch_size, config.image_size);
    let mut noise = stream(7, Purpose::Probe, 0, step, 0);
    for (i, image) in views.chunks_mut(side * side * 3).enumerate() {
        let sample = (step as usize * n + i % n) as f64;
        for (j, byte) in image.iter_mut().enumerate() {
            let (row, column, channel) = ((j / 3 / side) as f64, (j / 3 % side) as f64, (j % 3) as f64);
            let wave = ((1.0 + 0.37 * sample) * row * 0.2 + (2.0 - 0.23 * sample) * column * 0.15 + channel).sin();
            *byte = (128.0 + 80.0 * wave + 30.0 * (sample * (channel + 1.0)).cos() + 6.0 * noise.normal()) as u8;
        }
    }
}

/// What training leaves: loss, instance, feature, entropy and gradient norm of each step, and all parameters and statistics.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    pub losses: Vec<[f64; 5]>,
    pub weights: Vec<f64>,
}

/// How steps use lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lanes {
    /// Again and again: steps are recorded once and then repeated.
    Reused,
    /// A new one for each step: every step is launched.
    Fresh,
}

pub fn weights<B: Backend>(trainer: &Trainer<B>) -> Vec<f64> {
    trainer.params.iter().flat_map(|(_, param)| trainer.params.backend().download(&param.tensor).unwrap()).collect()
}

/// Takes steps as [`disentangle::train::train`] does, as many under way at once as the device likes. A slot is filled again as
/// soon as its step is finished.
fn run<B: Backend>(trainer: &mut Trainer<B>, steps: u64, lanes: Lanes) -> Trained {
    let (backend, config) = (trainer.params.backend().clone(), trainer.config.clone());
    let bytes = 2 * config.batch_size * config.image_size * config.image_size * 3;
    let mut slots: Vec<B::Pixels> = (0..B::LANES).map(|_| backend.pixels(bytes).unwrap()).collect();
    let mut free: Vec<B::Lane> = (0..B::LANES).map(|_| trainer.lane().unwrap()).collect();
    let (mut under_way, mut losses) = (VecDeque::new(), Vec::new());
    for number in 0..steps {
        let (mut views, lane) = (slots.pop().unwrap(), free.pop().unwrap());
        fill(views.as_mut(), &config, number);
        let batch = Batch { position: Position { epoch: 0, step: number }, samples: vec![], views };
        under_way.push_back((trainer.start(lane, &batch).unwrap(), batch));
        while under_way.len() > if number + 1 == steps { 0 } else { B::LANES - 1 } {
            let (step, batch) = under_way.pop_front().unwrap();
            let (Finished::Made(record), lane) = trainer.finish(step).unwrap() else { panic!("step {number}") };
            losses.push([record.loss, record.loss_instance, record.loss_feature, record.entropy, record.grad_norm]);
            slots.insert(0, batch.views);
            free.insert(0, if lanes == Lanes::Reused { lane } else { trainer.lane().unwrap() });
        }
    }
    Trained { losses, weights: weights(trainer) }
}

fn trainer<B: Backend>(backend: B, config: &Config) -> Trainer<B> {
    Trainer::new(backend, config.clone(), 1_000_000).unwrap()
}

fn train<B: Backend>(backend: B, config: &Config, steps: u64, lanes: Lanes) -> Trained {
    run(&mut trainer(backend, config), steps, lanes)
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    norm(a.iter().zip(b).map(|(a, b)| a - b))
}

/// How far training strays from changes of the first weights.
struct Stray {
    exact: Trained,
    changed: Vec<Trained>,
}

impl Stray {
    fn new(config: &Config, steps: u64, unit: f64) -> Self {
        let changed = |run_number: u64| {
            let mut trainer = trainer(Cpu::<f64>::new(), config);
            let backend = trainer.params.backend().clone();
            let mut random = stream(run_number, Purpose::Probe, 0, 0, 0);
            for (_, param) in trainer.params.iter_mut().filter(|(_, param)| param.role.trained()) {
                let values = backend.download(&param.tensor).unwrap();
                let values: Vec<f64> =
                    values.iter().map(|w| w * (1.0 + CHANGE * unit * (2.0 * random.uniform() - 1.0))).collect();
                param.tensor = backend.upload(param.tensor.shape(), &values).unwrap();
            }
            run(&mut trainer, steps, Lanes::Reused)
        };
        Stray {
            exact: train(Cpu::<f64>::new(), config, steps, Lanes::Reused),
            changed: (1..=CHANGED_RUNS).map(changed).collect(),
        }
    }

    /// The largest distance over the changed runs.
    fn of(&self, distance: impl Fn(&Trained, &Trained) -> f64) -> f64 {
        self.changed.iter().map(|run| distance(run, &self.exact)).fold(0.0, f64::max)
    }

    /// Fails if the runs are further apart than changed ones.
    fn check(&self, what: &str, found: &Trained, plain: &Trained) {
        for step in 0..found.losses.len() {
            for part in 0..5 {
                let at = |run: &Trained| run.losses[step][part];
                // The number itself is rounded, to f32.
                let bound = 2.0 * MARGIN * self.of(|a, b| (at(a) - at(b)).abs()) + 4.0 * UNIT * at(&self.exact).abs();
                let error = (at(found) - at(plain)).abs();
                assert!(
                    error <= bound,
                    "{what}: step {step} number {part}: {} for {}, {bound:e}",
                    at(found),
                    at(plain)
                );
            }
        }
        let bound = 2.0 * MARGIN * self.of(|a, b| apart(&a.weights, &b.weights));
        let error = apart(&found.weights, &plain.weights);
        println!("{what}: weights {error:.2e} apart, bound {bound:.2e}");
        assert!(error <= bound, "{what}: weights {error:e} apart, bound {bound:e}");
    }
}

#[test]
fn twenty_steps_in_f32_track_the_cpu() {
    let (config, steps) = (config(8, 4), 20);
    let stray = Stray::new(&config, steps, UNIT);
    let plain = train(Cpu::<f32>::new(), &config, steps, Lanes::Reused);
    let cuda = cuda(Precision::F32);
    let found = train(cuda.clone(), &config, steps, Lanes::Reused);
    stray.check("f32", &found, &plain);
    // What is found is still the same training: runs part by less than half of what they move, running variances included.
    let first = weights(&trainer(Cpu::<f32>::new(), &config));
    let (apart, moved) = (apart(&plain.weights, &found.weights), apart(&plain.weights, &first));
    assert!(apart < 0.5 * moved, "{apart} apart, having moved {moved}");
    // After one step they have hardly parted. Adam's first step moves a weight by the learning rate times the sign of its
    // gradient, so two runs differ where a gradient is within its rounding, some 1e-5 of its size, of 0: in a share of 1e-4 of
    // the weights at most, which then are 2 steps apart: sqrt(1e-4) 2 = 0.02 of the way.
    let [plain, found] =
        [train(Cpu::<f32>::new(), &config, 1, Lanes::Reused), train(cuda.clone(), &config, 1, Lanes::Reused)];
    let (apart, moved) = (self::apart(&plain.weights, &found.weights), self::apart(&plain.weights, &first));
    assert!(apart < 0.02 * moved, "{apart} apart after one step, having moved {moved}");
}

/// In bf16 weights and activations are rounded to 8 bits in every step. A changed run is changed once, so that a rounding, not
/// 16, is what to change by.
#[test]
fn twelve_steps_in_bf16_track_the_cpu() {
    let (config, steps) = (config(8, 4), 12);
    let stray = Stray::new(&config, steps, BF16_UNIT / CHANGE);
    let cuda = cuda(Precision::Bf16);
    let found = train(cuda.clone(), &config, steps, Lanes::Reused);
    stray.check("bf16", &found, &train(Cpu::<f32>::new(), &config, steps, Lanes::Reused));
}

/// Twice on one device, which times cuDNN's engines once; recorded, and launched kernel by kernel.
#[test]
fn the_same_bits_again_and_recorded_or_launched() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (cuda, config, steps) = (cuda(precision), config(2, 2), 5);
        // Counting begins here.
        cuda.virtual_gpu.map(|gpu| gpu.take_calls());
        let first = train(cuda.clone(), &config, steps, Lanes::Reused);
        let calls = cuda.virtual_gpu.map(|gpu| gpu.take_calls());
        let again = train(cuda.clone(), &config, steps, Lanes::Reused);
        let recorded = cuda.virtual_gpu.map(|gpu| gpu.take_calls());
        let launched = train(cuda.clone(), &config, steps, Lanes::Fresh);
        assert_eq!(first, again, "{precision}: run twice");
        assert_eq!(first, launched, "{precision}: recorded and launched");
        // All but the first of each lane.
        let repeated = steps - Cuda::LANES as u64;
        assert!(calls.is_none_or(|calls| calls.graph_launches == repeated), "{calls:?}");
        assert!(recorded.is_none_or(|calls| calls.graph_launches == repeated), "{recorded:?}");
        let calls = cuda.virtual_gpu.map(|gpu| gpu.take_calls());
        assert!(calls.is_none_or(|calls| calls.graph_launches == 0), "{calls:?}");
    }
}

#[test]
fn the_same_bits_in_whatever_order_streams_make_progress() {
    let (cuda, config, steps) = (cuda(Precision::F32), config(1, 2), 4);
    let first = train(cuda.clone(), &config, steps, Lanes::Reused);
    for seed in 1..=SEEDS {
        cuda.set_seed(seed);
        assert_eq!(train(cuda.clone(), &config, steps, Lanes::Reused), first, "seed {seed}");
    }
}
