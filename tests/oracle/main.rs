//! The engine against plain loops, closed forms and itself: what must hold whatever the numbers are.

mod conv2d;
mod nt_xent;
mod training;

use disentangle::backend::Backend;
use disentangle::backend::cpu::{Cpu, Real};
use disentangle::rng::{Purpose, Stream, stream};
use disentangle::tensor::{Shape, Tensor};

fn random(test: u64, case: u64) -> Stream {
    stream(30_300 + test, Purpose::Init, 0, case, 0)
}

fn normal(random: &mut Stream, count: usize) -> Vec<f64> {
    (0..count).map(|_| random.normal()).collect()
}

fn upload<T: Real, const R: usize>(cpu: &Cpu<T>, shape: [usize; R], values: &[f64]) -> Tensor<Cpu<T>> {
    cpu.upload(Shape::from(shape), values).unwrap()
}

// -- NT-Xent ------------------------------------------------------------------------------------------------------------
