//! Sigmoid heads and their entropy.
//!
//! The bound on an error is twice that of the same formula in f32 on the CPU, plus a floor of a few roundings of a result of
//! size 1 (8 x 2^-24), since that error may happen to be 0. Results in bf16 are rounded once more.

use cudarc::driver::CudaSlice;
use disentangle::backend::Backend;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::binary_entropy::{
    BinaryEntropyBackward, BinaryEntropyFinish, BinaryEntropyForward, SigmoidBackward, SigmoidForward, partial_elems,
};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::tensor::Shape;
use half::bf16;

use crate::{Device, Number, Parity, UNIT, device, held, numbers};

/// One, primes, a vector's, a warp's and a block's elements and one beside, and several blocks with a tail.
const COUNTS: [usize; 12] = [1, 2, 3, 5, 31, 33, 127, 1023, 1024, 1025, 4099, 40_000];
const FLOOR: f64 = 8.0 * UNIT;

/// Values at the ends of what an f32 can be.
const HARD: [f32; 12] =
    [0.0, -0.0, 1e-20, -1e-20, 17.0, -17.0, 88.0, -104.0, 1e20, -1e20, f32::INFINITY, f32::NEG_INFINITY];

/// Loss and gradient of the logits on the CPU.
fn on_cpu<B: Backend>(cpu: B, logits: &[f32], dloss: f64) -> (f64, Vec<f64>) {
    let logits: Vec<f64> = logits.iter().map(|&a| f64::from(a)).collect();
    let logits = cpu.upload(Shape::from([logits.len()]), &logits).unwrap();
    let dloss = cpu.upload(Shape::SCALAR, &[dloss]).unwrap();
    let loss = cpu.binary_entropy_forward(&logits).unwrap();
    let da = cpu.binary_entropy_backward(&logits, &dloss).unwrap();
    (cpu.download(&loss).unwrap()[0], cpu.download(&da).unwrap())
}

/// Loss, heads and gradient on the device.
pub fn on_device<T: Number>(device: &Device, logits: &[f32], dloss: f32) -> (f64, Vec<f64>, Vec<f64>) {
    let (kernels, stream, count) = (&device.kernels, &device.stream, logits.len());
    let (logits, dloss) = (device.upload_as::<T>(logits), device.upload(&[dloss]));
    let (mut y, mut da) = (device.unwritten::<T>(count), device.unwritten::<T>(count));
    let loss = loss_of(device, &logits, Some(SliceMut::of(&mut y, stream)));
    let backward = BinaryEntropyBackward {
        logits: Slice::of(&logits, stream),
        dy: None,
        dloss: Slice::of(&dloss, stream),
        da: SliceMut::of(&mut da, stream),
        count: count as u64,
    };
    backward.launch(kernels).unwrap();
    (loss, device.read(&y), device.read(&da))
}

/// The loss, with the heads or without.
fn loss_of<T: Number>(device: &Device, logits: &CudaSlice<T>, y: Option<SliceMut<T>>) -> f64 {
    let (kernels, stream, count) = (&device.kernels, &device.stream, logits.len());
    let (mut partial, mut loss) = (device.unwritten::<f64>(partial_elems(count)), device.unwritten::<f32>(1));
    let forward = BinaryEntropyForward {
        logits: Slice::of(logits, stream),
        y,
        partial: SliceMut::of(&mut partial, stream),
        count: count as u64,
    };
    forward.launch(kernels).unwrap();
    let finish = BinaryEntropyFinish {
        partial: Slice::of(&partial, stream),
        loss: SliceMut::of(&mut loss, stream),
        count: count as u64,
        blocks: partial_elems(count) as u32,
    };
    finish.launch(kernels).unwrap();
    device.read(&loss)[0]
}

fn sigmoid(a: f64) -> f64 {
    1.0 / (1.0 + (-a).exp())
}

#[test]
fn loss_and_gradient_are_the_cpus() {
    fn check<T: Number>(device: &Device, count: usize) {
        let logits = held::<T>(numbers(count, 4.0));
        let (loss, y, da) = on_device::<T>(device, &logits, 0.75);
        let (exact_loss, exact_da) = on_cpu(Cpu::<f64>::new(), &logits, 0.75);
        let (plain_loss, plain_da) = on_cpu(Cpu::<f32>::new(), &logits, 0.75);
        let bound = 2.0 * (plain_loss - exact_loss).abs() + FLOOR;
        assert!((loss - exact_loss).abs() <= bound, "{count} logits: {loss} instead of {exact_loss}");
        // Gradients are of size 1 / count.
        let floor = FLOOR / count as f64;
        Parity { found: &da, exact: &exact_da, plain: &plain_da, floor }.check::<T>(&format!("da of {count}"));
        let exact_y: Vec<f64> = logits.iter().map(|&a| sigmoid(a.into())).collect();
        Parity { found: &y, exact: &exact_y, plain: &exact_y, floor: FLOOR }.check::<T>(&format!("y of {count}"));
    }
    let device = device();
    for count in COUNTS {
        check::<f32>(&device, count);
        check::<bf16>(&device, count);
    }
}

/// A head that has decided keeps the digits of what entropy it has left: errors are relative, of eight operations and an
/// exponential.
#[test]
fn the_entropy_of_decided_heads_keeps_its_digits() {
    let device = device();
    for a in [5.0, 12.0, 20.0, 40.0, 80.0] {
        let logits = [a, -a, a, -a, a, a];
        let (loss, y, da) = on_device::<f32>(&device, &logits, 1.0);
        let (exact, exact_da) = on_cpu(Cpu::<f64>::new(), &logits, 1.0);
        assert!((loss / exact - 1.0).abs() <= 2.0 * FLOOR, "{a}: {loss} instead of {exact}");
        for i in 0..6 {
            assert!((da[i] / exact_da[i] - 1.0).abs() <= 2.0 * FLOOR, "{a}: {da:?} instead of {exact_da:?}");
            assert!((y[i] / sigmoid(logits[i].into()) - 1.0).abs() <= 2.0 * FLOOR, "{a}: {y:?}");
        }
    }
}

/// More than the 1,024 blocks of a launch take in one step.
#[test]
fn more_logits_than_a_grid_takes_at_once() {
    let device = device();
    let logits = held::<bf16>(numbers(1_048_576 + 3 * 1024 + 2, 4.0));
    let (exact, _) = on_cpu(Cpu::<f64>::new(), &logits, 1.0);
    let loss = loss_of(&device, &device.upload_as::<bf16>(&logits), None);
    assert!((loss - exact).abs() <= FLOOR, "{loss} instead of {exact}");
}

#[test]
fn saturated_and_infinite_logits() {
    fn check<T: Number>(device: &Device) {
        let hard = held::<T>(HARD.to_vec());
        let (loss, y, da) = on_device::<T>(device, &hard, 1.0);
        let (exact_loss, exact_da) = on_cpu(Cpu::<f64>::new(), &hard, 1.0);
        assert!((loss - exact_loss).abs() <= FLOOR, "{loss} {exact_loss}");
        Parity { found: &da, exact: &exact_da, plain: &exact_da, floor: FLOOR }.check::<T>("da");
        assert!(y.iter().all(|y| (0.0..=1.0).contains(y)) && y[10] == 1.0 && y[11] == 0.0);
        // NaN is carried, into the loss as well; in a vector of four and in the tail.
        for at in [1, 5] {
            let mut logits = [1.0; 6];
            logits[at] = f32::NAN;
            let (loss, y, da) = on_device::<T>(device, &logits, 1.0);
            assert!(loss.is_nan());
            assert!((0..6).all(|i| y[i].is_nan() == (i == at) && da[i].is_nan() == (i == at)), "{y:?} {da:?}");
        }
    }
    let device = device();
    check::<f32>(&device);
    check::<bf16>(&device);
    // e^95 is beyond f32, the share e^-95 is not: four steps of its smallest numbers.
    let (_, y, _) = on_device::<f32>(&device, &[-95.0, -95.0, -95.0, -95.0, -95.0], 1.0);
    assert!(y.iter().all(|y| (y - sigmoid(-95.0)).abs() <= 4.0 * 1.5e-45), "{y:?}");
}

#[test]
fn the_entropy_adds_to_what_comes_through_the_heads() {
    fn check<T: Number>(device: &Device, count: usize) {
        let (kernels, stream) = (&device.kernels, &device.stream);
        let (logits, dy) = (held::<T>(numbers(count, 2.0)), held::<T>(numbers(count, 1.5)));
        let (memory, dy_memory) = (device.upload_as::<T>(&logits), device.upload_as::<T>(&dy));
        let (dloss, mut da) = (device.upload(&[0.5f32]), device.unwritten::<T>(count));
        let backward = BinaryEntropyBackward {
            logits: Slice::of(&memory, stream),
            dy: Some(Slice::of(&dy_memory, stream)),
            dloss: Slice::of(&dloss, stream),
            da: SliceMut::of(&mut da, stream),
            count: count as u64,
        };
        backward.launch(kernels).unwrap();
        let (_, entropy) = on_cpu(Cpu::<f64>::new(), &logits, 0.5);
        let through = |(&a, &dy): (&f32, &f32)| f64::from(dy) * sigmoid(a.into()) * (1.0 - sigmoid(a.into()));
        let exact: Vec<f64> =
            logits.iter().zip(&dy).map(through).zip(entropy).map(|(heads, entropy)| heads + entropy).collect();
        let found = device.read(&da);
        Parity { found: &found, exact: &exact, plain: &exact, floor: 4.0 * FLOOR }.check::<T>(&format!("{count}"));
    }
    let device = device();
    for count in [1, 4, 77, 1026] {
        check::<f32>(&device, count);
        check::<bf16>(&device, count);
    }
}

/// The sigmoid on its own, and its gradient from what it gave.
fn sigmoid_on_device<T: Number>(device: &Device, x: &[f32], dy: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (kernels, stream, count) = (&device.kernels, &device.stream, x.len());
    let (x, dy) = (device.upload_as::<T>(x), device.upload_as::<T>(dy));
    let (mut y, mut dx) = (device.unwritten::<T>(count), device.unwritten::<T>(count));
    let forward = SigmoidForward { x: Slice::of(&x, stream), y: SliceMut::of(&mut y, stream), count: count as u64 };
    forward.launch(kernels).unwrap();
    let backward = SigmoidBackward {
        y: Slice::of(&y, stream),
        dy: Slice::of(&dy, stream),
        dx: SliceMut::of(&mut dx, stream),
        count: count as u64,
    };
    backward.launch(kernels).unwrap();
    (device.read(&y), device.read(&dx))
}

#[test]
fn sigmoid_in_both_types_and_its_gradient() {
    fn check<T: Number>(device: &Device, count: usize) {
        let mut x = held::<T>(numbers(count, 3.0));
        x.iter_mut().zip(HARD).take(count / 2).for_each(|(x, hard)| *x = hard);
        let (x, dy) = (held::<T>(x), held::<T>(numbers(count, 1.0)));
        let (y, dx) = sigmoid_on_device::<T>(device, &x, &dy);
        let exact: Vec<f64> = x.iter().map(|&x| sigmoid(x.into())).collect();
        Parity { found: &y, exact: &exact, plain: &exact, floor: FLOOR }.check::<T>(&format!("y of {count}"));
        // From the device's own y, which is what the backward is given.
        let exact: Vec<f64> = y.iter().zip(&dy).map(|(y, &dy)| f64::from(dy) * y * (1.0 - y)).collect();
        Parity { found: &dx, exact: &exact, plain: &exact, floor: FLOOR }.check::<T>(&format!("dx of {count}"));
    }
    let device = device();
    for count in COUNTS {
        check::<f32>(&device, count);
        check::<bf16>(&device, count);
    }
}
