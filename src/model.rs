//! The network of Contrastive Disentangling: backbone f, instance projector g, feature predictor.

use serde::{Deserialize, Serialize};

use crate::autograd::Var;
use crate::backend::{Activation, Backend};
use crate::nn::{Backbone, BatchNorm, Forward, Linear, Params, ResNet, Stem};
use crate::{Error, Result};

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    /// Which residual network.
    pub backbone: Backbone,
    /// What comes before its first block.
    pub stem: Stem,
    /// Channels of its first stage.
    pub base_width: usize,
    /// Dimension d of z; the batch size N in the paper.
    pub projection_dim: usize,
    /// Number K of feature heads; N in the paper.
    pub feature_num: usize,
}

/// The layers; the numbers are in [`Params`].
pub struct Model {
    backbone: ResNet,
    instance_projector: Head,
    feature_predictor: Head,
    feature_norm: BatchNorm,
}

/// Linear (no bias), batch norm, ReLU, linear.
struct Head {
    hidden: Linear,
    norm: BatchNorm,
    output: Linear,
}

impl Head {
    fn forward<B: Backend>(&self, f: &mut Forward<B>, x: Var) -> Result<Var> {
        let x = self.hidden.forward(f, x)?;
        let x = self.norm.forward(f, x, None, Activation::Relu)?;
        self.output.forward(f, x)
    }
}

/// What the network makes of a batch; rows in the order of the images.
#[derive(Clone, Copy, Debug)]
pub struct Outputs {
    /// Backbone features `[N, D]`.
    pub h: Var,
    /// Instance projections `[N, d]`.
    pub z: Var,
    /// Feature heads before the sigmoid `[N, K]`.
    pub logits: Var,
    /// Feature heads in (0, 1) `[N, K]`.
    pub y: Var,
}

impl Model {
    /// Adds the parameters of a network, drawn from the seed of `params`.
    pub fn new<B: Backend>(params: &mut Params<B>, architecture: &Architecture) -> Result<Self> {
        let Architecture { backbone, stem, base_width, projection_dim: d, feature_num: k } = *architecture;
        if base_width == 0 || d == 0 || k == 0 {
            return Err(Error::Usage("base_width, projection_dim and feature_num must be at least 1".into()));
        }
        let width = backbone.feature_width(base_width);
        let backbone = ResNet::new(params, "backbone", backbone, stem, base_width)?;
        let instance_projector = Head {
            hidden: Linear::new(params, "instance_projector.0", [width, width])?,
            norm: BatchNorm::new(params, "instance_projector.1", width)?,
            output: Linear::with_bias(params, "instance_projector.3", [width, d])?,
        };
        let feature_predictor = Head {
            hidden: Linear::new(params, "feature_predictor.0", [d, width])?,
            norm: BatchNorm::new(params, "feature_predictor.1", width)?,
            output: Linear::new(params, "feature_predictor.3", [width, k])?,
        };
        let feature_norm = BatchNorm::new(params, "feature_predictor.4", k)?;
        Ok(Model { backbone, instance_projector, feature_predictor, feature_norm })
    }

    /// Records the whole network on `images` `[N,H,W,3]`.
    pub fn forward<B: Backend>(&self, f: &mut Forward<B>, images: Var) -> Result<Outputs> {
        let h = self.backbone.forward(f, images)?;
        let z = self.instance_projector.forward(f, h)?;
        let x = self.feature_predictor.forward(f, z)?;
        let logits = self.feature_norm.forward(f, x, None, Activation::Identity)?;
        let y = f.tape.sigmoid(logits)?;
        Ok(Outputs { h, z, logits, y })
    }
}
