//! Fused NT-Xent, samples in rows and in columns, in each precision.
//!
//! In f32 the bound is twice the error of the CPU's f32, plus a floor of a few roundings. On tensor cores both factors of a
//! product are rounded to 11 (tf32) or 8 (bf16) bits, so a cosine is off by up to 2 u sum |a b| <= 2 u, u = 2^-11 (2^-8), a
//! loss by twice that over the temperature, and a gradient by a like share of its own size.

use cudarc::driver::CudaSlice;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::cuda::nt_xent::{
    Backward, BackwardColumnsFinish, BackwardRowsFinish, Bf16, F32, Forward, ForwardFinish, NormaliseColumns,
    NormaliseRows, NtXent, Precision, Tf32,
};
use disentangle::backend::{Backend, Samples};
use disentangle::tensor::Shape;

use crate::{Device, Number, UNIT, device, distance, held, largest, numbers, wide};

const FLOOR: f64 = 16.0 * UNIT;
const TEMPERATURE: f64 = 0.5;

/// `[2N, d]`: the smallest, primes, a tile and one beside, several tiles with tails, and samples longer than the 128 elements
/// that a block of the backward sums up.
const SHAPES: [[usize; 2]; 10] =
    [[2, 1], [2, 3], [6, 5], [14, 33], [64, 16], [66, 17], [128, 64], [130, 130], [258, 40], [6, 300]];

/// What u is in this precision.
pub trait Rounding: Precision<T: Number> {
    const UNIT: f64;
    const NAME: &str;
}

impl Rounding for F32 {
    const UNIT: f64 = UNIT;
    const NAME: &str = "f32";
}

impl Rounding for Tf32 {
    const UNIT: f64 = 1.0 / 2048.0;
    const NAME: &str = "tf32";
}

impl Rounding for Bf16 {
    const UNIT: f64 = 1.0 / 256.0;
    const NAME: &str = "bf16";
}

/// What the loss is taken of.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub z: &'a [f32],
    pub shape: [usize; 2],
    pub samples: Samples,
    pub temperature: f64,
}

impl<'a> Input<'a> {
    pub fn rows(z: &'a [f32], shape: [usize; 2]) -> Self {
        Input { z, shape, samples: Samples::Rows, temperature: TEMPERATURE }
    }

    pub fn columns(z: &'a [f32], shape: [usize; 2]) -> Self {
        Input { samples: Samples::Columns, ..Self::rows(z, shape) }
    }
}

/// Loss and gradient on the CPU.
fn on_cpu<B: Backend>(cpu: B, input: Input, dloss: f64) -> (f64, Vec<f64>) {
    let (shape, samples, temperature) = (Shape::from(input.shape), input.samples, input.temperature);
    let z = cpu.upload(shape, &wide(input.z)).unwrap();
    let (loss, saved) = cpu.nt_xent_forward(&z, samples, temperature).unwrap();
    let dloss = cpu.upload(Shape::SCALAR, &[dloss]).unwrap();
    let dz = cpu.nt_xent_backward(&saved, &dloss, shape, samples, temperature).unwrap();
    (cpu.download(&loss).unwrap()[0], cpu.download(&dz).unwrap())
}

/// What a forward on the device leaves.
struct Saved<P: Rounding> {
    n: NtXent,
    unit: CudaSlice<P::T>,
    norm: CudaSlice<f32>,
    lse: CudaSlice<f32>,
    loss: CudaSlice<f32>,
}

fn forward<P: Rounding>(device: &Device, input: Input) -> Saved<P> {
    let (kernels, stream) = (&device.kernels, &device.stream);
    let n = NtXent::new::<P>(Shape::from(input.shape), input.samples, input.temperature).unwrap();
    let z = device.upload_as::<P::T>(input.z);
    let (mut unit, mut norm) = (device.unwritten::<P::T>(n.unit_elems::<P>()), device.unwritten::<f32>(n.count()));
    let (into_unit, into_norm) = (SliceMut::of(&mut unit, stream), SliceMut::of(&mut norm, stream));
    let z = Slice::of(&z, stream);
    match input.samples {
        Samples::Rows => NormaliseRows::<P> { z, unit: into_unit, norm: into_norm, shape: n }.launch(kernels),
        Samples::Columns => NormaliseColumns::<P> { z, unit: into_unit, norm: into_norm, shape: n }.launch(kernels),
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
    Saved { n, unit, norm, lse, loss }
}

/// The gradient of some slices' samples, written into `dz`.
fn backward<P: Rounding>(
    device: &Device,
    saved: &Saved<P>,
    samples: Samples,
    dloss: f32,
    slices: impl Iterator<Item = NtXent>,
    dz: &mut CudaSlice<P::T>,
) {
    let (kernels, stream, n) = (&device.kernels, &device.stream, saved.n);
    let (dloss, mut partial) = (device.upload(&[dloss]), device.unwritten::<f32>(n.backward_scratch()));
    for slice in slices {
        let backward = Backward::<P> {
            unit: Slice::of(&saved.unit, stream),
            lse: Slice::of(&saved.lse, stream),
            partial: SliceMut::of(&mut partial, stream),
            shape: slice,
        };
        backward.launch(kernels).unwrap();
        let (partial, unit) = (Slice::of(&partial, stream), Slice::of(&saved.unit, stream));
        let (norm, dloss, dz) = (Slice::of(&saved.norm, stream), Slice::of(&dloss, stream), SliceMut::of(dz, stream));
        let splits = n.splits() as u32;
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
}

/// The loss alone, on the device.
pub fn loss_on_device<P: Rounding>(device: &Device, input: Input) -> f64 {
    device.read(&forward::<P>(device, input).loss)[0]
}

/// Loss and gradient on the device.
pub fn on_device<P: Rounding>(device: &Device, input: Input, dloss: f32) -> (f64, Vec<f64>) {
    let saved = forward::<P>(device, input);
    let mut dz = device.unwritten::<P::T>(saved.n.elems());
    backward(device, &saved, input.samples, dloss, saved.n.slices(), &mut dz);
    (device.read(&saved.loss)[0], device.read(&dz))
}

/// In f32: twice the plain error and a floor.
fn check_f32(input: Input, (loss, dz): (f64, Vec<f64>), dloss: f64) {
    let (exact_loss, exact_dz) = on_cpu(Cpu::<f64>::new(), input, dloss);
    let (plain_loss, plain_dz) = on_cpu(Cpu::<f32>::new(), input, dloss);
    let Input { shape, samples, temperature, .. } = input;
    let case = format!("{shape:?} {samples:?} at {temperature}");
    // Cosines are divided by the temperature, with their roundings.
    let floor = FLOOR * (TEMPERATURE / temperature).max(1.0);
    let (error, bound) = ((loss - exact_loss).abs(), 2.0 * (plain_loss - exact_loss).abs() + floor);
    assert!(error <= bound, "{case}: loss {loss} instead of {exact_loss}, bound {bound}");
    let error = distance(dz, &exact_dz);
    let bound = 2.0 * distance(plain_dz, &exact_dz) + floor * largest(&exact_dz).max(1e-3);
    assert!(error <= bound, "{case}: gradient off by {error}, bound {bound}");
}

#[test]
fn loss_and_gradient_in_f32() {
    let device = device();
    for shape in SHAPES {
        let z = numbers(shape[0] * shape[1], 1.0);
        for input in [Input::rows(&z, shape), Input::columns(&z, shape)] {
            check_f32(input, on_device::<F32>(&device, input, 0.75), 0.75);
        }
    }
    let z = numbers(66 * 9, 1.0);
    for temperature in [0.07, 3.0] {
        for input in [Input::rows(&z, [66, 9]), Input::columns(&z, [66, 9])] {
            let input = Input { temperature, ..input };
            check_f32(input, on_device::<F32>(&device, input, 1.0), 1.0);
        }
    }
}

/// On tensor cores: what rounding the samples costs.
fn check_rounded<P: Rounding>(input: Input, (loss, dz): (f64, Vec<f64>), (exact_loss, exact_dz): &(f64, Vec<f64>)) {
    let (share, case) = (4.0 * P::UNIT / TEMPERATURE, format!("{} {:?} {:?}", P::NAME, input.shape, input.samples));
    assert!((loss - exact_loss).abs() <= share, "{case}: {loss} instead of {exact_loss}");
    let (error, bound) = (distance(dz, exact_dz), 4.0 * share * largest(exact_dz).max(1e-3));
    assert!(error <= bound, "{case}: gradient off by {error}, bound {bound}");
}

#[test]
fn loss_and_gradient_on_tensor_cores() {
    let device = device();
    for shape in SHAPES {
        // Numbers that bf16 holds, so that all start from the same.
        let z = held::<half::bf16>(numbers(shape[0] * shape[1], 1.0));
        for input in [Input::rows(&z, shape), Input::columns(&z, shape)] {
            let exact = on_cpu(Cpu::<f64>::new(), input, 1.0);
            check_rounded::<Tf32>(input, on_device::<Tf32>(&device, input, 1.0), &exact);
            check_rounded::<Bf16>(input, on_device::<Bf16>(&device, input, 1.0), &exact);
        }
    }
}

#[test]
fn slices_of_rows_are_parts_of_the_whole() {
    fn check<P: Rounding>(device: &Device, input: Input) {
        let saved = forward::<P>(device, input);
        let [whole, sliced] = [saved.n.count(), 64].map(|rows| {
            let mut dz = device.unwritten::<P::T>(saved.n.elems());
            backward(device, &saved, input.samples, 0.5, saved.n.slices_of(rows), &mut dz);
            device.read(&dz)
        });
        assert_eq!(whole, sliced, "{} {:?} {:?}", P::NAME, input.shape, input.samples);
    }
    let device = device();
    for shape in [[130, 20], [136, 70]] {
        let z = numbers(shape[0] * shape[1], 1.0);
        for input in [Input::rows(&z, shape), Input::columns(&z, shape)] {
            check::<F32>(&device, input);
            check::<Tf32>(&device, input);
            check::<Bf16>(&device, input);
        }
    }
}

/// From 23 tiles on a block goes through more than one of them.
#[test]
fn several_tiles_for_a_block() {
    let device = device();
    let z = held::<half::bf16>(numbers(1474 * 5, 1.0));
    let input = Input::rows(&z, [1474, 5]);
    check_f32(input, on_device::<F32>(&device, input, 1.0), 1.0);
    let input = Input::columns(&z, [10, 737]);
    let exact = on_cpu(Cpu::<f64>::new(), input, 1.0);
    check_rounded::<Tf32>(input, on_device::<Tf32>(&device, input, 1.0), &exact);
    check_rounded::<Bf16>(input, on_device::<Bf16>(&device, input, 1.0), &exact);
}

/// The paper's batch of 4,096 and more: 128 by 128 tiles in 4 splits. The gradient is that of the first, a middle and the
/// last 64 samples.
#[test]
fn many_samples() {
    let device = device();
    let shape = [8192, 8];
    let z = held::<half::bf16>(numbers(shape[0] * shape[1], 1.0));
    let input = Input::rows(&z, shape);
    let saved = forward::<Bf16>(&device, input);
    assert_eq!(saved.n.splits(), 4);
    let mut dz = device.upload_as::<half::bf16>(&vec![0.0; z.len()]);
    let all: Vec<NtXent> = saved.n.slices_of(64).collect();
    backward(&device, &saved, Samples::Rows, 1.0, [all[0], all[77], all[127]].into_iter(), &mut dz);
    let (exact_loss, exact_dz) = on_cpu(Cpu::<f64>::new(), input, 1.0);
    let mut dz = device.read(&dz);
    for (slice, dz) in dz.chunks_mut(64 * 8).enumerate().filter(|(slice, _)| ![0, 77, 127].contains(slice)) {
        assert!(dz.iter().all(|&dz| dz == 0.0), "slice {slice} was not asked for");
        dz.copy_from_slice(&exact_dz[slice * 64 * 8..][..64 * 8]);
    }
    check_rounded::<Bf16>(input, (device.read(&saved.loss)[0], dz), &(exact_loss, exact_dz));
}

#[test]
fn samples_of_zeros_and_of_extreme_norms() {
    let device = device();
    let shape @ [count, dim] = [8, 5];
    let mut z = numbers(count * dim, 1.0);
    z[..5].fill(0.0);
    z[5..10].iter_mut().for_each(|z| *z *= 1e-20);
    z[10..15].iter_mut().for_each(|z| *z *= 1e20);
    // On both sides of the norm that is clamped, 1e-12; below it nothing is projected out.
    z[15..20].iter_mut().for_each(|z| *z *= 2e-13);
    z[20..25].iter_mut().for_each(|z| *z *= 2e-12);
    // The same samples as columns: sample i of a half is its column i.
    let columns: Vec<f32> = (0..z.len()).map(|i| z[(i / 20 * 4 + i % 4) * dim + i % 20 / 4]).collect();
    let by_row = on_device::<F32>(&device, Input::rows(&z, shape), 1.0);
    let by_column = on_device::<F32>(&device, Input::columns(&columns, [10, 4]), 1.0);
    assert_eq!(by_row.0, by_column.0);
    let (exact_loss, exact_dz) = on_cpu(Cpu::<f64>::new(), Input::rows(&z, shape), 1.0);
    let (loss, dz) = by_row;
    assert!((loss - exact_loss).abs() <= 4.0 * FLOOR, "{loss} instead of {exact_loss}");
    // Each sample's gradient has a size of its own.
    for (i, (found, exact)) in dz.chunks(dim).zip(exact_dz.chunks(dim)).enumerate() {
        let error = distance(found.iter().copied(), exact);
        assert!(error <= 64.0 * FLOOR * largest(exact).max(1e-30), "sample {i}: {found:?} instead of {exact:?}");
        let column: Vec<f64> = (0..dim).map(|j| by_column.1[(i / 4 * dim + j) * 4 + i % 4]).collect();
        assert_eq!(found, column, "sample {i} as a column");
    }
}
