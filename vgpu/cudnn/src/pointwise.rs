//! Operations of fused graphs besides convolutions, on tensors packed [n, h, w, c].

use crate::execute::PACKED;
use crate::operation::{Function, Operation};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// Sizes of a tensor in packed order.
fn sizes(t: &Tensor) -> [usize; 4] {
    PACKED.map(|i| t.dims()[i] as usize)
}

/// For each element of a packed tensor of sizes `of`, the place of its counterpart in a tensor that has these sizes or 1.
fn places(of: [usize; 4], within: [usize; 4]) -> impl Iterator<Item = usize> {
    let mut stride = 1;
    let mut strides = [0; 4];
    for i in (0..4).rev() {
        strides[i] = if within[i] == 1 { 0 } else { stride };
        stride *= within[i];
    }
    let count: usize = of.iter().product();
    (0..count).map(move |i| {
        let (w, i) = (i % of[3], i / of[3]);
        let (v, i) = (i % of[2], i / of[2]);
        let (u, n) = (i % of[1], i / of[1]);
        n * strides[0] + u * strides[1] + v * strides[2] + w * strides[3]
    })
}

fn apply(function: Function, a: f32, b: f32) -> f32 {
    match function {
        Function::Add => a + b,
        Function::Multiply => a * b,
        Function::Identity => a,
        Function::Relu { limit, slope } => {
            if a < limit {
                limit + slope * (a - limit)
            } else {
                a
            }
        }
        Function::ReluBackward { limit, slope } => {
            if b > limit {
                a
            } else {
                slope * a
            }
        }
    }
}

/// Sums over the dimensions that `y` has not, of `f` of each element.
fn reduce(x: &Tensor, values: &[f32], y: &Tensor, f: impl Fn(f32) -> f32) -> Vec<f32> {
    let mut sums = vec![0f64; y.elements.count() as usize];
    for (value, place) in values.iter().zip(places(sizes(x), sizes(y))) {
        sums[place] += f(*value) as f64;
    }
    sums.into_iter().map(|s| s as f32).collect()
}

/// The results of an operation that is no convolution.
pub fn compute(operation: &Operation, packed: &HashMap<i64, Vec<f32>>) -> Vec<Vec<f32>> {
    match operation {
        Operation::Pointwise { function, a: (alpha, a), b, y } => {
            let of = sizes(y);
            let first = places(of, sizes(a)).map(|i| alpha * packed[&a.uid][i]);
            vec![match b {
                Some((alpha, b)) => {
                    let second = places(of, sizes(b)).map(|i| alpha * packed[&b.uid][i]);
                    first.zip(second).map(|(a, b)| apply(*function, a, b)).collect()
                }
                None => first.map(|a| apply(*function, a, 0.0)).collect(),
            }]
        }
        Operation::Reduce { x, y } => vec![reduce(x, &packed[&x.uid], y, |v| v)],
        Operation::Statistics { x, sum, squares } => {
            vec![reduce(x, &packed[&x.uid], sum, |v| v), reduce(x, &packed[&x.uid], squares, |v| v * v)]
        }
        Operation::Convolve(_) => Vec::new(),
    }
}
