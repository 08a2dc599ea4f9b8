//! Residual networks (He et al. 2016) as torchvision defines them, without the classifier.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{BatchNorm, Conv2d, Forward, Params};
use crate::Result;
use crate::autograd::Var;
use crate::backend::{Activation, Backend, Window};

/// Which residual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[value(rename_all = "lowercase")]
pub enum Backbone {
    /// Basic blocks 2, 2, 2, 2.
    #[value(alias = "18")]
    ResNet18,
    /// Basic blocks 3, 4, 6, 3: the paper's.
    #[value(alias = "34")]
    ResNet34,
    /// Bottleneck blocks 3, 4, 6, 3.
    #[value(alias = "50")]
    ResNet50,
}

/// What comes before the first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[value(rename_all = "lowercase")]
pub enum Stem {
    /// 7 x 7 convolution, stride 2, then 3 x 3 max pooling, stride 2: the paper's.
    Imagenet,
    /// 3 x 3 convolution, stride 1, no pooling: for small images.
    Cifar,
}

crate::named::named!(Backbone Stem);

impl Backbone {
    /// Blocks of the four stages.
    fn blocks(self) -> [usize; 4] {
        if self == Backbone::ResNet18 { [2, 2, 2, 2] } else { [3, 4, 6, 3] }
    }

    /// Output channels of a block over its width.
    fn expansion(self) -> usize {
        if self == Backbone::ResNet50 { 4 } else { 1 }
    }

    /// Feature width D for a first stage of `base_width` channels: 512 (2048 for ResNet-50) at 64.
    pub fn feature_width(self, base_width: usize) -> usize {
        8 * base_width * self.expansion()
    }
}

/// A backbone: images `[N,H,W,3]` to features `[N,D]`.
pub struct ResNet {
    stem: Stem,
    conv1: Conv2d,
    bn1: BatchNorm,
    blocks: Vec<Block>,
}

/// A residual block: two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1.
struct Block {
    convs: Vec<(Conv2d, BatchNorm)>,
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl Block {
    /// Names are those of torchvision; a bottleneck's stride sits on its 3 x 3 convolution ("v1.5").
    fn new<B: Backend>(
        params: &mut Params<B>,
        name: &str,
        backbone: Backbone,
        [inputs, width]: [usize; 2],
        stride: usize,
    ) -> Result<Self> {
        let outputs = width * backbone.expansion();
        let layout: &[([usize; 2], [usize; 3])] = match backbone {
            Backbone::ResNet50 => {
                &[([inputs, width], [1, 1, 0]), ([width, width], [3, stride, 1]), ([width, outputs], [1, 1, 0])]
            }
            _ => &[([inputs, width], [3, stride, 1]), ([width, width], [3, 1, 1])],
        };
        let mut convs = Vec::new();
        for (i, &(channels, geometry)) in layout.iter().enumerate() {
            let conv = Conv2d::new(params, &format!("{name}.conv{}", i + 1), channels, geometry)?;
            convs.push((conv, BatchNorm::new(params, &format!("{name}.bn{}", i + 1), channels[1])?));
        }
        let mut downsample = None;
        if stride != 1 || inputs != outputs {
            let conv = Conv2d::new(params, &format!("{name}.downsample.0"), [inputs, outputs], [1, stride, 0])?;
            downsample = Some((conv, BatchNorm::new(params, &format!("{name}.downsample.1"), outputs)?));
        }
        Ok(Block { convs, downsample })
    }

    fn forward<B: Backend>(&self, f: &mut Forward<B>, x: Var) -> Result<Var> {
        let shortcut = match &self.downsample {
            Some((conv, bn)) => {
                let y = conv.forward(f, x)?;
                bn.forward(f, y, None, Activation::Identity)?
            }
            None => x,
        };
        let mut y = x;
        for (i, (conv, bn)) in self.convs.iter().enumerate() {
            let residual = (i + 1 == self.convs.len()).then_some(shortcut);
            y = conv.forward(f, y)?;
            y = bn.forward(f, y, residual, Activation::Relu)?;
        }
        Ok(f.keep_only(x, y))
    }
}

impl ResNet {
    /// Adds the parameters under `name.`; the first stage has `base_width` channels, 64 in the paper.
    pub fn new<B: Backend>(
        params: &mut Params<B>,
        name: &str,
        backbone: Backbone,
        stem: Stem,
        base_width: usize,
    ) -> Result<Self> {
        let geometry = if stem == Stem::Imagenet { [7, 2, 3] } else { [3, 1, 1] };
        let conv1 = Conv2d::new(params, &format!("{name}.conv1"), [3, base_width], geometry)?;
        let bn1 = BatchNorm::new(params, &format!("{name}.bn1"), base_width)?;
        let (mut blocks, mut inputs) = (Vec::new(), base_width);
        for (stage, count) in backbone.blocks().into_iter().enumerate() {
            let width = base_width << stage;
            for block in 0..count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("{name}.layer{}.{block}", stage + 1);
                blocks.push(Block::new(params, &name, backbone, [inputs, width], stride)?);
                inputs = width * backbone.expansion();
            }
        }
        Ok(ResNet { stem, conv1, bn1, blocks })
    }

    /// `[N,H,W,3]` to `[N,D]`.
    pub fn forward<B: Backend>(&self, f: &mut Forward<B>, images: Var) -> Result<Var> {
        let mut x = self.conv1.forward(f, images)?;
        x = self.bn1.forward(f, x, None, Activation::Relu)?;
        if self.stem == Stem::Imagenet {
            x = f.tape.max_pool(x, Window { kernel: [3, 3], stride: 2, padding: 1 })?;
        }
        x = f.keep_only(images, x);
        for block in &self.blocks {
            x = block.forward(f, x)?;
        }
        f.tape.global_avg_pool(x)
    }
}
