//! How a source is to be read: parts, labels, classes, bounds.

use serde::{Deserialize, Serialize};

use super::shapes;
use crate::{Error, Result};

/// How to read a source; sources ignore what is not about them, except where noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceOptions {
    /// CIFAR-100: which of its two labels is the class. The other one becomes a [`Factor`](super::Factor).
    pub cifar100_labels: Cifar100Labels,
    /// Which part of a data set that comes in parts. All but `all` are errors where there are no such parts.
    pub split: Split,
    /// The classes to take, of any source: names, `@FILE` with a name a line, or the name of a built-in list
    /// (`imagenet-10`, `imagenet-dogs`); empty takes all images. A class that is not there is an error.
    pub classes: Vec<String>,
    /// `shapes`: how many images when the name gives no number; at least 1.
    pub shapes_count: usize,
    /// `shapes`: side of the images in pixels, 16 to 256.
    pub shapes_px: usize,
    /// Bytes a `.tar.gz` may inflate to (into memory) before it is refused.
    pub max_inflated: usize,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions {
            cifar100_labels: Cifar100Labels::Coarse,
            split: Split::All,
            classes: Vec::new(),
            shapes_count: shapes::DEFAULT_COUNT,
            shapes_px: shapes::DEFAULT_PX,
            max_inflated: 16 << 30,
        }
    }
}

impl SourceOptions {
    /// For sources without parts: errors with [`Error::Usage`] unless `split` is `all`.
    pub(super) fn refuse_split(&self, what: impl std::fmt::Display) -> Result<()> {
        match self.split {
            Split::All => Ok(()),
            _ => Err(Error::Usage(format!("{what} has no train and test parts: use split = \"all\""))),
        }
    }
}

/// The class labels of CIFAR-100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cifar100Labels {
    /// The 20 superclasses, as in the paper ("CIFAR-100-20").
    #[default]
    Coarse,
    /// The 100 classes.
    Fine,
}

/// Which parts of a data set to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Split {
    /// Every image of a class, as in the paper: clustering needs no held-out images. Not STL-10's unlabelled part.
    #[default]
    All,
    /// CIFAR's `data_batch_*`/`train.bin`, STL-10's `train_X.bin`; in an image folder what lies under `train` or
    /// `training`.
    Train,
    /// CIFAR's `test_batch`/`test.bin`, STL-10's `test_X.bin`; in an image folder what lies under `test`, `testing`,
    /// `val`, `valid`, `validation`.
    Test,
    /// STL-10's `unlabeled_X.bin`.
    Unlabeled,
    /// `train` and `unlabeled`: what methods of self-supervised learning train on.
    #[value(name = "train+unlabeled")]
    TrainUnlabeled,
    /// `train`, `test` and `unlabeled`.
    #[value(name = "all+unlabeled")]
    AllUnlabeled,
}

crate::named::named!(Cifar100Labels Split);

/// A part that a file or a folder belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Train,
    Test,
    Unlabeled,
}

impl Split {
    /// Whether `part` belongs to what was asked for.
    pub(super) fn takes(self, part: Part) -> bool {
        match self {
            Split::All => part != Part::Unlabeled,
            Split::Train => part == Part::Train,
            Split::Test => part == Part::Test,
            Split::Unlabeled => part == Part::Unlabeled,
            Split::TrainUnlabeled => part != Part::Test,
            Split::AllUnlabeled => true,
        }
    }

    /// Errors with [`Error::Usage`] if the unlabelled part is asked of `what`, which has none.
    pub(super) fn refuse_unlabeled(self, what: impl std::fmt::Display) -> Result<()> {
        match self {
            Split::All | Split::Train | Split::Test => Ok(()),
            _ => {
                Err(Error::Usage(format!("{what} has no unlabelled part: use split = \"all\", \"train\" or \"test\"")))
            }
        }
    }
}
