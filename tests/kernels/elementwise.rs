//! Sums and products: one rounding each, so the bound is half a unit of the result's type.

use disentangle::backend::cuda::elementwise::{AddAssign, Scale, WeightedSum};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use half::bf16;

use crate::{Device, Number, UNIT, device, held, numbers};

/// One, a vector of four and one beside, a block and one beside, several blocks with a tail.
const COUNTS: [usize; 8] = [1, 3, 4, 5, 1023, 1024, 1025, 5003];

fn check<T: Number>(device: &Device, count: usize) {
    let (x, y) = (held::<T>(numbers(count, 1.0)), held::<T>(numbers(count + 1, 2.0)[1..].to_vec()));
    let (mut x_memory, y_memory) = (device.upload_as::<T>(&x), device.upload_as::<T>(&y));
    let mut scaled = device.unwritten::<T>(count);
    let (from, to) = (Slice::of(&x_memory, &device.stream), SliceMut::of(&mut scaled, &device.stream));
    Scale::<T> { x: from, y: to, count: count as u64, factor: -1.75 }.launch(&device.kernels).unwrap();
    let (to, from) = (SliceMut::of(&mut x_memory, &device.stream), Slice::of(&y_memory, &device.stream));
    AddAssign::<T> { x: to, y: from, count: count as u64 }.launch(&device.kernels).unwrap();
    let unit = UNIT.max(T::ROUNDING);
    for (i, (sum, scaled)) in device.read(&x_memory).iter().zip(device.read(&scaled)).enumerate() {
        let (exact, product) = (f64::from(x[i]) + f64::from(y[i]), -1.75 * f64::from(x[i]));
        assert!((sum - exact).abs() <= unit * exact.abs(), "{i} of {count}: {sum} instead of {exact}");
        assert!((scaled - product).abs() <= unit * product.abs(), "{i} of {count}: {scaled} instead of {product}");
    }
}

#[test]
fn sums_and_products_are_rounded_once() {
    let device = device();
    for count in COUNTS {
        check::<f32>(&device, count);
        check::<bf16>(&device, count);
    }
}

#[test]
fn a_weighted_sum_takes_up_to_three_terms() {
    let device = device();
    let terms = [1.5f32, -2.25, 1e-3].map(|term| device.upload(&[term]));
    let weights = [1.0, 3.0, -0.5];
    for count in 0..=3 {
        let term = |i: usize| (i < count).then(|| Slice::of(&terms[i], &device.stream));
        let mut total = device.unwritten::<f32>(1);
        let [weight_a, weight_b, weight_c] = weights;
        let total_mut = SliceMut::of(&mut total, &device.stream);
        let sum = WeightedSum { a: term(0), b: term(1), c: term(2), total: total_mut, weight_a, weight_b, weight_c };
        sum.launch(&device.kernels).unwrap();
        let exact: f64 = [1.5, -2.25, f64::from(1e-3f32)].iter().zip(weights).take(count).map(|(t, w)| t * w).sum();
        let found = f64::from(device.download(&total)[0]);
        assert!((found - exact).abs() <= UNIT * exact.abs(), "{count} terms: {found} instead of {exact}");
    }
}
