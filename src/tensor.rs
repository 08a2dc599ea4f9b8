//! Shapes, and tensors: a shape with a handle to a backend's buffer.

use std::fmt;

use crate::backend::Backend;

/// Up to four dimensions, outermost first. Images are `[N, H, W, C]`, filters `[K, R, S, C]`, matrices `[rows, columns]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: u8,
}

impl Shape {
    /// The shape of a scalar: rank 0, one element.
    pub const SCALAR: Shape = Shape { dims: [1; 4], rank: 0 };

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Number of elements; 1 for a scalar.
    pub fn elems(&self) -> usize {
        self.dims().iter().product()
    }

    /// The innermost dimension (channels, columns); 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The outermost dimension (images, rows); 1 for a scalar.
    pub fn first(&self) -> usize {
        self.dims().first().copied().unwrap_or(1)
    }

    /// Elements over [`Shape::last`]: the rows of the shape seen as a matrix with channels innermost.
    pub fn rows(&self) -> usize {
        self.elems().checked_div(self.last()).unwrap_or(0)
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    /// Of rank `R`, at most 4 (checked when compiled).
    fn from(given: [usize; R]) -> Self {
        const { assert!(R <= 4, "a shape has at most four dimensions") };
        let mut dims = [1; 4];
        dims[..R].copy_from_slice(&given);
        Shape { dims, rank: R as u8 }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// A tensor of backend `B`: dense, row-major, innermost dimension contiguous. A clone shares the buffer.
pub struct Tensor<B: Backend> {
    shape: Shape,
    buffer: B::Buffer,
}

impl<B: Backend> Tensor<B> {
    /// Puts a shape on a buffer of as many elements (the backend checks).
    pub(crate) fn new(shape: Shape, buffer: B::Buffer) -> Self {
        Tensor { shape, buffer }
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The backend's buffer.
    pub(crate) fn buffer(&self) -> &B::Buffer {
        &self.buffer
    }

    /// The backend's buffer, to write to.
    pub(crate) fn buffer_mut(&mut self) -> &mut B::Buffer {
        &mut self.buffer
    }
}

impl<B: Backend> Clone for Tensor<B> {
    fn clone(&self) -> Self {
        Tensor { shape: self.shape, buffer: self.buffer.clone() }
    }
}

impl<B: Backend> fmt::Debug for Tensor<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?}", self.shape)
    }
}
