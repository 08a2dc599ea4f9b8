//! All numbers of a network by name: parameters, and the running statistics of batch norm.

use std::collections::HashMap;

use super::init;
use crate::backend::Backend;
use crate::tensor::{Shape, Tensor};
use crate::{Error, Result};

/// Position of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

impl ParamId {
    /// The parameter at this position.
    pub(crate) fn at(index: usize) -> Self {
        ParamId(index)
    }

    /// The position.
    pub fn index(self) -> usize {
        self.0
    }
}

/// What a tensor is for: decides its first value, whether it is trained, and its layout in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Filter, KRSC here, OIHW in a checkpoint. Kaiming normal, fan-out, gain of ReLU.
    ConvWeight,
    /// Matrix `[out, in]`. Uniform within 1/sqrt(fan-in), PyTorch's default.
    LinearWeight,
    /// Vector `[out]` of a layer with this many inputs. Uniform within 1/sqrt(fan-in).
    LinearBias {
        /// Inputs of the layer.
        fan_in: usize,
    },
    /// γ, from 1.
    NormWeight,
    /// β, from 0.
    NormBias,
    /// Running mean, from 0; not trained.
    RunningMean,
    /// Running variance, from 1; not trained.
    RunningVar,
}

impl Role {
    /// Whether the optimiser moves it.
    pub fn trained(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVar)
    }
}

/// A named tensor.
pub struct Param<B: Backend> {
    /// As in torchvision: `backbone.layer1.0.conv1.weight`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its value.
    pub tensor: Tensor<B>,
}

/// The numbers of a network, in the order of its layers.
pub struct Params<B: Backend> {
    backend: B,
    seed: u64,
    entries: Vec<Param<B>>,
    /// Sides of each tensor of the file that the numbers will come from.
    expected: Option<HashMap<String, Vec<usize>>>,
}

impl<B: Backend> Params<B> {
    /// None yet; new ones are drawn from `seed`.
    pub fn new(backend: B, seed: u64) -> Self {
        Params { backend, seed, entries: Vec::new(), expected: None }
    }

    /// None yet; those to come will be read from a file that has tensors of these names and sides. What a file's
    /// configuration asks for beyond them is refused before it takes memory.
    pub fn for_tensors(backend: B, seed: u64, tensors: impl Iterator<Item = (String, Vec<usize>)>) -> Self {
        Params { expected: Some(tensors.collect()), ..Params::new(backend, seed) }
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Adds a tensor with the first value of its role. Errors if the file it is to come from has no such tensor.
    pub fn add(&mut self, name: String, shape: Shape, role: Role) -> Result<ParamId> {
        if let Some(expected) = &self.expected {
            let found = match expected.get(&name) {
                Some(sides) if sides.iter().product::<usize>() == shape.elems() => None,
                Some(sides) => Some(format!("is {sides:?}, not of {} numbers", shape.elems())),
                None => Some("is missing".into()),
            };
            if let Some(found) = found {
                return Err(Error::shape("checkpoint", format!("{name} {found}: it is of another network")));
            }
        }
        let id = ParamId(self.entries.len());
        let values = init::values(self.seed, id.0 as u64, shape, role);
        let tensor = self.backend.upload(shape, &values)?;
        self.entries.push(Param { name, role, tensor });
        Ok(id)
    }

    /// A parameter.
    pub fn get(&self, id: ParamId) -> &Param<B> {
        &self.entries[id.0]
    }

    /// Replaces the value of a parameter by one of the same shape, from [`Params::import`].
    pub fn set(&mut self, id: ParamId, tensor: Tensor<B>) {
        self.entries[id.0].tensor = tensor;
    }

    /// The value of a parameter.
    pub fn tensor(&self, id: ParamId) -> &Tensor<B> {
        &self.entries[id.0].tensor
    }

    /// A batch norm's running mean and variance, to update.
    pub(super) fn running(&mut self, mean: ParamId, var: ParamId) -> Result<[&mut Tensor<B>; 2]> {
        let pair = self.entries.get_disjoint_mut([mean.0, var.0]);
        let pair = pair.map_err(|_| Error::shape("batch_norm", "mean and variance are one tensor"))?;
        Ok(pair.map(|param| &mut param.tensor))
    }

    /// All, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ParamId, &Param<B>)> {
        self.entries.iter().enumerate().map(|(i, param)| (ParamId(i), param))
    }

    /// All, in order, to change.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (ParamId, &mut Param<B>)> {
        self.entries.iter_mut().enumerate().map(|(i, param)| (ParamId(i), param))
    }

    /// Number of trained numbers.
    pub fn trained_elems(&self) -> usize {
        self.entries.iter().filter(|p| p.role.trained()).map(|p| p.tensor.shape().elems()).sum()
    }

    /// The values and shape of a tensor that belongs to parameter `id` (its value, its gradient, its moments) as a checkpoint
    /// holds them: filters OIHW, everything else as it is.
    pub fn export(&self, id: ParamId, tensor: &Tensor<B>) -> Result<(Vec<usize>, Vec<f64>)> {
        let values = self.backend.download(tensor)?;
        let shape = tensor.shape();
        Ok(match (self.entries[id.0].role, shape.dims()) {
            (Role::ConvWeight, &[k, r, s, c]) => (vec![k, c, r, s], transpose_inner(&values, [k, r * s, c])),
            (_, dims) => (dims.to_vec(), values),
        })
    }

    /// The tensor for `values` laid out as in a checkpoint. Errors if the shape is not that of parameter `id`.
    pub fn import(&self, id: ParamId, shape: &[usize], values: &[f64]) -> Result<Tensor<B>> {
        let param = &self.entries[id.0];
        let here = param.tensor.shape();
        let (expected, values) = match (param.role, here.dims()) {
            (Role::ConvWeight, &[k, r, s, c]) if values.len() == here.elems() => {
                (vec![k, c, r, s], transpose_inner(values, [k, c, r * s]))
            }
            (Role::ConvWeight, &[k, r, s, c]) => (vec![k, c, r, s], Vec::new()),
            (_, dims) => (dims.to_vec(), values.to_vec()),
        };
        if shape != expected || values.len() != here.elems() {
            let problem = format!("{} has shape {shape:?}; this network needs {expected:?}", param.name);
            return Err(Error::shape("checkpoint", problem));
        }
        self.backend.upload(here, &values)
    }
}

/// `[a, b, c]` to `[a, c, b]`.
fn transpose_inner(values: &[f64], [a, b, c]: [usize; 3]) -> Vec<f64> {
    let mut out = Vec::with_capacity(a * b * c);
    for block in values.chunks_exact((b * c).max(1)) {
        for j in 0..c {
            out.extend((0..b).map(|i| block[i * c + j]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;

    #[test]
    fn filters_leave_as_oihw_and_come_back() {
        let mut params = Params::new(Cpu::<f64>::new(), 1);
        let id = params.add("conv.weight".into(), Shape::from([2, 3, 3, 5]), Role::ConvWeight).unwrap();
        let (shape, oihw) = params.export(id, params.tensor(id)).unwrap();
        assert_eq!(shape, [2, 5, 3, 3]);
        let krsc = params.backend().download(params.tensor(id)).unwrap();
        // Output 1, row 2, column 0, input 4.
        assert_eq!(oihw[((5 + 4) * 3 + 2) * 3], krsc[((3 + 2) * 3) * 5 + 4]);
        let back = params.import(id, &shape, &oihw).unwrap();
        assert_eq!(params.backend().download(&back).unwrap(), krsc);
        assert!(params.import(id, &[2, 3, 3, 5], &oihw).is_err());
        assert!(params.import(id, &shape, &oihw[1..]).is_err());
    }
}
