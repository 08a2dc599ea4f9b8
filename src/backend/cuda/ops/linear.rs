//! Linear layers by cuBLASLt. Weights, in f32, are rounded to the type of activations; gradients come back in f32.

use super::transfer::as_activations;
use super::{CudaTensor, by_dtype};
use crate::Result;
use crate::backend::cuda::bias::{BiasBackward, BiasBackwardFinish};
use crate::backend::cuda::columns::Columns;
use crate::backend::cuda::cublaslt::{Bias, Matrices, Operand, Product};
use crate::backend::cuda::device::Cuda;
use crate::backend::cuda::kernel::Dtype;
use crate::tensor::Shape;

fn product(cuda: &Cuda, [m, n, k]: [usize; 3], [a, b]: [Operand; 2]) -> Product {
    let input = cuda.activations();
    Product { m, n, k, a, b, input, output: input, compute: cuda.multiplication(), bias: Bias::Absent }
}

pub fn forward(cuda: &Cuda, x: &CudaTensor, w: &CudaTensor, b: Option<&CudaTensor>) -> Result<CudaTensor> {
    let (rows, inputs, outputs) = (x.shape().first(), x.shape().last(), w.shape().first());
    let (w, b) = (as_activations(cuda, w)?, b.map(|b| as_activations(cuda, b)).transpose()?);
    let mut product = product(cuda, [rows, outputs, inputs], [Operand::Plain, Operand::Transposed]);
    product.bias = if b.is_some() { Bias::Added } else { Bias::Absent };
    x.buffer().expect(product.input)?;
    let y = cuda.tensor(Shape::from([rows, outputs]), product.output)?;
    let matrices = Matrices {
        a: x.buffer().address(),
        b: w.buffer().address(),
        d: y.buffer().address(),
        bias: b.as_ref().map(|b| b.buffer().address()),
    };
    cuda.product(&product, matrices)?;
    Ok(y)
}

pub fn backward_data(cuda: &Cuda, w: &CudaTensor, dy: &CudaTensor) -> Result<CudaTensor> {
    let (rows, outputs, inputs) = (dy.shape().first(), w.shape().first(), w.shape().last());
    let w = as_activations(cuda, w)?;
    let product = product(cuda, [rows, inputs, outputs], [Operand::Plain; 2]);
    dy.buffer().expect(product.input)?;
    let dx = cuda.tensor(Shape::from([rows, inputs]), product.output)?;
    let (a, b, d) = (dy.buffer().address(), w.buffer().address(), dx.buffer().address());
    cuda.product(&product, Matrices { a, b, d, bias: None })?;
    Ok(dx)
}

pub fn backward_weight(cuda: &Cuda, x: &CudaTensor, dy: &CudaTensor) -> Result<CudaTensor> {
    let (rows, outputs, inputs) = (dy.shape().first(), dy.shape().last(), x.shape().last());
    let product =
        Product { output: Dtype::F32, ..product(cuda, [outputs, inputs, rows], [Operand::Transposed, Operand::Plain]) };
    x.buffer().expect(product.input)?;
    dy.buffer().expect(product.input)?;
    let dw = cuda.tensor(Shape::from([outputs, inputs]), product.output)?;
    let (a, b, d) = (dy.buffer().address(), x.buffer().address(), dw.buffer().address());
    cuda.product(&product, Matrices { a, b, d, bias: None })?;
    Ok(dw)
}

pub fn backward_bias(cuda: &Cuda, dy: &CudaTensor) -> Result<CudaTensor> {
    let shape = Columns::new(dy.shape().rows(), dy.shape().last(), 1)?;
    let mut partial = cuda.scratch::<f32>(shape.partial_elems(1))?;
    by_dtype!(dy.buffer().dtype(), T => {
        let sums = BiasBackward::<T> { dy: dy.buffer().slice()?, partial: partial.slice_mut(), shape };
        sums.launch(cuda.kernels())?;
    });
    let mut db = cuda.tensor(Shape::from([dy.shape().last()]), Dtype::F32)?;
    let finish = BiasBackwardFinish { partial: partial.slice(), db: db.buffer_mut().slice_mut()?, shape };
    finish.launch(cuda.kernels())?;
    Ok(db)
}
