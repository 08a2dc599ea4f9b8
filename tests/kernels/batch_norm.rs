//! Batch norm with its statistics, the residual and the ReLU behind it, and all their gradients.
//!
//! The bound on an error is twice that of the CPU's f32, plus 16 f32 roundings of the size a quantity is made of: about a
//! dozen operations lie between input and output, and the CPU's own error may happen to be 0. A sum over N rows of numbers
//! of size 1, in f32 within a chunk, gathers errors like a random walk: 16 roundings of sqrt(N). Results in bf16 are rounded
//! once more, to 8 bits. The backward gets the device's own output, so that both take the same elements for passed.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::batch_norm::{
    BackwardData, BackwardFinish, BackwardSums, COEFFICIENTS, InverseStd, Normalise, STATISTICS, SUMS, Statistics,
    StatisticsFinish,
};
use disentangle::backend::cuda::columns::Columns;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::{Activation, Affine, Backend, Residual, RunningStats};
use disentangle::tensor::{Shape, Tensor};
use half::bf16;

use crate::{Device, Number, Parity, UNIT, device, held, largest, numbers, wide};

const FLOOR: f64 = 16.0 * UNIT;
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Rows of a view, channels, views: one of each, primes, 16 row lanes and 16 columns and one beside, the same by vectors of
/// 4 columns, 8 held rows of 16 lanes and one beside, several chunks with tails (more than the 8 lanes that combine
/// them), and ResNet's widths.
const SHAPES: [[usize; 3]; 17] = [
    [1, 1, 1],
    [1, 4, 2],
    [2, 3, 2],
    [7, 5, 3],
    [15, 15, 1],
    [16, 16, 2],
    [17, 17, 2],
    [31, 63, 1],
    [33, 64, 2],
    [127, 65, 1],
    [128, 33, 2],
    [129, 68, 2],
    [257, 31, 1],
    [1031, 8, 2],
    [2500, 3, 1],
    [256, 128, 2],
    [32, 512, 2],
];

pub struct Problem {
    /// `[views * rows, columns]`
    pub rows: usize,
    pub columns: usize,
    pub views: usize,
    pub x: Vec<f32>,
    pub residual: Option<Vec<f32>>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    /// Running mean and variance before.
    pub running: Option<[Vec<f32>; 2]>,
    pub dy: Vec<f32>,
    pub activation: Activation,
}

/// What training computes, in the order y, mean, inv_std, running mean, running variance.
pub type Forward = [Vec<f64>; 5];
/// dx, dweight, dbias, dresidual.
pub type Gradients = [Vec<f64>; 4];

impl Problem {
    /// Numbers of size 1.
    pub fn new<T: Number>([rows, columns, views]: [usize; 3], residual: Residual, activation: Activation) -> Self {
        let elems = rows * columns * views;
        let residual = match residual {
            Residual::Absent => None,
            Residual::Added => Some(held::<T>(numbers(elems, 0.7))),
        };
        Problem {
            rows,
            columns,
            views,
            x: held::<T>(numbers(elems, 1.0)),
            residual,
            weight: numbers(columns, 0.5).into_iter().map(|w| 1.0 + w).collect(),
            bias: numbers(columns, 0.3),
            running: Some([numbers(columns, 1.1), numbers(columns, 1.2).into_iter().map(f32::abs).collect()]),
            dy: held::<T>(numbers(elems, 0.9)),
            activation,
        }
    }

    fn shape(&self) -> Columns {
        Columns::new(self.rows, self.columns, self.views).unwrap()
    }
}

/// Training on the CPU; the backward takes the elements of `y` that are positive for passed.
fn on_cpu<B: Backend>(cpu: B, p: &Problem, y: &[f64]) -> (Forward, Gradients) {
    let shape = Shape::from([p.views * p.rows, p.columns]);
    let like_x = |values: &[f32]| cpu.upload(shape, &wide(values)).unwrap();
    let like_weight = |values: &[f32]| cpu.upload(Shape::from([p.columns]), &wide(values)).unwrap();
    let (x, weight, bias) = (like_x(&p.x), like_weight(&p.weight), like_weight(&p.bias));
    let residual = p.residual.as_ref().map(|residual| like_x(residual));
    let mut running = p.running.as_ref().map(|[mean, var]| [like_weight(mean), like_weight(var)]);
    let affine = Affine { weight: &weight, bias: &bias };
    let stats = running.as_mut().map(|[mean, var]| RunningStats { mean, var, momentum: MOMENTUM });
    let (own_y, stats) =
        cpu.batch_norm_forward(&x, affine, residual.as_ref(), stats, p.views, EPS, p.activation).unwrap();
    let y = cpu.upload(shape, y).unwrap();
    let added = if residual.is_some() { Residual::Added } else { Residual::Absent };
    let grads = {
        let affine = Affine { weight: &weight, bias: &bias };
        cpu.batch_norm_backward(&x, &y, like_x(&p.dy), affine, &stats, added, p.activation)
    }
    .unwrap();
    let read = |x: &Tensor<B>| cpu.download(x).unwrap();
    let [running_mean, running_var] = running.as_ref().map_or([vec![], vec![]], |[mean, var]| [read(mean), read(var)]);
    let forward = [read(&own_y), read(&stats.mean), read(&stats.inv_std), running_mean, running_var];
    let dresidual = grads.dresidual.as_ref().map_or(vec![], read);
    (forward, [read(&grads.dx), read(&grads.dweight), read(&grads.dbias), dresidual])
}

/// Training on the device.
pub fn on_device<T: Number>(device: &Device, p: &Problem) -> (Forward, Gradients) {
    let (kernels, stream, shape) = (&device.kernels, &device.stream, p.shape());
    let (elems, per_view) = (shape.elems(), p.views * p.columns);
    let (x, residual) = (device.upload_as::<T>(&p.x), p.residual.as_ref().map(|r| device.upload_as::<T>(r)));
    let (weight, bias) = (device.upload(&p.weight), device.upload(&p.bias));
    let mut running = p.running.as_ref().map(|[mean, var]| [device.upload(mean), device.upload(var)]);
    let [mut mean, mut inv_std] = [(); 2].map(|()| device.unwritten::<f32>(per_view));
    let mut partial = device.unwritten::<f32>(shape.partial_elems(STATISTICS));
    let mut y = device.unwritten::<T>(elems);
    let statistics = Statistics { x: Slice::of(&x, stream), partial: SliceMut::of(&mut partial, stream), shape };
    statistics.launch(kernels).unwrap();
    let [running_mean, running_var] = running
        .as_mut()
        .map_or([None, None], |[mean, var]| [Some(SliceMut::of(mean, stream)), Some(SliceMut::of(var, stream))]);
    let finish = StatisticsFinish {
        partial: Slice::of(&partial, stream),
        mean: SliceMut::of(&mut mean, stream),
        inv_std: SliceMut::of(&mut inv_std, stream),
        running_mean,
        running_var,
        shape,
        eps: EPS,
        momentum: MOMENTUM,
    };
    finish.launch(kernels).unwrap();
    let normalise = Normalise {
        x: Slice::of(&x, stream),
        residual: residual.as_ref().map(|residual| Slice::of(residual, stream)),
        mean: Slice::of(&mean, stream),
        inv_std: Slice::of(&inv_std, stream),
        weight: Slice::of(&weight, stream),
        bias: Slice::of(&bias, stream),
        y: SliceMut::of(&mut y, stream),
        shape,
        activation: p.activation.into(),
    };
    normalise.launch(kernels).unwrap();

    let dy = device.upload_as::<T>(&p.dy);
    // Only where a residual was added does the output have to say what passed.
    let passed = || (p.activation == Activation::Relu && p.residual.is_some()).then(|| Slice::of(&y, stream));
    let mut partial = device.unwritten::<f32>(shape.partial_elems(SUMS));
    let masked = p.residual.is_some() && p.activation == Activation::Relu;
    let mut dresidual = masked.then(|| device.unwritten::<T>(elems));
    let sums = BackwardSums {
        x: Slice::of(&x, stream),
        y: passed(),
        dy: Slice::of(&dy, stream),
        mean: Slice::of(&mean, stream),
        inv_std: Slice::of(&inv_std, stream),
        weight: Slice::of(&weight, stream),
        bias: Slice::of(&bias, stream),
        partial: SliceMut::of(&mut partial, stream),
        dresidual: dresidual.as_mut().map(|dresidual| SliceMut::of(dresidual, stream)),
        shape,
        activation: p.activation.into(),
    };
    sums.launch(kernels).unwrap();
    let [mut dweight, mut dbias] = [(); 2].map(|()| device.unwritten::<f32>(p.columns));
    let mut coefficients = device.unwritten::<f32>(COEFFICIENTS * per_view);
    let finish = BackwardFinish {
        partial: Slice::of(&partial, stream),
        inv_std: Slice::of(&inv_std, stream),
        weight: Slice::of(&weight, stream),
        dweight: SliceMut::of(&mut dweight, stream),
        dbias: SliceMut::of(&mut dbias, stream),
        coefficients: SliceMut::of(&mut coefficients, stream),
        shape,
    };
    finish.launch(kernels).unwrap();
    let mut dx = device.unwritten::<T>(elems);
    // Behind a residual the sums have left the gradient that is to be passed on.
    let behind = dresidual.as_ref().unwrap_or(&dy);
    let activation = if masked { Activation::Identity } else { p.activation };
    let data = BackwardData {
        x: Slice::of(&x, stream),
        dy: Slice::of(behind, stream),
        mean: Slice::of(&mean, stream),
        inv_std: Slice::of(&inv_std, stream),
        weight: Slice::of(&weight, stream),
        bias: Slice::of(&bias, stream),
        coefficients: Slice::of(&coefficients, stream),
        dx: SliceMut::of(&mut dx, stream),
        shape,
        activation: activation.into(),
    };
    data.launch(kernels).unwrap();
    // Without an activation the residual's gradient is that of the output.
    let dresidual = residual.map(|_| dresidual.unwrap_or(dy));
    let [running_mean, running_var] =
        running.map_or([vec![], vec![]], |[mean, var]| [device.read(&mean), device.read(&var)]);
    let forward = [device.read(&y), device.read(&mean), device.read(&inv_std), running_mean, running_var];
    let dresidual = dresidual.map_or(vec![], |dresidual| device.read(&dresidual));
    (forward, [device.read(&dx), device.read(&dweight), device.read(&dbias), dresidual])
}

/// Compares everything a training step computes.
fn check<T: Number>(device: &Device, p: &Problem, name: &str) {
    let (forward, gradients) = on_device::<T>(device, p);
    let (exact, exact_gradients) = on_cpu(Cpu::<f64>::new(), p, &forward[0]);
    let (plain, plain_gradients) = on_cpu(Cpu::<f32>::new(), p, &forward[0]);
    let (dy, rows) = (largest(&wide(&p.dy)), (p.views * p.rows) as f64);
    let parity =
        |i: usize, size: f64| Parity { found: &forward[i], exact: &exact[i], plain: &plain[i], floor: FLOOR * size };
    parity(0, largest(&exact[0]).max(1.0)).check::<T>(&format!("{name}: y"));
    // Means are made of numbers of the inputs' size, and may themselves be 0.
    let x = largest(&wide(&p.x));
    parity(1, x).check::<f32>(&format!("{name}: mean"));
    parity(2, largest(&exact[2])).check::<f32>(&format!("{name}: inv_std"));
    parity(3, x.max(largest(&exact[3]))).check::<f32>(&format!("{name}: running mean"));
    parity(4, largest(&exact[4])).check::<f32>(&format!("{name}: running variance"));
    let parity = |i: usize, size: f64| Parity {
        found: &gradients[i],
        exact: &exact_gradients[i],
        plain: &plain_gradients[i],
        floor: FLOOR * size,
    };
    // Where a view has one row or two, what dx is made of cancels.
    parity(0, dy * largest(&wide(&p.weight)) * largest(&exact[2])).check::<T>(&format!("{name}: dx"));
    parity(1, dy * rows.sqrt()).check::<f32>(&format!("{name}: dweight"));
    parity(2, dy * rows.sqrt()).check::<f32>(&format!("{name}: dbias"));
    parity(3, 0.0).check::<T>(&format!("{name}: dresidual"));
}

#[test]
fn training_is_the_cpus() {
    let device = device();
    for (i, shape) in SHAPES.into_iter().enumerate() {
        // Every fusion with every kind of shape, in turn.
        let residual = if i % 2 == 0 { Residual::Added } else { Residual::Absent };
        let other = if i % 2 == 0 { Residual::Absent } else { Residual::Added };
        check::<f32>(&device, &Problem::new::<f32>(shape, residual, Activation::Relu), &format!("f32 {shape:?} relu"));
        check::<f32>(&device, &Problem::new::<f32>(shape, other, Activation::Identity), &format!("f32 {shape:?}"));
        check::<bf16>(&device, &Problem::new::<bf16>(shape, other, Activation::Relu), &format!("bf16 {shape:?} relu"));
        check::<bf16>(
            &device,
            &Problem::new::<bf16>(shape, residual, Activation::Identity),
            &format!("bf16 {shape:?}"),
        );
    }
}

/// With many views a chunk is a whole view: longer than the 128 rows that 16 lanes hold in registers at once, as it is in
/// the first layers of a real batch.
#[test]
fn chunks_longer_than_registers_hold() {
    let device = device();
    for shape in [[290, 3, 1025], [150, 8, 1025]] {
        let p = Problem::new::<f32>(shape, Residual::Absent, Activation::Relu);
        check::<f32>(&device, &p, &format!("{shape:?}"));
    }
    let p = Problem::new::<bf16>([300, 4, 1025], Residual::Added, Activation::Identity);
    check::<bf16>(&device, &p, "bf16");
}

#[test]
fn a_large_mean_leaves_a_small_deviation_its_digits() {
    let device = device();
    for shape in [[257, 12, 2], [1031, 5, 2]] {
        let mut p = Problem::new::<f32>(shape, Residual::Absent, Activation::Identity);
        // Mean 500 and deviation 0.05: squares of 250,000 hold nothing of a variance of 0.0025.
        p.x.iter_mut().for_each(|x| *x = 500.0 + 0.05 * *x);
        check::<f32>(&device, &p, &format!("{shape:?} around 500"));
        // A first row, which all distances are taken from, far from the others.
        let columns = p.columns;
        p.x[..columns].iter_mut().for_each(|x| *x = -2000.0);
        check::<f32>(&device, &p, &format!("{shape:?} with an outlier"));
    }
}

/// Where the first row, which distances are taken from, is an outlier, all distances are long and nearly equal. Their mean
/// is good to half of what a single one is rounded by: sums over lanes and chunks do not add up their errors.
#[test]
fn the_mean_behind_a_far_first_row() {
    let device = device();
    let mut p = Problem::new::<f32>([1025, 12, 1], Residual::Absent, Activation::Identity);
    // Distances that take all 24 bits of an f32.
    let value = |column: usize| (1.0 + f32::from(2 * column as u8 + 1) / 128.0) / 32.0;
    p.x.iter_mut().enumerate().for_each(|(i, x)| *x = if i < 12 { -2048.0 } else { value(i % 12) });
    let ([_, mean, ..], _) = on_device::<f32>(&device, &p);
    for (column, mean) in mean.iter().enumerate() {
        let exact = (1024.0 * f64::from(value(column)) - 2048.0) / 1025.0;
        assert!((mean - exact).abs() <= 0.5 * UNIT * 2048.0, "{column}: {mean} instead of {exact}");
    }
}

#[test]
fn constant_huge_and_tiny_numbers() {
    let device = device();
    // A variance of 0; one of 1e30; one that vanishes beside eps; sums of squares that only differences keep finite.
    let kinds: [(&str, &dyn Fn(usize) -> f32); 4] = [
        ("constant", &|_| 3.25),
        ("huge", &|row| if row % 2 == 0 { 1e15 } else { -1e15 }),
        ("tiny", &|row| 1e-20 * row as f32),
        ("constant and huge", &|_| 1e20),
    ];
    for (name, value) in kinds {
        for columns in [3, 8] {
            let mut p = Problem::new::<f32>([37, columns, 2], Residual::Added, Activation::Relu);
            p.x.iter_mut().enumerate().for_each(|(i, x)| *x = value(i / columns));
            check::<f32>(&device, &p, name);
        }
    }
}

#[test]
fn what_is_no_number_spoils_its_channel_in_its_view_alone() {
    let device = device();
    let mut p = Problem::new::<f32>([37, 8, 2], Residual::Added, Activation::Relu);
    p.running = None;
    // In the first row, which distances are taken from, and behind it.
    p.x[3] = f32::NAN;
    p.x[4] = f32::INFINITY;
    p.x[8 * 5 + 5] = f32::NAN;
    p.x[8 * 6 + 6] = f32::NEG_INFINITY;
    let ([y, mean, inv_std, ..], [_, dweight, ..]) = on_device::<f32>(&device, &p);
    let spoilt = |channel: usize| (3..7).contains(&channel);
    for (i, y) in y.iter().enumerate() {
        assert_eq!(y.is_nan(), i < 37 * 8 && spoilt(i % 8), "row {} channel {}: {y}", i / 8, i % 8);
    }
    for (i, (mean, inv_std)) in mean.iter().zip(&inv_std).enumerate() {
        assert_eq!(inv_std.is_nan(), spoilt(i), "{i}: {mean} {inv_std}");
    }
    assert!(dweight.iter().enumerate().all(|(i, dweight)| dweight.is_nan() == spoilt(i)), "{dweight:?}");
}

#[test]
fn the_gradient_of_the_residual_may_take_the_place_of_the_outputs() {
    let device = device();
    let (kernels, stream) = (&device.kernels, &device.stream);
    for columns in [6, 64] {
        let shape = Columns::new(50, columns, 2).unwrap();
        let [x, y, dy] = [1.0, 1.1, 1.2].map(|size| numbers(shape.elems(), size));
        let [x, y] = [x, y].map(|values| device.upload(&values));
        let mean = device.upload(&numbers(2 * columns, 0.1));
        let (inv_std, weight) = (device.upload(&numbers(2 * columns, 1.0)), device.upload(&numbers(columns, 1.0)));
        let [apart, in_place] = [false, true].map(|in_place| {
            let (dy, mut partial) = (device.upload(&dy), device.unwritten::<f32>(shape.partial_elems(SUMS)));
            let mut dresidual = match in_place {
                true => device.alias(&dy),
                false => device.unwritten(shape.elems()),
            };
            let sums = BackwardSums {
                x: Slice::of(&x, stream),
                y: Some(Slice::of(&y, stream)),
                dy: Slice::of(&dy, stream),
                mean: Slice::of(&mean, stream),
                inv_std: Slice::of(&inv_std, stream),
                weight: Slice::of(&weight, stream),
                bias: Slice::of(&weight, stream),
                partial: SliceMut::of(&mut partial, stream),
                dresidual: Some(SliceMut::of(&mut dresidual, stream)),
                shape,
                activation: Activation::Relu.into(),
            };
            sums.launch(kernels).unwrap();
            let found = (device.read(&partial), device.read(&dresidual));
            if in_place {
                dresidual.leak();
            }
            found
        });
        assert_eq!(apart, in_place);
    }
}

/// Inference on the device, with `running` for statistics.
fn inference_on_device<T: Number>(device: &Device, p: &Problem, [mean, var]: &[Vec<f32>; 2]) -> Vec<f64> {
    let (kernels, stream, shape) = (&device.kernels, &device.stream, p.shape());
    let (x, residual) = (device.upload_as::<T>(&p.x), p.residual.as_ref().map(|r| device.upload_as::<T>(r)));
    let [mean, var, weight, bias] = [mean, var, &p.weight, &p.bias].map(|values| device.upload(values));
    let (mut inv_std, mut y) = (device.unwritten::<f32>(p.columns), device.unwritten::<T>(shape.elems()));
    let inverse = InverseStd {
        var: Slice::of(&var, stream),
        inv_std: SliceMut::of(&mut inv_std, stream),
        columns: p.columns as u32,
        eps: EPS,
    };
    inverse.launch(kernels).unwrap();
    let normalise = Normalise {
        x: Slice::of(&x, stream),
        residual: residual.as_ref().map(|residual| Slice::of(residual, stream)),
        mean: Slice::of(&mean, stream),
        inv_std: Slice::of(&inv_std, stream),
        weight: Slice::of(&weight, stream),
        bias: Slice::of(&bias, stream),
        y: SliceMut::of(&mut y, stream),
        shape,
        activation: p.activation.into(),
    };
    normalise.launch(kernels).unwrap();
    device.read(&y)
}

fn inference_on_cpu<B: Backend>(cpu: B, p: &Problem, running: &[Vec<f32>; 2]) -> Vec<f64> {
    let like_x = |values: &Vec<f32>| cpu.upload(Shape::from([p.rows, p.columns]), &wide(values)).unwrap();
    let like_weight = |values: &Vec<f32>| cpu.upload(Shape::from([p.columns]), &wide(values)).unwrap();
    let [mean, var, weight, bias] = [&running[0], &running[1], &p.weight, &p.bias].map(like_weight);
    let (x, residual) = (like_x(&p.x), p.residual.as_ref().map(like_x));
    let affine = Affine { weight: &weight, bias: &bias };
    let y = cpu.batch_norm_inference(&x, affine, residual.as_ref(), &mean, &var, EPS, p.activation).unwrap();
    cpu.download(&y).unwrap()
}

#[test]
fn inference_is_the_cpus() {
    fn check<T: Number>(device: &Device, shape: [usize; 3], residual: Residual, activation: Activation) {
        let p = Problem::new::<T>(shape, residual, activation);
        let running = p.running.as_ref().unwrap();
        let found = inference_on_device::<T>(device, &p, running);
        let exact = inference_on_cpu(Cpu::<f64>::new(), &p, running);
        let plain = inference_on_cpu(Cpu::<f32>::new(), &p, running);
        let floor = FLOOR * largest(&exact).max(1.0);
        Parity { found: &found, exact: &exact, plain: &plain, floor }.check::<T>(&format!("{shape:?} {activation:?}"));
    }
    let device = device();
    // A block of variances and one beside.
    for (rows, columns) in [(1, 1), (7, 5), (17, 64), (130, 255), (3, 256), (2, 257)] {
        let shape = [rows, columns, 1];
        check::<f32>(&device, shape, Residual::Added, Activation::Relu);
        check::<f32>(&device, shape, Residual::Absent, Activation::Identity);
        check::<bf16>(&device, shape, Residual::Absent, Activation::Relu);
        check::<bf16>(&device, shape, Residual::Added, Activation::Identity);
    }
}
