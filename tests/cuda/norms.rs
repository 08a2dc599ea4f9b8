//! Batch norm with all that is fused to it, and pooling.
//!
//! A batch norm's bound in f32 is as for its kernels: 16 roundings of what a quantity is made of, for about a dozen operations
//! between input and output; a sum over rows gathers errors like a random walk.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Activation, Affine, Residual, RunningStats, Window};
use disentangle::config::Precision;
use disentangle::tensor::{Shape, Tensor};

use crate::bounds::{Sums, UNIT, largest, parity, rounding, within};
use crate::{Layers, in_each_precision, numbers};

const FLOOR: f64 = 16.0 * UNIT;
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// A batch norm.
struct Norm {
    dims: Vec<usize>,
    views: usize,
    residual: Residual,
    activation: Activation,
    x: Vec<f64>,
    /// What is added, and dy.
    more: [Vec<f64>; 2],
    /// Weight, bias, running mean, running variance.
    channels: [Vec<f64>; 4],
}

impl Norm {
    fn new(precision: Precision, dims: &[usize], views: usize, residual: Residual, activation: Activation) -> Norm {
        let (elems, channels) = (dims.iter().product(), dims[dims.len() - 1]);
        let around = |size: f64, centre: f64| -> Vec<f64> {
            // Parameters are in f32 whatever the precision.
            numbers(Precision::F32, channels, size).iter().map(|x| f64::from((centre + x) as f32)).collect()
        };
        let var = around(0.2, 0.0).iter().map(|x| x.abs()).collect();
        Norm {
            dims: dims.to_vec(),
            views,
            residual,
            activation,
            x: numbers(precision, elems, 1.5),
            more: [numbers(precision, elems, 0.7), numbers(precision, elems, 0.9)],
            channels: [around(0.3, 1.0), around(0.4, 0.0), around(0.5, 0.0), var],
        }
    }

    fn shape(&self) -> Shape {
        match self.dims[..] {
            [n, h, w, c] => Shape::from([n, h, w, c]),
            [n, c] => Shape::from([n, c]),
            _ => panic!("no such shape: {:?}", self.dims),
        }
    }

    /// In training, with and without running statistics: y twice, mean, 1/std, running mean and variance; then dx, dweight,
    /// dbias, dresidual. The backward takes the elements of `y`, or of its own output, that are positive for passed.
    fn train<B: Layers>(&self, backend: &B, y: Option<&[f64]>) -> [Vec<f64>; 10] {
        let x = backend.activations(self.shape(), &self.x);
        let [more, dy] = self.more.each_ref().map(|values| backend.activations(self.shape(), values));
        let residual = (self.residual == Residual::Added).then_some(&more);
        let [weight, bias, mut mean, mut var] =
            self.channels.each_ref().map(|values| backend.parameter([values.len()], values));
        let affine = || Affine { weight: &weight, bias: &bias };
        let forward =
            |running| backend.batch_norm_forward(&x, affine(), residual, running, self.views, EPS, self.activation);
        let (alone, _) = forward(None).unwrap();
        let running = RunningStats { mean: &mut mean, var: &mut var, momentum: MOMENTUM };
        let (own, stats) = forward(Some(running)).unwrap();
        let passed = y.map_or_else(|| own.clone(), |y| backend.activations(self.shape(), y));
        let grads =
            backend.batch_norm_backward(&x, &passed, dy, affine(), &stats, self.residual, self.activation).unwrap();
        assert_eq!(grads.dresidual.is_some(), self.residual == Residual::Added);
        let dresidual = grads.dresidual.as_ref().map_or(vec![], |dresidual| backend.read(dresidual));
        let all: [&Tensor<B>; 9] =
            [&alone, &own, &stats.mean, &stats.inv_std, &mean, &var, &grads.dx, &grads.dweight, &grads.dbias];
        let [a, b, c, d, e, f, g, h, i] = all.map(|tensor| backend.read(tensor));
        [a, b, c, d, e, f, g, h, i, dresidual]
    }

    fn inference<B: Layers>(&self, backend: &B) -> Vec<f64> {
        let x = backend.activations(self.shape(), &self.x);
        let more = backend.activations(self.shape(), &self.more[0]);
        let residual = (self.residual == Residual::Added).then_some(&more);
        let [weight, bias, mean, var] =
            self.channels.each_ref().map(|values| backend.parameter([values.len()], values));
        let affine = Affine { weight: &weight, bias: &bias };
        let y = backend.batch_norm_inference(&x, affine, residual, &mean, &var, EPS, self.activation).unwrap();
        backend.read(&y)
    }
}

const NAMES: [&str; 10] = [
    "y",
    "y with running statistics",
    "mean",
    "1/std",
    "running mean",
    "running variance",
    "dx",
    "dweight",
    "dbias",
    "dresidual",
];

#[test]
fn batch_norms_are_the_cpus() {
    // Images and matrices, one view and two, channels by fours and not, more rows than a block takes at once.
    let shapes: [(&[usize], usize); 4] =
        [(&[4, 5, 3, 8], 2), (&[2, 12, 13, 16], 1), (&[6, 4, 3, 7], 2), (&[34, 12], 2)];
    in_each_precision(|cuda, precision| {
        for (dims, views) in shapes {
            for residual in [Residual::Absent, Residual::Added] {
                for activation in [Activation::Identity, Activation::Relu] {
                    let norm = Norm::new(precision, dims, views, residual, activation);
                    let what = format!("{precision} {dims:?} {views} {residual:?} {activation:?}");
                    let found = norm.train(&**cuda, None);
                    let exact = norm.train(&Cpu::<f64>::new(), Some(&found[1]));
                    let plain = norm.train(&Cpu::<f32>::new(), Some(&found[1]));
                    assert_eq!(found[0], found[1], "{what}: running statistics change the output");
                    let rows = (norm.x.len() / dims[dims.len() - 1]) as f64;
                    let dy = largest(&norm.more[1]);
                    for (i, name) in NAMES.into_iter().enumerate() {
                        let size = match i {
                            2 => largest(&norm.x),
                            6 => dy * largest(&norm.channels[0]) * largest(&exact[3]),
                            7 | 8 => dy * rows.sqrt(),
                            9 => 0.0,
                            _ => largest(&exact[i]).max(1.0),
                        };
                        let rounded = if matches!(i, 0 | 1 | 6 | 9) { rounding(precision) } else { 0.0 };
                        parity(&format!("{what}: {name}"), &found[i], [&exact[i], &plain[i]], FLOOR * size, rounded);
                    }
                    let found = norm.inference(&**cuda);
                    let exact = norm.inference(&Cpu::<f64>::new());
                    let plain = norm.inference(&Cpu::<f32>::new());
                    let floor = FLOOR * largest(&exact).max(1.0);
                    parity(&format!("{what}: inference"), &found, [&exact, &plain], floor, rounding(precision));
                }
            }
        }
    });
}

/// y and dx.
fn max_pool<B: Layers>(backend: &B, dims: [usize; 4], window: Window, x: &[f64]) -> [Vec<f64>; 2] {
    let (y, argmax) = backend.max_pool_forward(&backend.activations(dims, x), window).unwrap();
    // Small whole numbers: their sums are exact in any type.
    let dy: Vec<f64> = (0..y.shape().elems()).map(|i| (i % 7) as f64 - 3.0).collect();
    let dx = backend.max_pool_backward(&backend.activations(y.shape(), &dy), &argmax, dims.into(), window).unwrap();
    [y, dx].map(|result| backend.read(&result))
}

#[test]
fn max_pools_are_the_cpus() {
    let windows = [(3, 2, 1), (2, 2, 0), (3, 1, 1)];
    in_each_precision(|cuda, precision| {
        for dims in [[2, 9, 7, 8], [1, 8, 8, 5], [2, 4, 3, 64]] {
            for (taps, stride, padding) in windows {
                let window = Window { kernel: [taps; 2], stride, padding };
                // Every value twice: ties must fall as on the CPU.
                let mut x = numbers(precision, dims.iter().product(), 1.0);
                (1..x.len()).step_by(2).for_each(|i| x[i] = x[i - 1]);
                let found = max_pool(&**cuda, dims, window, &x);
                assert_eq!(found, max_pool(&Cpu::<f64>::new(), dims, window, &x), "{precision} {dims:?} {window:?}");
            }
        }
    });
}

/// y and dx.
fn avg_pool<B: Layers>(backend: &B, dims @ [n, _, _, c]: [usize; 4], x: &[f64], dy: &[f64]) -> [Vec<f64>; 2] {
    let y = backend.global_avg_pool_forward(&backend.activations(dims, x)).unwrap();
    let dx = backend.global_avg_pool_backward(&backend.activations([n, c], dy), dims.into()).unwrap();
    [y, dx].map(|result| backend.read(&result))
}

#[test]
fn average_pools_are_the_cpus() {
    in_each_precision(|cuda, precision| {
        for dims @ [n, h, w, c] in [[3, 7, 7, 8], [2, 1, 1, 16], [2, 5, 9, 3]] {
            let (x, dy) = (numbers(precision, n * h * w * c, 1.0), numbers(precision, n * c, 1.0));
            let [found, dfound] = avg_pool(&**cuda, dims, &x, &dy);
            let [exact, dexact] = avg_pool(&Cpu::<f64>::new(), dims, &x, &dy);
            let [plain, _] = avg_pool(&Cpu::<f32>::new(), dims, &x, &dy);
            let abs: Vec<f64> = x.iter().map(|x| x.abs()).collect();
            let [magnitudes, _] = avg_pool(&Cpu::<f64>::new(), dims, &abs, &dy);
            let what = format!("{precision} {dims:?}");
            let [found, exact, plain, magnitudes] = [&found, &exact, &plain, &magnitudes];
            Sums { precision, found, exact, plain, magnitudes, terms: h * w, inputs: 0.0 }.check(&what);
            // One product with a rounded quotient.
            within(&what, &dfound, &dexact, |i| (4.0 * UNIT + rounding(precision)) * dexact[i].abs());
        }
    });
}
