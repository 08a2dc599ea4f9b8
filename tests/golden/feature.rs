//! The feature loss and the entropy against references computed in f64 from the paper's equations 5-11.
//!
//! The files give predictions y in [0, 1]; the engine's entropy takes their logits, which are infinite where y is 0 or 1.
//! The tensors `*_eps` are the authors' variant with 1e-12 inside the logarithms, which the engine does not have: it computes
//! the entropy from the logits, exactly.

use disentangle::autograd::{Grads, Tape};
use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Backend, Samples};
use disentangle::loss::{LossWeights, losses};
use disentangle::model::Outputs;

use crate::judge::{Judge, Precision, norm, upload};
use crate::nt_xent::{Bounds, loss_and_gradient, sample_losses};
use crate::reader::{Array, Golden, Kind, each};

/// Roundoffs of the entropy of a logit, which is at most 1: the logit's own rounding moves it by at most
/// `max a^2 y (1 - y) / ln 2 = 0.64` units, an exponential, a logarithm, a product and a sum do the rest. The reference
/// errs as much.
const ENTROPY: f64 = 16.0;

/// The smallest normal f32, in roundoffs: below it single precision keeps fewer digits.
fn smallest<T: Precision>() -> f64 {
    f64::from(f32::MIN_POSITIVE) / T::ROUNDOFF
}

fn logit(y: f64) -> f64 {
    (y / (1.0 - y)).ln()
}

/// A case: predictions of both views, `[2N, K]`.
struct Case<'a, 'g> {
    golden: &'g Golden,
    judge: &'a mut Judge<'g>,
    name: &'g str,
    y: Array,
}

impl<'g> Case<'_, 'g> {
    fn array(&self, leaf: &str) -> Array {
        self.golden.array(&format!("{}/{leaf}", self.name))
    }

    /// The arrays `leaf1` and `leaf2` of the two views.
    fn views(&self, leaf: &str) -> Array {
        self.array(&format!("{leaf}1")).over(&self.array(&format!("{leaf}2")))
    }

    fn holds(&self, leaf: &str) -> bool {
        self.golden.holds(&format!("{}/{leaf}", self.name))
    }

    fn pass_over(&self, leaf: &str) {
        self.golden.pass_over(&format!("{}/{leaf}", self.name));
    }

    fn elements<T: Precision>(&mut self, leaf: &str, got: &[f64], expected: &Array, bound: impl Fn(usize) -> f64) {
        self.judge.elements::<T>(&format!("{}/{leaf}", self.name), got, expected, bound);
    }

    /// Element `n` of head `k` of view `view` of the predictions.
    fn head(&self, values: &[f64], view: usize, k: usize) -> Vec<f64> {
        let [rows, heads] = [self.y.shape[0], self.y.shape[1]];
        let view = &values[view * rows / 2 * heads..][..rows / 2 * heads];
        view.iter().skip(k).step_by(heads).copied().collect()
    }

    /// Norm of each head in each view, `[2K]`.
    fn lengths(&self) -> Vec<f64> {
        let heads = self.y.shape[1];
        (0..2 * heads).map(|i| norm(self.head(&self.y.values, i / heads, i % heads).into_iter())).collect()
    }

    /// Rounding errors of the feature loss's gradient at each prediction.
    fn gradient_bounds(&self, temperature: f64) -> Vec<f64> {
        let [rows, heads] = [self.y.shape[0], self.y.shape[1]];
        let bounds = Bounds::new([2 * heads, rows / 2], temperature);
        let by_head: Vec<f64> = self.lengths().into_iter().map(|length| bounds.gradient(length)).collect();
        (0..rows * heads).map(|i| by_head[i / (rows / 2 * heads) * heads + i % heads]).collect()
    }

    /// Losses and gradients at one temperature.
    fn feature_loss<T: Precision>(&mut self, part: &str) {
        let temperature = part.strip_prefix("tau").and_then(|t| t.parse().ok());
        let temperature: f64 = temperature.unwrap_or_else(|| panic!("{part} names no temperature"));
        let [rows, heads] = [self.y.shape[0], self.y.shape[1]];
        let bounds = Bounds::new([2 * heads, rows / 2], temperature);
        let cpu = Cpu::<T>::new();
        let (loss, dy) = loss_and_gradient(&cpu, &self.y, Samples::Columns, temperature);
        let feat = self.array(&format!("{part}/feat"));
        self.elements::<T>(&format!("{part}/feat"), &[loss], &feat, |_| bounds.loss());
        let leaf = format!("{part}/feat_rows");
        let got = sample_losses(&cpu, &self.y, Samples::Columns, temperature);
        self.elements::<T>(&leaf, &got, &self.array(&leaf), |_| bounds.loss());
        // Head by head: a head that is zero everywhere has gradients of 1e10, others of 1e-3.
        let expected = self.views(&format!("{part}/dfeat_dy"));
        let allowed = self.gradient_bounds(temperature);
        for i in 0..2 * heads {
            let values = self.head(&expected.values, i / heads, i % heads);
            let head = Array { shape: vec![values.len()], values, ..expected };
            let bound = self.head(&allowed, i / heads, i % heads)[0];
            let got = self.head(&dy, i / heads, i % heads);
            self.elements::<T>(&format!("{part}/dfeat_dy head {i}"), &got, &head, |_| bound);
        }
        let alphas = self.golden.parts_after(&format!("{}/{part}/", self.name));
        for alpha in alphas {
            let weight = alpha.strip_prefix("alpha").and_then(|a| a.parse().ok());
            let weight = weight.unwrap_or_else(|| panic!("{alpha} names no alpha"));
            let (instance, total, _) = self.total::<T>(temperature, weight);
            let leaf = format!("{part}/{alpha}/total_alpha");
            let bound = bounds.loss() + ENTROPY + instance.abs() + total.abs();
            self.elements::<T>(&leaf, &[total - instance], &self.array(&leaf), |_| 2.0 * bound);
            self.pass_over(&format!("{part}/{alpha}/total_alpha_eps"));
        }
    }

    /// The total loss as training records it, from the logits: instance loss (of z = y, there is no other), total, and the
    /// gradient at the logits of all but the instance loss, whose input is not computed from them.
    fn total<T: Precision>(&self, temperature: f64, alpha: f64) -> (f64, f64, Vec<f64>) {
        let cpu = Cpu::<T>::new();
        let mut tape = Tape::new(cpu.clone());
        let logits = tape.leaf(upload(&cpu, &self.y.map(logit)));
        let y = tape.sigmoid(logits).unwrap();
        let z = tape.input(upload(&cpu, &self.y));
        let weights = LossWeights { alpha, temperature_instance: 1.0, temperature_feature: temperature };
        let losses = losses(&mut tape, &Outputs { h: z, z, logits, y }, &weights).unwrap();
        let (instance, total) = (tape.scalar(losses.instance).unwrap(), tape.scalar(losses.total).unwrap());
        let mut grads = Grads::new();
        tape.backward(losses.total, &mut grads).unwrap();
        (instance, total, cpu.download(grads.of(logits).unwrap()).unwrap())
    }

    /// Value, value by head, and gradient of the entropy.
    fn entropy<T: Precision>(&mut self) {
        let heads = self.y.shape[1];
        let cpu = Cpu::<T>::new();
        let entropy = |y: Vec<f64>| {
            let logits = Array { shape: vec![y.len(), 1], values: y, single: false }.map(logit);
            let logits = upload(&cpu, &logits);
            let value = cpu.binary_entropy_forward(&logits).unwrap();
            let one = cpu.full(value.shape(), 1.0).unwrap();
            let gradient = cpu.binary_entropy_backward(&logits, &one).unwrap();
            (cpu.scalar(&value).unwrap(), cpu.download(&gradient).unwrap())
        };
        let (value, gradient) = entropy(self.y.values.clone());
        self.elements::<T>("ent_exact", &[value], &self.array("ent_exact"), |_| ENTROPY);
        let by_head: Vec<f64> =
            (0..2 * heads).map(|i| entropy(self.head(&self.y.values, i / heads, i % heads)).0).collect();
        self.elements::<T>("ent_exact_heads", &by_head, &self.array("ent_exact_heads"), |_| ENTROPY);
        let expected = self.entropy_at_logits();
        let allowed = self.entropy_bounds(&expected);
        self.elements::<T>("dent_exact at the logits", &gradient, &expected, |i| allowed[i] + smallest::<T>());
        for leaf in ["ent_eps", "dent_eps_dy1", "dent_eps_dy2"].into_iter().filter(|leaf| self.holds(leaf)) {
            self.pass_over(leaf);
        }
    }

    /// The reference's entropy gradient at the logits, by the chain rule `dH/da = dH/dy y (1 - y)`.
    fn entropy_at_logits(&self) -> Array {
        let at_y = self.views("dent_exact_dy");
        let values = at_y.values.iter().zip(&self.y.values).map(|(d, y)| d * y * (1.0 - y)).collect();
        Array { values, ..at_y }
    }

    /// Rounding errors of that gradient: a logit a of one rounding moves `a y (1 - y)` by `1 + |a|` roundings at most.
    fn entropy_bounds(&self, gradient: &Array) -> Vec<f64> {
        let bound = |(&d, &y): (&f64, &f64)| if d == 0.0 { 0.0 } else { (16.0 + logit(y).abs()) * d.abs() };
        gradient.values.iter().zip(&self.y.values).map(bound).collect()
    }

    /// The gradient of the total at the logits (alpha 1, temperature 1, says the sidecar), through the sigmoid.
    fn total_at_logits<T: Precision>(&mut self) {
        let expected = self.views("dtot_da");
        let (_, _, got) = self.total::<T>(1.0, 1.0);
        let at_y = self.views("tau1.0/dfeat_dy");
        let (entropy, feature) = (self.entropy_bounds(&self.entropy_at_logits()), self.gradient_bounds(1.0));
        // The feature loss's gradient with its own error, times y (1 - y), in which y and, near 1, 1 - y are off by a few
        // roundings of y; the roundings of y also move the cosines, as much again.
        let bound = |i: usize| {
            let (y, d) = (self.y.values[i], at_y.values[i].abs());
            2.0 * (feature[i] * y * (1.0 - y) + 8.0 * d * y) + entropy[i] + smallest::<T>()
        };
        let bounds: Vec<f64> = (0..got.len()).map(bound).collect();
        self.elements::<T>("dtot_da", &got, &expected, |i| bounds[i]);
    }
}

fn check<T: Precision>(golden: &Golden) {
    let mut judge = Judge::new::<T>(golden);
    for name in golden.cases() {
        let y = golden.array(&format!("{name}/y1")).over(&golden.array(&format!("{name}/y2")));
        let mut case = Case { golden, judge: &mut judge, name, y };
        for part in golden.parts_after(&format!("{name}/")) {
            case.feature_loss::<T>(part);
        }
        case.entropy::<T>();
        case.total_at_logits::<T>();
    }
    judge.finish();
}

#[test]
fn feature_loss_and_entropy_agree() {
    each(Kind::Feature, |golden| {
        check::<f64>(golden);
        check::<f32>(golden);
    });
}
