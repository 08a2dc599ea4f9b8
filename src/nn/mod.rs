//! Layers: they name parameters and record ops; the numbers live in [`Params`].

mod init;
mod layers;
mod params;
mod resnet;

pub use layers::{BatchNorm, Conv2d, Linear};
pub use params::{Param, ParamId, Params, Role};
pub use resnet::{Backbone, ResNet, Stem};

use crate::autograd::{Tape, Var};
use crate::backend::Backend;

/// How batch norm behaves in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Batch statistics per view; running statistics are updated with this momentum (0.1 in training).
    Train {
        /// Equal parts of the batch, normalised by themselves.
        views: usize,
        /// Share of the new statistics in the running ones.
        momentum: f64,
    },
    /// Running statistics; values that are no longer needed are dropped on the way.
    Eval,
}

/// A forward pass under way: where it is recorded, what it reads, how it behaves.
pub struct Forward<'a, B: Backend> {
    /// Records the ops.
    pub tape: &'a mut Tape<B>,
    /// Parameters and running statistics.
    pub params: &'a mut Params<B>,
    /// Behaviour of batch norm.
    pub mode: Mode,
}

impl<B: Backend> Forward<'_, B> {
    /// The parameter as a value on the tape.
    fn param(&mut self, id: ParamId) -> Var {
        self.tape.param(id, self.params.tensor(id))
    }

    /// In inference, drops all values recorded after `from` but `keep`, which takes the place of `from`.
    fn keep_only(&mut self, from: Var, keep: Var) -> Var {
        if self.mode == Mode::Eval { self.tape.forget(from, keep) } else { keep }
    }
}
