//! The instance loss against references computed in f64 from the paper's equations 1-4.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Backend, Samples};
use disentangle::tensor::Shape;

use crate::judge::{Judge, Precision, norm, upload};
use crate::reader::{Array, Golden, Kind, each};

/// Norms are clamped from below at this.
const MIN_NORM: f64 = 1e-12;

/// Rounding errors of NT-Xent over `count` samples of `dim` dimensions, in roundoffs.
///
/// A unit sample's elements are off by 2 u, a cosine therefore by `(dim + 4) u`. The exponent and `log sum exp` of values up
/// to `1/t + ln count` add a rounding each.
pub struct Bounds {
    count: f64,
    temperature: f64,
    cosine: f64,
    exponent: f64,
}

impl Bounds {
    pub fn new([count, dim]: [usize; 2], temperature: f64) -> Self {
        let count = count as f64;
        Bounds { count, temperature, cosine: dim as f64 + 4.0, exponent: 2.0 * (1.0 / temperature + count.ln()) + 16.0 }
    }

    /// Of one sample's loss, and so of their mean: two cosines over t, and the exponents. The reference errs as much.
    pub fn loss(&self) -> f64 {
        2.0 * (2.0 * self.cosine / self.temperature + self.exponent)
    }

    /// Of each element of the gradient of a sample of norm `length`. Before the normalisation the gradient is `1/(count t)`
    /// times a sum of `count` unit vectors with weights `P_ik + P_ki`, of which the first sum to 1 and the second to 1 on
    /// average over samples (3 leaves room), less twice the positive: magnitudes up to 6. Each weight is off by its exponent,
    /// the sum by `count` roundings, and the projection off the sample by as many as it has dimensions.
    pub fn gradient(&self, length: f64) -> f64 {
        let weights = 4.0 * self.cosine / self.temperature + self.exponent + self.count + self.cosine;
        6.0 * weights / (self.count * self.temperature * length.max(MIN_NORM))
    }
}

/// The losses of single samples, which the engine only adds up: from what it keeps for its backward.
pub fn sample_losses<T: Precision>(cpu: &Cpu<T>, z: &Array, samples: Samples, temperature: f64) -> Vec<f64> {
    let (_, saved) = cpu.nt_xent_forward(&upload(cpu, z), samples, temperature).unwrap();
    let (unit, lse) = (cpu.download(&saved.unit).unwrap(), cpu.download(&saved.lse).unwrap());
    let dim = saved.unit.shape().last();
    let sample = |i: usize| &unit[i * dim..][..dim];
    let cosine = |i: usize| -> f64 {
        let positive = (i + lse.len() / 2) % lse.len();
        sample(i).iter().zip(sample(positive)).map(|(a, b)| a * b).sum()
    };
    (0..lse.len()).map(|i| lse[i] - cosine(i) / temperature).collect()
}

/// Loss and gradient of z `[2N, d]`.
pub fn loss_and_gradient<T: Precision>(cpu: &Cpu<T>, z: &Array, samples: Samples, temperature: f64) -> (f64, Vec<f64>) {
    let z = upload(cpu, z);
    let (loss, saved) = cpu.nt_xent_forward(&z, samples, temperature).unwrap();
    let one = cpu.full(Shape::SCALAR, 1.0).unwrap();
    let dz = cpu.nt_xent_backward(&saved, &one, z.shape(), samples, temperature).unwrap();
    (cpu.scalar(&loss).unwrap(), cpu.download(&dz).unwrap())
}

fn check<T: Precision>(golden: &Golden) {
    let mut judge = Judge::new::<T>(golden);
    let cpu = Cpu::<T>::new();
    for case in golden.cases() {
        let z = golden.array(&format!("{case}/z1")).over(&golden.array(&format!("{case}/z2")));
        let [count, dim] = [z.shape[0], z.shape[1]];
        let lengths: Vec<f64> = z.values.chunks_exact(dim).map(|row| norm(row.iter().copied())).collect();
        for part in golden.parts_after(&format!("{case}/")) {
            let name = |leaf: &str| format!("{case}/{part}/{leaf}");
            let temperature = part.strip_prefix("tau").and_then(|t| t.parse().ok());
            let temperature: f64 = temperature.unwrap_or_else(|| panic!("{part} names no temperature"));
            let bounds = Bounds::new([count, dim], temperature);
            let (loss, dz) = loss_and_gradient(&cpu, &z, Samples::Rows, temperature);
            judge.elements::<T>(&name("loss"), &[loss], &golden.array(&name("loss")), |_| bounds.loss());
            let losses = sample_losses(&cpu, &z, Samples::Rows, temperature);
            judge.elements::<T>(&name("rows"), &losses, &golden.array(&name("rows")), |_| bounds.loss());
            // Row by row: the gradients of a long and of a short sample (of an all-zero one: 1e10) differ by many orders.
            let expected = golden.array(&name("dz1")).over(&golden.array(&name("dz2")));
            for (i, length) in lengths.iter().enumerate() {
                let row = Array { shape: vec![dim], values: expected.values[i * dim..][..dim].to_vec(), ..expected };
                let bound = bounds.gradient(*length);
                judge.elements::<T>(&name(&format!("dz row {i}")), &dz[i * dim..][..dim], &row, |_| bound);
            }
        }
    }
    judge.finish();
}

#[test]
fn instance_loss_agrees() {
    each(Kind::NtXent, |golden| {
        check::<f64>(golden);
        check::<f32>(golden);
    });
}
