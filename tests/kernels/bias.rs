//! The bias of a linear layer and its gradient.
//!
//! One addition is rounded as on the CPU, to the bit. The gradient is a sum over rows, in f32 within a chunk: its bound is
//! twice the error of the CPU's f32, plus 16 roundings of sqrt(rows), as errors gather like a random walk.

use disentangle::backend::Backend;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::bias::{BiasAdd, BiasBackward, BiasBackwardFinish};
use disentangle::backend::cuda::columns::Columns;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::tensor::Shape;
use half::bf16;

use crate::{Device, Number, Parity, UNIT, device, held, numbers, wide};

/// Rows and columns: one, primes, 16 lanes by 16 columns (or vectors of four) and one beside, several chunks with tails,
/// and the heads of the paper.
const SHAPES: [[usize; 2]; 12] = [
    [1, 1],
    [2, 3],
    [7, 5],
    [15, 16],
    [16, 17],
    [17, 64],
    [33, 68],
    [128, 128],
    [129, 10],
    [1031, 9],
    [1200, 4],
    [64, 512],
];

/// `x + b` and the sum over x's rows.
pub fn on_device<T: Number>(device: &Device, x: &[f32], b: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (kernels, stream) = (&device.kernels, &device.stream);
    let shape = Columns::new(x.len() / b.len(), b.len(), 1).unwrap();
    let (x, b) = (device.upload_as::<T>(x), device.upload(b));
    let (mut y, mut db) = (device.unwritten::<T>(shape.elems()), device.unwritten::<f32>(shape.columns()));
    let mut partial = device.unwritten::<f32>(shape.partial_elems(1));
    let add = BiasAdd { x: Slice::of(&x, stream), b: Slice::of(&b, stream), y: SliceMut::of(&mut y, stream), shape };
    add.launch(kernels).unwrap();
    let backward = BiasBackward { dy: Slice::of(&x, stream), partial: SliceMut::of(&mut partial, stream), shape };
    backward.launch(kernels).unwrap();
    let finish = BiasBackwardFinish { partial: Slice::of(&partial, stream), db: SliceMut::of(&mut db, stream), shape };
    finish.launch(kernels).unwrap();
    (device.read(&y), device.read(&db))
}

fn gradient_on_cpu<B: Backend>(cpu: B, dy: &[f32], columns: usize) -> Vec<f64> {
    let dy = cpu.upload(Shape::from([dy.len() / columns, columns]), &wide(dy)).unwrap();
    cpu.download(&cpu.linear_backward_bias(&dy).unwrap()).unwrap()
}

fn check<T: Number>(device: &Device, [rows, columns]: [usize; 2]) {
    let (x, b) = (held::<T>(numbers(rows * columns, 1.0)), numbers(columns, 2.0));
    let (y, db) = on_device::<T>(device, &x, &b);
    let sums = x.iter().enumerate().map(|(i, x)| T::rounded(x + b[i % columns]).wide());
    assert!(y.into_iter().eq(sums), "{rows} x {columns}");
    let exact = gradient_on_cpu(Cpu::<f64>::new(), &x, columns);
    let plain = gradient_on_cpu(Cpu::<f32>::new(), &x, columns);
    let floor = 16.0 * UNIT * (rows as f64).sqrt();
    Parity { found: &db, exact: &exact, plain: &plain, floor }.check::<f32>(&format!("{rows} x {columns}"));
}

#[test]
fn bias_and_its_gradient() {
    let device = device();
    for shape in SHAPES {
        check::<f32>(&device, shape);
        check::<bf16>(&device, shape);
    }
}

#[test]
fn the_bias_may_be_added_in_place() {
    let device = device();
    let (kernels, stream) = (&device.kernels, &device.stream);
    for columns in [6, 64] {
        let (x, b) = (numbers(50 * columns, 1.0), numbers(columns, 2.0));
        let (apart, _) = on_device::<f32>(&device, &x, &b);
        let (mut y, b) = (device.upload(&x), device.upload(&b));
        let x = device.alias(&y);
        let add = BiasAdd {
            x: Slice::of(&x, stream),
            b: Slice::of(&b, stream),
            y: SliceMut::of(&mut y, stream),
            shape: Columns::new(50, columns, 1).unwrap(),
        };
        add.launch(kernels).unwrap();
        assert_eq!(device.read(&y), apart);
        x.leak();
    }
}

#[test]
fn what_is_no_number_stays_in_its_column() {
    let device = device();
    let (mut x, b) = (numbers(40 * 6, 1.0), numbers(6, 1.0));
    x[6 * 17 + 2] = f32::NAN;
    x[6 * 39 + 4] = f32::INFINITY;
    let (y, db) = on_device::<f32>(&device, &x, &b);
    assert!(y.iter().enumerate().all(|(i, y)| y.is_nan() == (i == 6 * 17 + 2)));
    let finite: Vec<bool> = db.iter().map(|db| db.is_finite()).collect();
    assert_eq!(finite, [true, true, false, true, false, true]);
    assert!(db[2].is_nan() && db[4] == f64::INFINITY, "{db:?}");
}
