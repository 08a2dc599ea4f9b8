//! The ways to compute a graph, the heuristic that ranks them, and plans.
//!
//! The ways differ in what a caller must mind: workspace, determinism, precision, and that a plan may not be had at all. The
//! heuristic puts those that need care first, so that a caller who takes the first is seen to.

use crate::descriptor::{Descriptor, Made, Value};
use crate::graph::{Graph, Pattern};
use crate::schema;
use crate::status::{NOT_SUPPORTED, Refusal, refused, unsupported};
use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as A, cudnnBackendBehaviorNote_t as B, cudnnBackendHeurMode_t as H,
    cudnnBackendNumericalNote_t as N,
};
use std::sync::Arc;

/// A way to compute a graph; its number is the engine's global index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One sum after the other.
    Ordered = 0,
    /// Two halves of each sum, the first by way of the workspace.
    Halves = 1,
    /// As `Ordered`, from another summand on each time.
    Wandering = 2,
    /// No plan can be made of it.
    Unavailable = 3,
    /// As `Ordered`, of inputs rounded to TF32.
    Tf32 = 4,
}

const METHODS: [Method; 5] = [Method::Ordered, Method::Halves, Method::Wandering, Method::Unavailable, Method::Tf32];

impl Method {
    pub const COUNT: usize = METHODS.len();

    fn takes(self, pattern: Pattern) -> bool {
        match pattern {
            Pattern::Convolution { single } => single || self != Method::Tf32,
            Pattern::Fused => matches!(self, Method::Ordered | Method::Unavailable),
        }
    }
}

/// Engines in the order of a heuristic's mode.
fn ranked(mode: i64, pattern: Pattern) -> Option<Vec<Method>> {
    use Method::*;
    let order: &[Method] = match mode as u32 {
        m if m == H::CUDNN_HEUR_MODE_A as u32 || m == H::CUDNN_HEUR_MODE_INSTANT as u32 => {
            &[Tf32, Wandering, Unavailable, Halves, Ordered]
        }
        m if m == H::CUDNN_HEUR_MODE_B as u32 => &[Unavailable, Halves, Tf32, Ordered, Wandering],
        m if m == H::CUDNN_HEUR_MODE_FALLBACK as u32 => &[Ordered],
        _ => return None,
    };
    Some(order.iter().copied().filter(|m| m.takes(pattern)).collect())
}

/// A way to compute a certain graph.
#[derive(Clone)]
pub struct Engine {
    pub graph: Arc<Graph>,
    pub method: Method,
}

/// An engine with its choices, of which there are none.
#[derive(Clone)]
pub struct Config {
    engine: Engine,
}

/// What can be executed.
pub struct Plan {
    pub engine: Engine,
    /// Bytes of workspace.
    pub workspace: u64,
}

fn pattern(graph: &Graph) -> Result<Pattern, Refusal> {
    graph.pattern().or_else(unsupported)
}

impl Engine {
    /// Checks an engine's attributes.
    pub fn new(d: &Descriptor) -> Result<Engine, Refusal> {
        let graph = d.graph(A::CUDNN_ATTR_ENGINE_OPERATION_GRAPH)?;
        let pattern = pattern(&graph)?;
        let index = d.number(A::CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
        let Some(method) = usize::try_from(index).ok().and_then(|i| METHODS.get(i)).copied() else {
            return refused(NOT_SUPPORTED, format!("engine {index} of {}", METHODS.len()));
        };
        if !method.takes(pattern) {
            return unsupported(format!("engine {index} does not take the graph"));
        }
        Ok(Engine { graph, method })
    }

    fn single(&self) -> bool {
        self.graph.inputs.iter().chain(&self.graph.outputs).all(|t| t.elements.number.bytes() == 4)
    }

    fn notes(&self) -> Vec<i64> {
        let tensor_core = self.method == Method::Tf32 || !self.single();
        let wandering = self.method == Method::Wandering;
        [(tensor_core, N::CUDNN_NUMERICAL_NOTE_TENSOR_CORE), (wandering, N::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)]
            .into_iter()
            .filter_map(|(is, note)| is.then_some(note as i64))
            .collect()
    }

    fn behavior(&self) -> Vec<i64> {
        match self.graph.pattern() {
            Ok(Pattern::Fused) => vec![B::CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION as i64],
            _ => Vec::new(),
        }
    }

    /// Bytes of workspace: the sums of `Halves`, in f32.
    fn workspace(&self) -> u64 {
        let count: u64 = self.graph.outputs.iter().map(|t| t.elements.count()).sum();
        if self.method == Method::Halves { 4 * count } else { 0 }
    }

    pub fn answer(&self, number: u32) -> Option<Value> {
        let is = |name: A| number == name as u32;
        match () {
            _ if is(A::CUDNN_ATTR_ENGINE_GLOBAL_INDEX) => Some(Value::Numbers(vec![self.method as i64])),
            _ if is(A::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) => Some(Value::Numbers(self.notes())),
            _ if is(A::CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE) => Some(Value::Numbers(self.behavior())),
            _ if is(A::CUDNN_ATTR_ENGINE_OPERATION_GRAPH) => Some(described(Made::Graph(self.graph.clone()))),
            _ => None,
        }
    }
}

/// One descriptor, as an attribute's value.
fn described(made: Made) -> Value {
    match schema::schema(made.kind()) {
        Some(schema) => Value::Descriptors(vec![(schema, Some(made))]),
        None => Value::Descriptors(Vec::new()),
    }
}

impl Config {
    /// Checks an engine configuration's attributes.
    pub fn new(d: &Descriptor) -> Result<Config, Refusal> {
        let want = |m: &Made| if let Made::Engine(e) = m { Some(e.clone()) } else { None };
        Ok(Config { engine: d.made(A::CUDNN_ATTR_ENGINECFG_ENGINE, want)? })
    }

    /// The configurations that a heuristic lists.
    pub fn list(d: &Descriptor) -> Result<Vec<Config>, Refusal> {
        let graph = d.graph(A::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)?;
        let mode = d.number(A::CUDNN_ATTR_ENGINEHEUR_MODE);
        let Some(methods) = ranked(mode, pattern(&graph)?) else {
            return refused(NOT_SUPPORTED, format!("heuristic mode {mode}"));
        };
        Ok(methods.into_iter().map(|method| Config { engine: Engine { graph: graph.clone(), method } }).collect())
    }

    /// What a heuristic answers.
    pub fn answer(list: &[Config], number: u32) -> Option<Value> {
        let all = || {
            list.iter().filter_map(|c| {
                let made = Made::Config(c.clone());
                Some((schema::schema(made.kind())?, Some(made)))
            })
        };
        (number == A::CUDNN_ATTR_ENGINEHEUR_RESULTS as u32).then(|| Value::Descriptors(all().collect()))
    }

    pub fn engine_answer(&self, number: u32) -> Option<Value> {
        let is = |name: A| number == name as u32;
        match () {
            _ if is(A::CUDNN_ATTR_ENGINECFG_ENGINE) => Some(described(Made::Engine(self.engine.clone()))),
            _ if is(A::CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE) => {
                Some(Value::Numbers(vec![self.engine.workspace() as i64]))
            }
            _ => None,
        }
    }
}

impl Plan {
    /// Makes a plan of an engine configuration.
    pub fn new(d: &Descriptor) -> Result<Plan, Refusal> {
        let want = |m: &Made| if let Made::Config(c) = m { Some(c.clone()) } else { None };
        let engine = d.made(A::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, want)?.engine;
        if engine.method == Method::Unavailable {
            return unsupported("this engine makes no plan of the graph");
        }
        Ok(Plan { workspace: engine.workspace(), engine })
    }

    pub fn answer(&self, number: u32) -> Option<Value> {
        let is = |name: A| number == name as u32;
        match () {
            _ if is(A::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) => Some(Value::Numbers(vec![self.workspace as i64])),
            _ if is(A::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG) => {
                Some(described(Made::Config(Config { engine: self.engine.clone() })))
            }
            _ => None,
        }
    }
}
