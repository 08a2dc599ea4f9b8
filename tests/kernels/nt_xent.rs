//! Fused NT-Xent, samples in rows and in columns, in each precision.
//!
//! In f32 the bound is twice the error of the CPU's f32, plus a floor of a few roundings. In tf32 (bf16) unit samples keep 11
//! (8) bits, so a cosine is off by up to 2 u sum |a b| <= 2 u, u = 2^-11 (2^-9 with one more rounding of the input's type), a
//! loss by twice that over the temperature, and a gradient by a like share of its own size.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::kernel::{Element, Slice, SliceMut};
use disentangle::backend::cuda::nt_xent::{
    Backward, BackwardColumnsFinish, BackwardRowsFinish, Bf16, F32, Forward, ForwardFinish, NormaliseColumns,
    NormaliseRows, NtXent, Precision, Tf32,
};
use disentangle::backend::{Backend, Samples};
use disentangle::tensor::Shape;
use half::bf16;

use crate::{Device, device, distance, largest, numbers};

const FLOOR: f64 = 16.0 / 16_777_216.0;
const TEMPERATURE: f64 = 0.5;

/// [2N, d]: the smallest, primes, a tile and one beside, and several tiles with tails.
const SHAPES: [[usize; 2]; 9] =
    [[2, 1], [2, 3], [6, 5], [14, 33], [64, 16], [66, 17], [128, 64], [130, 130], [258, 40]];

/// Loss and gradient on the CPU.
fn on_cpu<B: Backend>(cpu: B, z: &[f32], shape: Shape, samples: Samples, dloss: f64) -> (f64, Vec<f64>) {
    let z: Vec<f64> = z.iter().map(|&z| f64::from(z)).collect();
    let z = cpu.upload(shape, &z).unwrap();
    let (loss, saved) = cpu.nt_xent_forward(&z, samples, TEMPERATURE).unwrap();
    let dloss = cpu.upload(Shape::SCALAR, &[dloss]).unwrap();
    let dz = cpu.nt_xent_backward(&saved, &dloss, shape, samples, TEMPERATURE).unwrap();
    (cpu.download(&loss).unwrap()[0], cpu.download(&dz).unwrap())
}

/// Loss and gradient on the device.
fn on_device<P: Precision>(device: &Device, z: &[P::T], shape: Shape, samples: Samples, dloss: f32) -> (f64, Vec<P::T>)
where
    P::T: Element + Default + Clone,
{
    let (kernels, stream) = (&device.kernels, &device.stream);
    let n = NtXent::new::<P>(shape, samples, TEMPERATURE).unwrap();
    let (z, dloss) = (device.upload(z), device.upload(&[dloss]));
    let (mut unit, mut norm) = (device.unwritten::<P::T>(n.unit_elems::<P>()), device.unwritten::<f32>(n.count()));
    let (into_unit, into_norm) = (SliceMut::of(&mut unit, stream), SliceMut::of(&mut norm, stream));
    let input = Slice::of(&z, stream);
    match samples {
        Samples::Rows => NormaliseRows::<P> { z: input, unit: into_unit, norm: into_norm, shape: n }.launch(kernels),
        Samples::Columns => {
            NormaliseColumns::<P> { z: input, unit: into_unit, norm: into_norm, shape: n }.launch(kernels)
        }
    }
    .unwrap();
    let [mut largest, mut sum] = [(); 2].map(|()| device.unwritten::<f32>(n.forward_scratch()));
    let [mut positive, mut lse] = [(); 2].map(|()| device.unwritten::<f32>(n.count()));
    let mut loss = device.unwritten::<f32>(1);
    let forward = Forward::<P> {
        unit: Slice::of(&unit, stream),
        largest: SliceMut::of(&mut largest, stream),
        sum: SliceMut::of(&mut sum, stream),
        positive: SliceMut::of(&mut positive, stream),
        shape: n,
    };
    forward.launch(kernels).unwrap();
    let finish = ForwardFinish {
        largest: Slice::of(&largest, stream),
        sum: Slice::of(&sum, stream),
        positive: Slice::of(&positive, stream),
        lse: SliceMut::of(&mut lse, stream),
        loss: SliceMut::of(&mut loss, stream),
        shape: n,
        splits: n.splits() as u32,
    };
    finish.launch(kernels).unwrap();
    let (mut partial, mut dz) = (device.unwritten::<f32>(n.backward_scratch()), device.unwritten::<P::T>(n.elems()));
    for slice in n.slices() {
        let backward = Backward::<P> {
            unit: Slice::of(&unit, stream),
            lse: Slice::of(&lse, stream),
            partial: SliceMut::of(&mut partial, stream),
            shape: slice,
        };
        backward.launch(kernels).unwrap();
        let (partial, unit, norm) = (Slice::of(&partial, stream), Slice::of(&unit, stream), Slice::of(&norm, stream));
        let (dloss, dz, splits) = (Slice::of(&dloss, stream), SliceMut::of(&mut dz, stream), n.splits() as u32);
        match samples {
            Samples::Rows => {
                BackwardRowsFinish::<P> { partial, unit, norm, dloss, dz, shape: slice, splits }.launch(kernels)
            }
            Samples::Columns => {
                BackwardColumnsFinish::<P> { partial, unit, norm, dloss, dz, shape: slice, splits }.launch(kernels)
            }
        }
        .unwrap();
    }
    let dz = device.download(&dz);
    (device.download(&loss)[0].into(), dz)
}

#[test]
fn loss_and_gradient_in_f32() {
    let device = device();
    for (dims, samples) in SHAPES.into_iter().flat_map(|dims| [(dims, Samples::Rows), (dims, Samples::Columns)]) {
        let (shape, z) = (Shape::from(dims), numbers(dims[0] * dims[1], 1.0));
        let (loss, dz) = on_device::<F32>(&device, &z, shape, samples, 0.75);
        let (exact_loss, exact_dz) = on_cpu(Cpu::<f64>::new(), &z, shape, samples, 0.75);
        let (plain_loss, plain_dz) = on_cpu(Cpu::<f32>::new(), &z, shape, samples, 0.75);
        let (error, bound) = ((loss - exact_loss).abs(), 2.0 * (plain_loss - exact_loss).abs() + FLOOR);
        assert!(error <= bound, "{dims:?} {samples:?}: loss {loss} instead of {exact_loss}");
        let error = distance(dz.into_iter().map(f64::from), &exact_dz);
        let bound = 2.0 * distance(plain_dz, &exact_dz) + FLOOR * largest(&exact_dz).max(1e-3);
        assert!(error <= bound, "{dims:?} {samples:?}: gradient off by {error}, bound {bound}");
    }
}

#[test]
fn loss_and_gradient_on_tensor_cores() {
    let device = device();
    for (dims, samples) in SHAPES.into_iter().flat_map(|dims| [(dims, Samples::Rows), (dims, Samples::Columns)]) {
        let shape = Shape::from(dims);
        // Numbers that bf16 holds, so that all start from the same.
        let halves: Vec<bf16> = numbers(dims[0] * dims[1], 1.0).into_iter().map(bf16::from_f32).collect();
        let z: Vec<f32> = halves.iter().map(|z| z.to_f32()).collect();
        let (exact_loss, exact_dz) = on_cpu(Cpu::<f64>::new(), &z, shape, samples, 1.0);
        let check = |name: &str, loss: f64, dz: Vec<f64>, unit: f64| {
            let share = 4.0 * unit / TEMPERATURE;
            assert!((loss - exact_loss).abs() <= share, "{name} {dims:?} {samples:?}: {loss} instead of {exact_loss}");
            let (error, bound) = (distance(dz, &exact_dz), 4.0 * share * largest(&exact_dz).max(1e-3));
            assert!(error <= bound, "{name} {dims:?} {samples:?}: gradient off by {error}, bound {bound}");
        };
        let (loss, dz) = on_device::<Tf32>(&device, &z, shape, samples, 1.0);
        check("tf32", loss, dz.into_iter().map(f64::from).collect(), 1.0 / 2048.0);
        let (loss, dz) = on_device::<Bf16>(&device, &halves, shape, samples, 1.0);
        check("bf16", loss, dz.into_iter().map(|dz| dz.to_f64()).collect(), 1.0 / 512.0);
    }
}

#[test]
fn identical_rows_give_the_logarithm_of_the_others() {
    let device = device();
    for count in [2, 4, 66, 130] {
        let z = numbers(7, 1.0).repeat(count);
        let (loss, _) = on_device::<F32>(&device, &z, Shape::from([count, 7]), Samples::Rows, 1.0);
        let exact = ((count - 1) as f64).ln();
        assert!((loss - exact).abs() <= FLOOR * exact.max(1.0), "{count}: {loss} instead of {exact}");
    }
}

#[test]
fn rows_of_zeros_and_of_extreme_norms() {
    let device = device();
    let mut z = numbers(8 * 5, 1.0);
    z[..5].fill(0.0);
    z[5..10].iter_mut().for_each(|z| *z *= 1e-15);
    z[10..15].iter_mut().for_each(|z| *z *= 1e15);
    let shape = Shape::from([8, 5]);
    let (loss, dz) = on_device::<F32>(&device, &z, shape, Samples::Rows, 1.0);
    let (exact_loss, exact_dz) = on_cpu(Cpu::<f64>::new(), &z, shape, Samples::Rows, 1.0);
    assert!((loss - exact_loss).abs() <= 4.0 * FLOOR, "{loss} instead of {exact_loss}");
    // Each row's gradient has a size of its own.
    for (row, (found, exact)) in dz.chunks(5).zip(exact_dz.chunks(5)).enumerate() {
        let error = distance(found.iter().map(|&dz| f64::from(dz)), exact);
        assert!(error <= 64.0 * FLOOR * largest(exact).max(1e-30), "row {row}: {found:?} instead of {exact:?}");
    }
}
