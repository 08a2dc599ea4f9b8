//! Sigmoid heads and their entropy.
//!
//! The bound on an error is twice that of the same formula in f32 on the CPU, plus a floor of a few roundings of a result of
//! size 1 (8 x 2^-24), since that error may happen to be 0.

use disentangle::backend::Backend;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::binary_entropy::{
    BinaryEntropyBackward, BinaryEntropyFinish, BinaryEntropyForward, SigmoidBackward, SigmoidForward, partial_elems,
};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::tensor::Shape;
use half::bf16;

use crate::{Device, device, distance, numbers};

/// One, primes, a vector's, a warp's and a block's elements and one beside, and several blocks with a tail.
const COUNTS: [usize; 12] = [1, 2, 3, 5, 31, 33, 127, 1023, 1024, 1025, 4099, 40_000];
const FLOOR: f64 = 8.0 / 16_777_216.0;

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

/// Loss, heads and gradient on the device, in f32.
fn on_device(device: &Device, logits: &[f32], dloss: f32) -> (f64, Vec<f64>, Vec<f64>) {
    let (kernels, stream, count) = (&device.kernels, &device.stream, logits.len());
    let (logits, dloss) = (device.upload(logits), device.upload(&[dloss]));
    let (mut y, mut da) = (device.unwritten::<f32>(count), device.unwritten::<f32>(count));
    let (mut partial, mut loss) = (device.unwritten::<f64>(partial_elems(count)), device.unwritten::<f32>(1));
    let forward = BinaryEntropyForward {
        logits: Slice::of(&logits, stream),
        y: Some(SliceMut::of(&mut y, stream)),
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
    let backward = BinaryEntropyBackward {
        logits: Slice::of(&logits, stream),
        dy: None,
        dloss: Slice::of(&dloss, stream),
        da: SliceMut::of(&mut da, stream),
        count: count as u64,
    };
    backward.launch(kernels).unwrap();
    let [y, da] = [y, da].map(|values| device.download(&values).into_iter().map(f64::from).collect());
    (device.download(&loss)[0].into(), y, da)
}

#[test]
fn loss_and_gradient_are_the_cpus() {
    let device = device();
    for count in COUNTS {
        let logits = numbers(count, 4.0);
        let (loss, y, da) = on_device(&device, &logits, 0.75);
        let (exact_loss, exact_da) = on_cpu(Cpu::<f64>::new(), &logits, 0.75);
        let (plain_loss, plain_da) = on_cpu(Cpu::<f32>::new(), &logits, 0.75);
        let bound = 2.0 * (plain_loss - exact_loss).abs() + FLOOR;
        assert!((loss - exact_loss).abs() <= bound, "{count} logits: {loss} instead of {exact_loss}");
        // Gradients are of size 1 / count.
        let bound = 2.0 * distance(plain_da, &exact_da) + FLOOR / count as f64;
        let error = distance(da, &exact_da);
        assert!(error <= bound, "{count} logits: gradient off by {error}, bound {bound}");
        let sigmoid: Vec<f64> = logits.iter().map(|&a| 1.0 / (1.0 + (-f64::from(a)).exp())).collect();
        assert!(distance(y, &sigmoid) <= FLOOR, "{count} logits");
    }
}

#[test]
fn saturated_and_infinite_logits() {
    let device = device();
    let (loss, y, da) = on_device(&device, &HARD, 1.0);
    let (exact_loss, exact_da) = on_cpu(Cpu::<f64>::new(), &HARD, 1.0);
    assert!((loss - exact_loss).abs() <= FLOOR && distance(da, &exact_da) <= FLOOR, "{loss} {exact_loss}");
    assert!(y.iter().all(|y| (0.0..=1.0).contains(y)) && y[10] == 1.0 && y[11] == 0.0);
    // NaN is carried, into the loss as well.
    let (loss, y, da) = on_device(&device, &[1.0, f32::NAN, 2.0], 1.0);
    assert!(loss.is_nan() && y[1].is_nan() && da[1].is_nan() && da[0].is_finite() && da[2].is_finite());
}

#[test]
fn the_entropy_adds_to_what_comes_through_the_heads() {
    let device = device();
    let (kernels, stream, count) = (&device.kernels, &device.stream, 77);
    let (logits, dy) = (numbers(count, 2.0), numbers(count, 1.5));
    let (memory, dy_memory, dloss) = (device.upload(&logits), device.upload(&dy), device.upload(&[0.5f32]));
    let mut da = device.unwritten::<f32>(count);
    let backward = BinaryEntropyBackward {
        logits: Slice::of(&memory, stream),
        dy: Some(Slice::of(&dy_memory, stream)),
        dloss: Slice::of(&dloss, stream),
        da: SliceMut::of(&mut da, stream),
        count: count as u64,
    };
    backward.launch(kernels).unwrap();
    let (_, entropy) = on_cpu(Cpu::<f64>::new(), &logits, 0.5);
    let through = |(&a, &dy): (&f32, &f32)| {
        let y = 1.0 / (1.0 + (-f64::from(a)).exp());
        f64::from(dy) * y * (1.0 - y)
    };
    let exact: Vec<f64> =
        logits.iter().zip(&dy).map(through).zip(entropy).map(|(heads, entropy)| heads + entropy).collect();
    assert!(distance(device.download(&da).into_iter().map(f64::from), &exact) <= 4.0 * FLOOR);
}

#[test]
fn sigmoid_in_both_types_and_its_gradient() {
    let device = device();
    let (kernels, stream) = (&device.kernels, &device.stream);
    for count in COUNTS {
        let x: Vec<bf16> = numbers(count, 3.0).into_iter().map(bf16::from_f32).collect();
        let (memory, mut y) = (device.upload(&x), device.unwritten::<bf16>(count));
        let forward =
            SigmoidForward { x: Slice::of(&memory, stream), y: SliceMut::of(&mut y, stream), count: count as u64 };
        forward.launch(kernels).unwrap();
        let exact: Vec<f64> = x.iter().map(|&x| 1.0 / (1.0 + (-x.to_f64()).exp())).collect();
        let found = device.download(&y);
        // Rounded once to 8 bits: half a unit below 1 is 2^-9.
        assert!(distance(found.iter().map(|y| y.to_f64()), &exact) <= 1.01 / 512.0, "{count}");
        let dy: Vec<bf16> = numbers(count, 1.0).into_iter().map(bf16::from_f32).collect();
        let (dy_memory, mut dx) = (device.upload(&dy), device.unwritten::<bf16>(count));
        let backward = SigmoidBackward {
            y: Slice::of(&y, stream),
            dy: Slice::of(&dy_memory, stream),
            dx: SliceMut::of(&mut dx, stream),
            count: count as u64,
        };
        backward.launch(kernels).unwrap();
        for ((dx, y), dy) in device.download(&dx).iter().zip(&found).zip(&dy) {
            let exact = dy.to_f64() * y.to_f64() * (1.0 - y.to_f64());
            assert!((dx.to_f64() - exact).abs() <= exact.abs() / 256.0 + 1e-30, "{dx} instead of {exact}");
        }
    }
}
