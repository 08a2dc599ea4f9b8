//! Convolution, batch norm, linear: parameters and how they are applied.

use super::{Forward, Mode, ParamId, Params, Role};
use crate::Result;
use crate::autograd::Var;
use crate::backend::{Activation, Backend, RunningStats, Window};
use crate::ops::batch_norm::Inputs;
use crate::tensor::Shape;

/// Convolution without bias.
pub struct Conv2d {
    weight: ParamId,
    window: Window,
}

impl Conv2d {
    /// `inputs` to `outputs` channels; square kernel, stride, padding.
    pub fn new<B: Backend>(
        params: &mut Params<B>,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [kernel, stride, padding]: [usize; 3],
    ) -> Result<Self> {
        let shape = Shape::from([outputs, kernel, kernel, inputs]);
        let weight = params.add(format!("{name}.weight"), shape, Role::ConvWeight)?;
        Ok(Conv2d { weight, window: Window { kernel: [kernel; 2], stride, padding } })
    }

    /// x `[N,H,W,C]`.
    pub fn forward<B: Backend>(&self, f: &mut Forward<B>, x: Var) -> Result<Var> {
        let w = f.param(self.weight);
        f.tape.conv2d(x, w, self.window)
    }
}

/// Batch norm with its running statistics.
pub struct BatchNorm {
    weight: ParamId,
    bias: ParamId,
    running_mean: ParamId,
    running_var: ParamId,
}

impl BatchNorm {
    /// Over `channels` channels.
    pub fn new<B: Backend>(params: &mut Params<B>, name: &str, channels: usize) -> Result<Self> {
        let mut add = |part, role| params.add(format!("{name}.{part}"), Shape::from([channels]), role);
        Ok(BatchNorm {
            weight: add("weight", Role::NormWeight)?,
            bias: add("bias", Role::NormBias)?,
            running_mean: add("running_mean", Role::RunningMean)?,
            running_var: add("running_var", Role::RunningVar)?,
        })
    }

    /// Normalises x (channels last), adds `residual`, applies `activation`.
    pub fn forward<B: Backend>(
        &self,
        f: &mut Forward<B>,
        x: Var,
        residual: Option<Var>,
        activation: Activation,
    ) -> Result<Var> {
        let inputs = Inputs { x, weight: f.param(self.weight), bias: f.param(self.bias), residual };
        match f.mode {
            Mode::Train { views, momentum } => {
                let [mean, var] = f.params.running(self.running_mean, self.running_var)?;
                let running = RunningStats { mean, var, momentum };
                f.tape.batch_norm(inputs, Some(running), views, activation)
            }
            Mode::Eval => {
                let (mean, var) = (f.params.tensor(self.running_mean), f.params.tensor(self.running_var));
                f.tape.batch_norm_inference(inputs, mean, var, activation)
            }
        }
    }
}

/// Linear layer, with or without bias.
pub struct Linear {
    weight: ParamId,
    bias: Option<ParamId>,
}

impl Linear {
    /// `inputs` to `outputs` features, without bias.
    pub fn new<B: Backend>(params: &mut Params<B>, name: &str, [inputs, outputs]: [usize; 2]) -> Result<Self> {
        let weight = params.add(format!("{name}.weight"), Shape::from([outputs, inputs]), Role::LinearWeight)?;
        Ok(Linear { weight, bias: None })
    }

    /// `inputs` to `outputs` features, with bias.
    pub fn with_bias<B: Backend>(params: &mut Params<B>, name: &str, [inputs, outputs]: [usize; 2]) -> Result<Self> {
        let linear = Linear::new(params, name, [inputs, outputs])?;
        let role = Role::LinearBias { fan_in: inputs };
        let bias = params.add(format!("{name}.bias"), Shape::from([outputs]), role)?;
        Ok(Linear { bias: Some(bias), ..linear })
    }

    /// x `[N, inputs]`.
    pub fn forward<B: Backend>(&self, f: &mut Forward<B>, x: Var) -> Result<Var> {
        let w = f.param(self.weight);
        let b = self.bias.map(|b| f.param(b));
        f.tape.linear(x, w, b)
    }
}
