//! The configuration's named choices. Names, aliases and help texts stand once, in `clap`'s attributes.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which residual network, as torchvision defines it (He et al. 2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[value(rename_all = "lowercase")]
pub enum Backbone {
    /// Basic blocks 2, 2, 2, 2.
    #[value(alias = "18")]
    ResNet18,
    /// Basic blocks 3, 4, 6, 3.
    #[value(alias = "34")]
    ResNet34,
    /// Bottleneck blocks 3, 4, 6, 3.
    #[value(alias = "50")]
    ResNet50,
}

/// The layers in front of the residual stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Stem {
    /// 7x7 convolution with stride 2, then 3x3 max-pooling with stride 2.
    #[value(name = "imagenet")]
    ImageNet,
    /// 3x3 convolution with stride 1, no pooling.
    Cifar,
}

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Split {
    /// Everything (the paper trains and evaluates on train + test).
    All,
    /// The training part.
    Train,
    /// The test part.
    Test,
}

/// Which labels of CIFAR-100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cifar100Labels {
    /// The 20 superclasses.
    Coarse,
    /// The 100 classes.
    Fine,
}

/// How the learning rate changes over the epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Schedule {
    /// A cosine from the learning rate to 0 over all epochs, stepped once per epoch (Loshchilov and Hutter 2017, no restarts).
    Cosine,
    /// The learning rate as it is.
    Constant,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The fastest device there is.
    Auto,
    /// The CPU.
    Cpu,
}

/// Ties names to values both ways, from the one list that `ValueEnum` derives.
macro_rules! named {
    ($($choice:ident)*) => {$(
        impl TryFrom<String> for $choice {
            type Error = String;
            fn try_from(name: String) -> Result<Self, String> {
                <$choice as ValueEnum>::from_str(&name, false).map_err(|_| {
                    let names: Vec<_> = $choice::value_variants().iter().map(|v| v.to_string()).collect();
                    format!("expected one of {}", names.join(", "))
                })
            }
        }

        impl From<$choice> for String {
            fn from(choice: $choice) -> String {
                choice.to_string()
            }
        }

        impl fmt::Display for $choice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_possible_value().expect("no variant is skipped").get_name())
            }
        }
    )*};
}
named!(Backbone Stem Split Cifar100Labels Schedule Device);
