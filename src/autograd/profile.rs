//! Where a step's memory goes: what the pool holds after each node of a tape, forward and backward.

use std::collections::HashSet;

use super::tape::Node;
use super::{Grads, Op, Tape, Var};
use crate::backend::{Backend, Footprint, Memory};
use crate::nn::ParamId;
use crate::tensor::Shape;

/// Which way a node was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Recorded.
    Forward,
    /// Walked back.
    Backward,
}

/// A node of a tape when it was passed, and the memory behind it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which way.
    pub pass: Pass,
    /// Position on the tape.
    pub node: usize,
    /// The op's stem.
    pub op: &'static str,
    /// The parameter that it is, or the weight that it takes.
    pub param: Option<ParamId>,
    /// Of its value.
    pub shape: Shape,
    /// Of its value's elements.
    pub dtype: &'static str,
    /// Bytes that its value takes; 0 where a parameter or another node has them.
    pub value: usize,
    /// Bytes that it keeps for its backward besides.
    pub saved: usize,
    /// Bytes of all values on the tape behind it, and of what they keep.
    pub activations: usize,
    /// Bytes of all gradients behind it.
    pub gradients: usize,
    /// The pool behind it; the peak is the node's own.
    pub memory: Memory,
}

/// What was noted of a tape so far.
#[derive(Debug)]
pub(super) struct Recorder {
    entries: Vec<Entry>,
    /// Buffers that are not the step's: parameters, images.
    foreign: HashSet<usize>,
}

/// A node that was passed.
pub(super) struct Passed {
    pass: Pass,
    node: usize,
    op: &'static str,
    param: Option<ParamId>,
    shape: Shape,
    dtype: &'static str,
}

/// Bytes of those buffers that were not met before.
fn new_bytes(met: &mut HashSet<usize>, footprints: impl IntoIterator<Item = Footprint>) -> usize {
    footprints.into_iter().filter(|footprint| met.insert(footprint.buffer)).map(|footprint| footprint.bytes).sum()
}

/// What a node keeps besides its value.
fn saved<B: Backend>(backend: &B, op: &Op<B>) -> Vec<Footprint> {
    match op {
        Op::BatchNorm { stats, .. } => vec![backend.footprint(&stats.mean), backend.footprint(&stats.inv_std)],
        Op::MaxPool { argmax, .. } => vec![backend.argmax_footprint(argmax)],
        Op::NtXent { saved, .. } => [&saved.unit, &saved.norm, &saved.lse].map(|x| backend.footprint(x)).into(),
        _ => Vec::new(),
    }
}

impl<B: Backend> Tape<B> {
    /// Notes, from now on, the pool behind each node. What `foreign` takes is not the step's.
    pub fn start_profile(&mut self, foreign: impl IntoIterator<Item = Footprint>) {
        let foreign = foreign.into_iter().map(|footprint| footprint.buffer).collect();
        self.backend().reset_peak();
        self.recorder = Some(Recorder { entries: Vec::new(), foreign });
    }

    /// Ends that, with what was noted in order.
    pub fn take_profile(&mut self) -> Vec<Entry> {
        self.recorder.take().map(|recorder| recorder.entries).unwrap_or_default()
    }

    /// Describes a node, if nodes are noted.
    pub(super) fn passing(&self, pass: Pass, number: usize, node: &Node<B>) -> Option<Passed> {
        self.recorder.as_ref()?;
        let weight = match node.op {
            Op::Leaf => Some(Var::at(number)),
            Op::Conv2d { w, .. } | Op::Linear { w, .. } => Some(w),
            Op::BatchNorm { weight, .. } => Some(weight),
            _ => None,
        };
        let (shape, dtype) = (node.value.shape(), self.backend().footprint(&node.value).dtype);
        let param = weight.and_then(|var| self.param_of(var));
        Some(Passed { pass, node: number, op: node.op.name(), param, shape, dtype })
    }

    /// Notes the memory behind a node that was passed.
    pub(super) fn passed(&mut self, passed: Option<Passed>, grads: Option<&Grads<B>>) {
        let (Some(passed), Some(mut recorder)) = (passed, self.recorder.take()) else { return };
        let backend = self.backend().clone();
        let mut met = recorder.foreign.clone();
        let (mut activations, mut own) = (0, [0, 0]);
        for Node { op, value, .. } in &self.nodes {
            own = [new_bytes(&mut met, [backend.footprint(value)]), new_bytes(&mut met, saved(&backend, op))];
            activations += own[0] + own[1];
        }
        // Forward, the last node is this one.
        let [value, saved] = if passed.pass == Pass::Forward { own } else { [0, 0] };
        let gradients = grads.map_or(0, |grads| new_bytes(&mut met, grads.all().map(|grad| backend.footprint(grad))));
        let Passed { pass, node, op, param, shape, dtype } = passed;
        let memory = backend.memory();
        let entry = Entry { pass, node, op, param, shape, dtype, value, saved, activations, gradients, memory };
        recorder.entries.push(entry);
        backend.reset_peak();
        self.recorder = Some(recorder);
    }
}
