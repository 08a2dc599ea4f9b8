//! Adam by kernels/adam.cu: norm, clipping, coefficients and update without the host.

use std::mem::offset_of;

use super::CudaTensor;
use super::transfer::{copy_to_device, download_state};
use crate::backend::cuda::adam::{Chunk, Config, Keep, Norm, Prepare, State, Update};
use crate::backend::cuda::device::Cuda;
use crate::backend::cuda::kernel::{Address, SliceMut};
use crate::backend::cuda::memory::Scratch;
use crate::backend::{AdamConfig, AdamReport, AdamTensors, Backend, Kept, Stepped, Visit};
use crate::{Error, Result};

/// The optimiser's scalars and its tables of tensors.
#[derive(Debug)]
pub struct AdamState {
    state: Scratch<State>,
    learning_rate: f64,
    /// For steps that are launched one by one, then for each recorded one.
    tables: Vec<Table>,
    /// Steps recorded.
    recorded: usize,
    /// Kept tensors, which stay where they are.
    kept: Option<Table>,
}

/// Where the tensors of a step are, in device memory.
#[derive(Debug)]
struct Table {
    memory: Scratch<Chunk>,
    /// What is there.
    chunks: Vec<Chunk>,
}

impl AdamState {
    /// After `steps` steps.
    pub fn new(cuda: &Cuda, steps: u64) -> Result<Self> {
        let state = cuda.scratch(1)?;
        copy_to_device(cuda, &[State::after(steps)], state.address())?;
        Ok(AdamState { state, learning_rate: 0.0, tables: Vec::new(), recorded: 0, kept: None })
    }

    /// For the steps to come.
    pub fn set_learning_rate(&mut self, cuda: &Cuda, learning_rate: f64) -> Result<()> {
        if learning_rate.to_bits() != self.learning_rate.to_bits() {
            let address = Address(self.state.address().0 + offset_of!(State, learning_rate) as u64);
            copy_to_device(cuda, &[learning_rate], address)?;
            self.learning_rate = learning_rate;
        }
        Ok(())
    }

    /// Where it is, on the device.
    pub fn address(&self) -> Address {
        self.state.address()
    }

    /// What the last step left, waiting for it.
    pub fn report(&self, cuda: &Cuda) -> Result<AdamReport> {
        Ok(report(&download_state(cuda, self.state.address())?))
    }

    /// The table for `chunks`: in device memory now, or when the recording has ended.
    fn table(&mut self, cuda: &Cuda, chunks: Vec<Chunk>) -> Result<usize> {
        if self.tables.is_empty() {
            for _ in 0..=Cuda::LANES {
                self.tables.push(Table { memory: cuda.scratch(chunks.len())?, chunks: Vec::new() });
            }
        }
        let recording = cuda.device.recording.get();
        let which = if recording { 1 + self.recorded % Cuda::LANES } else { 0 };
        let Table { memory, chunks: there } = &mut self.tables[which];
        if memory.slice().elems() != chunks.len() {
            return Err(Error::shape("adam", "the parameters are not those of the steps before"));
        }
        if recording {
            self.recorded += 1;
            cuda.device.deferred.borrow_mut().push((memory.address(), chunks));
        } else if *there != chunks {
            copy_to_device(cuda, &chunks, memory.address())?;
            *there = chunks;
        }
        Ok(which)
    }

    /// Has steps made again.
    pub fn release(&mut self, cuda: &Cuda) -> Result<()> {
        let (_, offset) = State::default().released();
        copy_to_device(cuda, &[0u32], Address(self.state.address().0 + offset as u64))
    }

    /// Keeps what these tensors are.
    pub fn keep<'a>(&mut self, cuda: &Cuda, kept: impl Iterator<Item = Kept<'a, Cuda>>) -> Result<()> {
        let mut chunks = Vec::new();
        for Kept { value, before } in kept {
            chunks.extend(Chunk::keep(&memory(value)?, &memory(before)?)?);
        }
        if chunks.is_empty() {
            return Ok(());
        }
        // Copies are not for a recording: what is kept never moves, so that the table of the steps before is the table.
        if self.kept.as_ref().is_none_or(|kept| kept.chunks != chunks) {
            if cuda.device.recording.get() {
                return Err(Error::Device("tensors to keep are new in a recorded step".into()));
            }
            let memory = cuda.scratch(chunks.len())?;
            copy_to_device(cuda, &chunks, memory.address())?;
            self.kept = Some(Table { memory, chunks });
        }
        let Some(Table { memory, .. }) = &self.kept else { return Ok(()) };
        // SAFETY: the tensors the chunks were cut from are in the caller's hands, and stay where they are for as long as the
        // parameters live.
        unsafe { Keep { chunks: memory.slice() }.launch(cuda.kernels()) }
    }

    /// One step.
    pub fn step(
        &mut self,
        cuda: &Cuda,
        mut tensors: impl FnMut(&mut Visit<Cuda>) -> Result<()>,
        loss: Option<&CudaTensor>,
        config: &AdamConfig,
    ) -> Result<()> {
        let mut chunks = Vec::new();
        tensors(&mut |stepped| {
            chunks.extend(match stepped {
                Stepped::Trained(AdamTensors { param, grad, exp_avg, exp_avg_sq }) => {
                    let grad = grad.buffer().slice()?;
                    Chunk::cut(&memory(param)?, &grad, &memory(exp_avg)?, &memory(exp_avg_sq)?)?
                }
                Stepped::Kept(Kept { value, before }) => Chunk::keep(&memory(value)?, &memory(before)?)?,
            });
            Ok(())
        })?;
        let loss = loss.map(|loss| loss.buffer().slice()).transpose()?;
        let count = chunks.len();
        let which = self.table(cuda, chunks)?;
        let chunks = self.tables[which].memory.slice();
        let mut partial = cuda.scratch::<f64>(count)?;
        let AdamConfig { beta1, beta2, eps, weight_decay, clip_norm } = *config;
        let config = Config { beta1, beta2, eps, weight_decay, clip_norm };
        let prepare = |partial: &Scratch<f64>, state: &mut Scratch<State>| {
            Prepare { partial: partial.slice(), loss, state: state.slice_mut(), count: count as u32, config }
                .launch(cuda.kernels())
        };
        // SAFETY: the tensors the chunks were cut from are in the caller's hands; what a recorded step reads and writes stays
        // where it is for as long as the parameters live.
        unsafe {
            Norm { chunks, partial: partial.slice_mut() }.launch(cuda.kernels())?;
            prepare(&partial, &mut self.state)?;
            Update { chunks, state: self.state.slice() }.launch(cuda.kernels())
        }
    }
}

/// A tensor's memory, to write.
fn memory(x: &mut CudaTensor) -> Result<SliceMut<'_, f32>> {
    x.buffer_mut().slice_mut()
}

/// For the host.
pub fn report(state: &State) -> AdamReport {
    AdamReport {
        grad_norm: state.norm,
        steps: state.step,
        nonfinite_steps: state.nonfinite_steps,
        left_out: state.left_out(),
    }
}
