//! Whether a product's descriptors fit together, and what they say: `D = alpha op(A) op(B) + beta C`.

use crate::attributes::{Attributes, desc, layout};
use crate::entry::{INVALID_VALUE, NOT_SUPPORTED, Refusal, refused};
use cudarc::cublaslt::sys::{
    cublasComputeType_t as C, cublasLtEpilogue_t as E, cublasLtOrder_t as O, cudaDataType_t as T,
};
use vgpu_library::number::Number;
use vgpu_library::strided::Strided;

/// What happens besides the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    Default,
    /// A number is added to each row of D.
    Bias,
    /// The sums of op(A)'s rows are stored.
    GradientOfA,
    /// The sums of op(B)'s columns are stored.
    GradientOfB,
}

impl Epilogue {
    /// Elements of the vector at the bias pointer.
    pub fn length(self, p: &Problem) -> u64 {
        match self {
            Epilogue::Default => 0,
            Epilogue::Bias | Epilogue::GradientOfA => p.m,
            Epilogue::GradientOfB => p.n,
        }
    }
}

/// A matrix as it lies in memory, in the indices of the product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Rows and columns after the transposition.
    pub elements: Strided,
    /// Stored by rows.
    pub by_rows: bool,
    /// Leading dimension, elements.
    pub ld: u64,
}

/// A product that makes sense.
#[derive(Clone, Debug)]
pub struct Problem {
    pub m: u64,
    pub n: u64,
    pub k: u64,
    /// Inputs are rounded to TF32.
    pub tf32: bool,
    pub a: Matrix,
    pub b: Matrix,
    pub c: Matrix,
    pub d: Matrix,
    pub epilogue: Epilogue,
    pub bias: u64,
}

/// The four layouts of a product.
pub struct Layouts<'a> {
    pub a: &'a Attributes,
    pub b: &'a Attributes,
    pub c: &'a Attributes,
    pub d: &'a Attributes,
}

fn number(of: u64, what: &str) -> Result<Number, Refusal> {
    match of as u32 {
        t if t == T::CUDA_R_32F as u32 => Ok(Number::F32),
        t if t == T::CUDA_R_16BF as u32 => Ok(Number::Bf16),
        t => refused(NOT_SUPPORTED, format!("data type {t} of {what} is not covered by this stand-in")),
    }
}

/// `cublasOperation_t`
fn transposed(desc: &Attributes, number: u32, what: &str) -> Result<bool, Refusal> {
    match desc.value(number) {
        0 => Ok(false),
        1 | 2 => Ok(true), // the conjugate of a real number is itself
        v => refused(INVALID_VALUE, format!("{v} is no operation on {what}")),
    }
}

fn matrix(of: &Attributes, transposed: bool, what: &str) -> Result<Matrix, Refusal> {
    let number = number(of.value(layout::TYPE), what)?;
    let (rows, cols, ld) = (of.value(layout::ROWS), of.value(layout::COLS), of.value(layout::LD));
    let by_rows = match of.value(layout::ORDER) as u32 {
        o if o == O::CUBLASLT_ORDER_COL as u32 => false,
        o if o == O::CUBLASLT_ORDER_ROW as u32 => true,
        o => return refused(NOT_SUPPORTED, format!("order {o} of {what} is not covered by this stand-in")),
    };
    if rows == 0 || cols == 0 || rows > i32::MAX as u64 || cols > i32::MAX as u64 {
        return refused(INVALID_VALUE, format!("{what} has {rows} rows and {cols} columns"));
    }
    let (line, by) = if by_rows { (cols, "rows") } else { (rows, "columns") };
    if (ld as i64) < line as i64 {
        let detail = format!("{what} is {rows}x{cols} by {by}, and its leading dimension is {}", ld as i64);
        return refused(INVALID_VALUE, detail);
    }
    if of.value(layout::BATCH_COUNT) != 1 {
        return refused(NOT_SUPPORTED, format!("{what} is a batch, which is not covered by this stand-in"));
    }
    let (mut dims, mut strides) = (vec![rows, cols], if by_rows { vec![ld, 1] } else { vec![1, ld] });
    if transposed {
        dims.reverse();
        strides.reverse();
    }
    Ok(Matrix { elements: Strided { number, dims, strides }, by_rows, ld })
}

/// Whether inputs are rounded to TF32.
fn compute(desc: &Attributes) -> Result<bool, Refusal> {
    let scale = desc.value(desc::SCALE_TYPE) as u32;
    if scale != T::CUDA_R_32F as u32 {
        return refused(NOT_SUPPORTED, format!("scale type {scale} is not covered by this stand-in, which has f32"));
    }
    for (attribute, want, what) in [
        (desc::POINTER_MODE, 0, "scalars in device memory are"),
        (desc::TRANSC, 0, "a transposed C is"),
        (desc::FILL_MODE, desc::FULL, "triangles are"),
    ] {
        if desc.value(attribute) != want {
            return refused(NOT_SUPPORTED, format!("{what} not covered by this stand-in"));
        }
    }
    match desc.value(desc::COMPUTE_TYPE) as u32 {
        t if t == C::CUBLAS_COMPUTE_32F as u32 || t == C::CUBLAS_COMPUTE_32F_PEDANTIC as u32 => Ok(false),
        t if t == C::CUBLAS_COMPUTE_32F_FAST_TF32 as u32 => Ok(true),
        t => refused(NOT_SUPPORTED, format!("compute type {t} is not covered by this stand-in")),
    }
}

impl Problem {
    /// Checks that the descriptors fit together.
    pub fn new(desc: &Attributes, layouts: &Layouts<'_>) -> Result<Problem, Refusal> {
        let tf32 = compute(desc)?;
        let a = matrix(layouts.a, transposed(desc, desc::TRANSA, "A")?, "A")?;
        let b = matrix(layouts.b, transposed(desc, desc::TRANSB, "B")?, "B")?;
        let (c, d) = (matrix(layouts.c, false, "C")?, matrix(layouts.d, false, "D")?);
        let [m, k] = [a.elements.dims[0], a.elements.dims[1]];
        let n = b.elements.dims[1];
        for (what, matrix, want) in [("op(B)", &b, [k, n]), ("C", &c, [m, n]), ("D", &d, [m, n])] {
            let got = &matrix.elements.dims;
            if *got != want {
                let [rows, cols] = want;
                let detail = format!("op(A) is {m}x{k} and {what} is {}x{}, not {rows}x{cols}", got[0], got[1]);
                return refused(INVALID_VALUE, detail);
            }
        }
        let epilogue = match desc.value(desc::EPILOGUE) as u32 {
            e if e == E::CUBLASLT_EPILOGUE_DEFAULT as u32 => Epilogue::Default,
            e if e == E::CUBLASLT_EPILOGUE_BIAS as u32 => Epilogue::Bias,
            e if e == E::CUBLASLT_EPILOGUE_BGRADA as u32 => Epilogue::GradientOfA,
            e if e == E::CUBLASLT_EPILOGUE_BGRADB as u32 => Epilogue::GradientOfB,
            e => return refused(NOT_SUPPORTED, format!("epilogue {e} is not covered by this stand-in")),
        };
        let p = Problem { m, n, k, tf32, a, b, c, d, epilogue, bias: desc.value(desc::BIAS_POINTER) };
        p.check_types(desc.value(desc::BIAS_DATA_TYPE))?;
        Ok(p)
    }

    /// The combinations of the manual's table for results by columns or rows.
    fn check_types(&self, bias: u64) -> Result<(), Refusal> {
        let [a, b, c, d] = [&self.a, &self.b, &self.c, &self.d].map(|m| m.elements.number);
        let narrowing = a == Number::F32 && d == Number::Bf16;
        if a != b || c != d || narrowing || (self.tf32 && a == Number::Bf16) {
            let compute = if self.tf32 { "f32 by TF32" } else { "f32" };
            let [a, b, c, d] = [a, b, c, d].map(Number::name);
            return refused(NOT_SUPPORTED, format!("A {a}, B {b}, C {c}, D {d} computed in {compute}"));
        }
        if self.c.by_rows != self.d.by_rows {
            return refused(NOT_SUPPORTED, "C and D are stored in different orders");
        }
        if self.epilogue != Epilogue::Default && self.d.by_rows {
            return refused(NOT_SUPPORTED, "an epilogue on a D by rows: state the transposed product by columns");
        }
        if self.epilogue != Epilogue::Default && bias != desc::SAME_TYPE && number(bias, "the bias")? != d {
            return refused(NOT_SUPPORTED, format!("D is {} and the bias is of another type", d.name()));
        }
        Ok(())
    }
}
