//! The loss of Contrastive Disentangling: `L = L_inst + L_feat - alpha L_entropy` (the paper's equations 4, 8, 10, 11).

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::autograd::{Tape, Var};
use crate::backend::{Backend, Samples};
use crate::model::Outputs;

/// Weights and temperatures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossWeights {
    /// Weight of the entropy; 1 in the paper.
    pub alpha: f64,
    /// Temperature of the instance loss; 0.5 in the paper.
    pub temperature_instance: f64,
    /// Temperature of the feature loss; 1 in the paper.
    pub temperature_feature: f64,
}

/// The loss and its parts, all scalars.
#[derive(Clone, Copy, Debug)]
pub struct Losses {
    /// L_inst
    pub instance: Var,
    /// L_feat
    pub feature: Var,
    /// L_entropy, in [0, 1]; it enters the total with a minus.
    pub entropy: Var,
    /// L
    pub total: Var,
}

/// Records the loss of two views: `outputs` of 2N images, view 1 first.
pub fn losses<B: Backend>(tape: &mut Tape<B>, outputs: &Outputs, weights: &LossWeights) -> Result<Losses> {
    let instance = tape.nt_xent(outputs.z, Samples::Rows, weights.temperature_instance)?;
    let feature = tape.nt_xent(outputs.y, Samples::Columns, weights.temperature_feature)?;
    let entropy = tape.binary_entropy(outputs.logits)?;
    let total = tape.weighted_sum([(instance, 1.0), (feature, 1.0), (entropy, -weights.alpha)])?;
    Ok(Losses { instance, feature, entropy, total })
}

/// `L_feat - L_entropy` of heads that always say 0.5, a solution that has learnt nothing: all 2K samples are parallel, so
/// `log((2K - 1) e^{1/t}) - 1/t - 1 = ln(2K - 1) - 1` at any temperature t. How far below it a run is shows what the heads have
/// learnt.
pub fn trivial_feature_loss(feature_num: usize, alpha: f64) -> f64 {
    ((2 * feature_num - 1) as f64).ln() - alpha
}

/// The loss and its parts as numbers; NaN where unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossValues {
    /// L
    pub total: f64,
    /// L_inst
    pub instance: f64,
    /// L_feat
    pub feature: f64,
    /// L_entropy, bits
    pub entropy: f64,
}

impl LossValues {
    /// Nothing known yet.
    pub const UNKNOWN: LossValues =
        LossValues { total: f64::NAN, instance: f64::NAN, feature: f64::NAN, entropy: f64::NAN };

    /// Reads the recorded losses.
    pub fn read<B: Backend>(tape: &Tape<B>, losses: &Losses) -> Result<Self> {
        Ok(LossValues {
            total: tape.scalar(losses.total)?,
            instance: tape.scalar(losses.instance)?,
            feature: tape.scalar(losses.feature)?,
            entropy: tape.scalar(losses.entropy)?,
        })
    }

    /// The mean of `count` values (the last of which is `new`), from the mean of those before: a state that a resumed run
    /// goes on from without a difference.
    pub fn running_mean(self, new: LossValues, count: u64) -> LossValues {
        let mean = |old: f64, new: f64| if count <= 1 { new } else { old + (new - old) / count as f64 };
        LossValues {
            total: mean(self.total, new.total),
            instance: mean(self.instance, new.instance),
            feature: mean(self.feature, new.feature),
            entropy: mean(self.entropy, new.entropy),
        }
    }
}
