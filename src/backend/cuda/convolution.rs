//! What a convolution is to cuDNN: its sizes, types and the freedom its engines have.

use super::kernel::{Address, Dtype};
use crate::backend::Window;

/// What a convolution computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// y from x and w.
    Forward,
    /// dx from w and dy.
    BackwardData,
    /// dw from x and dy.
    BackwardFilter,
}

/// What products may be rounded to before they are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Multiplication {
    /// Of f32 to f32.
    Exact,
    /// On tensor cores: of f32 through tf32, of bf16 exactly.
    TensorCores,
}

/// What becomes of what was in the result's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    /// It is overwritten.
    Over,
    /// The result is added to it.
    Added,
}

/// A convolution; sizes in elements, as in [`crate::backend::Backend::conv2d_forward`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// Which of its three.
    pub direction: Direction,
    /// x: N, H, W, C.
    pub x: [usize; 4],
    /// w: K, R, S, C.
    pub w: [usize; 4],
    /// y: N, P, Q, K.
    pub y: [usize; 4],
    /// Stride and padding.
    pub stride: usize,
    /// Zeros on every side.
    pub padding: usize,
    /// Of the two inputs.
    pub input: Dtype,
    /// Of the result.
    pub output: Dtype,
    /// How it may multiply.
    pub multiplication: Multiplication,
    /// How the result is written.
    pub result: Written,
}

/// The tensors of a convolution, of the element types that it states.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// x or dx.
    pub x: Address,
    /// w or dw.
    pub w: Address,
    /// y or dy.
    pub y: Address,
}

impl Convolution {
    /// Of x `[N,H,W,C]` and w `[K,R,S,C]`.
    pub fn sizes(x: [usize; 4], w: [usize; 4], window: Window) -> Option<[usize; 4]> {
        Some([x[0], window.output(0, x[1])?, window.output(1, x[2])?, w[0]])
    }

    /// Multiplications and additions.
    pub fn flops(&self) -> f64 {
        2.0 * self.y.iter().chain(&self.w[1..]).map(|&size| size as f64).product::<f64>()
    }
}
