//! Whole networks: outputs, losses, gradients, running statistics and clipped Adam steps against an f64 reference.
//!
//! The first step. f64 must agree to 1e-9 in the norm of each tensor (plus the references' own rounding where they are stored
//! in f32). For f32 no bound can be computed beforehand: batch norm over a few values makes the map ill-conditioned,
//! differently in each file. The sidecar tells how far PyTorch's f32 is from the reference; another correct f32
//! implementation has rounding errors of the same size and other signs, so [`MARGIN`] times that is allowed.
//!
//! The steps after it. Where a gradient is nearly 0 Adam makes a rounding error a step of full size, and where a step carries
//! a value across a kink of ReLU or max pooling the next gradients jump. So a trajectory may leave the reference's by far more
//! than PyTorch's happened to: `model_r18_w8_32` does after relative changes of 3e-7 in its first weights, in f64. How far,
//! this test measures: it trains in f64, which the first step proved right, from first weights changed by a few roundings
//! ([`PERTURBATION`]), and allows [`MARGIN`] times the distance of these runs from the unchanged one (twice, for a share of
//! parameters), beside what the first rule gives with the sidecar's error of PyTorch's parameters.

use disentangle::autograd::Grads;
use disentangle::backend::Backend;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::Cuda;
use disentangle::config;

use crate::judge::{Judge, Precision, norm};
use crate::network::{Network, Perturbation, Training, hashed};
use crate::reader::{Array, Golden, Kind, each};

/// Error allowed over that of PyTorch's f32 or of the perturbed runs. Errors of one size differ by a factor of two or three
/// from one order of summation to the next where a few ill-conditioned channels make most of them.
const MARGIN: f64 = 8.0;

/// Least error allowed to f32, relative: a well-conditioned chain of some hundred roundings.
const FLOOR: f64 = 100.0 * f32::EPSILON as f64;

/// Changes of the first weights, in roundoffs: as many as make gradients err as much as f32 does (5), and some to spare.
const PERTURBATION: f64 = 16.0;

/// Perturbed runs.
const RUNS: u64 = 3;

/// How far training strays from perturbations of the first weights: the largest distance over the runs.
struct Stray<'a> {
    base: &'a Training,
    runs: Vec<Training>,
}

impl<'a> Stray<'a> {
    /// Trains from weights changed by some roundings; `base` is training in f64 from the unchanged ones.
    fn new(golden: &Golden, base: &'a Training, roundoff: f64) -> Self {
        let run = |run| {
            let perturbation = Perturbation { size: PERTURBATION * roundoff, seed: 1_000_000 * (run + 1) };
            Network::new(Cpu::<f64>::new(), golden, Some(perturbation)).train(|_, _| {})
        };
        Stray { base, runs: (0..RUNS).map(run).collect() }
    }

    /// The largest distance of a quantity.
    fn of(&self, quantity: impl Fn(&Training) -> Vec<f64>) -> f64 {
        let base = quantity(self.base);
        let distance = |run| norm(quantity(run).iter().zip(&base).map(|(a, b)| a - b));
        self.runs.iter().map(distance).fold(0.0, f64::max)
    }

    /// The largest share of parameters that end up more than `distance` apart.
    fn share(&self, distance: f64) -> f64 {
        let pairs = |run: &'_ Training| share(&run.after, &self.base.after, distance);
        self.runs.iter().map(pairs).fold(0.0, f64::max)
    }
}

/// The share of elements that are more than `distance` apart.
fn share(a: &[Vec<f64>], b: &[Vec<f64>], distance: f64) -> f64 {
    let apart = a.iter().flatten().zip(b.iter().flatten()).filter(|(a, b)| (*a - *b).abs() > distance).count();
    apart as f64 / a.iter().flatten().count() as f64
}

/// The comparisons of one file in one precision.
struct Check<'a, 'g> {
    golden: &'g Golden,
    judge: &'a mut Judge<'g>,
    /// Whether the precision is f64.
    double: bool,
}

impl Check<'_, '_> {
    /// How far PyTorch's f32 is from the reference, relative to it.
    fn torch(&self, what: &str) -> f64 {
        self.golden.number(&["torch_fp32_cpu_vs_this_fp64", what, "rel_l2"])
    }

    /// The same of the gradient of the parameter where that is worst.
    fn torch_worst_gradient(&self) -> f64 {
        let worst = &self.golden.sidecar["torch_fp32_cpu_vs_this_fp64"]["grad_worst_tensor_rel_l2"][0];
        worst.as_f64().expect("grad_worst_tensor_rel_l2")
    }

    /// Relative error allowed where PyTorch's f32 has the error `torch`.
    fn allowed(&self, torch: f64) -> f64 {
        if self.double { f64::NORMWISE } else { MARGIN * torch + FLOOR }
    }

    fn normwise(&mut self, name: &str, got: &[f64], torch: f64) {
        self.judge.normwise(name, got, &self.golden.array(name), self.allowed(torch), 0.0);
    }

    /// Outputs of the first step. The sidecar has PyTorch's error for view 1; view 2 has conditions of its own.
    fn outputs(&mut self, training: &Training, stray: &Stray) {
        for (i, what) in ["h", "z", "y"].into_iter().enumerate() {
            let view = |t: &Training, view: usize| {
                let values = &t.first.outputs[i];
                values[view * values.len() / 2..][..values.len() / 2].to_vec()
            };
            let torch = self.torch(&format!("{what}1"));
            self.normwise(&format!("{what}1"), &view(training, 0), torch);
            let (name, astray) = (format!("{what}2"), MARGIN * stray.of(|t| view(t, 1)));
            let allowed = self.allowed(torch);
            self.judge.normwise(&name, &view(training, 1), &self.golden.array(&name), allowed, astray);
        }
    }

    /// Gradients of the first step, and what the network with its first weights says in evaluation mode.
    fn gradients_and_evaluation<B: Backend>(&mut self, network: &mut Network<B>, grads: &Grads<B>) {
        let names: Vec<&str> = network.weights.iter().map(|weight| weight.name).collect();
        let gradients = network.gradients(grads);
        match self.golden.sidecar["stream"].as_u64() {
            None => self.gradients(&names, &gradients),
            Some(stream) => self.gradient_sums(&names, &gradients, stream),
        }
        for (name, values) in ["h1_eval", "y1_eval"].iter().zip(network.evaluate()) {
            self.normwise(name, &values, self.torch(name));
        }
    }

    /// Every element of every gradient.
    fn gradients(&mut self, names: &[&str], gradients: &[Vec<f64>]) {
        let expected: Vec<Array> = names.iter().map(|name| self.golden.array(&format!("grad/{name}"))).collect();
        let whole: Vec<f64> = expected.iter().flat_map(|e| &e.values).copied().collect();
        let whole = Array { shape: vec![whole.len()], values: whole, single: true };
        let allowed = self.allowed(self.torch("grad_all"));
        self.judge.normwise("all gradients", &gradients.concat(), &whole, allowed, 0.0);
        let allowed = self.allowed(self.torch_worst_gradient());
        for ((name, gradient), expected) in names.iter().zip(gradients).zip(&expected) {
            self.judge.normwise(&format!("grad/{name}"), gradient, expected, allowed, 0.0);
        }
    }

    /// Norm, sum and a sum with pseudo-random weights, of each parameter's gradient.
    fn gradient_sums(&mut self, names: &[&str], gradients: &[Vec<f64>], stream: u64) {
        let [l2, sum, dot, dot_abs] =
            ["grad_l2", "grad_sum", "grad_dot", "grad_dot_abs"].map(|name| self.golden.array(name).values);
        let allowed = self.allowed(self.torch_worst_gradient());
        for (l, (name, gradient)) in names.iter().zip(gradients).enumerate() {
            let mut at_most = |what: &str, got: f64, expected: f64, scale: f64| {
                self.judge.at_most(&format!("{what} {name}"), (got - expected).abs(), allowed * scale);
            };
            at_most("grad_l2", norm(gradient.iter().copied()), l2[l], l2[l]);
            // An error of norm e moves a sum of n elements by up to e sqrt(n).
            at_most("grad_sum", gradient.iter().sum(), sum[l], l2[l] * (gradient.len() as f64).sqrt());
            let weight = |i: usize| 2.0 * hashed(stream + 2000 + l as u64, i) - 1.0;
            let terms: Vec<f64> = gradient.iter().enumerate().map(|(i, g)| g * weight(i)).collect();
            at_most("grad_dot", terms.iter().sum(), dot[l], dot_abs[l]);
            at_most("grad_dot_abs", terms.iter().map(|t| t.abs()).sum(), dot_abs[l], dot_abs[l]);
        }
    }

    /// How much of the parameters' change over the steps is chance in PyTorch's f32: its distance from the reference, which
    /// the sidecar has relative to the parameters, relative to how far they moved.
    fn chance(&self, training: &Training, firsts: &[&[f64]]) -> f64 {
        let size = norm(firsts.iter().flat_map(|first| first.iter().copied()));
        let moves = training.after.iter().zip(firsts).flat_map(|(after, first)| after.iter().zip(*first));
        self.torch("after3_all") * size / norm(moves.map(|(a, b)| a - b))
    }

    /// Losses by step. The sidecar has PyTorch's largest error over all of them.
    fn losses(&mut self, training: &Training, stray: &Stray) {
        let torch = self.golden.number(&["torch_fp32_cpu_vs_this_fp64", "losses", "max_abs"]);
        let expected = self.golden.array("losses").values;
        assert_eq!(expected.len(), 4 * training.losses.len(), "losses: steps");
        for (i, expected) in expected.iter().enumerate() {
            let (step, part) = (i / 4, i % 4);
            let rounding =
                if self.double { f64::NORMWISE * expected.abs() } else { MARGIN * torch + FLOOR * expected.abs() };
            let astray = if step == 0 { 0.0 } else { MARGIN * stray.of(|t| vec![t.losses[step][part]]) };
            let error = (training.losses[step][part] - expected).abs();
            self.judge.at_most(&format!("losses[{step}][{part}]"), error, rounding + astray);
        }
    }

    fn norms(&mut self, training: &Training, stray: &Stray, chance: f64) {
        let expected = self.golden.array("grad_norm").values;
        for (step, (got, expected)) in training.norms.iter().zip(&expected).enumerate() {
            let astray = if step == 0 { 0.0 } else { MARGIN * stray.of(|t| vec![t.norms[step]]) };
            let allowed = self.allowed(self.torch("grad_all") + if step == 0 { 0.0 } else { chance });
            self.judge.at_most(&format!("grad_norm[{step}]"), (got - expected).abs(), allowed * expected + astray);
        }
    }

    /// Running statistics, which average over what the layers put out: off by as much as the last of them.
    fn statistics(&mut self, training: &Training, stray: &Stray, chance: f64) {
        for (name, values) in &training.statistics {
            let first = name.starts_with("buf1/");
            let astray = if first { 0.0 } else { MARGIN * stray.of(|t| t.statistics[name].clone()) };
            let allowed = self.allowed(self.torch("y1") + if first { 0.0 } else { chance });
            self.judge.normwise(name, values, &self.golden.array(name), allowed, astray);
        }
    }

    /// Parameters after the last step: in f32 by the share of elements that are off by more than 1e-5, as the sidecar's
    /// note asks, with two elements to spare.
    fn parameters(&mut self, names: &[&str], training: &Training, stray: &Stray) {
        let expected: Vec<Array> = names.iter().map(|name| self.golden.array(&format!("after3/{name}"))).collect();
        if self.double {
            for (l, expected) in expected.iter().enumerate() {
                let astray = MARGIN * stray.of(|t| t.after[l].clone());
                let name = format!("after3/{}", names[l]);
                self.judge.normwise(&name, &training.after[l], expected, f64::NORMWISE, astray);
            }
            return;
        }
        let torch = self.golden.number(&["torch_fp32_cpu_vs_this_fp64", "after3_fraction_over_1e_5"]);
        let expected: Vec<Vec<f64>> = expected.into_iter().map(|e| e.values).collect();
        let spare = 2.0 / expected.iter().flatten().count() as f64;
        let allowed = MARGIN * torch + 2.0 * stray.share(1e-5) + spare;
        self.judge.at_most("share of after3 off by 1e-5", share(&training.after, &expected, 1e-5), allowed);
    }

    /// Norms of the parameters' changes.
    fn changes<B: Backend>(&mut self, network: &Network<B>, training: &Training, stray: &Stray) {
        let expected = self.golden.array("after3_l2delta").values;
        let allowed = self.allowed(self.torch("grad_all"));
        for (l, (weight, expected)) in network.weights.iter().zip(expected).enumerate() {
            let change = |after: &[f64]| norm(after.iter().zip(&weight.first).map(|(a, b)| a - b));
            let astray = MARGIN * stray.of(|t| vec![change(&t.after[l])]);
            let error = (change(&training.after[l]) - expected).abs();
            self.judge.at_most(&format!("after3_l2delta {}", weight.name), error, allowed * expected + astray);
        }
    }
}

/// Compares a backend that computes in the precision `T`; `base` is training in f64 where that is not the precision itself.
/// Gives the training.
fn check<T: Precision, B: Backend>(
    name: &'static str,
    backend: B,
    golden: &Golden,
    base: Option<&Training>,
) -> Training {
    let mut judge = Judge::named(golden, name);
    let mut check = Check { golden, judge: &mut judge, double: T::NORMWISE > 0.0 };
    let mut network = Network::new(backend, golden, None);
    let training = network.train(|network, grads| check.gradients_and_evaluation(network, grads));
    let stray = Stray::new(golden, base.unwrap_or(&training), T::ROUNDOFF);
    check.outputs(&training, &stray);
    check.losses(&training, &stray);
    let firsts: Vec<&[f64]> = network.weights.iter().map(|weight| &weight.first[..]).collect();
    let chance = check.chance(&training, &firsts);
    check.norms(&training, &stray, chance);
    check.statistics(&training, &stray, chance);
    if golden.holds("after3_l2delta") {
        check.changes(&network, &training, &stray);
    } else {
        let names: Vec<&str> = network.weights.iter().map(|weight| weight.name).collect();
        check.parameters(&names, &training, &stray);
    }
    judge.finish();
    training
}

#[test]
fn networks_agree() {
    each(Kind::Model, |golden| {
        let double = check::<f64, _>(f64::NAME, Cpu::<f64>::new(), golden, None);
        check::<f32, _>(f32::NAME, Cpu::<f32>::new(), golden, Some(&double));
    });
}

/// The CUDA backend in f32, on a real device or on the virtual GPU.
#[test]
fn networks_agree_on_cuda() {
    let gpu = match vgpu::preload() {
        vgpu::Preload::Virtual(gpu) => Some(gpu),
        vgpu::Preload::Real => None,
        vgpu::Preload::Failed(why) => panic!("no device: {why}"),
    };
    let cuda = Cuda::new(0, config::Precision::F32).unwrap();
    each(Kind::Model, |golden| {
        let double = Network::new(Cpu::<f64>::new(), golden, None).train(|_, _| {});
        check::<f32, _>("f32 on CUDA", cuda.clone(), golden, Some(&double));
    });
    drop(cuda);
    assert_eq!(gpu.map(|gpu| gpu.last_report()).unwrap_or_default(), "");
}
