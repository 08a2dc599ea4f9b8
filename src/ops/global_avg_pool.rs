//! `y[n,c] = 1/(H W) sum_{h,w} x[n,h,w,c]`. x `[N,H,W,C]`, y `[N,C]`.

use crate::autograd::{Grads, Op, Tape, Var};
use crate::backend::Backend;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl<B: Backend> Tape<B> {
    /// Records a global average pooling. Errors if x is not `[N,H,W,C]`.
    pub fn global_avg_pool(&mut self, x: Var) -> Result<Var> {
        let shape = self.shape(x);
        if shape.dims().len() != 4 || shape.elems() == 0 {
            return Err(Error::shape("global_avg_pool", format!("x is [N,H,W,C], not {shape:?}")));
        }
        let y = self.backend().global_avg_pool_forward(self.value(x))?;
        Ok(self.push([x], Op::GlobalAvgPool { x }, y))
    }
}

pub(crate) fn backward<B: Backend>(tape: &Tape<B>, grads: &mut Grads<B>, dy: Tensor<B>, x: Var) -> Result<()> {
    let b = tape.backend();
    grads.add(b, x, b.global_avg_pool_backward(&dy, tape.shape(x))?)
}
