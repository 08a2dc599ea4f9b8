//! Every gradient against central differences in double precision, over random odd shapes.
//!
//! With steps of 1e-5 and losses of order one a difference errs by about 1e-10 (see [`disentangle::autograd::gradcheck`]); the
//! bound is 1e-6 in the norm of each input's gradient. Each op is followed by a nonlinearity, so that the gradient that
//! reaches it is not constant.

use disentangle::Result;
use disentangle::autograd::gradcheck::{Differences, gradcheck, gradcheck_params};
use disentangle::autograd::{Tape, Var};
use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Activation, Backend, RunningStats, Samples, Window};
use disentangle::loss::{LossWeights, losses};
use disentangle::model::{Architecture, Model};
use disentangle::nn::{Backbone, Forward, Mode, Params, Stem};
use disentangle::ops::batch_norm::Inputs;
use disentangle::rng::{Purpose, Stream, stream};
use disentangle::tensor::Shape;

/// Largest relative error of a gradient, in its norm.
const TOLERANCE: f64 = 1e-6;

type Tape64 = Tape<Cpu<f64>>;
/// Shape and values of an input.
type Input = (Shape, Vec<f64>);

/// Random numbers for a case of a test.
fn random(test: u64, case: u64) -> Stream {
    stream(20_240 + test, Purpose::Init, 0, case, 0)
}

/// In `low..=high`.
fn size(random: &mut Stream, low: u32, high: u32) -> usize {
    (low + random.below(high - low + 1)) as usize
}

/// Normal numbers.
fn normal<const R: usize>(random: &mut Stream, shape: [usize; R], scale: f64) -> Input {
    let shape = Shape::from(shape);
    (shape, (0..shape.elems()).map(|_| scale * random.normal()).collect())
}

/// Checks the gradients of all inputs; every element is compared, or `limit` of each input.
fn check(what: &str, inputs: &[Input], limit: usize, f: impl Fn(&mut Tape64, &[Var]) -> Result<Var>) {
    let errors = gradcheck(inputs, Differences { limit, ..Differences::default() }, f).unwrap();
    for (i, error) in errors.iter().enumerate() {
        assert!(error.norm > 0.0 && error.compared > 0, "{what}: input {i} has no gradient to check");
        assert!(error.relative <= TOLERANCE, "{what}: input {i}, {:?}: {error:?}", inputs[i].0);
        assert!(error.crossed == 0, "{what}: input {i} is too near a kink: {error:?}");
    }
}

/// Elements of an input of a convolution that are compared: two evaluations each.
const SOME: usize = 60;

/// A scalar that depends on all of x in a curved way, and differently on each element: x is taken as logits of an entropy
/// after a linear map where it is a matrix. Entropies alone are even functions of their logits.
fn scalar(tape: &mut Tape64, x: Var) -> Result<Var> {
    let y = tape.sigmoid(x)?;
    let entropy = tape.binary_entropy(x)?;
    let of_sigmoid = tape.binary_entropy(y)?;
    tape.weighted_sum([(entropy, 1.0), (of_sigmoid, -3.0), (entropy, 0.5)])
}

#[test]
fn sigmoid_binary_entropy_and_weighted_sum() {
    for case in 0..4 {
        let mut r = random(1, case);
        let shape = [size(&mut r, 1, 7), size(&mut r, 1, 9)];
        let x = normal(&mut r, shape, 2.0);
        check("binary_entropy", std::slice::from_ref(&x), usize::MAX, |tape, v| tape.binary_entropy(v[0]));
        // Both of its uses add up.
        check("sigmoid", std::slice::from_ref(&x), usize::MAX, |tape, v| scalar(tape, v[0]));
        let inputs = [x.clone(), normal(&mut r, shape, 1.0), normal(&mut r, [5, 3], 1.0)];
        check("weighted_sum", &inputs, usize::MAX, |tape, v| {
            let terms = [tape.binary_entropy(v[0])?, tape.binary_entropy(v[1])?, tape.binary_entropy(v[2])?];
            tape.weighted_sum([(terms[0], 1.5), (terms[1], -0.7), (terms[2], 2.0)])
        });
    }
}

#[test]
fn linear() {
    for case in 0..6 {
        let mut r = random(2, case);
        // Small, and with more outputs than one block of channels.
        let outputs = if case < 4 { size(&mut r, 1, 9) } else { size(&mut r, 65, 90) };
        let (rows, inputs) = (size(&mut r, 1, 40), size(&mut r, 1, 33));
        let x = normal(&mut r, [rows, inputs], 1.0);
        let w = normal(&mut r, [outputs, inputs], 1.0);
        let b = normal(&mut r, [outputs], 1.0);
        check("linear", &[x.clone(), w.clone()], SOME, |tape, v| {
            let y = tape.linear(v[0], v[1], None)?;
            scalar(tape, y)
        });
        check("linear with bias", &[x, w, b], SOME, |tape, v| {
            let y = tape.linear(v[0], v[1], Some(v[2]))?;
            scalar(tape, y)
        });
    }
}

#[test]
fn values_used_twice_accumulate() {
    let mut r = random(3, 0);
    let (x, w) = (normal(&mut r, [5, 5], 1.0), normal(&mut r, [5, 5], 1.0));
    // x three times, once as weights; w twice.
    check("x w^T, and x x^T w^T", &[x, w], usize::MAX, |tape, v| {
        let (once, square) = (tape.linear(v[0], v[1], None)?, tape.linear(v[0], v[0], None)?);
        let twice = tape.linear(square, v[1], None)?;
        let (a, b) = (scalar(tape, once)?, scalar(tape, twice)?);
        tape.weighted_sum([(a, 1.0), (b, 0.3), (a, 0.1)])
    });
    // A batch norm's input as its own residual, as an identity shortcut after a shared value.
    let mut inputs = vec![normal(&mut r, [8, 3], 1.0), normal(&mut r, [3], 1.0), normal(&mut r, [3], 1.0)];
    inputs[0].1.iter_mut().for_each(|x| *x += 0.3);
    check("batch_norm of its own residual", &inputs, usize::MAX, |tape, v| {
        let inputs = Inputs { x: v[0], weight: v[1], bias: v[2], residual: Some(v[0]) };
        let y = tape.batch_norm(inputs, None, 2, Activation::Identity)?;
        scalar(tape, y)
    });
}

/// Kernel, stride, padding: all that the networks use, and some that they do not.
const WINDOWS: [(usize, usize, usize); 8] =
    [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (7, 2, 3), (5, 3, 2), (2, 1, 0), (3, 3, 0)];

/// Checks one convolution; gives how many output columns it has.
fn check_conv2d(r: &mut Stream, [n, h, w]: [usize; 3], [c, k]: [usize; 2], window: (usize, usize, usize)) {
    let (kernel, stride, padding) = window;
    let window = Window { kernel: [kernel; 2], stride, padding };
    let x = normal(r, [n, h, w, c], 1.0);
    let filters = normal(r, [k, kernel, kernel, c], 1.0 / ((kernel * kernel * c) as f64).sqrt());
    let what = format!("conv2d {n} x {h} x {w} x {c}, {k} filters, {window:?}");
    check(&what, &[x, filters], SOME, |tape, v| {
        let y = tape.conv2d(v[0], v[1], window)?;
        scalar(tape, y)
    });
}

/// A side that the kernel fits on.
fn side(r: &mut Stream, (kernel, _, padding): (usize, usize, usize)) -> usize {
    let least = kernel.saturating_sub(2 * padding).max(1) as u32;
    size(r, least, least + 8)
}

#[test]
fn conv2d_of_narrow_inputs() {
    for (i, window) in WINDOWS.into_iter().enumerate() {
        for case in 0..2 {
            let mut r = random(4, 10 * i as u64 + case);
            let image = [size(&mut r, 1, 3), side(&mut r, window), side(&mut r, window)];
            let channels = [size(&mut r, 1, 5), size(&mut r, 1, 6)];
            check_conv2d(&mut r, image, channels, window);
        }
    }
}

#[test]
fn conv2d_of_wide_inputs() {
    for (i, window) in WINDOWS.into_iter().enumerate() {
        let mut r = random(5, i as u64);
        let channels = [size(&mut r, 16, 19), size(&mut r, 1, 5)];
        // Fewer images than columns: a row of columns is a product.
        let few = [size(&mut r, 1, 2), side(&mut r, window), 9 + side(&mut r, window)];
        check_conv2d(&mut r, few, channels, window);
        // More images than columns: a column of all images is.
        let many = [size(&mut r, 13, 17), side(&mut r, window), window.0];
        check_conv2d(&mut r, many, channels, window);
        // A single output pixel, and an image that is all padding but for a pixel.
        check_conv2d(&mut r, [3, window.0, window.0], channels, (window.0, window.1, 0));
        if window.2 > 0 {
            check_conv2d(&mut r, [2, 1, 2], channels, window);
        }
    }
    // More filters than one block of channels.
    let mut r = random(5, 100);
    check_conv2d(&mut r, [2, 5, 6], [16, 70], (3, 1, 1));
    check_conv2d(&mut r, [9, 3, 2], [17, 67], (3, 2, 1));
    check_conv2d(&mut r, [3, 1, 1], [18, 66], (3, 1, 1));
}

/// Adds to the values of a batch norm's bias until no output is within 1e-3 of ReLU's kink; a step of 1e-5 moves an output
/// by 1e-4 at most here.
fn away_from_kink(inputs: &mut [Input], views: usize) {
    let cpu = Cpu::<f64>::new();
    for _ in 0..1000 {
        let mut tape = Tape::new(cpu.clone());
        let vars: Vec<Var> = inputs.iter().map(|(s, v)| tape.leaf(cpu.upload(*s, v).unwrap())).collect();
        let parts = Inputs { x: vars[0], weight: vars[1], bias: vars[2], residual: vars.get(3).copied() };
        let y = tape.batch_norm(parts, None, views, Activation::Identity).unwrap();
        if cpu.values(tape.value(y)).iter().all(|y| y.abs() > 1e-3) {
            return;
        }
        inputs[2].1.iter_mut().for_each(|bias| *bias += 0.003);
    }
    panic!("every bias puts an output on the kink");
}

#[test]
fn batch_norm() {
    for case in 0..12 {
        let mut r = random(6, case);
        let (views, c) = (1 + case as usize % 2, size(&mut r, 1, 6));
        let rows = views * size(&mut r, 2, 4);
        let (h, w) = (size(&mut r, 1, 3), size(&mut r, 2, 3));
        let x = if case < 6 { normal(&mut r, [rows, h, w, c], 1.0) } else { normal(&mut r, [rows + views, c], 1.0) };
        let residual = (x.0, (0..x.1.len()).map(|_| r.normal()).collect());
        let all = [x, normal(&mut r, [c], 1.0), normal(&mut r, [c], 1.0), residual];
        for activation in [Activation::Identity, Activation::Relu] {
            for shortcut in [false, true] {
                let mut inputs = if shortcut { all.to_vec() } else { all[..3].to_vec() };
                if activation == Activation::Relu {
                    away_from_kink(&mut inputs, views);
                }
                let what = format!("batch_norm, {views} views, residual {shortcut}, {activation:?}");
                check(&what, &inputs, usize::MAX, |tape, v| {
                    let residual = shortcut.then(|| v[3]);
                    let parts = Inputs { x: v[0], weight: v[1], bias: v[2], residual };
                    let y = tape.batch_norm(parts, None, views, activation)?;
                    scalar(tape, y)
                });
            }
        }
    }
}

#[test]
fn max_pool_and_global_avg_pool() {
    for (i, (kernel, stride, padding)) in [(3, 2, 1), (2, 2, 0), (3, 1, 1), (5, 3, 2)].into_iter().enumerate() {
        for case in 0..2 {
            let mut r = random(7, 10 * i as u64 + case);
            // Around the 16 channels that are pooled at once.
            let c = if case == 0 { size(&mut r, 1, 5) } else { size(&mut r, 17, 35) };
            let (h, w) = (side(&mut r, (kernel, stride, padding)), side(&mut r, (kernel, stride, padding)));
            let images = size(&mut r, 1, 3);
            let (shape, values) = normal(&mut r, [images, h, w, c], 1.0);
            // Their ranks, times 0.01: no two values are so near that a step changes which is larger.
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
            let mut x = vec![0.0; values.len()];
            order.iter().enumerate().for_each(|(rank, &at)| x[at] = 0.01 * (rank as f64 - values.len() as f64 / 2.0));
            let scale = 3.0 / (0.005 * values.len() as f64).max(1.0);
            x.iter_mut().for_each(|x| *x *= scale.min(1.0));
            let window = Window { kernel: [kernel; 2], stride, padding };
            check("max_pool", &[(shape, x)], 300, |tape, v| {
                let y = tape.max_pool(v[0], window)?;
                scalar(tape, y)
            });
            check("global_avg_pool", &[(shape, values)], 300, |tape, v| {
                let y = tape.global_avg_pool(v[0])?;
                scalar(tape, y)
            });
        }
    }
}

#[test]
fn nt_xent() {
    for case in 0..8 {
        let mut r = random(8, case);
        // Up to beyond a block of 32 samples.
        let (rows, columns) = (2 * size(&mut r, 1, 20), size(&mut r, 2, 21));
        let temperature = [0.1, 0.5, 1.0, 2.0][case as usize % 4];
        let z = normal(&mut r, [rows, columns], 1.0);
        for samples in [Samples::Rows, Samples::Columns] {
            if (samples == Samples::Columns && rows == 2) || rows.max(columns) < 3 {
                // One-dimensional samples: every cosine is 1 or -1, every gradient 0.
                continue;
            }
            if samples == Samples::Rows && rows == 2 {
                // No negatives: the loss is 0 whatever z is.
                continue;
            }
            let what = format!("nt_xent of {samples:?} at {temperature}");
            check(&what, std::slice::from_ref(&z), 300, |tape, v| tape.nt_xent(v[0], samples, temperature));
            // Behind a sigmoid, as the feature loss is, and scaled by what comes after it.
            check(&what, std::slice::from_ref(&z), 300, |tape, v| {
                let y = tape.sigmoid(v[0])?;
                let loss = tape.nt_xent(y, samples, temperature)?;
                scalar(tape, loss)
            });
        }
    }
}

/// Samples whose norms are below the clamp of 1e-12 are divided by a constant: nothing is projected out. Steps of 1e-16 move
/// them, once divided, by 1e-4.
#[test]
fn nt_xent_of_clamped_samples() {
    let z = normal(&mut random(11, 0), [6, 4], 1e-13);
    for samples in [Samples::Rows, Samples::Columns] {
        let differences = Differences { step: 1e-16, ..Differences::default() };
        let errors = gradcheck(std::slice::from_ref(&z), differences, |tape, v| tape.nt_xent(v[0], samples, 0.5));
        // The differences err by a multiple of the square of that 1e-4.
        assert!(errors.unwrap()[0].relative < 1e-6, "{samples:?}");
    }
}

/// Checks a whole network with its three losses, on some elements of every parameter.
///
/// Steps of 1e-6: batch norm over a few values bends the loss so much that larger ones err by more than the tolerance, and
/// fewer of them cross a kink. The loss (of order 5) is computed to about 1e-14, which leaves 1e-8 beside gradients of order
/// 0.1; tensors of smaller gradients are allowed that much. A parameter of the first layers moves every activation, of which
/// there are some 1e4 with a density of about 0.4 at the kink: steps of 2e-6 cross one for about one such parameter in a
/// hundred. Those are not compared, and there may be no more of them among all parameters.
fn check_network(architecture: Architecture, images: [usize; 2], seed: u64) {
    let [pairs, side] = images;
    let mut params = Params::new(Cpu::<f64>::new(), seed);
    let model = Model::new(&mut params, &architecture).unwrap();
    let mut r = random(9, seed);
    // Not at their first values of 0 and 1, where some errors cancel.
    let cpu = params.backend().clone();
    for (_, param) in params.iter_mut().filter(|(_, p)| p.role.trained()) {
        let mut values = cpu.download(&param.tensor).unwrap();
        values.iter_mut().for_each(|v| *v += 0.1 * r.normal() * v.abs().max(0.3));
        param.tensor = cpu.upload(param.tensor.shape(), &values).unwrap();
    }
    let (shape, values) = normal(&mut r, [2 * pairs, side, side, 3], 1.0);
    let weights = LossWeights { alpha: 0.7, temperature_instance: 0.5, temperature_feature: 0.8 };
    let differences = Differences { step: 1e-6, limit: 4 };
    let errors = gradcheck_params(&mut params, differences, |tape, params| {
        let images = tape.input(cpu.upload(shape, &values)?);
        let mode = Mode::Train { views: 2, momentum: 0.1 };
        let outputs = model.forward(&mut Forward { tape, params, mode }, images)?;
        Ok(losses(tape, &outputs, &weights)?.total)
    });
    let (mut compared, mut crossed) = (0, 0);
    for (name, error) in errors.unwrap() {
        let allowed = TOLERANCE * error.norm + 1e-8 * (error.compared as f64).sqrt();
        let difference = error.relative * error.norm;
        assert!(difference <= allowed, "{architecture:?}: {name}: {error:?}");
        compared += error.compared;
        crossed += error.crossed;
    }
    println!("{architecture:?}: {compared} elements compared, {crossed} not for a kink");
    assert!(100 * crossed <= compared, "{crossed} steps crossed a kink, {compared} did not");
}

#[test]
fn whole_networks() {
    let small = Architecture {
        backbone: Backbone::ResNet18,
        stem: Stem::Imagenet,
        base_width: 3,
        projection_dim: 7,
        feature_num: 5,
    };
    check_network(small, [4, 40], 1);
    check_network(Architecture { stem: Stem::Cifar, base_width: 2, ..small }, [5, 16], 2);
    check_network(Architecture { backbone: Backbone::ResNet50, base_width: 2, ..small }, [4, 40], 3);
}

/// Running statistics are data, not parameters: nothing flows through them, and they follow the batch.
#[test]
fn batch_norm_moves_its_running_statistics_and_not_its_gradients() {
    let mut r = random(10, 0);
    let inputs = [normal(&mut r, [6, 3], 1.0), normal(&mut r, [3], 1.0), normal(&mut r, [3], 1.0)];
    check("batch_norm with running statistics", &inputs, usize::MAX, |tape, v| {
        let cpu = tape.backend().clone();
        let (mut mean, mut var) = (cpu.full(Shape::from([3]), 0.0)?, cpu.full(Shape::from([3]), 1.0)?);
        let running = RunningStats { mean: &mut mean, var: &mut var, momentum: 0.1 };
        let parts = Inputs { x: v[0], weight: v[1], bias: v[2], residual: None };
        let y = tape.batch_norm(parts, Some(running), 2, Activation::Identity)?;
        assert!(cpu.values(&mean).iter().all(|&m| m != 0.0), "the running mean did not move");
        scalar(tape, y)
    });
}
