//! `y[n,p,q,c] = max_{r,s} x[n, p stride + r - padding, q stride + s - padding, c]`, padding is minus infinity; the first
//! maximum in row-major order takes the gradient, as `torch.nn.functional.max_pool2d`. x `[N,H,W,C]`.

use crate::autograd::{Grads, Op, Tape, Var};
use crate::backend::{Backend, Window};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl<B: Backend> Tape<B> {
    /// Records a max pooling. Errors if x is not `[N,H,W,C]`, the window does not fit, or has more than 256 taps.
    pub fn max_pool(&mut self, x: Var, window: Window) -> Result<Var> {
        let shape = self.shape(x);
        let &[_, h, w, _] = shape.dims() else {
            return Err(Error::shape("max_pool", format!("x is [N,H,W,C], not {shape:?}")));
        };
        super::conv2d::check_window("max_pool", window, [h, w])?;
        if window.kernel[0] * window.kernel[1] > 256 {
            return Err(Error::shape("max_pool", format!("kernel {:?} has more than 256 taps", window.kernel)));
        }
        let (y, argmax) = self.backend().max_pool_forward(self.value(x), window)?;
        Ok(self.push([x], Op::MaxPool { x, argmax, window }, y))
    }
}

pub(crate) fn backward<B: Backend>(
    tape: &Tape<B>,
    grads: &mut Grads<B>,
    dy: Tensor<B>,
    x: Var,
    argmax: &B::Argmax,
    window: Window,
) -> Result<()> {
    let b = tape.backend();
    grads.add(b, x, b.max_pool_backward(&dy, argmax, tape.shape(x), window)?)
}
