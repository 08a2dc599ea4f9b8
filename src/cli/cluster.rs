//! `cluster`: images into clusters, as a table and as folders.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

use super::args::ModelArgs;
use super::{Trained, data, on_device, print, trained};
use crate::atomic_file::write_atomically;
use crate::backend::Backend;
use crate::data::{Dataset, Source};
use crate::eval::arrays::{Column, Entries, write_table};
use crate::eval::parquet::write_parquet;
use crate::report::cluster_count::Candidate;
use crate::report::findings::{Clustering, Count, Wanted};
use crate::report::sections::clusters::curve;
use crate::sort::{self, Placing};
use crate::{Error, Result};

/// Options of `cluster`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The table has a line an image: index, name, class where known, cluster, confidence. With `--clusters auto` \
the criterion over K goes beside it, as OUT.curve.csv and OUT.curve.svg.\n\
--copy-to and --link-to make DIR/cluster-03/NAME for every image; images of one name in one cluster become NAME, NAME-2, ...; a folder \
with something in it is refused. Links are relative where --data is. Images in archives can only be copied; records of CIFAR, STL-10, arrays and `shapes`, which are \
no files, become PNGs.\nExit codes: 0 done, 1 failed, 2 bad usage."
)]
pub struct ClusterArgs {
    /// A checkpoint, or a run folder (its newest checkpoint is taken).
    #[arg(value_name = "CHECKPOINT_OR_RUN")]
    pub model: PathBuf,
    /// Images to cluster; several --data are joined.
    #[arg(long, value_name = "SRC", required = true)]
    pub data: Vec<String>,
    /// How many clusters, 2 to 65536, or `auto`: proposed from the features.
    #[arg(long, value_name = "K|auto")]
    pub clusters: Wanted,
    /// Table to write: .csv or .parquet.
    #[arg(long, value_name = "FILE", value_parser = table_path)]
    pub out: PathBuf,
    /// Copy every image into a folder a cluster.
    #[arg(long, value_name = "DIR", conflicts_with = "link_to")]
    pub copy_to: Option<PathBuf>,
    /// Link to every image from a folder a cluster.
    #[arg(long, value_name = "DIR")]
    pub link_to: Option<PathBuf>,
    /// What every command that uses a trained model has.
    #[command(flatten)]
    pub common: ModelArgs,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        if text == "auto" {
            return Ok(Wanted::Auto);
        }
        let k = text.parse().ok().filter(|k| (2..=65536).contains(k));
        k.map(Wanted::Exactly).ok_or("expected a number from 2 to 65536, or auto".into())
    }
}

/// A path whose extension says how a table is written.
fn table_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv" | "parquet") => Ok(path),
        _ => Err("tables are written as .csv or .parquet: give a name that ends so".into()),
    }
}

/// Runs the command.
pub fn run(args: &ClusterArgs) -> Result<()> {
    let network = trained(&args.model, &args.common.overrides(&args.data))?;
    let placing = match (&args.copy_to, &args.link_to) {
        (Some(folder), _) => Some((folder.as_path(), Placing::Copy)),
        (_, Some(folder)) => Some((folder.as_path(), Placing::Link)),
        _ => None,
    };
    let source = data::open(&network.config)?;
    if let Some((folder, placing)) = placing {
        sort::check(&*source, folder, placing)?;
    }
    let dataset = data::load(&network.config)?;
    if let Wanted::Exactly(k) = args.clusters
        && k > dataset.len()
    {
        return Err(Error::Usage(format!("{} images cannot form {k} clusters: ask for fewer", dataset.len())));
    }
    on_device!(&network.config, backend => group(args, &backend, &network, &dataset, placing.map(|to| (&*source, to))))
}

/// Finds the clusters, writes them, and places the files.
fn group<B: Backend>(
    args: &ClusterArgs,
    backend: &B,
    network: &Trained,
    dataset: &Dataset,
    placing: Option<(&dyn Source, (&Path, Placing))>,
) -> Result<()> {
    let embeddings = network.embed(backend.clone(), dataset)?;
    let (h, dim, config) = (&embeddings.h, embeddings.h_dim, &network.config.eval);
    let count = match args.clusters {
        Wanted::Exactly(k) => Count::Configured(k),
        Wanted::Auto => Count::proposed(h, dim, config)?,
    };
    write_curve(&args.out, &count)?;
    let Some(k) = count.clusters() else {
        return Err(Error::Usage(format!("{} Give --clusters K.", count.why())));
    };
    let clusters = Clustering::of(backend, h, dim, k, config, 0)?;
    write(&args.out, dataset, &clusters)?;
    if let Some((source, (folder, placing))) = placing {
        sort::sort(dataset, source, &clusters.labels, folder, placing)?;
    }
    let mut sizes = vec![0usize; clusters.k];
    clusters.labels.iter().for_each(|&cluster| sizes[cluster as usize] += 1);
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    let sorted = placing.map(|(_, (folder, _))| format!("\nsorted into {}", folder.display())).unwrap_or_default();
    print(&format!(
        "{}\n{} images in {} clusters: {}\ntable: {}{sorted}",
        count.why(),
        dataset.len(),
        clusters.k,
        sizes.join(", "),
        args.out.display()
    ));
    Ok(())
}

fn write(path: &Path, dataset: &Dataset, clusters: &Clustering) -> Result<()> {
    let index: Vec<u32> = (0..dataset.len() as u32).collect();
    let names: Vec<String> = (0..dataset.len()).map(|i| dataset.name(i).to_owned()).collect();
    let class =
        |i: usize| dataset.label(i).and_then(|l| dataset.classes().get(l as usize)).cloned().unwrap_or_default();
    let classes: Vec<String> = (0..dataset.len()).map(class).collect();
    let mut columns = vec![
        Column { name: "index", entries: Entries::Numbers(&index) },
        Column { name: "name", entries: Entries::Text(&names) },
    ];
    if !dataset.classes().is_empty() {
        columns.push(Column { name: "class", entries: Entries::Text(&classes) });
    }
    columns.push(Column { name: "cluster", entries: Entries::Numbers(&clusters.labels) });
    columns.push(Column { name: "confidence", entries: Entries::Measures(clusters.confidence()) });
    if path.extension().is_some_and(|extension| extension == "parquet") {
        write_parquet(path, &columns, &[])
    } else {
        write_table(path, &columns)
    }
}

/// The criterion over K beside the table, where K was looked for.
fn write_curve(out: &Path, count: &Count) -> Result<()> {
    let Count::Proposed(proposal) = count else { return Ok(()) };
    let Some(figure) = curve(proposal) else { return Ok(()) };
    let column = |value: fn(&Candidate) -> f64| proposal.curve.iter().map(|c| value(c) as f32).collect::<Vec<_>>();
    let k: Vec<u32> = proposal.curve.iter().map(|candidate| candidate.clusters as u32).collect();
    let (silhouette, reference, gap) = (column(|c| c.silhouette), column(|c| c.reference), column(|c| c.gap));
    let columns = [
        Column { name: "clusters", entries: Entries::Numbers(&k) },
        Column { name: "silhouette", entries: Entries::Measures(&silhouette) },
        Column { name: "without_structure", entries: Entries::Measures(&reference) },
        Column { name: "difference", entries: Entries::Measures(&gap) },
    ];
    write_table(&out.with_extension("curve.csv"), &columns)?;
    let svg = figure.svg.standalone(&figure.title);
    write_atomically(&out.with_extension("curve.svg"), |file| file.write_all(svg.as_bytes()))
}
