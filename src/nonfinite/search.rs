//! Which number was the first that was not finite: a step once more, operation by operation, on a copy of the network.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Number;
use crate::Result;
use crate::autograd::{Grads, Tape, Var};
use crate::backend::{Backend, NonFinite};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::loss::{LossValues, Losses, losses};
use crate::model::Model;
use crate::nn::{Forward, Mode, Params};
use crate::optim::Adam;
use crate::snapshot;
use crate::tensor::{Shape, Tensor};
use crate::trainer::{MOMENTUM, VIEWS, adam_config, architecture, loss_weights};

/// Which part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// Before it: a parameter or running statistic.
    State,
    /// From images to the loss.
    Forward,
    /// From the loss to the gradients.
    Backward,
    /// From the gradients to the step.
    Update,
}

/// The first tensor of a step that was not finite, and the operation that made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// When.
    pub pass: Pass,
    /// The operation's stem: `conv2d`, `batch_norm`, `nt_xent`, ...
    pub op: String,
    /// The layer it belongs to, by its parameters' names, or what it comes after.
    pub layer: String,
    /// Which of its tensors.
    pub tensor: String,
    /// Its sides, as on the device: images NHWC, filters KRSC.
    pub shape: Vec<usize>,
    /// Its elements that are infinite or NaN.
    pub non_finite: usize,
    /// Indices of the first of them.
    pub first: Vec<usize>,
    /// Its value.
    pub value: Number,
}

/// What a step once more gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its losses.
    pub losses: LossValues,
    /// The gradient's norm before clipping; NaN also where a running statistic was not finite.
    pub grad_norm: f64,
    /// The first number that was not finite; `None` if this time all were.
    pub site: Option<Site>,
}

impl fmt::Display for Site {
    /// In a sentence's part: `forward, conv2d of backbone.conv1: 3 of 64 numbers of its output [4, 4, 4] are not finite, ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Site { pass, op, layer, tensor, shape, non_finite, first, value } = self;
        let pass = match pass {
            Pass::State => "before the step",
            Pass::Forward => "forward",
            Pass::Backward => "backward",
            Pass::Update => return write!(f, "the {tensor} is {value}: its square does not fit in 32 bits"),
        };
        let elems: usize = shape.iter().product();
        write!(f, "{pass}, {op} of {layer}: {non_finite} of {elems} numbers of {tensor} {shape:?} are not finite, ")?;
        write!(f, "the first, at {first:?}, is {value}")
    }
}

/// A node of the tape, by name.
struct Named {
    op: &'static str,
    layer: String,
    /// The parameter that it is.
    param: Option<String>,
}

/// Repeats the step on `views` (uint8 `[2N, S, S, 3]`) from the state in `checkpoint`, on a network of its own: takes as much
/// memory as a step, and changes nothing. Errors if the checkpoint does not fit `config`, or memory does not suffice.
pub fn search<B: Backend>(backend: &B, config: &Config, checkpoint: &Checkpoint, views: &[u8]) -> Result<Found> {
    let mut params = Params::new(backend.clone(), config.seed);
    let model = Model::new(&mut params, &architecture(config))?;
    snapshot::restore_params(&mut params, checkpoint)?;
    let mut adam = Adam::new(&params, adam_config(config))?;
    adam.keep(&mut params)?;
    let mut site = in_state(&params)?;
    let Config { batch_size, image_size, .. } = *config;
    let images = backend.upload_images(Shape::from([VIEWS * batch_size, image_size, image_size, 3]), views)?;
    let mut tape = Tape::new(backend.clone());
    let images = tape.input(images);
    let mode = Mode::Train { views: VIEWS, momentum: MOMENTUM };
    let outputs = model.forward(&mut Forward { tape: &mut tape, params: &mut params, mode }, images)?;
    let losses = losses(&mut tape, &outputs, &loss_weights(config))?;
    let names = names(&tape, &params, &losses);
    if site.is_none() {
        site = in_forward(&tape, &params, &names)?;
    }
    let values = LossValues::read(&tape, &losses)?;
    let total = tape.value(losses.total).clone();
    let mut grads = Grads::new();
    tape.backward_watched(losses.total, &mut grads, |op, inputs, grads| {
        if site.is_none() {
            site = in_backward(backend, &names, op, inputs.into_iter().flatten(), grads)?;
        }
        Ok(())
    })?;
    adam.start_step(&mut params, &grads, Some(&total))?;
    let report = backend.adam_report(adam.state())?;
    if report.left_out && site.is_none() {
        site = Some(Site {
            pass: Pass::Update,
            op: "adam".into(),
            layer: "all".into(),
            tensor: "norm of the clipped gradient".into(),
            shape: Vec::new(),
            non_finite: 1,
            first: Vec::new(),
            value: Number(report.grad_norm),
        });
    }
    Ok(Found { losses: values, grad_norm: report.grad_norm, site })
}

/// A layer's name, from its parameter's.
fn layer_of(param: &str) -> &str {
    param.rsplit_once('.').map_or(param, |(layer, _)| layer)
}

fn names<B: Backend>(tape: &Tape<B>, params: &Params<B>, losses: &Losses) -> Vec<Named> {
    let of_loss = [
        (losses.instance, "the instance loss"),
        (losses.feature, "the feature loss"),
        (losses.entropy, "the heads' entropy"),
        (losses.total, "the loss"),
    ];
    let mut names: Vec<Named> = Vec::new();
    for node in tape.recorded() {
        let param = node.param.map(|id| params.get(id).name.clone());
        let before =
            |names: &[Named]| node.inputs[0].map(|x| format!("what follows {}", base(&names[x.index()].layer)));
        let layer = if let Some((_, name)) = of_loss.iter().find(|(var, _)| *var == node.var) {
            (*name).to_owned()
        } else if let Some(name) = &param {
            layer_of(name).to_owned()
        } else if let Some(name) = node.inputs.iter().flatten().find_map(|x| names[x.index()].param.as_ref()) {
            layer_of(name).to_owned()
        } else {
            before(&names).unwrap_or_else(|| "the images".to_owned())
        };
        names.push(Named { op: node.op, layer, param });
    }
    names
}

/// A layer's name without what comes after it.
fn base(layer: &str) -> &str {
    layer.strip_prefix("what follows ").unwrap_or(layer)
}

/// What is not finite in a tensor, as a site.
fn look<B: Backend>(
    backend: &B,
    tensor: &Tensor<B>,
    site: impl FnOnce() -> (Pass, String, String, String),
) -> Result<Option<Site>> {
    let Some(NonFinite { count, first, value }) = backend.non_finite(tensor)? else { return Ok(None) };
    let (pass, op, layer, name) = site();
    let shape = tensor.shape().dims().to_vec();
    let mut indices = vec![0; shape.len()];
    let mut rest = first;
    for (index, &side) in indices.iter_mut().zip(&shape).rev() {
        (*index, rest) = (rest % side.max(1), rest / side.max(1));
    }
    Ok(Some(Site { pass, op, layer, tensor: name, shape, non_finite: count, first: indices, value: Number(value) }))
}

fn in_state<B: Backend>(params: &Params<B>) -> Result<Option<Site>> {
    for (_, param) in params.iter() {
        let site = || (Pass::State, "parameter".into(), layer_of(&param.name).into(), param.name.clone());
        if let Some(site) = look(params.backend(), &param.tensor, site)? {
            return Ok(Some(site));
        }
    }
    Ok(None)
}

/// Outputs in the order of the operations, and the running statistics that each of them has updated.
fn in_forward<B: Backend>(tape: &Tape<B>, params: &Params<B>, names: &[Named]) -> Result<Option<Site>> {
    for node in tape.recorded() {
        let Named { op, layer, .. } = &names[node.var.index()];
        let at = |tensor: &str| (Pass::Forward, (*op).to_owned(), layer.clone(), tensor.to_owned());
        if let Some(site) = look(params.backend(), node.value, || at("its output"))? {
            return Ok(Some(site));
        }
        let updated = params.iter().filter(|(_, p)| *op == "batch_norm" && !p.role.trained());
        for (_, param) in updated.filter(|(_, param)| layer_of(&param.name) == layer) {
            if let Some(site) = look(params.backend(), &param.tensor, || at(&param.name))? {
                return Ok(Some(site));
            }
        }
    }
    Ok(None)
}

/// The gradients that the backward of `op` has given to its inputs.
fn in_backward<B: Backend>(
    backend: &B,
    names: &[Named],
    op: Var,
    inputs: impl Iterator<Item = Var>,
    grads: &Grads<B>,
) -> Result<Option<Site>> {
    let Named { op, layer, .. } = &names[op.index()];
    for input in inputs {
        let Some(grad) = grads.of(input) else { continue };
        let named = &names[input.index()];
        let tensor = match &named.param {
            Some(name) => format!("the gradient of {name}"),
            None => format!("the gradient of the output of {} of {}", named.op, named.layer),
        };
        let site = || (Pass::Backward, (*op).to_owned(), layer.clone(), tensor);
        if let Some(site) = look(backend, grad, site)? {
            return Ok(Some(site));
        }
    }
    Ok(None)
}
