//! `embed`: a trained model's embeddings as files.

use std::path::Path;

use super::args::EmbedArgs;
use super::{Trained, data, on_device, print, trained};
use crate::backend::Backend;
use crate::config::EvalConfig;
use crate::data::Dataset;
use crate::eval::Evaluator;
use crate::eval::arrays::{Column, Entries, write_npy_f32, write_table};
use crate::eval::embed::Embeddings;
use crate::eval::parquet::{Vectors, write_parquet};
use crate::report::findings::Clustering;
use crate::{Error, Result, run};

/// Runs the command.
pub fn run(args: &EmbedArgs) -> Result<()> {
    let network = trained(&args.model, &args.overrides())?;
    let dataset = data::load(&network.config)?;
    Evaluator::new(&dataset, &network.config.eval)?;
    let out = args.out.as_path();
    std::fs::create_dir_all(out).map_err(Error::io("create the folder", out))?;
    on_device!(&network.config, backend => write(&backend, &network, &dataset, out))
}

/// Writes all of it.
fn write<B: Backend>(backend: &B, network: &Trained, dataset: &Dataset, out: &Path) -> Result<()> {
    let embeddings = network.embed(backend.clone(), dataset)?;
    let n = dataset.len();
    let Embeddings { h, z, y, h_dim, z_dim, y_dim } = &embeddings;
    for (name, array, dim) in [("h.npy", h, h_dim), ("z.npy", z, z_dim), ("y.npy", y, y_dim)] {
        write_npy_f32(&out.join(name), array, &[n, *dim])?;
    }
    write_samples(out, backend, dataset, &network.config.eval, &embeddings)?;
    run::write_quarantine(out, dataset.excluded())?;
    print(&format!(
        "{n} images: h.npy [{n}, {h_dim}], z.npy [{n}, {z_dim}], y.npy [{n}, {y_dim}], samples.csv, embeddings.parquet in {}",
        out.display()
    ));
    Ok(())
}

/// `samples.csv`: a line an image, in the order of the arrays' rows; clusters only where there is a k. `embeddings.parquet`:
/// the same with each image's confidence in its clusters, and its embeddings.
fn write_samples<B: Backend>(
    out: &Path,
    backend: &B,
    dataset: &Dataset,
    config: &EvalConfig,
    embeddings: &Embeddings,
) -> Result<()> {
    let n = dataset.len();
    let index: Vec<u32> = (0..n as u32).collect();
    let names: Vec<String> = (0..n).map(|i| dataset.name(i).to_owned()).collect();
    let labels: Vec<Option<u32>> = (0..n).map(|i| dataset.label(i)).collect();
    let class =
        |label: &Option<u32>| label.and_then(|l| dataset.classes().get(l as usize)).cloned().unwrap_or_default();
    let classes: Vec<String> = labels.iter().map(class).collect();
    let Embeddings { h, z, y, h_dim, z_dim, y_dim } = embeddings;
    let k = Evaluator::new(dataset, config)?.clusters();
    let cluster = |points: &[f32], dim| k.map(|k| Clustering::of(backend, points, dim, k, config, 0)).transpose();
    let (from_h, from_y) = (cluster(h, *h_dim)?, cluster(y, *y_dim)?);
    let mut columns = vec![
        Column { name: "index", entries: Entries::Numbers(&index) },
        Column { name: "name", entries: Entries::Text(&names) },
        Column { name: "label", entries: Entries::MaybeNumbers(&labels) },
        Column { name: "class", entries: Entries::Text(&classes) },
    ];
    for (name, found) in [("cluster_h", &from_h), ("cluster_y", &from_y)] {
        columns.extend(found.as_ref().map(|c| Column { name, entries: Entries::Numbers(&c.labels) }));
    }
    write_table(&out.join("samples.csv"), &columns)?;
    for (name, found) in [("confidence_h", &from_h), ("confidence_y", &from_y)] {
        columns.extend(found.as_ref().map(|c| Column { name, entries: Entries::Measures(c.confidence()) }));
    }
    let vectors = [("h", h, *h_dim), ("z", z, *z_dim), ("y", y, *y_dim)];
    let vectors = vectors.map(|(name, values, dim)| Vectors { name, values, dim });
    write_parquet(&out.join("embeddings.parquet"), &columns, &vectors)
}
