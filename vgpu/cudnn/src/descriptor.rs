//! Setting, asking and finalising descriptors.

use crate::engine::{Config, Engine, Plan};
use crate::execute::Pack;
use crate::graph::Graph;
use crate::operation::{Convolution, Operation, Pointwise};
use crate::schema::{self, Attribute, DESCRIPTOR, DOUBLE, FLOAT, Role, Schema};
use crate::status::{ATTRIBUTE_TYPE, BAD_PARAM, NOT_INITIALIZED, NULL_POINTER, Refusal, refused};
use crate::tensor::Tensor;
use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

/// What a finalised descriptor says.
#[derive(Clone)]
pub enum Made {
    Tensor(Arc<Tensor>),
    Convolution(Arc<Convolution>),
    Pointwise(Arc<Pointwise>),
    /// A sum.
    Reduction,
    Operation(Arc<Operation>),
    Graph(Arc<Graph>),
    Heuristic(Vec<Config>),
    Engine(Engine),
    Config(Config),
    Plan(Arc<Plan>),
    Pack(Arc<Pack>),
}

/// The elements of an attribute.
#[derive(Clone)]
pub enum Value {
    /// Integers, enumerations, booleans, handles and pointers.
    Numbers(Vec<i64>),
    Reals(Vec<f64>),
    /// Other descriptors, as they were when they were set: what they said, if they were finalised.
    Descriptors(Vec<(&'static Schema, Option<Made>)>),
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Value::Numbers(v) => v.len(),
            Value::Reals(v) => v.len(),
            Value::Descriptors(v) => v.len(),
        }
    }
}

/// A descriptor.
pub struct Descriptor {
    pub schema: &'static Schema,
    values: BTreeMap<u32, Value>,
    pub made: Option<Made>,
}

/// # Safety
/// `from` has an element of the type at index `i`.
unsafe fn element(from: *const c_void, ty: u32, i: usize) -> Value {
    let size = schema::size_of_type(ty);
    let mut bytes = [0u8; 8];
    // SAFETY: by contract.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>().add(i * size), bytes.as_mut_ptr(), size) };
    match ty {
        FLOAT => {
            Value::Reals(vec![f32::from_bits(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) as f64])
        }
        DOUBLE => Value::Reals(vec![f64::from_le_bytes(bytes)]),
        schema::INT32 => Value::Numbers(vec![i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as i64]),
        _ => Value::Numbers(vec![i64::from_le_bytes(bytes)]),
    }
}

/// # Safety
/// `from` has `count` elements of the type.
pub unsafe fn elements(from: *const c_void, ty: u32, count: usize) -> Value {
    let (mut numbers, mut reals) = (Vec::new(), Vec::new());
    for i in 0..count {
        // SAFETY: by contract.
        match unsafe { element(from, ty, i) } {
            Value::Numbers(v) => numbers.extend(v),
            Value::Reals(v) => reals.extend(v),
            Value::Descriptors(_) => {}
        }
    }
    if ty == FLOAT || ty == DOUBLE { Value::Reals(reals) } else { Value::Numbers(numbers) }
}

/// # Safety
/// `to` has room for `count` elements of the type.
unsafe fn store(value: &Value, ty: u32, count: usize, to: *mut c_void) {
    let size = schema::size_of_type(ty);
    for i in 0..count {
        let bytes = match value {
            Value::Reals(v) if ty == FLOAT => ((v[i] as f32).to_bits() as u64).to_le_bytes(),
            Value::Reals(v) => v[i].to_le_bytes(),
            Value::Numbers(v) => v[i].to_le_bytes(),
            Value::Descriptors(_) => return,
        };
        // SAFETY: by contract.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast::<u8>().add(i * size), size) };
    }
}

impl Descriptor {
    pub fn new(schema: &'static Schema) -> Descriptor {
        Descriptor { schema, values: BTreeMap::new(), made: None }
    }

    fn attribute(&self, number: u32, ty: u32) -> Result<&'static Attribute, Refusal> {
        let name = self.schema.name;
        let Some(attribute) = self.schema.attributes.iter().find(|a| a.number == number) else {
            return refused(
                BAD_PARAM,
                format!("the {name} has no attribute {number}, or it is not covered by this stand-in"),
            );
        };
        if !attribute.types.contains(&ty) {
            let detail = format!("attribute {number} of the {name} is of type {:?}, not {ty}", attribute.types);
            return refused(ATTRIBUTE_TYPE, detail);
        }
        Ok(attribute)
    }

    /// Whether an attribute may be set to this many elements of this type.
    pub fn check_set(&self, number: u32, ty: u32, count: i64, from: *const c_void) -> Result<(), Refusal> {
        let name = self.schema.name;
        if self.made.is_some() {
            return refused(BAD_PARAM, format!("attribute {number} is set after the {name} was finalised"));
        }
        let attribute = self.attribute(number, ty)?;
        if attribute.role == Role::Answer {
            return refused(BAD_PARAM, format!("attribute {number} of the {name} can only be asked"));
        }
        if count < 1 || count as usize > attribute.most {
            let detail = format!("attribute {number} of the {name} has 1 to {} elements, not {count}", attribute.most);
            return refused(BAD_PARAM, detail);
        }
        if from.is_null() {
            return refused(BAD_PARAM, format!("the elements of attribute {number} of the {name} are at null"));
        }
        Ok(())
    }

    pub fn put(&mut self, number: u32, value: Value) {
        self.values.insert(number, value);
    }

    /// Integers of an attribute; empty if it was not set.
    pub fn numbers(&self, name: A) -> &[i64] {
        match self.values.get(&(name as u32)) {
            Some(Value::Numbers(v)) => v,
            _ => &[],
        }
    }

    /// The integer of an attribute with one element.
    pub fn number(&self, name: A) -> i64 {
        self.numbers(name).first().copied().unwrap_or(0)
    }

    /// The real number of an attribute with one element.
    pub fn real(&self, name: A, default: f64) -> f64 {
        match self.values.get(&(name as u32)) {
            Some(Value::Reals(v)) => v.first().copied().unwrap_or(default),
            _ => default,
        }
    }

    /// Whether an attribute was set.
    pub fn has(&self, name: A) -> bool {
        self.values.contains_key(&(name as u32))
    }

    /// What descriptors in an attribute say, picked by `want`; refuses others and ones that were not finalised when they
    /// were set.
    pub fn all_made<T>(&self, name: A, want: impl Fn(&Made) -> Option<T>) -> Result<Vec<T>, Refusal> {
        let own = self.schema.name;
        let Some(Value::Descriptors(list)) = self.values.get(&(name as u32)) else { return Ok(Vec::new()) };
        let one = |(schema, made): &(&'static Schema, Option<Made>)| match made {
            None => refused(
                BAD_PARAM,
                format!("{name:?} of the {own} was not finalised before it was set: {}", schema.name),
            ),
            Some(made) => match want(made) {
                Some(made) => Ok(made),
                None => refused(BAD_PARAM, format!("{name:?} of the {own} is another descriptor: {}", schema.name)),
            },
        };
        list.iter().map(one).collect()
    }

    /// What the one descriptor in an attribute says.
    pub fn made<T>(&self, name: A, want: impl Fn(&Made) -> Option<T>) -> Result<T, Refusal> {
        match self.all_made(name, want)?.pop() {
            Some(one) => Ok(one),
            None => refused(BAD_PARAM, format!("the {} lacks {name:?}", self.schema.name)),
        }
    }

    pub fn tensor(&self, name: A) -> Result<Arc<Tensor>, Refusal> {
        self.made(name, |made| if let Made::Tensor(t) = made { Some(t.clone()) } else { None })
    }

    pub fn graph(&self, name: A) -> Result<Arc<Graph>, Refusal> {
        self.made(name, |made| if let Made::Graph(g) = made { Some(g.clone()) } else { None })
    }

    /// Whether everything is set that must be.
    pub fn check_required(&self) -> Result<(), Refusal> {
        let missing =
            self.schema.attributes.iter().find(|a| a.role == Role::Required && !self.values.contains_key(&a.number));
        match missing {
            Some(a) => refused(BAD_PARAM, format!("attribute {} of the {} was not set", a.number, self.schema.name)),
            None => Ok(()),
        }
    }

    /// An attribute as the caller sees it.
    fn value(&self, number: u32) -> Value {
        let answer = match &self.made {
            Some(Made::Graph(graph)) => graph.answer(number),
            Some(Made::Heuristic(list)) => Config::answer(list, number),
            Some(Made::Engine(engine)) => engine.answer(number),
            Some(Made::Config(config)) => config.engine_answer(number),
            Some(Made::Plan(plan)) => plan.answer(number),
            _ => None,
        };
        answer.or_else(|| self.values.get(&number).cloned()).unwrap_or(Value::Numbers(Vec::new()))
    }

    /// `cudnnBackendGetAttribute`: how many elements it has if there is nowhere to write them to, else as many as are asked
    /// for. Descriptors are returned for the caller to fill those that the array holds.
    ///
    /// # Safety
    /// `count` and `to` are null or the caller's, with room for `requested` elements.
    pub unsafe fn get(
        &self,
        number: u32,
        ty: u32,
        requested: i64,
        count: *mut i64,
        to: *mut c_void,
    ) -> Result<Vec<Made>, Refusal> {
        if self.made.is_none() {
            return refused(
                NOT_INITIALIZED,
                format!("attribute {number} is asked before the {} is finalised", self.schema.name),
            );
        }
        self.attribute(number, ty)?;
        if count.is_null() && to.is_null() {
            return refused(BAD_PARAM, format!("nowhere to write attribute {number} of the {} to", self.schema.name));
        }
        let value = self.value(number);
        let written = if to.is_null() { value.len() } else { value.len().min(requested.max(0) as usize) };
        if !count.is_null() {
            // SAFETY: by contract.
            unsafe { count.write(written as i64) };
        }
        match value {
            _ if to.is_null() => Ok(Vec::new()),
            Value::Descriptors(list) => Ok(list.into_iter().take(written).filter_map(|(_, made)| made).collect()),
            value if ty == DESCRIPTOR && value.len() > 0 => {
                refused(NULL_POINTER, format!("attribute {number} of the {} is not there", self.schema.name))
            }
            value => {
                // SAFETY: by contract.
                unsafe { store(&value, ty, written, to) };
                Ok(Vec::new())
            }
        }
    }
}
