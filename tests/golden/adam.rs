//! Adam and gradient clipping against PyTorch in f64. The constants stand in the sidecar's `rule`.

use disentangle::autograd::{Grads, Tape};
use disentangle::backend::Backend;
use disentangle::backend::cpu::Cpu;
use disentangle::nn::{Params, Role};
use disentangle::optim::{Adam, AdamConfig};
use disentangle::tensor::Shape;

use crate::judge::{Judge, Precision};
use crate::reader::{Array, Golden, Kind, each, number_after};

/// Adam's constants as a text gives them: `lr 3e-4, betas .9/.999, eps 1e-8`.
pub fn constants(rule: &str) -> (f64, AdamConfig) {
    let number = |key| number_after(rule, key).unwrap_or_else(|| panic!("no {key} in {rule}"));
    let beta1 = number("betas ");
    let betas = &rule[rule.find("betas ").unwrap()..];
    let beta2 = number_after(betas, "/").unwrap_or_else(|| panic!("no second beta in {rule}"));
    (number("lr "), AdamConfig { beta1, beta2, eps: number("eps "), weight_decay: 0.0, clip_norm: 0.0 })
}

struct Case<'a, 'g> {
    golden: &'g Golden,
    judge: &'a mut Judge<'g>,
    name: &'g str,
    /// Number of parameters.
    count: usize,
}

impl Case<'_, '_> {
    fn leaf(&self, leaf: &str) -> String {
        format!("{}/{leaf}", self.name)
    }

    fn holds(&self, leaf: &str) -> bool {
        self.golden.holds(&self.leaf(leaf))
    }

    fn array(&self, leaf: &str) -> Array {
        self.golden.array(&self.leaf(leaf))
    }

    /// The case's learning rate and constants: `<case>: weight_decay` in the rule, the clipping norm in what the sidecar says
    /// of the norms.
    fn constants(&self) -> (f64, AdamConfig) {
        let rule = self.golden.text(&["rule"]);
        let (rate, mut config) = constants(rule);
        config.weight_decay = number_after(rule, &format!("{}: weight_decay ", self.name)).unwrap_or(0.0);
        if self.holds("grad_norm_step1") {
            let formula = self.golden.entry(&self.leaf("grad_norm_step1"))["formula"].as_str().unwrap_or_default();
            config.clip_norm = number_after(formula, "min(1, ").unwrap_or_else(|| panic!("no norm in {formula}"));
        }
        (rate, config)
    }

    fn run<T: Precision>(&mut self) {
        let (rate, config) = self.constants();
        let mut params = Params::new(Cpu::<T>::new(), 0);
        let mut largest = 0.0f64;
        for j in 0..self.count {
            // Adam goes element by element: a row vector does for any shape.
            let values = self.array(&format!("p{j}_in")).values;
            let shape = Shape::from([1, values.len()]);
            params.add(format!("p{j}"), shape, Role::LinearWeight).unwrap();
            let tensor = params.backend().upload(shape, &values).unwrap();
            params.iter_mut().nth(j).unwrap().1.tensor = tensor;
        }
        let mut adam = Adam::new(&params, config).unwrap();
        let mut step = 0;
        while self.holds(&format!("g0_step{}", step + 1)) {
            step += 1;
            let gradients: Vec<Array> = (0..self.count).map(|j| self.array(&format!("g{j}_step{step}"))).collect();
            largest = gradients.iter().flat_map(|g| &g.values).fold(largest, |m, g| m.max(g.abs()));
            let grads = grads_of(&params, &gradients);
            let norm = adam.step(&mut params, &grads, rate).unwrap();
            let leaf = format!("grad_norm_step{step}");
            if self.holds(&leaf) {
                // A sum of squares in double precision, whatever the precision of the parameters.
                self.judge.normwise(&self.leaf(&leaf), &[norm], &self.array(&leaf), 1e-12, 0.0);
            }
            self.parameters::<T>(&params, step, rate);
        }
        assert_eq!(adam.steps() as usize, step);
        self.moments::<T>(&adam, params.backend(), step, largest);
    }

    /// Parameters, where the file has them after this step. Each step rounds the parameter once. Its change is the learning
    /// rate times a ratio of moments of at most about 1, which errs by 16 roundings a step or, where gradients of different
    /// signs cancel in the first moment, by as many of the root of the second: at most `1 / sqrt(0.001)` = 32 times more.
    fn parameters<T: Precision>(&mut self, params: &Params<Cpu<T>>, step: usize, rate: f64) {
        for (j, (_, param)) in params.iter().enumerate() {
            let leaf = format!("p{j}_after{step}");
            if self.holds(&leaf) {
                let (got, expected) = (params.backend().download(&param.tensor).unwrap(), self.array(&leaf));
                let steps = step as f64;
                let bound = |i: usize| 2.0 * steps * (expected.values[i].abs() + rate) + steps * 16.0 * 32.0 * rate;
                self.judge.elements::<T>(&self.leaf(&leaf), &got, &expected, bound);
            }
        }
    }

    /// Moments after the last step: weighted means of gradients and of their squares, of a few roundings a step.
    fn moments<T: Precision>(&mut self, adam: &Adam<Cpu<T>>, cpu: &Cpu<T>, step: usize, largest: f64) {
        for (j, (_, first, second)) in adam.moments().enumerate() {
            let (first, second) = (cpu.download(first).unwrap(), cpu.download(second).unwrap());
            let (m, v) = (format!("m{j}"), format!("v{j}"));
            let roundings = 8.0 * step as f64;
            self.judge.elements::<T>(&self.leaf(&m), &first, &self.array(&m), |_| roundings * largest);
            let expected = self.array(&v);
            // A scaled and penalised gradient g is off by a few roundings of the largest, G: a term `0.001 g^2` of v by as
            // many of `0.001 G |g|`, and all of them by no more than of `G sqrt(0.001 v)` a step (Cauchy and Schwarz).
            let bound = |i: usize| roundings * (expected.values[i] + largest * (1e-3 * expected.values[i]).sqrt());
            self.judge.elements::<T>(&self.leaf(&v), &second, &expected, bound);
        }
    }
}

/// Gradients as given: those of the sum of products of parameters and gradients.
fn grads_of<T: Precision>(params: &Params<Cpu<T>>, gradients: &[Array]) -> Grads<Cpu<T>> {
    let cpu = params.backend();
    let mut tape = Tape::new(cpu.clone());
    let mut sum = tape.input(cpu.full(Shape::SCALAR, 0.0).unwrap());
    for ((id, param), gradient) in params.iter().zip(gradients) {
        let x = tape.param(id, &param.tensor);
        let g = tape.input(cpu.upload(Shape::from([1, gradient.values.len()]), &gradient.values).unwrap());
        let product = tape.linear(x, g, None).unwrap();
        sum = tape.weighted_sum([(sum, 1.0), (product, 1.0), (product, 0.0)]).unwrap();
    }
    let mut grads = Grads::new();
    tape.backward(sum, &mut grads).unwrap();
    grads
}

fn check<T: Precision>(golden: &Golden) {
    let mut judge = Judge::new::<T>(golden);
    for name in golden.cases() {
        let count = (0..).take_while(|j| golden.holds(&format!("{name}/p{j}_in"))).count();
        Case { golden, judge: &mut judge, name, count }.run::<T>();
    }
    judge.finish();
}

#[test]
fn adam_and_clipping_agree() {
    each(Kind::Adam, |golden| {
        check::<f64>(golden);
        check::<f32>(golden);
    });
}
