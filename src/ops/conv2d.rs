//! `y[n,p,q,k] = sum_{r,s,c} x[n, p stride + r - padding, q stride + s - padding, c] w[k,r,s,c]`: cross-correlation, zero
//! padding, no bias, as `torch.nn.functional.conv2d`. x `[N,H,W,C]`, w `[K,R,S,C]`, y `[N,P,Q,K]`.

use crate::autograd::{Grads, Op, Tape, Var};
use crate::backend::{Backend, Window};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl<B: Backend> Tape<B> {
    /// Records a convolution. Errors if the shapes do not fit, the stride is 0, the kernel is larger than the padded
    /// image, or the padding is not smaller than the kernel (an output would see no input).
    pub fn conv2d(&mut self, x: Var, w: Var, window: Window) -> Result<Var> {
        let (xs, ws) = (self.shape(x), self.shape(w));
        let &[_, h, width, c] = xs.dims() else {
            return Err(Error::shape("conv2d", format!("x is [N,H,W,C], not {xs:?}")));
        };
        let &[_, r, s, wc] = ws.dims() else {
            return Err(Error::shape("conv2d", format!("w is [K,R,S,C], not {ws:?}")));
        };
        if wc != c || [r, s] != window.kernel {
            return Err(Error::shape("conv2d", format!("x {xs:?}, w {ws:?}, kernel {:?}", window.kernel)));
        }
        check_window("conv2d", window, [h, width])?;
        let y = self.backend().conv2d_forward(self.value(x), self.value(w), window)?;
        Ok(self.push([x, w], Op::Conv2d { x, w, window }, y))
    }
}

/// Checks that every output position of `window` on an image of `size` (H, W) sees a pixel.
pub(super) fn check_window(op: &'static str, window: Window, size: [usize; 2]) -> Result<()> {
    let covered = window.kernel.iter().all(|&kernel| window.padding < kernel);
    let fits = (0..2).all(|axis| size[axis] > 0 && window.output(axis, size[axis]).is_some());
    if window.stride == 0 || !covered || !fits {
        return Err(Error::shape(op, format!("{window:?} on an image of {} x {}", size[0], size[1])));
    }
    Ok(())
}

pub(crate) fn backward<B: Backend>(
    tape: &Tape<B>,
    grads: &mut Grads<B>,
    dy: Tensor<B>,
    x: Var,
    w: Var,
    window: Window,
) -> Result<()> {
    let b = tape.backend();
    if tape.wants_grad(w) {
        grads.add(b, w, b.conv2d_backward_filter(tape.value(x), &dy, tape.shape(w), window)?)?;
    }
    if tape.wants_grad(x) {
        match grads.of_mut(x) {
            Some(dx) => b.conv2d_backward_data_add(tape.value(w), &dy, dx, window)?,
            None => grads.add(b, x, b.conv2d_backward_data(tape.value(w), &dy, tape.shape(x), window)?)?,
        }
    }
    Ok(())
}
