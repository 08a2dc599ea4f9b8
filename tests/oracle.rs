//! The engine against plain loops, closed forms and itself: what must hold whatever the numbers are.

use disentangle::autograd::{Grads, Tape, Var};
use disentangle::backend::cpu::{Cpu, Real};
use disentangle::backend::{Activation, Affine, Backend, RunningStats, Samples, Window};
use disentangle::loss::{LossWeights, losses, trivial_feature_loss};
use disentangle::model::{Architecture, Model, Outputs};
use disentangle::nn::{Backbone, Forward, Mode, Params, Stem};
use disentangle::ops::batch_norm::EPS;
use disentangle::optim::{Adam, AdamConfig};
use disentangle::rng::{Purpose, Stream, stream};
use disentangle::tensor::{Shape, Tensor};

fn random(test: u64, case: u64) -> Stream {
    stream(30_300 + test, Purpose::Init, 0, case, 0)
}

fn normal(random: &mut Stream, count: usize) -> Vec<f64> {
    (0..count).map(|_| random.normal()).collect()
}

fn upload<T: Real, const R: usize>(cpu: &Cpu<T>, shape: [usize; R], values: &[f64]) -> Tensor<Cpu<T>> {
    cpu.upload(Shape::from(shape), values).unwrap()
}

// -- NT-Xent ------------------------------------------------------------------------------------------------------------

/// The paper's equations 1-4 (and 5-8 with heads for rows) as they stand, over `samples` of both views, view 1 first.
fn nt_xent_loops(samples: &[Vec<f64>], temperature: f64) -> f64 {
    let cosine = |a: &[f64], b: &[f64]| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
    };
    let (count, mut total) = (samples.len(), 0.0);
    for i in 0..count {
        let positive = (i + count / 2) % count;
        let mut denominator = 0.0;
        for k in 0..count {
            if k != i {
                denominator += (cosine(&samples[i], &samples[k]) / temperature).exp();
            }
        }
        total -= ((cosine(&samples[i], &samples[positive]) / temperature).exp() / denominator).ln();
    }
    total / count as f64
}

/// The samples of a matrix `[2N, d]`: its rows, or each view's columns.
fn samples_of(z: &[f64], [rows, columns]: [usize; 2], samples: Samples) -> Vec<Vec<f64>> {
    match samples {
        Samples::Rows => z.chunks_exact(columns).map(<[f64]>::to_vec).collect(),
        Samples::Columns => {
            let column =
                |view: usize, k: usize| (0..rows / 2).map(|n| z[(view * rows / 2 + n) * columns + k]).collect();
            (0..2 * columns).map(|i| column(i / columns, i % columns)).collect()
        }
    }
}

fn nt_xent<T: Real>(z: &[f64], shape: [usize; 2], samples: Samples, temperature: f64) -> f64 {
    let cpu = Cpu::<T>::new();
    let (loss, _) = cpu.nt_xent_forward(&upload(&cpu, shape, z), samples, temperature).unwrap();
    cpu.scalar(&loss).unwrap()
}

#[test]
fn nt_xent_is_the_papers_formula() {
    for (case, n) in [1, 2, 3, 16, 17, 33, 70].into_iter().enumerate() {
        for d in [1, 2, 7, 32, 65] {
            let mut r = random(1, 100 * case as u64 + d as u64);
            let shape = [2 * n, d];
            let z = normal(&mut r, 2 * n * d);
            for samples in [Samples::Rows, Samples::Columns] {
                for temperature in [0.07, 0.5, 1.0, 3.0] {
                    let expected = nt_xent_loops(&samples_of(&z, shape, samples), temperature);
                    let double = nt_xent::<f64>(&z, shape, samples, temperature);
                    // Sums of some hundred terms of size 1/t; the loops exponentiate up to 1/t without a shift.
                    let scale = 1.0 / temperature + 10.0;
                    assert!((double - expected).abs() < 1e-13 * scale, "{samples:?} {shape:?}: {double}, {expected}");
                    let single = nt_xent::<f32>(&z, shape, samples, temperature);
                    // Two cosines over t, of vectors of d or n roundings, and a logarithm of as many as there are samples.
                    let roundings = 2.0 * (d.max(n) as f64 + 8.0) / temperature + 2.0 * scale;
                    let bound = f64::from(f32::EPSILON) * roundings;
                    assert!((single - expected).abs() < bound, "{samples:?} {shape:?}, f32: {single}, {expected}");
                }
            }
        }
    }
}

#[test]
fn nt_xent_of_equal_samples_is_chance() {
    // All cosines are 1: one term of 2R - 1 equal ones.
    for (rows, columns) in [(2, 3), (10, 7), (66, 40)] {
        let z: Vec<f64> = (0..rows).flat_map(|_| (0..columns).map(|k| (k + 1) as f64)).collect();
        for temperature in [0.5, 1.0] {
            let loss = nt_xent::<f64>(&z, [rows, columns], Samples::Rows, temperature);
            assert!((loss - ((rows - 1) as f64).ln()).abs() < 1e-13, "{rows} equal rows: {loss}");
        }
    }
}

#[test]
fn heads_that_say_a_half_have_the_trivial_loss() {
    for (n, k, alpha) in [(4, 3, 1.0), (16, 20, 1.0), (5, 7, 0.3)] {
        let cpu = Cpu::<f64>::new();
        let mut tape = Tape::new(cpu.clone());
        let logits = tape.leaf(cpu.full(Shape::from([2 * n, k]), 0.0).unwrap());
        let y = tape.sigmoid(logits).unwrap();
        let z = tape.input(upload(&cpu, [2 * n, k], &normal(&mut random(2, k as u64), 2 * n * k)));
        let weights = LossWeights { alpha, temperature_instance: 0.5, temperature_feature: 1.0 };
        let losses = losses(&mut tape, &Outputs { h: z, z, logits, y }, &weights).unwrap();
        let [feature, entropy] = [losses.feature, losses.entropy].map(|loss| tape.scalar(loss).unwrap());
        assert!((entropy - 1.0).abs() < 1e-14, "entropy {entropy}");
        let trivial = trivial_feature_loss(k, alpha);
        assert!((feature - alpha * entropy - trivial).abs() < 1e-13, "{feature} - {alpha} {entropy}, not {trivial}");
        if alpha == 1.0 {
            assert!((trivial - ((2.0 * k as f64 - 1.0).ln() - 1.0)).abs() < 1e-15);
        }
    }
}

#[test]
fn nt_xent_knows_neither_the_order_nor_the_scale_of_samples() {
    let (n, d) = (19, 11);
    let mut r = random(3, 0);
    let z = normal(&mut r, 2 * n * d);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, r.below(i as u32 + 1) as usize);
    }
    // The same order in both views: pairs stay pairs. And each row by a factor of its own.
    let rows: Vec<usize> = order.iter().copied().chain(order.iter().map(|i| n + i)).collect();
    let permuted: Vec<f64> = rows.iter().flat_map(|&i| z[i * d..][..d].to_vec()).collect();
    let scaled: Vec<f64> = z.iter().enumerate().map(|(i, x)| x * 10f64.powi((i / d) as i32 % 7 - 3)).collect();
    let loss = |z: &[f64]| nt_xent::<f64>(z, [2 * n, d], Samples::Rows, 0.5);
    assert!((loss(&z) - loss(&permuted)).abs() < 1e-13);
    assert!((loss(&z) - loss(&scaled)).abs() < 1e-13);
    // Two rows of view 1 exchanged, so that two pairs are torn apart: another loss.
    let mut torn = z.clone();
    (0..d).for_each(|j| torn.swap(j, d + j));
    assert!((loss(&z) - loss(&torn)).abs() > 1e-3);
    // Columns are the rows of the transposed views.
    let transposed: Vec<f64> = samples_of(&z, [2 * n, d], Samples::Columns).concat();
    let columns = nt_xent::<f64>(&z, [2 * n, d], Samples::Columns, 0.5);
    assert!((columns - nt_xent::<f64>(&transposed, [2 * d, n], Samples::Rows, 0.5)).abs() < 1e-13);
}

// -- Convolution --------------------------------------------------------------------------------------------------------

/// One convolution to check.
struct Conv {
    /// N, H, W, C
    x: [usize; 4],
    filters: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
}

impl Conv {
    fn window(&self) -> Window {
        Window { kernel: self.kernel, stride: self.stride, padding: self.padding }
    }

    /// P, Q
    fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.window().output(axis, self.x[axis + 1]).unwrap())
    }

    /// Calls `f` with the flat positions in y, x and w of every product of the convolution.
    fn products(&self, mut f: impl FnMut(usize, usize, usize)) {
        let ([n, h, w, c], [p, q], [kernel_rows, kernel_columns]) = (self.x, self.output(), self.kernel);
        for n in 0..n {
            for p_at in 0..p {
                for q_at in 0..q {
                    for k in 0..self.filters {
                        let y = ((n * p + p_at) * q + q_at) * self.filters + k;
                        for r in 0..kernel_rows {
                            let row = (p_at * self.stride + r).wrapping_sub(self.padding);
                            for s in 0..kernel_columns {
                                let column = (q_at * self.stride + s).wrapping_sub(self.padding);
                                for c_at in 0..c {
                                    if row < h && column < w {
                                        let x = ((n * h + row) * w + column) * c + c_at;
                                        f(y, x, ((k * kernel_rows + r) * kernel_columns + s) * c + c_at);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// y, dx, dw of x, w, dy by plain loops.
    fn loops<T: Real>(&self, x: &[T], w: &[T], dy: &[T]) -> [Vec<T>; 3] {
        let (mut y, mut dx, mut dw) = (vec![T::ZERO; dy.len()], vec![T::ZERO; x.len()], vec![T::ZERO; w.len()]);
        self.products(|y_at, x_at, w_at| {
            y[y_at] += x[x_at] * w[w_at];
            dx[x_at] += dy[y_at] * w[w_at];
            dw[w_at] += dy[y_at] * x[x_at];
        });
        [y, dx, dw]
    }

    fn engine<T: Real>(&self, x: &[f64], w: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
        let (cpu, window, [p, q]) = (Cpu::<T>::new(), self.window(), self.output());
        let [kernel_rows, kernel_columns] = self.kernel;
        let x = upload(&cpu, self.x, x);
        let w = upload(&cpu, [self.filters, kernel_rows, kernel_columns, self.x[3]], w);
        let dy = upload(&cpu, [self.x[0], p, q, self.filters], dy);
        let y = cpu.conv2d_forward(&x, &w, window).unwrap();
        let dx = cpu.conv2d_backward_data(&w, &dy, x.shape(), window).unwrap();
        let dw = cpu.conv2d_backward_filter(&x, &dy, w.shape(), window).unwrap();
        [y, dx, dw].map(|tensor| cpu.download(&tensor).unwrap())
    }

    /// Compares f32 with the error of plain f32 loops, and f64 with plain loops.
    fn check(&self, r: &mut Stream) {
        let single = |values: Vec<f64>| -> Vec<f64> { values.into_iter().map(|x| f64::from(x as f32)).collect() };
        let [p, q] = self.output();
        let [x_len, w_len, y_len] = [
            self.x.iter().product(),
            self.filters * self.kernel[0] * self.kernel[1] * self.x[3],
            self.x[0] * p * q * self.filters,
        ];
        let [x, w, dy] = [x_len, w_len, y_len].map(|len| single(normal(r, len)));
        let exact = self.loops(&x, &w, &dy);
        let [x32, w32, dy32] = [&x, &w, &dy].map(|v| v.iter().map(|&x| x as f32).collect::<Vec<f32>>());
        let plain = self.loops(&x32, &w32, &dy32);
        let magnitudes = [&x, &w, &dy].map(|v| v.iter().map(|x| x.abs()).collect::<Vec<f64>>());
        let magnitudes = self.loops(&magnitudes[0], &magnitudes[1], &magnitudes[2]);
        let engines = [self.engine::<f32>(&x, &w, &dy), self.engine::<f64>(&x, &w, &dy)];
        for (i, what) in ["y", "dx", "dw"].into_iter().enumerate() {
            let worst = |got: &mut dyn Iterator<Item = f64>| {
                got.zip(&exact[i]).map(|(got, exact)| (got - exact).abs()).fold(0.0, f64::max)
            };
            let plain = worst(&mut plain[i].iter().map(|&v| f64::from(v)));
            let ours = worst(&mut engines[0][i].iter().copied());
            // The largest of few errors is a matter of luck: two roundings of the largest sum of magnitudes are free.
            let largest = magnitudes[i].iter().copied().fold(0.0, f64::max);
            let floor = f64::from(f32::EPSILON) * largest;
            let place = format!("{what} of {:?}, {} filters, {:?}", self.x, self.filters, self.window());
            assert!(ours <= 2.0 * plain + floor, "{place}: error {ours:.2e}, plain loops {plain:.2e}");
            let double = worst(&mut engines[1][i].iter().copied());
            let terms = magnitudes[i].len() as f64 + 1e4;
            assert!(double <= terms * f64::EPSILON * largest, "{place}, f64: error {double:.2e}");
        }
    }
}

#[test]
fn conv2d_is_seven_loops() {
    let mut r = random(4, 0);
    let size = |r: &mut Stream, low: u32, high: u32| (low + r.below(high - low + 1)) as usize;
    for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 2, 0), (7, 2, 3), (1, 1, 0), (2, 3, 1), (5, 1, 0)] {
        // Channels below and above those that are lowered.
        for channels in [[1, 9], [16, 40]] {
            for _ in 0..3 {
                let side = |r: &mut Stream| size(r, kernel as u32, kernel as u32 + 9);
                let x = [size(&mut r, 1, 12), side(&mut r), side(&mut r), size(&mut r, channels[0], channels[1])];
                let filters = size(&mut r, 1, 80);
                Conv { x, filters, kernel: [kernel; 2], stride, padding }.check(&mut r);
            }
        }
    }
    // Kernels that are not square.
    Conv { x: [3, 9, 8, 17], filters: 5, kernel: [3, 1], stride: 1, padding: 0 }.check(&mut r);
    Conv { x: [2, 7, 9, 4], filters: 6, kernel: [2, 5], stride: 2, padding: 1 }.check(&mut r);
}

#[test]
fn conv2d_of_more_images_than_a_block() {
    let mut r = random(5, 0);
    for (x, filters, kernel, stride, padding) in [
        ([261, 3, 2, 16], 5, 3, 1, 1),
        ([300, 2, 3, 17], 7, 3, 2, 1),
        ([257, 4, 4, 3], 6, 3, 1, 1),
        ([513, 1, 1, 18], 3, 3, 1, 1),
        ([270, 2, 2, 20], 9, 1, 1, 0),
    ] {
        Conv { x, filters, kernel: [kernel; 2], stride, padding }.check(&mut r);
    }
}

// -- Batch norm ---------------------------------------------------------------------------------------------------------

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
    let grads = cpu.batch_norm_backward(&x, &y, dy, &weight, &stats, residual, relu).unwrap();
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
            let grads = cpu.batch_norm_backward(&y, &normed.0, dy, &weight, &normed.1, residual, Activation::Relu);
            let grads = grads.unwrap();
            all.extend([grads.dx, grads.dweight, grads.dbias, grads.dresidual.unwrap(), normed.0, y]);
        }
        let norms: Vec<f64> = all.iter().map(|x| cpu.squared_norm(x).unwrap()).collect();
        (all.iter().map(|x| bits(cpu.download(x).unwrap())).collect::<Vec<_>>(), bits(norms))
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
    let images = 4 * fixture.images.len();
    let fresh = Trainer::new(&fixture);
    let cpu = fresh.params.backend().clone();
    let parameters = cpu.memory().live_bytes;
    let mut fresh = fresh;
    fresh.forward(Mode::Eval);
    // The stem's output is the largest value: 48 x 48 x 3 images become 24 x 24 x 4, a third. Two or three live at a time.
    let peak = cpu.memory().peak_bytes - parameters;
    assert!(peak < 3 * images, "evaluation held {peak} bytes at once beside images of {images}");
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
