//! Launches of kernels/adam.cu.

use std::mem::offset_of;

use cudarc::driver::DeviceRepr;

use super::kernel::{Address, Argument, Kernels, Slice, SliceMut, blocks, check_elems, kernel, value_argument};
use crate::{Error, Result};

const THREADS: u32 = 256;
const PREPARE_THREADS: u32 = 1024;
/// Elements of a chunk, at most.
const CHUNK: usize = 16_384;

/// Part of one parameter with its gradient and moments, or of a kept tensor; as in kernels/adam.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    param: Address,
    grad: Address,
    exp_avg: Address,
    exp_avg_sq: Address,
    elems: u64,
}

/// Constants of every step; as in kernels/adam.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Global gradient norm above which all gradients are scaled down; 0 for no clipping.
    pub clip_norm: f64,
}

/// What changes from step to step, in device memory; as in kernels/adam.cu. The default is the state before the first step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    /// Set by the host, read by every step.
    pub learning_rate: f64,
    /// Of the last step's gradients, before clipping.
    pub norm: f64,
    /// Steps made.
    pub step: u64,
    /// Steps left out, those after a bad one included.
    pub nonfinite_steps: u64,
    /// What [`Prepare`] leaves for [`Update`]: scale, decay, beta1, beta2, 1 - beta1, 1 - beta2, rate, root, eps.
    coefficients: [f32; 9],
    left_out: u32,
}

const _: () = {
    assert!(size_of::<Chunk>() == 40 && offset_of!(Chunk, elems) == 32);
    assert!(size_of::<Config>() == 40 && offset_of!(Config, clip_norm) == 32);
    assert!(size_of::<State>() == 72 && align_of::<State>() == 8);
    assert!(
        offset_of!(State, step) == 16 && offset_of!(State, coefficients) == 32 && offset_of!(State, left_out) == 68
    );
};

// SAFETY: plain numbers in the kernel's layout, asserted above and in adam.cu.
unsafe impl DeviceRepr for Chunk {}
// SAFETY: as above.
unsafe impl DeviceRepr for Config {}
// SAFETY: as above.
unsafe impl DeviceRepr for State {}
value_argument!(Config);

impl State {
    /// After `step` steps.
    pub fn after(step: u64) -> Self {
        State { step, ..State::default() }
    }

    /// Whether the last step was left out, and those to come will be.
    pub fn left_out(&self) -> bool {
        self.left_out != 0
    }

    /// The same, with steps to be made again; and where that is said, in bytes from the beginning.
    pub fn released(self) -> (Self, usize) {
        (State { left_out: 0, ..self }, offset_of!(State, left_out))
    }
}

impl Chunk {
    /// The chunks of one parameter. Errors unless all four have one length and begin at a multiple of 16 bytes.
    pub fn cut(
        param: &SliceMut<f32>,
        grad: &Slice<f32>,
        exp_avg: &SliceMut<f32>,
        exp_avg_sq: &SliceMut<f32>,
    ) -> Result<Vec<Chunk>> {
        let elems = param.elems();
        let lengths = [
            ("grad", grad.elems(), elems),
            ("exp_avg", exp_avg.elems(), elems),
            ("exp_avg_sq", exp_avg_sq.elems(), elems),
        ];
        check_elems("adam", &lengths)?;
        if !(param.is_aligned() && grad.is_aligned() && exp_avg.is_aligned() && exp_avg_sq.is_aligned()) {
            return Err(Error::shape("adam", "memory does not begin at a multiple of 16 bytes"));
        }
        let chunk = |first: usize| Chunk {
            param: param.parameter().offset::<f32>(first),
            grad: grad.parameter().offset::<f32>(first),
            exp_avg: exp_avg.parameter().offset::<f32>(first),
            exp_avg_sq: exp_avg_sq.parameter().offset::<f32>(first),
            elems: CHUNK.min(elems - first) as u64,
        };
        Ok((0..elems).step_by(CHUNK).map(chunk).collect())
    }
}

impl Chunk {
    /// The chunks of a kept tensor and of what it was before the step. Errors as [`Chunk::cut`].
    pub fn keep(value: &SliceMut<f32>, before: &SliceMut<f32>) -> Result<Vec<Chunk>> {
        let elems = value.elems();
        check_elems("adam_keep", &[("before", before.elems(), elems)])?;
        if !(value.is_aligned() && before.is_aligned()) {
            return Err(Error::shape("adam_keep", "memory does not begin at a multiple of 16 bytes"));
        }
        let chunk = |first: usize| Chunk {
            param: value.parameter().offset::<f32>(first),
            grad: Address::NULL,
            exp_avg: before.parameter().offset::<f32>(first),
            exp_avg_sq: Address::NULL,
            elems: CHUNK.min(elems - first) as u64,
        };
        Ok((0..elems).step_by(CHUNK).map(chunk).collect())
    }
}

kernel! {
    /// What kept tensors are before the step.
    Keep ['a] ['a] "adam_keep"; {
        /// Of kept tensors only.
        chunks: Slice<'a, Chunk>,
    }
}

impl Keep<'_> {
    /// Launches it.
    ///
    /// # Safety
    /// The chunks are those of [`Chunk::keep`]; the memory they were cut from is alive and nothing else on the device uses it
    /// meanwhile.
    pub unsafe fn launch(self, kernels: &Kernels) -> Result<()> {
        // SAFETY: lengths are checked by `Chunk::keep`; the caller vouches for their memory.
        unsafe { self.enqueue(kernels, (blocks("adam_keep", self.chunks.elems(), 1)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// The sum of squares of each chunk's gradient; of a kept tensor's chunk 0, or NaN where it is not finite.
    Norm ['a] ['a] "adam_norm"; {
        /// Of all parameters.
        chunks: Slice<'a, Chunk>,
        /// One a chunk.
        partial: SliceMut<'a, f64>,
    }
}

impl Norm<'_> {
    /// Launches it.
    ///
    /// # Safety
    /// The memory the chunks were cut from is alive.
    pub unsafe fn launch(self, kernels: &Kernels) -> Result<()> {
        check_elems("adam_norm", &[("partial", self.partial.elems(), self.chunks.elems())])?;
        // SAFETY: lengths are checked, the chunks' by `Chunk::cut`; the caller vouches for their memory.
        unsafe { self.enqueue(kernels, (blocks("adam_norm", self.chunks.elems(), 1)?, 1, 1), THREADS) }
    }
}

kernel! {
    /// From the sums to the norm, the clipping and this step's coefficients. Counts the step, or leaves it out: for the loss, the norm, a
    /// kept tensor, or because the step before was left out.
    Prepare ['a] ['a] "adam_prepare"; {
        /// From [`Norm`].
        partial: Slice<'a, f64>,
        /// One; must be finite for the step to be made.
        loss: Option<Slice<'a, f32>>,
        /// One.
        state: SliceMut<'a, State>,
        /// Chunks.
        count: u32,
        /// Constants.
        config: Config,
    }
}

impl Prepare<'_> {
    /// Launches it.
    pub fn launch(self, kernels: &Kernels) -> Result<()> {
        let lengths = [
            ("partial", self.partial.elems(), self.count as usize),
            ("loss", self.loss.as_ref().map_or(1, Slice::elems), 1),
            ("state", self.state.elems(), 1),
        ];
        check_elems("adam_prepare", &lengths)?;
        // SAFETY: lengths are checked.
        unsafe { self.enqueue(kernels, (1, 1, 1), PREPARE_THREADS) }
    }
}

kernel! {
    /// The update, or, if [`Prepare`] left this step out, kept tensors as they were.
    Update ['a] ['a] "adam_update"; {
        /// Of all parameters.
        chunks: Slice<'a, Chunk>,
        /// One.
        state: Slice<'a, State>,
    }
}

impl Update<'_> {
    /// Launches it.
    ///
    /// # Safety
    /// The memory the chunks were cut from is alive and nothing else on the device uses it meanwhile.
    pub unsafe fn launch(self, kernels: &Kernels) -> Result<()> {
        check_elems("adam_update", &[("state", self.state.elems(), 1)])?;
        // SAFETY: lengths are checked, the chunks' by `Chunk::cut`; the caller vouches for their memory.
        unsafe { self.enqueue(kernels, (blocks("adam_update", self.chunks.elems(), 1)?, 1, 1), THREADS) }
    }
}
