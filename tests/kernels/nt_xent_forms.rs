//! NT-Xent where the answer is known without computing it: closed forms, invariances, and inputs at the ends of f32.

use disentangle::backend::cuda::nt_xent::{Bf16, F32, Tf32};

use crate::nt_xent::{Input, Rounding, loss_on_device, on_device};
use crate::{Device, Number, UNIT, device, distance, largest, numbers};

const FLOOR: f64 = 16.0 * UNIT;
const TEMPERATURE: f64 = 0.5;

/// `[rows, columns]` turned round.
fn transposed(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect()
}

/// Samples `[2R, d]` as columns `[2 d, R]`: view 1 over view 2.
fn as_columns(samples: &[f32], [count, dim]: [usize; 2]) -> Vec<f32> {
    samples.chunks(count / 2 * dim).flat_map(|view| transposed(view, [count / 2, dim])).collect()
}

/// Runs a check for each precision, with samples in rows and in columns.
macro_rules! everywhere {
    ($check:ident($device:expr, $samples:expr, $shape:expr $(, $more:expr)*)) => {{
        let (samples, [count, dim]): (&[f32], [usize; 2]) = ($samples, $shape);
        let columns = as_columns(samples, [count, dim]);
        for input in [Input::rows(samples, [count, dim]), Input::columns(&columns, [2 * dim, count / 2])] {
            $check::<F32>($device, input $(, $more)*);
            $check::<Tf32>($device, input $(, $more)*);
            $check::<Bf16>($device, input $(, $more)*);
        }
    }};
}

/// All cosines are one number, rounded in whatever way: the loss is log(2R - 1), and no sample is to move.
#[test]
fn identical_samples_give_the_logarithm_of_the_others() {
    fn check<P: Rounding>(device: &Device, input: Input, exact: f64) {
        let (loss, dz) = on_device::<P>(device, input, 1.0);
        let case = format!("{} {:?} {:?}", P::NAME, input.shape, input.samples);
        assert!((loss - exact).abs() <= FLOOR * exact.max(1.0), "{case}: {loss} instead of {exact}");
        // Weights of 1 / R t each lose u of their size at most, and so does the sample they are multiplied with.
        assert!(largest(&dz) <= 4.0 * P::UNIT / TEMPERATURE / 0.5, "{case}: {dz:?}");
    }
    let device = device();
    // 2R = 2 has one other sample: the loss is 0.
    for count in [2, 4, 66, 130] {
        let sample: Vec<f32> = numbers(7, 1.0).into_iter().map(|z| z + 1.0).collect();
        everywhere!(check(&device, &sample.repeat(count), [count, 7], ((count - 1) as f64).ln()));
    }
}

/// Sample and element at a position of the input.
type Position<'a> = &'a dyn Fn(usize) -> [usize; 2];

/// Pairs of equal samples along the axes: their cosines are exact in every precision. Each sample is drawn away from every
/// other axis by the same weight, which a tensor core takes rounded, not cut off, and from its own not at all.
#[test]
fn pairs_at_right_angles() {
    fn check<P: Rounding>(device: &Device, input: Input, sample_at: Position, pairs: usize) {
        let (loss, dz) = on_device::<P>(device, input, 1.0);
        let case = format!("{} {:?} {:?}", P::NAME, input.shape, input.samples);
        let total = (1.0 / TEMPERATURE).exp() + (2 * pairs - 2) as f64;
        let exact = total.ln() - 1.0 / TEMPERATURE;
        assert!((loss - exact).abs() <= FLOOR, "{case}: {loss} instead of {exact}");
        for (at, found) in dz.iter().enumerate() {
            let [sample, axis] = sample_at(at);
            let size = 4.0 / total / (2 * pairs) as f64 / TEMPERATURE / length(sample);
            let exact = if sample % pairs == axis { 0.0 } else { size };
            let bound = (P::UNIT + <P::T as Number>::ROUNDING + FLOOR) * size;
            assert!((found - exact).abs() <= bound, "{case} [{at}]: {found} instead of {exact}, bound {bound}");
        }
    }
    // Whole numbers up to 256 are in bf16.
    fn length(sample: usize) -> f64 {
        1.0 + sample as f64
    }
    let device = device();
    for pairs in [1, 2, 3, 5, 8, 12, 33, 70] {
        let mut samples = vec![0.0; 2 * pairs * pairs];
        (0..2 * pairs).for_each(|i| samples[i * pairs + i % pairs] = length(i) as f32);
        // Both ways the halves are square: element j of sample i is at (i, j), or at (j, i) of its half.
        let in_rows = |at: usize| [at / pairs, at % pairs];
        let in_columns = |at: usize| [at / (pairs * pairs) * pairs + at % pairs, at / pairs % pairs];
        let columns = as_columns(&samples, [2 * pairs, pairs]);
        let inputs: [(Input, Position); 2] = [
            (Input::rows(&samples, [2 * pairs, pairs]), &in_rows),
            (Input::columns(&columns, [2 * pairs, pairs]), &in_columns),
        ];
        for (input, sample_at) in inputs {
            check::<F32>(&device, input, sample_at, pairs);
            check::<Tf32>(&device, input, sample_at, pairs);
            check::<Bf16>(&device, input, sample_at, pairs);
        }
    }
}

/// At a low temperature the largest terms of two splits are 200 apart in the exponent: the largest of all must be taken out
/// of both. Of 130 samples the first 64, a tile and a split, point one way and the others the other way.
#[test]
fn opposite_splits_at_a_low_temperature() {
    fn check<P: Rounding>(device: &Device, input: Input) {
        let loss = loss_on_device::<P>(device, Input { temperature: 0.01, ..input });
        // Samples 0 to 63 and 65 to 128 have an opposite positive, 64 and 129 each other.
        let exact = (64.0 * (200.0 + 63f64.ln()) + 64.0 * (200.0 + 65f64.ln()) + 2.0 * 65f64.ln()) / 130.0;
        let case = format!("{} {:?} {:?}", P::NAME, input.shape, input.samples);
        assert!((loss - exact).abs() <= FLOOR * exact, "{case}: {loss} instead of {exact}");
    }
    let device = device();
    let samples: Vec<f32> = (0..130).flat_map(|i| [if i < 64 { 3.0 } else { -0.5 }, 0.0]).collect();
    everywhere!(check(&device, &samples, [130, 2]));
}

/// Powers of two change no bit of a unit sample: the loss stays, and gradients shrink as samples grow, to the bit.
#[test]
fn the_size_of_a_sample_does_not_matter() {
    fn check<P: Rounding>(device: &Device, input: Input, scaled: &[f32], scale: &dyn Fn(usize) -> f64) {
        let (loss, dz) = on_device::<P>(device, input, 1.0);
        let (scaled_loss, scaled_dz) = on_device::<P>(device, Input { z: scaled, ..input }, 1.0);
        assert_eq!(loss, scaled_loss, "{} {:?} {:?}", P::NAME, input.shape, input.samples);
        for (i, (dz, scaled)) in dz.iter().zip(&scaled_dz).enumerate() {
            assert_eq!(*dz, scaled * scale(i), "{} {:?} {:?}, element {i}", P::NAME, input.shape, input.samples);
        }
    }
    let device = device();
    for shape @ [rows, columns] in [[14, 5], [66, 34]] {
        // Numbers that bf16 holds, scaled by 2^-9 to 2^9.
        let z = crate::held::<half::bf16>(numbers(rows * columns, 1.0));
        let power = |sample: usize| f64::from(sample as u32 * 7 % 19).exp2() / 512.0;
        let by_row = |i: usize| power(i / columns);
        // A column is a sample in each half.
        let by_column = |i: usize| power(i % columns + i / (rows / 2 * columns) * columns);
        let inputs: [(Input, &dyn Fn(usize) -> f64); 2] =
            [(Input::rows(&z, shape), &by_row), (Input::columns(&z, shape), &by_column)];
        for (input, scale) in inputs {
            let scaled: Vec<f32> = z.iter().enumerate().map(|(i, z)| z * scale(i) as f32).collect();
            check::<F32>(&device, input, &scaled, scale);
            check::<Tf32>(&device, input, &scaled, scale);
            check::<Bf16>(&device, input, &scaled, scale);
        }
    }
}

/// The order of the pairs decides the order of sums alone.
#[test]
fn the_order_of_pairs_does_not_matter() {
    fn check<P: Rounding>(device: &Device, input: Input, permuted: &Input, at: &dyn Fn(usize) -> usize) {
        let (loss, dz) = on_device::<P>(device, input, 1.0);
        let (permuted_loss, permuted_dz) = on_device::<P>(device, *permuted, 1.0);
        let case = format!("{} {:?} {:?}", P::NAME, input.shape, input.samples);
        assert!((loss - permuted_loss).abs() <= FLOOR, "{case}: {loss} or {permuted_loss}");
        let moved: Vec<f64> = (0..dz.len()).map(|i| dz[at(i)]).collect();
        // On tensor cores a weight, and in bf16 a result, may fall to the other side of a rounding.
        let bound = (FLOOR + 4.0 * P::UNIT) * largest(&dz);
        assert!(distance(permuted_dz, &moved) <= bound, "{case}");
    }
    let device = device();
    let shape @ [rows, columns] = [70, 38];
    let z = crate::held::<half::bf16>(numbers(rows * columns, 1.0));
    // Both halves alike: 11 and 35, 7 and 38 have no common factor.
    let by_row = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        (row / 35 * 35 + row % 35 * 11 % 35) * columns + column
    };
    let by_column = |i: usize| i / columns * columns + i % columns * 7 % columns;
    let inputs: [(Input, &dyn Fn(usize) -> usize); 2] =
        [(Input::rows(&z, shape), &by_row), (Input::columns(&z, shape), &by_column)];
    for (input, at) in inputs {
        let permuted: Vec<f32> = (0..z.len()).map(|i| z[at(i)]).collect();
        let permuted = Input { z: &permuted, ..input };
        check::<F32>(&device, input, &permuted, at);
        check::<Tf32>(&device, input, &permuted, at);
        check::<Bf16>(&device, input, &permuted, at);
    }
}

/// One sample that is no number, or infinite, spoils every log-sum-exp.
#[test]
fn what_is_no_number_reaches_the_loss_and_every_gradient() {
    fn check<P: Rounding>(device: &Device, input: Input) {
        let (loss, dz) = on_device::<P>(device, input, 1.0);
        let case = format!("{} {:?} {:?}", P::NAME, input.shape, input.samples);
        assert!(loss.is_nan() && dz.iter().all(|dz| dz.is_nan()), "{case}: {loss} {dz:?}");
    }
    let device = device();
    for (count, sample) in [(6, 0), (6, 5), (66, 64), (130, 20)] {
        for value in [f32::NAN, f32::INFINITY] {
            let mut samples = numbers(count * 3, 1.0);
            samples[sample * 3 + 1] = value;
            everywhere!(check(&device, &samples, [count, 3]));
        }
    }
}
