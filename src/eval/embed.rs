//! Embeddings of every image of a data set, in inference mode: the paper's evaluation transform (squash to the network's
//! input, divide by 255), running batch-norm statistics, no image dropped.

use rayon::prelude::*;

use crate::autograd::Tape;
use crate::backend::Backend;
use crate::data::Dataset;
use crate::data::augment::{Size, resize};
use crate::data::loader::{Workspace, with_workspace};
use crate::data::sampler::Permutation;
use crate::model::Model;
use crate::nn::{Forward, Mode, Params};
use crate::tensor::Shape;
use crate::{Error, Result};

/// What a network makes of a data set; row i is image i.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// Backbone features, `[images, h_dim]`.
    pub h: Vec<f32>,
    /// Projections, `[images, z_dim]`.
    pub z: Vec<f32>,
    /// Feature heads in (0, 1), `[images, y_dim]`.
    pub y: Vec<f32>,
    /// D
    pub h_dim: usize,
    /// d
    pub z_dim: usize,
    /// K
    pub y_dim: usize,
}

/// Elements of network input that go through at once: bounds the memory of inference whatever the image size.
const BATCH_ELEMS: usize = 256 * 64 * 64 * 3;
/// Most images at once.
const BATCH_IMAGES: usize = 256;

/// Any fixed order will do.
const CALIBRATION_SEED: u64 = 0;

/// Images of `image_size` px that go through the network at once.
fn batch_images(image_size: usize) -> usize {
    (BATCH_ELEMS / (image_size * image_size * 3)).clamp(1, BATCH_IMAGES)
}

/// Images as evaluation sees them: `out` holds uint8 `[count, S, S, 3]`, its i-th image is `sample(i)` of the data set.
pub fn eval_pixels(
    dataset: &Dataset,
    sample: impl Fn(usize) -> usize + Sync,
    image_size: usize,
    out: &mut [u8],
) -> Result<()> {
    out.par_chunks_mut(image_size * image_size * 3).enumerate().try_for_each(|(i, out)| {
        with_workspace(|Workspace { scratch, decoded }| {
            resize(dataset.image(sample(i), decoded)?, Size::square(image_size), scratch, out)
        })
    })?;
    dataset.check()
}

/// Embeds all images; `progress` is called with the number done.
pub fn embed<B: Backend>(
    model: &Model,
    params: &mut Params<B>,
    dataset: &Dataset,
    image_size: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Embeddings> {
    embed_chosen(model, params, dataset, (dataset.len(), |i| i), image_size, progress)
}

/// [`embed`] of some images; row i is image `samples[i]`.
pub fn embed_samples<B: Backend>(
    model: &Model,
    params: &mut Params<B>,
    dataset: &Dataset,
    samples: &[usize],
    image_size: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Embeddings> {
    embed_chosen(model, params, dataset, (samples.len(), |i| samples[i]), image_size, progress)
}

/// [`embed`] of so many images, chosen by place.
fn embed_chosen<B: Backend>(
    model: &Model,
    params: &mut Params<B>,
    dataset: &Dataset,
    (len, sample): (usize, impl Fn(usize) -> usize + Sync),
    image_size: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Embeddings> {
    let mut tape = Tape::new(params.backend().clone());
    let mut result = Embeddings::default();
    let mut pixels = vec![0; batch_images(image_size) * image_size * image_size * 3];
    for first in (0..len).step_by(batch_images(image_size)) {
        let count = batch_images(image_size).min(len - first);
        let pixels = &mut pixels[..count * image_size * image_size * 3];
        eval_pixels(dataset, |i| sample(first + i), image_size, pixels)?;
        tape.clear();
        let images = params.backend().upload_images(Shape::from([count, image_size, image_size, 3]), pixels)?;
        let images = tape.input(images);
        let outputs = model.forward(&mut Forward { tape: &mut tape, params, mode: Mode::Eval }, images)?;
        let Embeddings { h, z, y, h_dim, z_dim, y_dim } = &mut result;
        for (var, rows, dim) in [(outputs.h, h, h_dim), (outputs.z, z, z_dim), (outputs.y, y, y_dim)] {
            *dim = tape.shape(var).last();
            rows.extend(params.backend().download(tape.value(var))?.iter().map(|&x| x as f32));
        }
        progress(first + count);
    }
    Ok(result)
}

/// Sets the running statistics of a network that was not trained to their plain mean over up to `batches` batches of
/// evaluation images in random order: without it the comparison would be with meaningless statistics, not random weights.
pub fn calibrate<B: Backend>(
    model: &Model,
    params: &mut Params<B>,
    dataset: &Dataset,
    image_size: usize,
    batches: usize,
) -> Result<()> {
    let count = batch_images(image_size).min(dataset.len());
    if count < 2 {
        return Err(Error::shape("calibrate", "batch statistics need at least 2 images"));
    }
    let order = Permutation::of_epoch(CALIBRATION_SEED, 0, dataset.len());
    let mut tape = Tape::new(params.backend().clone());
    let mut pixels = vec![0; count * image_size * image_size * 3];
    for batch in 0..batches.min(dataset.len() / count) {
        eval_pixels(dataset, |i| order.at(batch * count + i), image_size, &mut pixels)?;
        tape.clear();
        let images = params.backend().upload_images(Shape::from([count, image_size, image_size, 3]), &pixels)?;
        let images = tape.input(images);
        let mode = Mode::Train { views: 1, momentum: 1.0 / (batch + 1) as f64 };
        model.forward(&mut Forward { tape: &mut tape, params, mode }, images)?;
    }
    Ok(())
}
