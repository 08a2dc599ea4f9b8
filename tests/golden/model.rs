//! Whole networks: outputs, losses, gradients, running statistics and three clipped Adam steps against an f64 reference.
//!
//! f64 must agree to 1e-9 in the norm of each tensor (plus the references' own rounding where they are stored in f32). For
//! f32 no bound can be computed beforehand: batch norm over a few values and ReLU make the map ill-conditioned, differently
//! for each file. The sidecar tells how far PyTorch's f32 is from the reference; another correct f32 implementation has
//! rounding errors of the same size and other signs, so its error is of the same size: [`MARGIN`] times that is allowed.

use disentangle::autograd::{Grads, Tape};
use disentangle::backend::Backend;
use disentangle::backend::cpu::Cpu;
use disentangle::loss::{LossWeights, losses};
use disentangle::model::{Architecture, Model};
use disentangle::nn::{Backbone, Forward, Mode, ParamId, Params, Stem};
use disentangle::optim::{Adam, AdamConfig};

use crate::adam;
use crate::judge::{Judge, Precision, norm, upload};
use crate::reader::{Array, Golden, Kind, each, number_after};

/// Error allowed to f32 over that of PyTorch's f32. Errors of one size differ by a factor of two or three from one order of
/// summation to the next where a few ill-conditioned channels make most of them; view 2 has conditions of its own.
const MARGIN: f64 = 8.0;

/// Least error allowed to f32, relative: a fully conditioned chain of some hundred roundings.
const FLOOR: f64 = 100.0 * f32::EPSILON as f64;

/// A number in [0, 1) of element `i` of stream `stream`, as the sidecar's formula has it.
fn hashed(stream: u64, i: usize) -> f64 {
    let mut s = ((i as u32).wrapping_add(1).wrapping_mul(0x9E37_79B9))
        .wrapping_add((stream as u32).wrapping_add(1).wrapping_mul(0x85EB_CA6B));
    s ^= s >> 16;
    s = s.wrapping_mul(0x7FEB_352D);
    s ^= s >> 15;
    s = s.wrapping_mul(0x846C_A68B);
    s ^= s >> 16;
    (f64::from(s) + 0.5) / 2f64.powi(32)
}


/// A model file with its network, which holds the file's first weights.
struct Case<'a, 'g, T: Precision> {
    golden: &'g Golden,
    judge: &'a mut Judge<'g>,
    params: Params<Cpu<T>>,
    model: Model,
    /// The file's names of parameters, with ours and first values.
    weights: Vec<(&'g str, ParamId, Array)>,
    /// View 1 over view 2, NHWC.
    images: Array,
    learning_rate: f64,
    adam: AdamConfig,
    loss: LossWeights,
}

/// One step's results on the host.
struct Step {
    h: Vec<f64>,
    z: Vec<f64>,
    y: Vec<f64>,
    /// Instance, feature, entropy, total.
    losses: [f64; 4],
}

impl<'a, 'g, T: Precision> Case<'a, 'g, T> {
    fn new(golden: &'g Golden, judge: &'a mut Judge<'g>) -> Self {
        let mut params = Params::new(Cpu::<T>::new(), 0);
        let model = Model::new(&mut params, &architecture(golden)).unwrap();
        let names = golden.sidecar["param_order"].as_array().expect("param_order");
        let mut weights = Vec::new();
        for (position, name) in names.iter().enumerate() {
            let name = name.as_str().expect("a name");
            let id = id_of(&params, name);
            let (shape, _) = params.export(id).unwrap();
            let value = match golden.sidecar["stream"].as_u64() {
                None => golden.array(&format!("w/{name}")),
                Some(stream) => generated(golden, stream, position, name, shape),
            };
            let tensor = params.import(id, &value.shape, &value.values).unwrap();
            params.iter_mut().nth(id.index()).unwrap().1.tensor = tensor;
            weights.push((name, id, value));
        }
        let trained = params.iter().filter(|(_, param)| param.role.trained()).count();
        assert_eq!(trained, weights.len(), "{}: number of parameters", golden.path.display());
        let rule = golden.text(&["optimizer"]);
        let number = |key| number_after(rule, key).unwrap_or_else(|| panic!("no {key} in {rule}"));
        let (learning_rate, adam) = adam::constants(rule);
        let temperatures = &rule[rule.find("tau ").expect("temperatures")..];
        let images = views(golden).map(|view| view.channels_last());
        Case {
            golden,
            judge,
            params,
            model,
            weights,
            images: images[0].over(&images[1]),
            learning_rate,
            adam: AdamConfig { weight_decay: number("wd "), clip_norm: number("clip_grad_norm "), ..adam },
            loss: LossWeights {
                alpha: number("alpha "),
                temperature_instance: number("tau "),
                temperature_feature: number_after(temperatures, "/").expect("two temperatures"),
            },
        }
    }

    /// Forward and backward of both views as one batch.
    fn step(&mut self, tape: &mut Tape<Cpu<T>>, grads: &mut Grads<Cpu<T>>) -> Step {
        tape.clear();
        let images = tape.input(upload(self.params.backend(), &self.images));
        let mode = Mode::Train { views: 2, momentum: 0.1 };
        let outputs = self.model.forward(&mut Forward { tape, params: &mut self.params, mode }, images).unwrap();
        let losses = losses(tape, &outputs, &self.loss).unwrap();
        let [h, z, y] = [outputs.h, outputs.z, outputs.y].map(|var| tape.backend().download(tape.value(var)).unwrap());
        let parts = [losses.instance, losses.feature, losses.entropy, losses.total];
        let values = parts.map(|loss| tape.scalar(loss).unwrap());
        tape.backward(losses.total, grads).unwrap();
        Step { h, z, y, losses: values }
    }

    /// How far PyTorch's f32 is from the reference, relative to it.
    fn torch(&self, what: &str) -> f64 {
        self.golden.number(&["torch_fp32_cpu_vs_this_fp64", what, "rel_l2"])
    }

    /// Relative error allowed where PyTorch's f32 has the error `torch`.
    fn allowed(torch: f64) -> f64 {
        if T::NORMWISE > 0.0 { T::NORMWISE } else { MARGIN * torch + FLOOR }
    }

    fn normwise(&mut self, name: &str, got: &[f64], torch: f64) {
        self.judge.normwise(name, got, &self.golden.array(name), Self::allowed(torch));
    }

    /// Outputs of both views; the sidecar has PyTorch's error for view 1.
    fn outputs(&mut self, step: &Step) {
        for (what, values) in [("h", &step.h), ("z", &step.z), ("y", &step.y)] {
            let torch = self.torch(&format!("{what}1"));
            let (first, second) = values.split_at(values.len() / 2);
            self.normwise(&format!("{what}1"), first, torch);
            self.normwise(&format!("{what}2"), second, torch);
        }
    }

    /// View 1 in evaluation mode, with the running statistics of the first step.
    fn evaluation(&mut self) {
        let mut tape = Tape::new(self.params.backend().clone());
        let half = self.images.values.len() / 2;
        let mut shape = self.images.shape.clone();
        shape[0] /= 2;
        let view = Array { shape, values: self.images.values[..half].to_vec(), single: true };
        let images = tape.input(upload(self.params.backend(), &view));
        let mut forward = Forward { tape: &mut tape, params: &mut self.params, mode: Mode::Eval };
        let outputs = self.model.forward(&mut forward, images).unwrap();
        for (name, var) in [("h1_eval", outputs.h), ("y1_eval", outputs.y)] {
            let values = tape.backend().download(tape.value(var)).unwrap();
            self.normwise(name, &values, self.torch(name));
        }
    }

    /// Every gradient, as the file has it.
    fn gradients(&mut self, grads: &Grads<Cpu<T>>) {
        let gradients: Vec<Vec<f64>> = self.weights.iter().map(|(_, id, _)| self.exported(*id, grads.of_param(*id))).collect();
        match self.golden.sidecar["stream"].as_u64() {
            None => self.stored_gradients(&gradients),
            Some(stream) => self.gradient_sums(&gradients, stream),
        }
    }

    /// A tensor laid out as in the file.
    fn exported(&self, id: ParamId, tensor: Option<&disentangle::tensor::Tensor<Cpu<T>>>) -> Vec<f64> {
        let role = self.params.iter().nth(id.index()).unwrap().1.role;
        self.params.export_like(role, tensor.expect("a gradient")).unwrap().1
    }

    fn stored_gradients(&mut self, gradients: &[Vec<f64>]) {
        let expected: Vec<Array> =
            self.weights.iter().map(|(name, ..)| self.golden.array(&format!("grad/{name}"))).collect();
        let all = |arrays: &mut dyn Iterator<Item = &Vec<f64>>| arrays.flatten().copied().collect::<Vec<f64>>();
        let whole = all(&mut expected.iter().map(|e| &e.values));
        let whole = Array { shape: vec![whole.len()], values: whole, single: true };
        let allowed = Self::allowed(self.torch("grad_all"));
        self.judge.normwise("all gradients", &all(&mut gradients.iter()), &whole, allowed);
        let worst = &self.golden.sidecar["torch_fp32_cpu_vs_this_fp64"]["grad_worst_tensor_rel_l2"][0];
        let worst = worst.as_f64().expect("grad_worst_tensor_rel_l2");
        let weights = self.weights.iter().map(|(name, ..)| format!("grad/{name}"));
        for ((name, gradient), expected) in weights.zip(gradients).zip(&expected) {
            self.judge.normwise(&name, gradient, expected, Self::allowed(worst));
        }
    }

    /// Three steps on the same batch.
    fn run(&mut self) {
        let mut optimiser = Adam::new(&self.params, self.adam).unwrap();
        let (mut tape, mut grads) = (Tape::new(self.params.backend().clone()), Grads::new());
        let (losses, norms) = (self.golden.array("losses"), self.golden.array("grad_norm"));
        let (mut losses_got, mut norms_got) = (Vec::new(), Vec::new());
        let steps = norms.values.len();
        for step in 1..=steps {
            let result = self.step(&mut tape, &mut grads);
            losses_got.extend(result.losses);
            if step == 1 {
                self.outputs(&result);
                self.gradients(&grads);
                self.evaluation();
            }
            self.running_statistics(step);
            norms_got.push(optimiser.step(&mut self.params, &grads, self.learning_rate).unwrap());
        }
        self.losses(&losses_got, &losses);
        self.norms(&norms_got, &norms);
        self.parameters();
    }

    fn losses(&mut self, got: &[f64], expected: &Array) {
        let torch = self.golden.number(&["torch_fp32_cpu_vs_this_fp64", "losses", "max_abs"]);
        for (i, (got, expected)) in got.iter().zip(&expected.values).enumerate() {
            let f32_error = MARGIN * torch + FLOOR * expected.abs();
            let allowed = if T::NORMWISE > 0.0 { T::NORMWISE * expected.abs() } else { f32_error };
            self.judge.at_most(&format!("losses[{}][{}]", i / 4, i % 4), (got - expected).abs(), allowed);
        }
    }

    /// The gradient's norm: as far off as the gradient, at first.
    fn norms(&mut self, got: &[f64], expected: &Array) {
        let torch = self.torch("grad_all").max(self.torch("losses"));
        for (i, (got, expected)) in got.iter().zip(&expected.values).enumerate() {
            self.judge.at_most(&format!("grad_norm[{i}]"), (got - expected).abs(), Self::allowed(torch) * expected);
        }
    }

    /// Running statistics, where the file has them after this step.
    fn running_statistics(&mut self, step: usize) {
        let prefix = format!("buf{step}/");
        for name in self.golden.names().filter(|name| name.starts_with(&prefix)) {
            let id = id_of(&self.params, &name[prefix.len()..]);
            let values = self.params.backend().download(self.params.tensor(id)).unwrap();
            self.normwise(name, &values, self.torch("y1"));
        }
    }

    /// Parameters after the last step.
    fn parameters(&mut self) {
        let (mut wrong, mut count) = (0, 0);
        for (l, (name, id, first)) in std::mem::take(&mut self.weights).into_iter().enumerate() {
            let (_, after) = self.params.export(id).unwrap();
            if self.golden.holds("after3_l2delta") {
                let expected = self.golden.array("after3_l2delta").values[l];
                let delta = norm(after.iter().zip(&first.values).map(|(a, b)| a - b));
                self.judge.at_most(&format!("after3_l2delta {name}"), (delta - expected).abs(), T::NORMWISE * expected);
                continue;
            }
            let expected = self.golden.array(&format!("after3/{name}"));
            wrong += after.iter().zip(&expected.values).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
            count += after.len();
            if T::NORMWISE > 0.0 {
                self.judge.normwise(&format!("after3/{name}"), &after, &expected, T::NORMWISE);
            }
        }
        let torch = self.golden.number(&["torch_fp32_cpu_vs_this_fp64", "after3_fraction_over_1e_5"]);
        println!("fraction {} torch {torch}", wrong as f64 / count as f64);
    }

    /// Norm, sum and a sum with pseudo-random signs, of each parameter's gradient.
    fn gradient_sums(&mut self, gradients: &[Vec<f64>], stream: u64) {
        let [l2, sum, dot, dot_abs] =
            ["grad_l2", "grad_sum", "grad_dot", "grad_dot_abs"].map(|name| self.golden.array(name).values);
        let worst = &self.golden.sidecar["torch_fp32_cpu_vs_this_fp64"]["grad_worst_tensor_rel_l2"][0];
        let allowed = Self::allowed(worst.as_f64().expect("grad_worst_tensor_rel_l2"));
        for (l, gradient) in gradients.iter().enumerate() {
            let name = self.weights[l].0;
            let norm = norm(gradient.iter().copied());
            self.judge.at_most(&format!("grad_l2 {name}"), (norm - l2[l]).abs(), allowed * l2[l]);
            // An error of norm e moves a sum of n elements by up to e sqrt(n).
            let root = (gradient.len() as f64).sqrt();
            let total: f64 = gradient.iter().sum();
            self.judge.at_most(&format!("grad_sum {name}"), (total - sum[l]).abs(), allowed * l2[l] * root);
            let terms = gradient.iter().enumerate().map(|(i, g)| g * (2.0 * hashed(stream + 2000 + l as u64, i) - 1.0));
            let (terms, magnitudes) = terms.fold((0.0, 0.0), |(sum, abs), t: f64| (sum + t, abs + t.abs()));
            self.judge.at_most(&format!("grad_dot {name}"), (terms - dot[l]).abs(), allowed * dot_abs[l]);
            self.judge.at_most(&format!("grad_dot_abs {name}"), (magnitudes - dot_abs[l]).abs(), allowed * dot_abs[l]);
        }
    }
}

fn architecture(golden: &Golden) -> Architecture {
    let size = |key| golden.number(&["arch", key]) as usize;
    let backbone = match size("depth") {
        18 => Backbone::ResNet18,
        34 => Backbone::ResNet34,
        50 => Backbone::ResNet50,
        other => panic!("{}: no ResNet-{other}", golden.path.display()),
    };
    // The generator writes the paper's stem; a stored 3 x 3 stem would be the other.
    let kernel = golden.entry("w/conv1.weight")["shape"][2].as_u64();
    Architecture {
        backbone,
        stem: if kernel == Some(3) { Stem::Cifar } else { Stem::Imagenet },
        base_width: size("base_width"),
        projection_dim: size("hidden"),
        feature_num: size("K"),
    }
}

/// The parameter or statistic of the file's name: heads are named as here, the backbone's lack their prefix (`naming`).
fn id_of<T: Precision>(params: &Params<Cpu<T>>, name: &str) -> ParamId {
    let ours = |param: &str| param == name || param.strip_prefix("backbone.") == Some(name);
    let found = params.iter().find(|(_, param)| ours(&param.name));
    found.unwrap_or_else(|| panic!("the network has no {name}")).0
}

/// Both views, NCHW.
fn views(golden: &Golden) -> [Array; 2] {
    let Some(stream) = golden.sidecar["stream"].as_u64() else { return ["x1", "x2"].map(|name| golden.array(name)) };
    let size = |key| golden.number(&["arch", key]) as usize;
    let shape = vec![size("N"), 3, size("H"), size("H")];
    let view = |stream: u64| {
        let values = (0..shape.iter().product()).map(|i| f64::from(hashed(stream, i) as f32)).collect();
        Array { shape: shape.clone(), values, single: true }
    };
    let views = [view(stream + 1000), view(stream + 1001)];
    let head: Vec<f64> = views.iter().flat_map(|view| &view.values[..8]).copied().collect();
    assert_eq!(head, golden.array("x_head").values, "{}: the formula of the views", golden.path.display());
    views
}

/// The weight at `position` by the sidecar's formula, checked against the first elements and sum it gives.
fn generated(golden: &Golden, stream: u64, position: usize, name: &str, shape: Vec<usize>) -> Array {
    let fan_in = shape[1..].iter().product::<usize>() as f64;
    let kind = golden.text(&["param_kind", name]);
    let value = |i: usize| {
        let c = 2.0 * hashed(stream + position as u64, i) - 1.0;
        let value = match kind {
            "conv" => (6.0 / fan_in).sqrt() * c,
            "lin" => (3.0 / fan_in).sqrt() * c,
            "bias" | "bnb" => 0.1 * c,
            "bnw" => 1.0 + 0.1 * c,
            other => panic!("{}: no formula for {other}", golden.path.display()),
        };
        f64::from(value as f32)
    };
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    let (heads, sums) = (golden.array("w_head").values, golden.array("w_sum").values);
    let head: Vec<f64> = values.iter().cycle().take(4).copied().collect();
    let magnitude: f64 = values.iter().map(|w| w.abs()).sum();
    let right = head == heads[4 * position..][..4]
        && (values.iter().sum::<f64>() - sums[position]).abs() <= 1e-12 * magnitude;
    assert!(right, "{}: the formula of {name}", golden.path.display());
    Array { shape, values, single: true }
}

/// Shared between the case's steps: what changes from one step to the next.
fn check<T: Precision>(golden: &Golden) {
    let mut judge = Judge::new::<T>(golden);
    let mut case = Case::<T>::new(golden, &mut judge);
    case.run();
    judge.finish();
}

#[test]
fn networks_agree() {
    each(Kind::Model, |golden| {
        check::<f64>(golden);
        check::<f32>(golden);
    });
}
