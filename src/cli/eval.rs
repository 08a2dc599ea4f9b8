//! `eval`: the scores of a trained model.

use super::args::EvalArgs;
use super::{Trained, data, on_device, print, trained};
use crate::backend::Backend;
use crate::data::Dataset;
use crate::eval::{Baselines, Evaluator};
use crate::{Result, run};

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<()> {
    let network = trained(&args.model, &args.overrides())?;
    let dataset = data::load(&network.config)?;
    let evaluator = Evaluator::new(&dataset, &network.config.eval)?;
    on_device!(&network.config, backend => score(&backend, &network, &dataset, evaluator.on(&backend), args))
}

fn score<B: Backend>(
    backend: &B,
    network: &Trained,
    dataset: &Dataset,
    evaluator: Evaluator<B>,
    args: &EvalArgs,
) -> Result<()> {
    let size = network.config.image_size;
    let embeddings = network.embed(backend.clone(), dataset)?;
    // The run knows how its untrained network did on the same data with the same k-means.
    let same = network.checkpoint.meta.data.fingerprint == run::stamp(dataset).fingerprint
        && network.checkpoint.meta.config.eval == network.config.eval;
    let known = network.path.parent().filter(|_| same).and_then(run::baselines).unwrap_or_default();
    let baselines = Baselines { pixels: evaluator.score_pixels(size)?, ..known };
    let evaluation = evaluator.evaluate(&embeddings, &baselines)?;
    if args.json {
        print(&run::results_json(&evaluation, &network.checkpoint.weights_hash()));
        return Ok(());
    }
    print(&evaluation.table());
    if let (None, Some(k)) = (evaluation.backbone, evaluator.clusters()) {
        print(&cluster_sizes(k, &evaluator, &embeddings.h, embeddings.h_dim)?);
    }
    Ok(())
}

/// Without labels all that can be said of a clustering is how large its clusters are.
fn cluster_sizes<B: Backend>(k: usize, evaluator: &Evaluator<B>, points: &[f32], dim: usize) -> Result<String> {
    let mut sizes = vec![0usize; k];
    for cluster in evaluator.cluster(points, dim)?.unwrap_or_default() {
        sizes[cluster as usize] += 1;
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    Ok(format!("{k} clusters of the backbone's features, images in each: {}", sizes.join(", ")))
}
