//! Operations: what they do to which tensors, and whether the shapes agree.

use crate::descriptor::{Descriptor, Made};
use crate::status::{BAD_PARAM, NOT_SUPPORTED, Refusal, refused};
use crate::tensor::{Tensor, number};
use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t as D;
use cudarc::cudnn::sys::{cudnnConvolutionMode_t, cudnnPointwiseMode_t as P, cudnnReduceTensorOp_t};
use std::sync::Arc;
use vgpu_library::number::Number;

/// Parameters of a convolution in two dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convolution {
    pub stride: [u64; 2],
    pub before: [u64; 2],
    pub after: [u64; 2],
    pub dilation: [u64; 2],
}

/// Which of a convolution's tensors is the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    BackwardData,
    BackwardFilter,
}

/// What becomes of what was in a result's memory: beta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// 0: it is overwritten.
    Over,
    /// 1: the result is added to it.
    Added,
}

/// A convolution of tensors.
#[derive(Clone, Debug)]
pub struct Convolve {
    pub direction: Direction,
    pub written: Written,
    pub convolution: Arc<Convolution>,
    pub x: Arc<Tensor>,
    pub w: Arc<Tensor>,
    pub y: Arc<Tensor>,
}

/// What a pointwise operation computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    Add,
    Multiply,
    Identity,
    /// Below the limit: the limit plus the slope times the distance.
    Relu {
        limit: f32,
        slope: f32,
    },
    /// The gradient of it.
    ReluBackward {
        limit: f32,
        slope: f32,
    },
}

/// Parameters of a pointwise operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Pointwise {
    pub function: Function,
}

/// An operation of a graph.
#[derive(Clone, Debug)]
pub enum Operation {
    Convolve(Convolve),
    /// `y = f(first a, second b)`; of a gradient, `a` is that of the result and `b` what the function was applied to.
    Pointwise {
        function: Function,
        a: (f32, Arc<Tensor>),
        b: Option<(f32, Arc<Tensor>)>,
        y: Arc<Tensor>,
    },
    /// Sums over the dimensions that `y` has not.
    Reduce {
        x: Arc<Tensor>,
        y: Arc<Tensor>,
    },
    /// Sums and sums of squares of each channel.
    Statistics {
        x: Arc<Tensor>,
        sum: Arc<Tensor>,
        squares: Arc<Tensor>,
    },
}

fn single(d: &Descriptor, name: A, what: &str) -> Result<(), Refusal> {
    match number(d.number(name), what)? {
        Number::F32 => Ok(()),
        Number::Bf16 => {
            refused(NOT_SUPPORTED, format!("{what} in bf16 is not covered by this stand-in, which has f32"))
        }
    }
}

fn pair(d: &Descriptor, name: A, least: i64) -> Result<[u64; 2], Refusal> {
    match *d.numbers(name) {
        [a, b] if a >= least && b >= least => Ok([a as u64, b as u64]),
        ref other => refused(BAD_PARAM, format!("{name:?} is {other:?} of a convolution in 2 dimensions")),
    }
}

impl Convolution {
    /// Checks a convolution's attributes.
    pub fn new(d: &Descriptor) -> Result<Convolution, Refusal> {
        single(d, A::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, "the convolution")?;
        let mode = d.number(A::CUDNN_ATTR_CONVOLUTION_CONV_MODE);
        if mode != cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION as i64 {
            return refused(NOT_SUPPORTED, format!("convolution mode {mode} is not covered by this stand-in"));
        }
        match d.number(A::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) {
            2 => {}
            n @ (1 | 3..=6) => {
                return refused(NOT_SUPPORTED, format!("{n} spatial dimensions are not covered by this stand-in"));
            }
            n => return refused(BAD_PARAM, format!("{n} spatial dimensions")),
        }
        Ok(Convolution {
            stride: pair(d, A::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 1)?,
            before: pair(d, A::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 0)?,
            after: pair(d, A::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 0)?,
            dilation: pair(d, A::CUDNN_ATTR_CONVOLUTION_DILATIONS, 1)?,
        })
    }

    /// Results along a spatial dimension of an image of `size` for a filter of `taps`.
    fn results(&self, axis: usize, size: u64, taps: u64) -> Option<u64> {
        let reach = self.dilation[axis] * (taps - 1) + 1;
        Some((size + self.before[axis] + self.after[axis]).checked_sub(reach)? / self.stride[axis] + 1)
    }
}

impl Convolve {
    fn new(d: &Descriptor, direction: Direction) -> Result<Convolve, Refusal> {
        let [alpha, beta, parameters, x, w, y] = match direction {
            Direction::Forward => [
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
            ],
            Direction::BackwardData => [
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
            ],
            Direction::BackwardFilter => [
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
            ],
        };
        let written = match (d.real(alpha, 1.0), d.real(beta, 0.0)) {
            (1.0, 0.0) => Written::Over,
            (1.0, 1.0) => Written::Added,
            _ => {
                let detail = "an alpha besides 1 and a beta besides 0 and 1 are not covered by this stand-in";
                return refused(NOT_SUPPORTED, detail);
            }
        };
        let convolution = d.made(parameters, |m| if let Made::Convolution(c) = m { Some(c.clone()) } else { None })?;
        let one = Convolve { direction, written, convolution, x: d.tensor(x)?, w: d.tensor(w)?, y: d.tensor(y)? };
        one.check()?;
        Ok(one)
    }

    fn check(&self) -> Result<(), Refusal> {
        let (x, w, y) = (self.x.dims(), self.w.dims(), self.y.dims());
        if [x, w, y].iter().any(|d| d.len() != 4) {
            return refused(BAD_PARAM, format!("a convolution in 2 dimensions of tensors {x:?}, {w:?}, {y:?}"));
        }
        if x[0] != y[0] || w[0] != y[1] {
            return refused(BAD_PARAM, format!("images {x:?} and a filter {w:?} do not give {y:?}"));
        }
        if x[1] % w[1] != 0 {
            return refused(BAD_PARAM, format!("images of {} channels and a filter of {}", x[1], w[1]));
        }
        if x[1] != w[1] {
            return refused(NOT_SUPPORTED, "groups of channels are not covered by this stand-in");
        }
        for axis in [0, 1] {
            let want = self.convolution.results(axis, x[2 + axis], w[2 + axis]);
            if want != Some(y[2 + axis]) {
                let detail = format!("images {x:?} and a filter {w:?} with {:?} do not give {y:?}", self.convolution);
                return refused(BAD_PARAM, detail);
            }
        }
        Ok(())
    }
}

impl Pointwise {
    /// Checks a pointwise descriptor's attributes.
    pub fn new(d: &Descriptor) -> Result<Pointwise, Refusal> {
        single(d, A::CUDNN_ATTR_POINTWISE_MATH_PREC, "the pointwise operation")?;
        let limit = d.real(A::CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, 0.0) as f32;
        let slope = d.real(A::CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, 0.0) as f32;
        let function = match d.number(A::CUDNN_ATTR_POINTWISE_MODE) as u32 {
            m if m == P::CUDNN_POINTWISE_ADD as u32 => Function::Add,
            m if m == P::CUDNN_POINTWISE_MUL as u32 => Function::Multiply,
            m if m == P::CUDNN_POINTWISE_IDENTITY as u32 => Function::Identity,
            m if m == P::CUDNN_POINTWISE_RELU_FWD as u32 => Function::Relu { limit, slope },
            m if m == P::CUDNN_POINTWISE_RELU_BWD as u32 => Function::ReluBackward { limit, slope },
            m => return refused(NOT_SUPPORTED, format!("pointwise mode {m} is not covered by this stand-in")),
        };
        Ok(Pointwise { function })
    }
}

/// Checks a reduction's attributes: here it is always a sum.
pub fn check_reduction(d: &Descriptor) -> Result<(), Refusal> {
    single(d, A::CUDNN_ATTR_REDUCTION_COMP_TYPE, "the reduction")?;
    match d.number(A::CUDNN_ATTR_REDUCTION_OPERATOR) {
        o if o == cudnnReduceTensorOp_t::CUDNN_REDUCE_TENSOR_ADD as i64 => Ok(()),
        o => refused(NOT_SUPPORTED, format!("reduction {o} is not covered by this stand-in")),
    }
}

/// Whether `b` is as large as `y`, or 1, in each dimension.
fn spreads(b: &[u64], y: &[u64]) -> bool {
    b.len() == y.len() && b.iter().zip(y).all(|(b, y)| b == y || *b == 1)
}

fn pointwise(d: &Descriptor) -> Result<Operation, Refusal> {
    let want = |m: &Made| if let Made::Pointwise(p) = m { Some(p.clone()) } else { None };
    let function = d.made(A::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, want)?.function;
    let alpha1 = d.real(A::CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, 1.0) as f32;
    let alpha2 = d.real(A::CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1.0) as f32;
    let x = d.tensor(A::CUDNN_ATTR_OPERATION_POINTWISE_XDESC)?;
    let two = matches!(function, Function::Add | Function::Multiply);
    let backward = matches!(function, Function::ReluBackward { .. });
    if !two && d.has(A::CUDNN_ATTR_OPERATION_POINTWISE_BDESC) {
        return refused(BAD_PARAM, format!("a tensor b for a pointwise {function:?}, which has none"));
    }
    let (a, b, y) = match (two, backward) {
        (true, _) => {
            let b = d.tensor(A::CUDNN_ATTR_OPERATION_POINTWISE_BDESC)?;
            ((alpha1, x), Some((alpha2, b)), d.tensor(A::CUDNN_ATTR_OPERATION_POINTWISE_YDESC)?)
        }
        (_, true) => {
            let dy = d.tensor(A::CUDNN_ATTR_OPERATION_POINTWISE_DYDESC)?;
            ((1.0, dy), Some((1.0, x)), d.tensor(A::CUDNN_ATTR_OPERATION_POINTWISE_DXDESC)?)
        }
        _ => ((alpha1, x), None, d.tensor(A::CUDNN_ATTR_OPERATION_POINTWISE_YDESC)?),
    };
    let others = b.iter().map(|(_, t)| t).chain([&a.1]);
    if let Some(other) = others.into_iter().find(|t| !spreads(t.dims(), y.dims())) {
        return refused(BAD_PARAM, format!("a pointwise operation on {:?} does not give {:?}", other.dims(), y.dims()));
    }
    Ok(Operation::Pointwise { function, a, b, y })
}

fn reduce(d: &Descriptor) -> Result<Operation, Refusal> {
    d.made(A::CUDNN_ATTR_OPERATION_REDUCTION_DESC, |m| matches!(m, Made::Reduction).then_some(()))?;
    let x = d.tensor(A::CUDNN_ATTR_OPERATION_REDUCTION_XDESC)?;
    let y = d.tensor(A::CUDNN_ATTR_OPERATION_REDUCTION_YDESC)?;
    match spreads(y.dims(), x.dims()) {
        true => Ok(Operation::Reduce { x, y }),
        false => refused(BAD_PARAM, format!("a reduction of {:?} does not give {:?}", x.dims(), y.dims())),
    }
}

fn statistics(d: &Descriptor) -> Result<Operation, Refusal> {
    single(d, A::CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, "statistics")?;
    let x = d.tensor(A::CUDNN_ATTR_OPERATION_GENSTATS_XDESC)?;
    let sum = d.tensor(A::CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC)?;
    let squares = d.tensor(A::CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC)?;
    let channels = x.dims().get(1).copied().unwrap_or(1);
    let right = |t: &Tensor| t.dims().len() == x.dims().len() && t.dims().iter().product::<u64>() == channels;
    if x.dims().len() != 4 || ![&sum, &squares].iter().all(|t| right(t) && t.dims()[1] == channels) {
        let detail = format!("statistics of {:?} are not {:?} and {:?}", x.dims(), sum.dims(), squares.dims());
        return refused(BAD_PARAM, detail);
    }
    Ok(Operation::Statistics { x, sum, squares })
}

impl Operation {
    /// Checks an operation's attributes.
    pub fn new(d: &Descriptor) -> Result<Operation, Refusal> {
        let convolve = |direction| Convolve::new(d, direction).map(Operation::Convolve);
        match d.schema.kind {
            k if k == D::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR as u32 => convolve(Direction::Forward),
            k if k == D::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR as u32 => {
                convolve(Direction::BackwardData)
            }
            k if k == D::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR as u32 => {
                convolve(Direction::BackwardFilter)
            }
            k if k == D::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR as u32 => pointwise(d),
            k if k == D::CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR as u32 => reduce(d),
            _ => statistics(d),
        }
    }

    /// Tensors that it reads.
    pub fn inputs(&self) -> Vec<&Arc<Tensor>> {
        match self {
            Operation::Convolve(c) => match c.direction {
                Direction::Forward => vec![&c.x, &c.w],
                Direction::BackwardData => vec![&c.y, &c.w],
                Direction::BackwardFilter => vec![&c.x, &c.y],
            },
            Operation::Pointwise { a, b, .. } => b.iter().map(|(_, t)| t).chain([&a.1]).collect(),
            Operation::Reduce { x, .. } | Operation::Statistics { x, .. } => vec![x],
        }
    }

    /// Tensors that it writes.
    pub fn outputs(&self) -> Vec<&Arc<Tensor>> {
        match self {
            Operation::Convolve(c) => match c.direction {
                Direction::Forward => vec![&c.y],
                Direction::BackwardData => vec![&c.x],
                Direction::BackwardFilter => vec![&c.w],
            },
            Operation::Pointwise { y, .. } | Operation::Reduce { y, .. } => vec![y],
            Operation::Statistics { sum, squares, .. } => vec![sum, squares],
        }
    }

    /// What reports call it.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Convolve(c) => match c.direction {
                Direction::Forward => "convolution forward",
                Direction::BackwardData => "convolution backward data",
                Direction::BackwardFilter => "convolution backward filter",
            },
            Operation::Pointwise { .. } => "pointwise",
            Operation::Reduce { .. } => "reduction",
            Operation::Statistics { .. } => "statistics",
        }
    }
}
