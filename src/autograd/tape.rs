//! The tape: what ran, in order. A value is an index, so recording order is topological order and nothing dangles.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Grads;
use crate::backend::cpu::Cpu;
use crate::backend::{Activation, Backend, BatchStats, NtXentSaved, Samples, Window};
use crate::nn::ParamId;
use crate::ops;
use crate::tensor::{Shape, Tensor};
use crate::{Error, Result};

/// Handle to a recorded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(usize);

/// What ran, plus what its backward needs beyond the values of its inputs and output.
pub(crate) enum Op<B: Backend> {
    Leaf,
    Conv2d { x: Var, w: Var, window: Window },
    Linear { x: Var, w: Var, b: Option<Var> },
    BatchNorm { x: Var, weight: Var, bias: Var, residual: Option<Var>, stats: BatchStats<B>, activation: Activation },
    BatchNormInference,
    MaxPool { x: Var, argmax: B::Argmax, window: Window },
    GlobalAvgPool { x: Var },
    Sigmoid { x: Var },
    NtXent { z: Var, saved: NtXentSaved<B>, samples: Samples, temperature: f64 },
    BinaryEntropy { logits: Var },
    WeightedSum { terms: [(Var, f64); 3] },
}

impl<B: Backend> Op<B> {
    /// The op's stem.
    fn name(&self) -> &'static str {
        match self {
            Op::Leaf => "leaf",
            Op::Conv2d { .. } => "conv2d",
            Op::Linear { .. } => "linear",
            Op::BatchNorm { .. } => "batch_norm",
            Op::BatchNormInference => "batch_norm_inference",
            Op::MaxPool { .. } => "max_pool",
            Op::GlobalAvgPool { .. } => "global_avg_pool",
            Op::Sigmoid { .. } => "sigmoid",
            Op::NtXent { .. } => "nt_xent",
            Op::BinaryEntropy { .. } => "binary_entropy",
            Op::WeightedSum { .. } => "weighted_sum",
        }
    }

    /// What backward gives gradients to.
    fn inputs(&self) -> Inputs {
        match *self {
            Op::Leaf | Op::BatchNormInference => [None; 4],
            Op::Conv2d { x, w, .. } => [Some(x), Some(w), None, None],
            Op::Linear { x, w, b } => [Some(x), Some(w), b, None],
            Op::BatchNorm { x, weight, bias, residual, .. } => [Some(x), Some(weight), Some(bias), residual],
            Op::MaxPool { x, .. } | Op::GlobalAvgPool { x } | Op::Sigmoid { x } => [Some(x), None, None, None],
            Op::NtXent { z: x, .. } | Op::BinaryEntropy { logits: x } => [Some(x), None, None, None],
            Op::WeightedSum { terms: [(a, _), (b, _), (c, _)] } => [Some(a), Some(b), Some(c), None],
        }
    }
}

/// A node of a tape, to be looked at.
pub(crate) struct Recorded<'a, B: Backend> {
    pub var: Var,
    /// The op's stem; `leaf` for inputs.
    pub op: &'static str,
    /// What it was computed from: activations first, then parameters.
    pub inputs: Inputs,
    pub value: &'a Tensor<B>,
    /// The parameter that a leaf is.
    pub param: Option<ParamId>,
}

/// What an op reads from the tape.
pub(crate) type Inputs = [Option<Var>; 4];

struct Node<B: Backend> {
    op: Op<B>,
    value: Tensor<B>,
    /// Whether a parameter is somewhere among what it was computed from.
    wants_grad: bool,
}

/// A record of one forward pass, to be walked back once.
pub struct Tape<B: Backend> {
    backend: B,
    nodes: Vec<Node<B>>,
    /// Leaf of each parameter, by its id.
    params: Vec<Option<Var>>,
}

impl<B: Backend> Tape<B> {
    /// An empty tape on a device.
    pub fn new(backend: B) -> Self {
        Tape { backend, nodes: Vec::new(), params: Vec::new() }
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Records an input without a gradient: images.
    pub fn input(&mut self, value: Tensor<B>) -> Var {
        self.push_node(Op::Leaf, value, false)
    }

    /// Records an input whose gradient is wanted.
    pub fn leaf(&mut self, value: Tensor<B>) -> Var {
        self.push_node(Op::Leaf, value, true)
    }

    /// Records a parameter; the same parameter is the same value however often it is used.
    pub fn param(&mut self, id: ParamId, value: &Tensor<B>) -> Var {
        if self.params.len() <= id.index() {
            self.params.resize(id.index() + 1, None);
        }
        if let Some(var) = self.params[id.index()] {
            return var;
        }
        let var = self.leaf(value.clone());
        self.params[id.index()] = Some(var);
        var
    }

    /// A recorded value.
    pub fn value(&self, var: Var) -> &Tensor<B> {
        &self.nodes[var.0].value
    }

    /// The shape of a recorded value.
    pub fn shape(&self, var: Var) -> Shape {
        self.value(var).shape()
    }

    /// A recorded scalar on the host.
    pub fn scalar(&self, var: Var) -> Result<f64> {
        self.backend.scalar(self.value(var))
    }

    /// Forgets everything; keeps its own memory.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.params.clear();
    }

    /// For inference: drops what was recorded after `from` except `keep`, whose new handle replaces `from`.
    pub fn forget(&mut self, from: Var, keep: Var) -> Var {
        self.nodes.swap(from.0, keep.0);
        self.nodes.truncate(from.0 + 1);
        self.nodes[from.0].op = Op::Leaf;
        for param in &mut self.params {
            *param = param.filter(|var| var.0 < from.0);
        }
        from
    }

    /// Records the result of an op; its gradient is wanted where one of its inputs' is.
    pub(crate) fn push<const N: usize>(&mut self, inputs: [Var; N], op: Op<B>, value: Tensor<B>) -> Var {
        let wants_grad = inputs.iter().any(|&input| self.wants_grad(input));
        self.push_node(op, value, wants_grad)
    }

    fn push_node(&mut self, op: Op<B>, value: Tensor<B>, wants_grad: bool) -> Var {
        self.nodes.push(Node { op, value, wants_grad });
        Var(self.nodes.len() - 1)
    }

    /// Whether the gradient of `var` is of use.
    pub(crate) fn wants_grad(&self, var: Var) -> bool {
        self.nodes[var.0].wants_grad
    }

    /// What was recorded, in order.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = Recorded<'_, B>> {
        self.nodes.iter().enumerate().map(|(i, node)| Recorded {
            var: Var(i),
            op: node.op.name(),
            inputs: node.op.inputs(),
            value: &node.value,
            param: self.params.iter().position(|&var| var == Some(Var(i))).map(ParamId::at),
        })
    }

    /// Walks back from the scalar `loss`, newest node first, and leaves the leaves' gradients in `grads`. Nodes are dropped
    /// on the way, so their memory serves the gradients to come; afterwards the tape is empty.
    pub fn backward(&mut self, loss: Var, grads: &mut Grads<B>) -> Result<()> {
        self.backward_watched(loss, grads, |_, _, _| Ok(()))
    }

    /// [`Tape::backward`], calling `watch` after each op, with the value it had computed, what it read, and the gradients.
    pub(crate) fn backward_watched(
        &mut self,
        loss: Var,
        grads: &mut Grads<B>,
        mut watch: impl FnMut(Var, Inputs, &Grads<B>) -> Result<()>,
    ) -> Result<()> {
        if self.shape(loss).elems() != 1 {
            return Err(Error::shape("backward", format!("starts from a scalar, not from {:?}", self.shape(loss))));
        }
        grads.reset(self.nodes.len(), &self.params);
        let one = self.backend.full(self.shape(loss), 1.0)?;
        grads.add(&self.backend, loss, one)?;
        while let Some(Node { op, value: y, wants_grad }) = self.nodes.pop() {
            let this = Var(self.nodes.len());
            // A leaf keeps its gradient; where none arrived, nothing depends on it.
            if !wants_grad || matches!(op, Op::Leaf) {
                continue;
            }
            let Some(dy) = grads.take(this) else { continue };
            let inputs = op.inputs();
            match op {
                Op::Leaf => {}
                Op::Conv2d { x, w, window } => ops::conv2d::backward(self, grads, dy, x, w, window)?,
                Op::Linear { x, w, b } => ops::linear::backward(self, grads, dy, x, w, b)?,
                Op::BatchNorm { x, weight, bias, residual, stats, activation } => {
                    let inputs = ops::batch_norm::Inputs { x, weight, bias, residual };
                    ops::batch_norm::backward(self, grads, dy, &y, inputs, &stats, activation)?;
                }
                Op::BatchNormInference => {
                    return Err(Error::shape("batch_norm", "inference has no backward: record in training mode"));
                }
                Op::MaxPool { x, argmax, window } => ops::max_pool::backward(self, grads, dy, x, &argmax, window)?,
                Op::GlobalAvgPool { x } => ops::global_avg_pool::backward(self, grads, dy, x)?,
                Op::Sigmoid { x } => ops::sigmoid::backward(self, grads, dy, &y, x)?,
                Op::NtXent { z, saved, samples, temperature } => {
                    ops::nt_xent::backward(self, grads, dy, z, &saved, samples, temperature)?;
                }
                Op::BinaryEntropy { logits } => ops::binary_entropy::backward(self, grads, dy, logits)?,
                Op::WeightedSum { terms } => ops::weighted_sum::backward(self, grads, dy, terms)?,
            }
            watch(this, inputs, grads)?;
        }
        self.clear();
        Ok(())
    }
}

impl Tape<Cpu<f64>> {
    /// A hash of the branches that ReLU and max pooling took: equal on both sides of a step that crosses no kink.
    pub fn branches(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for Node { op, value, .. } in &self.nodes {
            match op {
                Op::BatchNorm { activation: Activation::Relu, .. } => {
                    self.backend.values(value).iter().for_each(|&y| (y > 0.0).hash(&mut hash));
                }
                Op::MaxPool { argmax, .. } => argmax.read().hash(&mut hash),
                _ => {}
            }
        }
        hash.finish()
    }
}

impl<B: Backend> fmt::Display for Tape<B> {
    /// A line a node: position, op, shape, elements; the total last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut total = 0;
        for (i, node) in self.nodes.iter().enumerate() {
            let elems = node.value.shape().elems();
            total += elems;
            writeln!(f, "{i:>5}  {:<22}{:<22}{elems:>12}", node.op.name(), format!("{:?}", node.value.shape()))?;
        }
        writeln!(f, "{:>5}  {:<44}{total:>12}", "", "elements in all")
    }
}

impl Var {
    /// Position on the tape.
    pub(crate) fn index(self) -> usize {
        self.0
    }
}
