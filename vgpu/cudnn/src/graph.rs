//! Operation graphs: operations in an order in which they can run, and the tensors they meet memory with.

use crate::descriptor::{Descriptor, Made, Value};
use crate::engine::Method;
use crate::operation::{Operation, Written};
use crate::status::{BAD_PARAM, Refusal, refused};
use crate::tensor::{Storage, Tensor};
use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use std::collections::HashMap;
use std::sync::Arc;
use vgpu_library::number::Number;

/// A graph whose parts fit together.
pub struct Graph {
    /// Each after those that it reads from.
    pub operations: Vec<Operation>,
    /// Tensors that it reads and does not make, each once.
    pub inputs: Vec<Arc<Tensor>>,
    /// Tensors that it leaves in device memory.
    pub outputs: Vec<Arc<Tensor>>,
}

/// What a graph is to the engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One convolution. Whether its inputs are f32.
    Convolution { single: bool },
    /// A convolution, perhaps, with pointwise operations and sums around it.
    Fused,
}

/// Orders operations so that each comes after the makers of what it reads.
fn ordered(mut rest: Vec<Operation>) -> Result<Vec<Operation>, Refusal> {
    let mut done: Vec<Operation> = Vec::new();
    while !rest.is_empty() {
        let made_later = |uid: i64| rest.iter().any(|o| o.outputs().iter().any(|t| t.uid == uid));
        let Some(next) = rest.iter().position(|o| o.inputs().iter().all(|t| !made_later(t.uid))) else {
            return refused(BAD_PARAM, "operations that wait for each other's results");
        };
        done.push(rest.remove(next));
    }
    Ok(done)
}

impl Graph {
    /// Checks a graph's operations.
    pub fn new(d: &Descriptor) -> Result<Graph, Refusal> {
        let want = |m: &Made| if let Made::Operation(o) = m { Some(Operation::clone(o)) } else { None };
        let operations = ordered(d.all_made(A::CUDNN_ATTR_OPERATIONGRAPH_OPS, want)?)?;
        let mut made: HashMap<i64, Arc<Tensor>> = HashMap::new();
        let mut read: HashMap<i64, Arc<Tensor>> = HashMap::new();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for operation in &operations {
            for t in operation.inputs() {
                if let Some(other) = made.get(&t.uid).or_else(|| read.get(&t.uid)) {
                    same(t, other)?;
                } else if t.storage == Storage::Virtual {
                    return refused(BAD_PARAM, format!("virtual tensor {} is read and never made", t.uid));
                } else {
                    inputs.push(t.clone());
                }
                read.insert(t.uid, t.clone());
            }
            for t in operation.outputs() {
                if made.contains_key(&t.uid) || inputs.iter().any(|i| i.uid == t.uid) {
                    return refused(BAD_PARAM, format!("tensor {} is written after it was read or written", t.uid));
                }
                if t.storage == Storage::Value {
                    return refused(BAD_PARAM, format!("tensor {} is by value, and a result", t.uid));
                }
                if t.elements.overlaps_itself() {
                    return refused(BAD_PARAM, format!("tensor {} is a result and overlaps itself", t.uid));
                }
                if t.storage == Storage::Device {
                    outputs.push(t.clone());
                }
                made.insert(t.uid, t.clone());
            }
        }
        let unused = |t: &&Arc<Tensor>| t.storage == Storage::Virtual && !read.contains_key(&t.uid);
        match made.values().find(unused) {
            Some(t) => refused(BAD_PARAM, format!("virtual tensor {} is made and never read", t.uid)),
            None => Ok(Graph { operations, inputs, outputs }),
        }
    }

    /// What engines see in it, or why none takes it.
    pub fn pattern(&self) -> Result<Pattern, String> {
        let convolutions = self.operations.iter().filter(|o| matches!(o, Operation::Convolve(_))).count();
        let all = || self.operations.iter().flat_map(|o| o.inputs().into_iter().chain(o.outputs()));
        if let Some(t) = all().find(|t| t.dims().len() != 4) {
            return Err(format!("tensor {} has {} dimensions, where engines take 4", t.uid, t.dims().len()));
        }
        if convolutions > 1 {
            return Err(format!("{convolutions} convolutions in a graph"));
        }
        match self.operations.as_slice() {
            [operation @ Operation::Convolve(c)] => {
                let result = operation.outputs()[0].elements.number;
                let inputs: Vec<Number> = operation.inputs().iter().map(|t| t.elements.number).collect();
                if inputs[0] != inputs[1] || (result != inputs[0] && result != Number::F32) {
                    let [one, two] = [inputs[0].name(), inputs[1].name()];
                    return Err(format!("a convolution of {one} and {two} into {}", result.name()));
                }
                let places = [&c.x, &c.w, &c.y].map(|t| t.storage);
                if places.iter().any(|s| *s != Storage::Device) {
                    return Err("a convolution of tensors that are not in device memory".into());
                }
                Ok(Pattern::Convolution { single: inputs[0] == Number::F32 })
            }
            all if all.iter().any(adds) => Err("a convolution that adds to its result, among others".into()),
            _ => Ok(Pattern::Fused),
        }
    }

    /// Whether results are added to what is in their memory.
    pub fn adds(&self) -> bool {
        self.operations.iter().any(adds)
    }

    /// What it answers once it is finalised.
    pub fn answer(&self, number: u32) -> Option<Value> {
        let count = if self.pattern().is_ok() { Method::COUNT as i64 } else { 0 };
        (number == A::CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT as u32).then(|| Value::Numbers(vec![count]))
    }

    /// What reports call it.
    pub fn name(&self) -> String {
        self.operations.iter().map(Operation::name).collect::<Vec<_>>().join(", ")
    }
}

fn adds(operation: &Operation) -> bool {
    matches!(operation, Operation::Convolve(c) if c.written == Written::Added)
}

fn same(t: &Tensor, other: &Tensor) -> Result<(), Refusal> {
    if t == other { Ok(()) } else { refused(BAD_PARAM, format!("two different tensors have the unique id {}", t.uid)) }
}
