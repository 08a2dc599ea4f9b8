//! Single layers, forward and backward, against PyTorch in f64. The files are NCHW and OIHW, the engine NHWC and KRSC.

use std::collections::BTreeMap;

use disentangle::backend::cpu::{Cpu, Real};
use disentangle::backend::{Activation, Affine, Backend, Residual, RunningStats, Window};
use disentangle::ops::batch_norm::EPS;
use disentangle::tensor::Tensor;

use crate::judge::{Judge, Precision, upload};
use crate::reader::{Array, Golden, Kind, each, number_after};

/// Tensors of a case by the last part of their names, channels last.
type Arrays = BTreeMap<&'static str, Array>;
/// What a layer computed of a case, by the same names.
type Results = Vec<(&'static str, Vec<f64>)>;

/// A case of a layers file.
struct Case<'a, 'g> {
    golden: &'g Golden,
    judge: &'a mut Judge<'g>,
    name: &'g str,
}

impl Case<'_, '_> {
    fn array(&self, leaf: &str) -> Array {
        self.golden.array(&format!("{}/{leaf}", self.name)).channels_last()
    }

    /// Those of `leaves` that the case has.
    fn arrays(&self, leaves: &[&'static str]) -> Arrays {
        let held = leaves.iter().filter(|leaf| self.golden.holds(&format!("{}/{leaf}", self.name)));
        held.map(|&leaf| (leaf, self.array(leaf))).collect()
    }

    /// Compares with the tensor `leaf`; `bound` is in roundoffs.
    fn elements<T: Precision>(&mut self, leaf: &str, got: &[f64], bound: impl Fn(usize) -> f64) {
        self.judge.elements::<T>(&format!("{}/{leaf}", self.name), got, &self.array(leaf), bound);
    }

    /// Compares a layer whose outputs are sums of products of its inputs: they are off by `gamma_n` of the sum of the
    /// products' magnitudes, which is what the layer gives for the magnitudes of its inputs, here and in the reference.
    /// `terms` bounds n.
    fn sums_of_products<T: Precision>(&mut self, got: Results, magnitudes: Results, terms: usize) {
        for ((leaf, got), (_, magnitudes)) in got.iter().zip(magnitudes) {
            self.elements::<T>(leaf, got, |i| 2.0 * (terms + 1) as f64 * magnitudes[i]);
        }
    }

    fn conv2d<T: Precision>(&mut self) {
        let note = self.golden.text(&["cases", self.name]);
        let part = |key| number_after(note, key).unwrap_or_else(|| panic!("{note}: no {key}")) as usize;
        let window = Window { kernel: [part("kernel "); 2], stride: part("stride "), padding: part("pad ") };
        let inputs = self.arrays(&["x", "w", "dy"]);
        let taps = |array: &Array| array.shape[1] * array.shape[2];
        let (w, dy) = (&inputs["w"], &inputs["dy"]);
        let terms = taps(w) * w.shape[0].max(w.shape[3]);
        let terms = terms.max(dy.shape[0] * taps(dy));
        self.sums_of_products::<T>(conv2d::<T>(&inputs, window), conv2d::<f64>(&magnitudes(&inputs), window), terms);
    }

    fn linear<T: Precision>(&mut self) {
        let inputs = self.arrays(&["x", "w", "b", "dy"]);
        let terms = inputs["w"].shape[0].max(inputs["w"].shape[1]).max(inputs["x"].shape[0]) + 1;
        self.sums_of_products::<T>(linear::<T>(&inputs), linear::<f64>(&magnitudes(&inputs)), terms);
    }

    fn global_avg_pool<T: Precision>(&mut self) {
        let inputs = self.arrays(&["x", "dy"]);
        let terms = inputs["x"].shape[1] * inputs["x"].shape[2] + 2;
        self.sums_of_products::<T>(global_avg_pool::<T>(&inputs), global_avg_pool::<f64>(&magnitudes(&inputs)), terms);
    }

    /// Maxima are exact; a gradient is a sum of at most nine.
    fn max_pool<T: Precision>(&mut self) {
        let inputs = self.arrays(&["x", "dy"]);
        let magnitudes = Arrays::from([("x", inputs["x"].clone()), ("dy", inputs["dy"].map(f64::abs))]);
        let [(_, y), (_, dx)] = max_pool::<T>(&inputs);
        self.elements::<T>("y", &y, |_| 0.0);
        let [_, (_, magnitude)] = max_pool::<f64>(&magnitudes);
        self.elements::<T>("dx", &dx, |i| 18.0 * magnitude[i]);
        // The positions are the backend's own business: they show in dx, and in where y was taken from.
        let (x, positions) = (&inputs["x"], self.array("indices"));
        let [h, w, c] = [x.shape[1], x.shape[2], x.shape[3]];
        let per_image = y.len() / x.shape[0];
        let at_position = |i: usize| x.values[(i / per_image * h * w + positions.values[i] as usize) * c + i % c];
        let wrong = (0..y.len()).filter(|&i| y[i] != at_position(i)).count();
        self.judge.at_most(&format!("{}/indices", self.name), wrong as f64, 0.5);
    }

    /// y is off by an exponential of one rounding, a sum and a quotient; 1 - y by as much of y, near 1.
    fn sigmoid<T: Precision>(&mut self) {
        let inputs = self.arrays(&["x", "dy"]);
        let cpu = Cpu::<T>::new();
        let y = cpu.sigmoid_forward(&upload(&cpu, &inputs["x"])).unwrap();
        let dx = cpu.sigmoid_backward(&y, &upload(&cpu, &inputs["dy"])).unwrap();
        let (y, dx) = (cpu.download(&y).unwrap(), cpu.download(&dx).unwrap());
        let expected = self.array("y").values;
        // Below its smallest normal number f32 keeps fewer digits.
        let smallest = f64::from(f32::MIN_POSITIVE) / T::ROUNDOFF;
        self.elements::<T>("y", &y, |i| 8.0 * expected[i] + smallest);
        self.elements::<T>("dx", &dx, |i| 16.0 * inputs["dy"].values[i].abs() * expected[i] + smallest);
    }

    fn batch_norm<T: Precision>(&mut self) {
        let leaves = ["x", "gamma", "beta", "running_mean_in", "running_var_in", "dy"];
        let inputs = self.arrays(&leaves);
        let bounds = BatchNormBounds::new(&inputs);
        for (leaf, got) in batch_norm::<T>(&inputs) {
            self.elements::<T>(leaf, &got, |i| bounds.of(leaf, i));
        }
    }
}

fn magnitudes(inputs: &Arrays) -> Arrays {
    inputs.iter().map(|(&leaf, array)| (leaf, array.map(f64::abs))).collect()
}

fn conv2d<T: Real>(inputs: &Arrays, window: Window) -> Results {
    let cpu = Cpu::<T>::new();
    let [x, w, dy] = ["x", "w", "dy"].map(|leaf| upload(&cpu, &inputs[leaf]));
    let y = cpu.conv2d_forward(&x, &w, window).unwrap();
    let dx = cpu.conv2d_backward_data(&w, &dy, x.shape(), window).unwrap();
    let dw = cpu.conv2d_backward_filter(&x, &dy, w.shape(), window).unwrap();
    download(&cpu, [("y", y), ("dx", dx), ("dw", dw)]).into()
}

fn linear<T: Real>(inputs: &Arrays) -> Results {
    let cpu = Cpu::<T>::new();
    let [x, w, dy] = ["x", "w", "dy"].map(|leaf| upload(&cpu, &inputs[leaf]));
    let b = inputs.get("b").map(|b| upload(&cpu, b));
    let y = cpu.linear_forward(&x, &w, b.as_ref()).unwrap();
    let dx = cpu.linear_backward_data(&w, &dy).unwrap();
    let dw = cpu.linear_backward_weight(&x, &dy).unwrap();
    let mut results: Results = download(&cpu, [("y", y), ("dx", dx), ("dw", dw)]).into();
    if b.is_some() {
        results.extend(download(&cpu, [("db", cpu.linear_backward_bias(&dy).unwrap())]));
    }
    results
}

fn global_avg_pool<T: Real>(inputs: &Arrays) -> Results {
    let cpu = Cpu::<T>::new();
    let x = upload(&cpu, &inputs["x"]);
    let y = cpu.global_avg_pool_forward(&x).unwrap();
    let dx = cpu.global_avg_pool_backward(&upload(&cpu, &inputs["dy"]), x.shape()).unwrap();
    download(&cpu, [("y", y), ("dx", dx)]).into()
}

/// The networks' only max pooling: 3 x 3, stride 2, padding 1.
fn max_pool<T: Real>(inputs: &Arrays) -> [(&'static str, Vec<f64>); 2] {
    let cpu = Cpu::<T>::new();
    let window = Window { kernel: [3, 3], stride: 2, padding: 1 };
    let x = upload(&cpu, &inputs["x"]);
    let (y, argmax) = cpu.max_pool_forward(&x, window).unwrap();
    let dy = upload(&cpu, &inputs["dy"]);
    assert_eq!(y.shape(), dy.shape(), "max_pool: shape of the output");
    let dx = cpu.max_pool_backward(&dy, &argmax, x.shape(), window).unwrap();
    download(&cpu, [("y", y), ("dx", dx)])
}

fn batch_norm<T: Real>(inputs: &Arrays) -> Results {
    let cpu = Cpu::<T>::new();
    let [x, weight, bias, dy] = ["x", "gamma", "beta", "dy"].map(|leaf| upload(&cpu, &inputs[leaf]));
    let [mut mean, mut var] = ["running_mean_in", "running_var_in"].map(|leaf| upload(&cpu, &inputs[leaf]));
    let affine = || Affine { weight: &weight, bias: &bias };
    let y_eval = cpu.batch_norm_inference(&x, affine(), None, &mean, &var, EPS, Activation::Identity).unwrap();
    let running = RunningStats { mean: &mut mean, var: &mut var, momentum: 0.1 };
    let (y, stats) = cpu.batch_norm_forward(&x, affine(), None, Some(running), 1, EPS, Activation::Identity).unwrap();
    let grads = cpu.batch_norm_backward(&x, &y, dy, affine(), &stats, Residual::Absent, Activation::Identity).unwrap();
    let inv_std = cpu.download(&stats.inv_std).unwrap();
    let (batch_mean, running_mean, running_var) = (stats.mean, mean, var);
    let mut results: Results = download(&cpu, [("y", y), ("y_eval", y_eval), ("batch_mean", batch_mean)]).into();
    results.push(("batch_var_biased", inv_std.into_iter().map(|s| 1.0 / (s * s) - EPS).collect()));
    results.extend(download(&cpu, [("running_mean_out", running_mean), ("running_var_out", running_var)]));
    results.extend(download(&cpu, [("dx", grads.dx), ("dgamma", grads.dweight), ("dbeta", grads.dbias)]));
    results
}

fn download<T: Real, const N: usize>(
    cpu: &Cpu<T>,
    results: [(&'static str, Tensor<Cpu<T>>); N],
) -> [(&'static str, Vec<f64>); N] {
    results.map(|(leaf, tensor)| (leaf, cpu.download(&tensor).unwrap()))
}

/// Rounding errors of a batch norm in roundoffs u, by channel. The mean is stored with an error of u |mean|, which every
/// deviation from it inherits; the variance is a sum of squares of deviations, accumulated in f64, and 1/std is stored with
/// its own rounding. 16 stands for the few roundings of each chain, in the engine and in the reference.
struct BatchNormBounds<'a> {
    inputs: &'a Arrays,
    channels: usize,
    rows: f64,
    mean: Vec<f64>,
    var: Vec<f64>,
    /// Means over rows of |dy| and of |dy| (|x - mean| + |mean|).
    gradient: Vec<[f64; 2]>,
}

const CHAIN: f64 = 16.0;

impl<'a> BatchNormBounds<'a> {
    fn new(inputs: &'a Arrays) -> Self {
        let (x, dy) = (&inputs["x"], &inputs["dy"]);
        let channels = x.shape[x.shape.len() - 1];
        let rows = x.values.len() as f64 / channels as f64;
        let over_rows = |c: usize, f: &dyn Fn(f64, f64) -> f64| {
            let pairs = x.values.iter().zip(&dy.values).skip(c).step_by(channels);
            pairs.map(|(&x, &dy)| f(x, dy)).sum::<f64>() / rows
        };
        let mean: Vec<f64> = (0..channels).map(|c| over_rows(c, &|x, _| x)).collect();
        let var = (0..channels).map(|c| over_rows(c, &|x, _| (x - mean[c]).powi(2))).collect();
        let spread = |c: usize, x: f64| (x - mean[c]).abs() + mean[c].abs();
        let gradient = (0..channels)
            .map(|c| [over_rows(c, &|_, dy| dy.abs()), over_rows(c, &|x, dy| dy.abs() * spread(c, x))])
            .collect();
        BatchNormBounds { inputs, channels, rows, mean, var, gradient }
    }

    fn of(&self, leaf: &str, i: usize) -> f64 {
        let c = i % self.channels;
        let input = |leaf: &str, i: usize| self.inputs[leaf].values[i].abs();
        let (mean, var, inv_std) = (self.mean[c].abs(), self.var[c], 1.0 / (self.var[c] + EPS).sqrt());
        let (gamma, beta) = (input("gamma", c), input("beta", c));
        let [dy_mean, dot_mean] = self.gradient[c];
        let deviation = |i: usize| (self.inputs["x"].values[i] - self.mean[c]).abs();
        CHAIN
            * match leaf {
                "y" => (deviation(i) + mean) * inv_std * gamma + beta,
                "y_eval" => {
                    let (mean, var) = (input("running_mean_in", c), input("running_var_in", c));
                    (input("x", i) + mean) / (var + EPS).sqrt() * gamma + beta
                }
                "batch_mean" => mean + var.sqrt(),
                "batch_var_biased" => var + EPS,
                "running_mean_out" => input("running_mean_in", c) + mean + var.sqrt(),
                "running_var_out" => input("running_var_in", c) + 2.0 * var,
                // The slope's error counts with the deviation, the deviation's with the slope.
                "dx" => {
                    let through = (deviation(i) + mean) * inv_std * inv_std * dot_mean;
                    gamma * inv_std * (input("dy", i) + dy_mean + through)
                }
                "dgamma" => self.rows * dot_mean * inv_std,
                "dbeta" => self.rows * dy_mean,
                _ => panic!("no bound for {leaf}"),
            }
    }
}

fn check<T: Precision>(golden: &Golden) {
    let mut judge = Judge::new::<T>(golden);
    for name in golden.cases() {
        let mut case = Case { golden, judge: &mut judge, name };
        match name.split('_').next().unwrap_or_default() {
            "bn1d" | "bn2d" => case.batch_norm::<T>(),
            "maxpool" => case.max_pool::<T>(),
            "avgpool" => case.global_avg_pool::<T>(),
            "conv" => case.conv2d::<T>(),
            "linear" => case.linear::<T>(),
            "sigmoid" => case.sigmoid::<T>(),
            _ => panic!("{}: no layer for the case {name}", golden.path.display()),
        }
    }
    judge.finish();
}

#[test]
fn layers_agree() {
    each(Kind::Layers, |golden| {
        check::<f64>(golden);
        check::<f32>(golden);
    });
}
