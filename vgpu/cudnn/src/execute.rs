//! Plans on memory: what is wrong with a variant pack, and the work.

use crate::convolve::{self, Order};
use crate::descriptor::Descriptor;
use crate::engine::{Method, Plan};
use crate::operation::Operation;
use crate::pointwise;
use crate::status::{BAD_PARAM, EXECUTION_FAILED, MISALIGNED_POINTER, NULL_POINTER, Refusal, refused};
use crate::tensor::{Storage, Tensor};
use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use vgpu_library::abi::Run;
use vgpu_library::driver::{self, Access, Call, Memory, Operand};
use vgpu_library::number::Number;

/// What a workspace's address must divide by.
const WORKSPACE_ALIGNMENT: u64 = 16;

/// Where tensors and workspace are.
pub struct Pack {
    pointers: HashMap<i64, u64>,
    workspace: u64,
}

impl Pack {
    /// Checks a variant pack's attributes.
    pub fn new(d: &Descriptor) -> Result<Pack, Refusal> {
        let ids = d.numbers(A::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
        let addresses = d.numbers(A::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
        if ids.len() != addresses.len() {
            return refused(BAD_PARAM, format!("{} unique ids and {} pointers", ids.len(), addresses.len()));
        }
        let pointers: HashMap<i64, u64> = ids.iter().copied().zip(addresses.iter().map(|p| *p as u64)).collect();
        if pointers.len() != ids.len() {
            return refused(BAD_PARAM, format!("unique ids that are not unique: {ids:?}"));
        }
        Ok(Pack { pointers, workspace: d.number(A::CUDNN_ATTR_VARIANT_PACK_WORKSPACE) as u64 })
    }

    fn pointer(&self, t: &Tensor) -> Result<u64, Refusal> {
        let name = format!("tensor {}", t.uid);
        match self.pointers.get(&t.uid) {
            None => refused(BAD_PARAM, format!("{name} has no pointer in the variant pack")),
            Some(0) => refused(NULL_POINTER, format!("{name} is at null")),
            Some(p) if t.storage == Storage::Device && !p.is_multiple_of(t.alignment) => {
                let detail = format!("{name} is at {p:#x}, and was stated to be aligned to {} bytes", t.alignment);
                refused(MISALIGNED_POINTER, detail)
            }
            Some(p) => Ok(*p),
        }
    }
}

/// Operands of a plan: inputs in device memory, outputs, workspace; and the numbers that are given by value.
struct Bound {
    operands: Vec<Operand>,
    values: Vec<(i64, f32)>,
    workspace: Option<usize>,
}

fn bind(plan: &Plan, pack: &Pack) -> Result<Bound, Refusal> {
    let graph = &plan.engine.graph;
    let all = || graph.inputs.iter().chain(&graph.outputs);
    if let Some(uid) = pack.pointers.keys().find(|uid| !all().any(|t| t.uid == **uid)) {
        return refused(
            BAD_PARAM,
            format!("the variant pack has a pointer for {uid}, which no tensor of the graph is"),
        );
    }
    let (mut operands, mut values, mut workspace) = (Vec::new(), Vec::new(), None);
    for t in &graph.inputs {
        let address = pack.pointer(t)?;
        match t.storage {
            // SAFETY: a tensor by value is a number of the host's.
            Storage::Value => values.push((t.uid, unsafe { value(t.elements.number, address) })),
            _ => operands.push(operand(t, address, Access::Read)),
        }
    }
    let access = if graph.adds() { Access::Update } else { Access::Write };
    for t in &graph.outputs {
        operands.push(operand(t, pack.pointer(t)?, access));
    }
    if plan.workspace > 0 {
        if pack.workspace == 0 {
            return refused(NULL_POINTER, format!("the workspace of {} bytes is at null", plan.workspace));
        }
        if !pack.workspace.is_multiple_of(WORKSPACE_ALIGNMENT) {
            let detail =
                format!("the workspace is at {:#x}, which does not divide by {WORKSPACE_ALIGNMENT}", pack.workspace);
            return refused(MISALIGNED_POINTER, detail);
        }
        workspace = Some(operands.len());
        let runs = vec![Run { offset: 0, bytes: plan.workspace }];
        operands.push(Operand { name: "the workspace".into(), address: pack.workspace, access: Access::Write, runs });
    }
    for (i, one) in operands.iter().enumerate() {
        for other in &operands[i + 1..] {
            if (one.access != Access::Read || other.access != Access::Read) && one.overlaps(other) {
                return refused(BAD_PARAM, format!("{} and {} overlap", one.name, other.name));
            }
        }
    }
    Ok(Bound { operands, values, workspace })
}

fn operand(t: &Tensor, address: u64, access: Access) -> Operand {
    Operand { name: format!("tensor {}", t.uid), address, access, runs: t.elements.runs() }
}

/// # Safety
/// `address` is that of a number on the host.
unsafe fn value(number: Number, address: u64) -> f32 {
    let n = number.bytes() as usize;
    // SAFETY: by contract.
    let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, n) };
    number.load(bytes)[0]
}

/// `cudnnBackendExecute`
pub fn execute(stream: u64, plan: &Arc<Plan>, pack: &Pack) -> Result<(), Refusal> {
    let Bound { operands, values, workspace } = bind(plan, pack)?;
    if !driver::stream_exists(stream) {
        return refused(EXECUTION_FAILED, format!("the handle's stream {stream:#x} was destroyed"));
    }
    let place = format!("{}, engine {:?}", plan.engine.graph.name(), plan.engine.method);
    let plan = plan.clone();
    let work = Box::new(move |memory: &[Memory]| perform(&plan, &values, workspace.map(|i| &memory[i]), memory));
    match driver::enqueue(stream, Call { name: "cudnnBackendExecute", place, operands, work }) {
        Ok(()) => Ok(()),
        Err(error) => refused(EXECUTION_FAILED, format!("the stream takes no work: CUDA error {error}")),
    }
}

/// From [n, c, h, w] to the order in which tensors are packed here.
pub const PACKED: [usize; 4] = [0, 2, 3, 1];

/// How often plans were performed: where the next one that wanders begins.
static PERFORMED: AtomicUsize = AtomicUsize::new(0);

/// Runs the operations on packed tensors, and stores those that the graph leaves in memory.
fn perform(plan: &Plan, values: &[(i64, f32)], workspace: Option<&Memory>, memory: &[Memory]) {
    let graph = &plan.engine.graph;
    let mut packed: HashMap<i64, Vec<f32>> = values.iter().map(|(uid, v)| (*uid, vec![*v])).collect();
    let device: Vec<&Arc<Tensor>> = graph.inputs.iter().filter(|t| t.storage == Storage::Device).collect();
    for (t, memory) in device.iter().zip(memory) {
        packed.insert(t.uid, t.ordered(PACKED).gather(memory));
    }
    let order = match plan.engine.method {
        Method::Wandering => Order::From(PERFORMED.fetch_add(1, Relaxed)),
        Method::Halves => Order::Halves,
        Method::Tf32 => Order::Tf32,
        Method::Ordered | Method::Unavailable => Order::Plain,
    };
    let outputs = || graph.outputs.iter().zip(&memory[device.len()..]);
    for operation in &graph.operations {
        let results = match operation {
            Operation::Convolve(c) => vec![convolve::convolve(c, order, &packed, workspace)],
            other => pointwise::compute(other, &packed),
        };
        for (t, mut result) in operation.outputs().into_iter().zip(results) {
            // Only a graph of one operation adds.
            for (_, memory) in outputs().filter(|(output, _)| graph.adds() && output.uid == t.uid) {
                let before = t.ordered(PACKED).gather(memory);
                result.iter_mut().zip(before).for_each(|(sum, before)| *sum += before);
            }
            let number = t.elements.number;
            if number != Number::F32 {
                result = number.load(&number.store(&result)); // what later operations read is what is stored
            }
            packed.insert(t.uid, result);
        }
    }
    for (t, memory) in outputs() {
        t.ordered(PACKED).scatter(memory, &packed[&t.uid]);
    }
}
