//! Batch norm over views, and whole training steps.

use disentangle::autograd::{Grads, Tape, Var};
use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Activation, Affine, Backend, RunningStats, Samples, Window};
use disentangle::loss::{LossWeights, losses};
use disentangle::model::{Architecture, Model, Outputs};
use disentangle::nn::{Backbone, Forward, Mode, Params, Stem};
use disentangle::ops::batch_norm::EPS;
use disentangle::optim::{Adam, AdamConfig};
use disentangle::tensor::Shape;

use super::{normal, random, upload};

/// Outputs, gradients and running statistics of a batch norm, bit by bit.
fn batch_norm_bits(
    x: &[f32],
    dy: &[f32],
    shape: [usize; 4],
    views: usize,
    running: &mut [Vec<f64>; 2],
) -> [Vec<u64>; 2] {
    let cpu = Cpu::<f32>::new();
    let c = shape[3];
    let double = |values: &[f32]| -> Vec<f64> { values.iter().map(|&x| f64::from(x)).collect() };
    let (x, dy) = (upload(&cpu, shape, &double(x)), upload(&cpu, shape, &double(dy)));
    let weight = upload(&cpu, [c], &(0..c).map(|j| 0.5 + 0.1 * j as f64).collect::<Vec<_>>());
    let bias = upload(&cpu, [c], &(0..c).map(|j| 0.2 - 0.1 * j as f64).collect::<Vec<_>>());
    let [mut mean, mut var] = [0, 1].map(|i| upload(&cpu, [c], &running[i]));
    let statistics = RunningStats { mean: &mut mean, var: &mut var, momentum: 0.1 };
    let affine = Affine { weight: &weight, bias: &bias };
    let relu = Activation::Relu;
    let (y, stats) = cpu.batch_norm_forward(&x, affine, None, Some(statistics), views, EPS, relu).unwrap();
    let residual = disentangle::backend::Residual::Absent;
    let grads =
        cpu.batch_norm_backward(&x, &y, dy, Affine { weight: &weight, bias: &bias }, &stats, residual, relu).unwrap();
    *running = [&mean, &var].map(|t| cpu.download(t).unwrap());
    [y, grads.dx].map(|t| cpu.download(&t).unwrap().into_iter().map(f64::to_bits).collect())
}

#[test]
fn batch_norm_of_two_views_is_two_passes() {
    for (case, shape) in [[6, 5, 3, 7], [4, 1, 1, 33], [2, 40, 41, 9], [34, 8, 8, 64]].into_iter().enumerate() {
        let mut r = random(6, case as u64);
        let len = shape.iter().product();
        let [x, dy] = [2.0, 1.0].map(|scale| (0..len).map(|_| (scale * r.normal() + 0.5) as f32).collect::<Vec<f32>>());
        let start = || [vec![0.1; shape[3]], vec![0.9; shape[3]]];
        let (mut together, mut apart) = (start(), start());
        let whole = batch_norm_bits(&x, &dy, shape, 2, &mut together);
        let half = [shape[0] / 2, shape[1], shape[2], shape[3]];
        let first = batch_norm_bits(&x[..len / 2], &dy[..len / 2], half, 1, &mut apart);
        let second = batch_norm_bits(&x[len / 2..], &dy[len / 2..], half, 1, &mut apart);
        for (i, what) in ["y", "dx"].into_iter().enumerate() {
            assert!(whole[i] == [first[i].clone(), second[i].clone()].concat(), "{what} of {shape:?}");
        }
        assert_eq!(together, apart, "running statistics of {shape:?}");
    }
}

// -- Threads, memory, learning ------------------------------------------------------------------------------------------

/// A network with images to train on: one batch of pairs, the views of a pair alike.
struct Fixture {
    architecture: Architecture,
    pairs: usize,
    side: usize,
    images: Vec<f64>,
}

impl Fixture {
    fn new(backbone: Backbone, stem: Stem, base_width: usize, [pairs, side]: [usize; 2]) -> Self {
        let architecture = Architecture { backbone, stem, base_width, projection_dim: 16, feature_num: 12 };
        let mut r = random(7, side as u64);
        let first: Vec<f64> = (0..pairs * side * side * 3).map(|_| r.uniform()).collect();
        let second = first.iter().map(|x| x + 0.05 * r.normal());
        let images = first.iter().copied().chain(second.collect::<Vec<_>>()).collect();
        Fixture { architecture, pairs, side, images }
    }

    fn shape(&self) -> [usize; 4] {
        [2 * self.pairs, self.side, self.side, 3]
    }
}

/// Training under way.
struct Trainer<'a> {
    fixture: &'a Fixture,
    params: Params<Cpu<f32>>,
    model: Model,
    optimiser: Adam<Cpu<f32>>,
    tape: Tape<Cpu<f32>>,
    grads: Grads<Cpu<f32>>,
}

impl<'a> Trainer<'a> {
    fn new(fixture: &'a Fixture) -> Self {
        let cpu = Cpu::<f32>::new();
        let mut params = Params::new(cpu.clone(), 11);
        let model = Model::new(&mut params, &fixture.architecture).unwrap();
        let config = AdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip_norm: 1.0 };
        let optimiser = Adam::new(&params, config).unwrap();
        Trainer { fixture, params, model, optimiser, tape: Tape::new(cpu), grads: Grads::new() }
    }

    fn forward(&mut self, mode: Mode) -> Outputs {
        self.tape.clear();
        let images = upload(self.params.backend(), self.fixture.shape(), &self.fixture.images);
        let images = self.tape.input(images);
        let mut forward = Forward { tape: &mut self.tape, params: &mut self.params, mode };
        self.model.forward(&mut forward, images).unwrap()
    }

    /// One step with this weight of the entropy; gives instance, feature, entropy and total loss before it.
    fn step(&mut self, learning_rate: f64, alpha: f64) -> [f64; 4] {
        let outputs = self.forward(Mode::Train { views: 2, momentum: 0.1 });
        let weights = LossWeights { alpha, temperature_instance: 0.5, temperature_feature: 1.0 };
        let losses = losses(&mut self.tape, &outputs, &weights).unwrap();
        let parts = [losses.instance, losses.feature, losses.entropy, losses.total];
        let values = parts.map(|loss: Var| self.tape.scalar(loss).unwrap());
        self.tape.backward(losses.total, &mut self.grads).unwrap();
        self.optimiser.step(&mut self.params, &self.grads, learning_rate).unwrap();
        self.grads.clear();
        values
    }

    /// All parameters, statistics and moments, bit by bit.
    fn bits(&self) -> Vec<u64> {
        let cpu = self.params.backend();
        let moments = self.optimiser.moments().flat_map(|(_, m, v)| [m, v]);
        let tensors = self.params.iter().map(|(_, param)| &param.tensor).chain(moments);
        tensors.flat_map(|t| cpu.download(t).unwrap()).map(f64::to_bits).collect()
    }
}

/// What `run` gives on one, two and three threads.
fn on_threads<R: Send>(run: impl Fn() -> R + Sync) -> [R; 3] {
    [1, 2, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(&run))
}

#[test]
fn threads_change_no_bit_of_a_training_step() {
    for (backbone, stem, side) in [(Backbone::ResNet18, Stem::Imagenet, 64), (Backbone::ResNet50, Stem::Cifar, 32)] {
        // Wide enough for stages of lowered, few and many channels.
        let fixture = Fixture::new(backbone, stem, 12, [9, side]);
        let [one, two, three] = on_threads(|| {
            let mut trainer = Trainer::new(&fixture);
            let losses: Vec<[u64; 4]> = (0..2).map(|_| trainer.step(1e-3, 1.0).map(f64::to_bits)).collect();
            let outputs = trainer.forward(Mode::Eval);
            let cpu = trainer.params.backend();
            let features = cpu.download(trainer.tape.value(outputs.h)).unwrap();
            (losses, trainer.bits(), features.into_iter().map(f64::to_bits).collect::<Vec<_>>())
        });
        assert!(one == two, "{backbone:?}: one thread and two");
        assert!(one == three, "{backbone:?}: one thread and three");
    }
}

#[test]
fn threads_change_no_bit_of_an_op() {
    // Larger than any block that work is cut into: 2^14 elements, 512 pixels, 256 images, 64 channels, 32 samples.
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<u64>>();
    let ops = || {
        let mut r = random(8, 0);
        let (cpu, mut all) = (Cpu::<f32>::new(), Vec::new());
        let z = upload(&cpu, [130, 300], &normal(&mut r, 130 * 300));
        let one = cpu.full(Shape::SCALAR, 1.0).unwrap();
        for samples in [Samples::Rows, Samples::Columns] {
            let (loss, saved) = cpu.nt_xent_forward(&z, samples, 0.5).unwrap();
            all.extend([loss, cpu.nt_xent_backward(&saved, &one, z.shape(), samples, 0.5).unwrap()]);
        }
        let y = cpu.sigmoid_forward(&z).unwrap();
        all.extend([cpu.sigmoid_backward(&y, &z).unwrap(), cpu.binary_entropy_forward(&z).unwrap(), y]);
        all.push(cpu.binary_entropy_backward(&z, &one).unwrap());
        all.push(cpu.scale(&z, 0.3).unwrap());
        let mut sum = cpu.scale(&z, 0.7).unwrap();
        cpu.add_assign(&mut sum, &z).unwrap();
        all.push(sum);
        let w = upload(&cpu, [150, 300], &normal(&mut r, 150 * 300));
        let y = cpu.linear_forward(&z, &w, None).unwrap();
        all.extend([cpu.linear_backward_data(&w, &y).unwrap(), cpu.linear_backward_weight(&z, &y).unwrap()]);
        all.extend([cpu.linear_backward_bias(&y).unwrap(), y]);
        for (shape, k) in [([300, 5, 6, 20], 130), ([20, 17, 18, 3], 30), ([3, 30, 40, 24], 70)] {
            let x = upload(&cpu, shape, &normal(&mut r, shape.iter().product()));
            let w = upload(&cpu, [k, 3, 3, shape[3]], &normal(&mut r, k * 9 * shape[3]));
            let window = Window { kernel: [3; 2], stride: 1, padding: 1 };
            let y = cpu.conv2d_forward(&x, &w, window).unwrap();
            all.push(cpu.conv2d_backward_data(&w, &y, x.shape(), window).unwrap());
            all.push(cpu.conv2d_backward_filter(&x, &y, w.shape(), window).unwrap());
            let pooling = Window { kernel: [3; 2], stride: 2, padding: 1 };
            let (pooled, argmax) = cpu.max_pool_forward(&x, pooling).unwrap();
            all.push(cpu.max_pool_backward(&pooled, &argmax, x.shape(), pooling).unwrap());
            let mean = cpu.global_avg_pool_forward(&x).unwrap();
            all.extend([cpu.global_avg_pool_backward(&mean, x.shape()).unwrap(), mean, pooled]);
            let weight = cpu.full(Shape::from([k]), 0.8).unwrap();
            let bias = cpu.full(Shape::from([k]), 0.1).unwrap();
            let affine = Affine { weight: &weight, bias: &bias };
            let normed = cpu.batch_norm_forward(&y, affine, Some(&y), None, 1, EPS, Activation::Relu).unwrap();
            let residual = disentangle::backend::Residual::Added;
            let dy = cpu.scale(&y, 0.5).unwrap();
            let grads = {
                let affine = Affine { weight: &weight, bias: &bias };
                cpu.batch_norm_backward(&y, &normed.0, dy, affine, &normed.1, residual, Activation::Relu)
            };
            let grads = grads.unwrap();
            all.extend([grads.dx, grads.dweight, grads.dbias, grads.dresidual.unwrap(), normed.0, y]);
        }
        all.iter().map(|x| bits(cpu.download(x).unwrap())).collect::<Vec<_>>()
    };
    let [one, two, three] = on_threads(ops);
    assert!(one == two, "one thread and two");
    assert!(one == three, "one thread and three");
}

#[test]
fn a_steady_state_allocates_nothing() {
    let fixture = Fixture::new(Backbone::ResNet18, Stem::Imagenet, 4, [5, 48]);
    let mut trainer = Trainer::new(&fixture);
    let cpu = trainer.params.backend().clone();
    trainer.step(1e-3, 1.0);
    let after_first = cpu.memory();
    for _ in 0..4 {
        trainer.step(1e-3, 1.0);
    }
    let now = cpu.memory();
    assert_eq!(now.allocations, after_first.allocations, "buffers after the first step");
    assert_eq!(now.live_bytes, after_first.live_bytes, "bytes");
    // In evaluation values are dropped on the way: after one pass nothing more is needed, and far less is held at once.
    trainer.forward(Mode::Eval);
    let after_first = cpu.memory();
    for _ in 0..4 {
        trainer.forward(Mode::Eval);
    }
    assert_eq!(cpu.memory().allocations, after_first.allocations, "buffers after the first pass in evaluation");
    trainer.tape.clear();
    // On one thread: how many blocks of lowered pixels live at a time is chance otherwise.
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let peak = |mode| {
        one.install(|| {
            let mut fresh = Trainer::new(&fixture);
            let cpu = fresh.params.backend().clone();
            let parameters = cpu.memory().live_bytes;
            fresh.forward(mode);
            cpu.memory().peak_bytes - parameters
        })
    };
    let [eval, train] = [Mode::Eval, Mode::Train { views: 2, momentum: 0.1 }].map(peak);
    // The stem is where most is held: its images, its output of a third of them, a block of lowered pixels.
    let images = 4 * fixture.images.len();
    assert!(eval < 3 * images, "evaluation held {eval} bytes at once beside images of {images}");
    assert!(train > 3 * images, "training holds all values, {train} bytes: the bound above tells the two apart");
}

#[test]
fn one_batch_is_learnt_by_heart() {
    let fixture = Fixture::new(Backbone::ResNet18, Stem::Cifar, 4, [8, 16]);
    let train = |alpha: f64| {
        let mut trainer = Trainer::new(&fixture);
        let losses: Vec<[f64; 4]> = (0..100).map(|_| trainer.step(3e-3, alpha)).collect();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        println!("alpha {alpha}: first {first:.3?}, last {last:.3?}");
        (first, last)
    };
    // Chance is ln(2N - 1): all samples alike. The instance loss is least, at temperature t, for N pairs that are as far apart
    // as N points can be, at cosines of -1/(N - 1): ln(1 + 2 (N - 1) exp(-(1 + 1/(N - 1)) / t)), 0.885 for 8 pairs at 0.5.
    // Lowering all similarities alike changes nothing: three quarters of the way down, pairs must have been told apart.
    let n = fixture.pairs as f64;
    let chance = (2.0 * n - 1.0).ln();
    let best = (2.0 * (n - 1.0) * (-(n / (n - 1.0)) / 0.5).exp()).ln_1p();
    let (first, last) = train(1.0);
    assert!(last[0] < best + 0.25 * (chance - best), "instance loss {}: chance {chance}, best {best}", last[0]);
    assert!(last[3] < first[3] - 1.0, "total loss {} after {}", last[3], first[3]);
    // Heads are not negative, so the feature loss is least where they share no image: ln(1 + 2 (K - 1) / e). Without the
    // entropy nothing else pulls at them.
    let k = fixture.architecture.feature_num as f64;
    let (chance, best) = ((2.0 * k - 1.0).ln(), (2.0 * (k - 1.0) * (-1.0f64).exp()).ln_1p());
    let (_, last) = train(0.0);
    assert!(last[1] < best + 0.75 * (chance - best), "feature loss {}: chance {chance}, best {best}", last[1]);
}
