//! `explain`: which regions of an image a feature head looks at.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::args::ModelArgs;
use super::data::{self, Progress};
use super::{Trained, interrupt, on_device, print, trained};
use crate::atomic_file::write_atomically;
use crate::autograd::Tape;
use crate::backend::Backend;
use crate::data::augment::{Size, resize};
use crate::data::loader::with_workspace;
use crate::data::source::decode;
use crate::data::{Dataset, Image};
use crate::eval::embed::{batch_images, eval_pixels};
use crate::explain::explained::{Checked, Explained, Explainer, Region};
use crate::explain::lime::Lime;
use crate::explain::slic::Slic;
use crate::explain::{Network, pictures};
use crate::inspect::sheet::{Layout, Sheet};
use crate::log::say;
use crate::nn::{Forward, Mode};
use crate::report::neighbours::choose;
use crate::tensor::Shape;
use crate::trainer::architecture;
use crate::{Error, Result};

/// Heads that are explained of an image where none were asked for.
const HEADS: usize = 5;

/// Options of `explain`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "LIME: regions of the image are covered at random, and a linear model says how much each raises a head's \
output. Writes a PNG per image (a row a head: the image, its regions outlined, the rest masked out, an occlusion map), with \
--heads also one with all images of each head, and explain.json. Costs --samples inferences an image.\n\
Exit codes: 0 done, 1 failed, 2 bad usage."
)]
pub struct ExplainArgs {
    /// A checkpoint, or a run folder (its newest checkpoint is taken).
    #[arg(value_name = "CHECKPOINT")]
    pub model: PathBuf,
    /// Images to choose from [default: those it was trained on].
    #[arg(long, value_name = "SRC", conflicts_with = "image")]
    pub data: Vec<String>,
    /// Explain this picture; repeatable.
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// Images, chosen at random; with --heads as many for each head, of those it is on for.
    #[arg(long, value_name = "N", default_value = "6", conflicts_with = "image", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub images: u32,
    /// Heads to explain, with commas between [default: of each image the five with the largest outputs].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub heads: Vec<usize>,
    /// A head is explained where its output is above this.
    #[arg(long, value_name = "Y", default_value = "0.75")]
    pub above: f32,
    /// Perturbed samples of each image.
    #[arg(long, value_name = "N", default_value = "5000", value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    pub samples: u32,
    /// Regions to cut an image into, about.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub superpixels: u32,
    /// Folder for the pictures and explain.json; made if missing [default: explain/ beside the checkpoint].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seed of the choice of images and of the samples.
    #[arg(long, value_name = "S", default_value = "42")]
    pub seed: u64,
    /// What every command that uses a trained model has.
    #[command(flatten)]
    pub common: ModelArgs,
}

impl ExplainArgs {
    fn explainer(&self) -> Explainer {
        Explainer {
            slic: Slic { superpixels: self.superpixels as usize, ..Slic::default() },
            lime: Lime { samples: self.samples as usize, seed: self.seed, ..Lime::default() },
            ..Explainer::default()
        }
    }
}

/// `explain.json`.
#[derive(Serialize)]
struct Output {
    /// Side of the network's input in pixels.
    image_size: usize,
    /// Number of heads it has.
    heads: usize,
    above: f32,
    #[serde(flatten)]
    explainer: Explainer,
    images: Vec<ExplainedImage>,
}

/// An image in `explain.json`.
#[derive(Serialize)]
struct ExplainedImage {
    name: String,
    /// Its number in the data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// The file that shows it.
    picture: String,
    /// Whether the heads explained are above the limit; if not, it is the highest one.
    above: bool,
    explanations: Vec<Checked>,
    superpixels: Vec<Region>,
}

/// An image to explain.
struct Task {
    name: String,
    /// Its number in the data set, if it is of one.
    index: Option<usize>,
    /// As the network sees it.
    image: Image,
    heads: Vec<usize>,
    above: bool,
}

/// Runs the command.
pub fn run(args: &ExplainArgs) -> Result<()> {
    if !(0.0..1.0).contains(&args.above) {
        return Err(Error::Usage(format!("--above {}: outputs are between 0 and 1", args.above)));
    }
    let network = trained(&args.model, &args.common.overrides(&args.data))?;
    let out = args.out.clone().unwrap_or_else(|| network.path.with_file_name("explain"));
    on_device!(&network.config, backend => explain_on(args, &network, backend, &out))
}

fn explain_on<B: Backend>(args: &ExplainArgs, trained: &Trained, backend: B, out: &Path) -> Result<()> {
    let (model, mut params) = trained.model_on(backend)?;
    let side = trained.config.image_size;
    let stop = interrupt::flag("stopping")?;
    let mut tape = Tape::new(params.backend().clone());
    let mut answer = |pixels: &[u8]| {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        tape.clear();
        let shape = Shape::from([pixels.len() / (side * side * 3), side, side, 3]);
        let images = tape.input(params.backend().upload_images(shape, pixels)?);
        let outputs = model.forward(&mut Forward { tape: &mut tape, params: &mut params, mode: Mode::Eval }, images)?;
        Ok(params.backend().download(tape.value(outputs.y))?.iter().map(|&y| y as f32).collect())
    };
    let heads = architecture(&trained.config).feature_num;
    let mut network = Network { side, heads, batch: batch_images(side), answer: &mut answer };
    if let Some(head) = args.heads.iter().find(|&&head| head >= heads) {
        return Err(Error::Usage(format!("there is no head {head}: heads are 0 to {}", heads - 1)));
    }
    let tasks = tasks(args, trained, &mut network)?;
    std::fs::create_dir_all(out).map_err(Error::io("create the folder", out))?;
    let explainer = args.explainer();
    let progress = Progress::new("perturbed samples", tasks.len() * explainer.lime.samples);
    let mut images = Vec::new();
    let mut gallery = Gallery::default();
    for (number, task) in tasks.iter().enumerate() {
        let seed = task.index.unwrap_or(number) as u64;
        let done = number * explainer.lime.samples;
        let mut show = |samples: usize| progress.callback()(done + samples, 0);
        let explained = explainer.explain(&mut network, task.image.as_ref(), seed, &task.heads, &mut show)?;
        let picture = format!("image-{number:03}.png");
        draw_image(task, &explained, &out.join(&picture))?;
        gallery.add(task, &explained)?;
        images.push(ExplainedImage {
            name: task.name.clone(),
            index: task.index,
            picture,
            above: task.above,
            superpixels: explained.regions(),
            explanations: explained.heads,
        });
    }
    drop(progress);
    let shown = if args.heads.is_empty() { 0 } else { gallery.write(&args.heads, out)? };
    let output = Output { image_size: side, heads, above: args.above, explainer, images };
    let json =
        serde_json::to_vec_pretty(&output).map_err(|e| Error::format(out.join("explain.json"), e.to_string()))?;
    write_atomically(&out.join("explain.json"), |file| file.write_all(&json))?;
    print(&summary(&output, shown, out));
    Ok(())
}

/// The images to explain and the heads of each.
fn tasks(args: &ExplainArgs, trained: &Trained, network: &mut Network) -> Result<Vec<Task>> {
    if !args.image.is_empty() {
        return args.image.iter().map(|path| task_of(args, read(path, network.side)?, path, network)).collect();
    }
    let dataset = data::load(&trained.config)?;
    let chosen = if args.heads.is_empty() {
        let images = choose(dataset.len(), args.images as usize, args.seed);
        let mut chosen = Vec::new();
        for images in images.chunks(network.batch) {
            let outputs = network.answer(&pixels(&dataset, images, network.side)?)?;
            for (&image, outputs) in images.iter().zip(outputs.chunks(network.heads)) {
                let (heads, above) = heads_of(args, outputs);
                chosen.push((image, heads, above));
            }
        }
        chosen
    } else {
        images_of_heads(args, &dataset, network)?
    };
    let task = |(index, heads, above): (usize, Vec<usize>, bool)| {
        let image = Image::new(network.side, network.side, pixels(&dataset, &[index], network.side)?)?;
        Ok(Task { name: dataset.name(index).to_owned(), index: Some(index), image, heads, above })
    };
    chosen.into_iter().map(task).collect()
}

/// Images of the data set as the network sees them.
fn pixels(dataset: &Dataset, images: &[usize], side: usize) -> Result<Vec<u8>> {
    let mut pixels = vec![0; images.len() * side * side * 3];
    eval_pixels(dataset, |i| images[i], side, &mut pixels)?;
    Ok(pixels)
}

/// For each head asked for the first images, in an order drawn from the seed, for which it is above the limit; where there
/// is none, the one for which it is highest. An image with the heads that chose it; in the order of the images.
fn images_of_heads(
    args: &ExplainArgs,
    dataset: &Dataset,
    network: &mut Network,
) -> Result<Vec<(usize, Vec<usize>, bool)>> {
    let wanted = args.images as usize;
    let mut found: Vec<Vec<usize>> = vec![Vec::new(); args.heads.len()];
    let mut highest = vec![(f32::NEG_INFINITY, 0); args.heads.len()];
    for images in choose(dataset.len(), dataset.len(), args.seed).chunks(network.batch) {
        if found.iter().all(|images| images.len() >= wanted) {
            break;
        }
        let outputs = network.answer(&pixels(dataset, images, network.side)?)?;
        for (&image, outputs) in images.iter().zip(outputs.chunks(network.heads)) {
            for ((&head, found), highest) in args.heads.iter().zip(&mut found).zip(&mut highest) {
                if outputs[head] > highest.0 {
                    *highest = (outputs[head], image);
                }
                if outputs[head] > args.above && found.len() < wanted {
                    found.push(image);
                }
            }
        }
    }
    let mut chosen: std::collections::BTreeMap<(usize, bool), Vec<usize>> = Default::default();
    for ((&head, found), (output, image)) in args.heads.iter().zip(found).zip(highest) {
        if found.is_empty() {
            say(&format!(
                "head {head} is above {} for no image: taking the one of its highest output, {output:.3}",
                args.above
            ));
            chosen.entry((image, false)).or_default().push(head);
        }
        found.into_iter().for_each(|image| chosen.entry((image, true)).or_default().push(head));
    }
    Ok(chosen.into_iter().map(|((image, above), heads)| (image, heads, above)).collect())
}

/// The heads to explain of an image with these `outputs`: of those asked for (or all, then at most [`HEADS`], highest first)
/// the ones above the limit; else the highest, and false.
fn heads_of(args: &ExplainArgs, outputs: &[f32]) -> (Vec<usize>, bool) {
    let all = || (0..outputs.len()).collect::<Vec<_>>();
    let mut asked = if args.heads.is_empty() { all() } else { args.heads.clone() };
    let highest_first = |a: &usize, b: &usize| outputs[*b].total_cmp(&outputs[*a]).then(a.cmp(b));
    let highest = asked.iter().copied().min_by(highest_first);
    asked.retain(|&head| outputs[head] > args.above);
    if asked.is_empty() {
        return (highest.into_iter().collect(), false);
    }
    if args.heads.is_empty() {
        asked.sort_by(highest_first);
        asked.truncate(HEADS);
    }
    (asked, true)
}

/// A picture file as the network sees it.
fn read(path: &Path, side: usize) -> Result<Image> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let picture = decode(&bytes).map_err(|problem| Error::format(path, problem))?;
    let mut pixels = vec![0; side * side * 3];
    with_workspace(|workspace| resize(picture.as_ref(), Size::square(side), &mut workspace.scratch, &mut pixels))?;
    Image::new(side, side, pixels)
}

fn task_of(args: &ExplainArgs, image: Image, path: &Path, network: &mut Network) -> Result<Task> {
    let (heads, above) = heads_of(args, &network.answer(image.as_ref().pixels())?);
    Ok(Task { name: path.display().to_string(), index: None, image, heads, above })
}

/// Draws a row for each head: the image, outlined, masked, occluded.
fn draw_image(task: &Task, explained: &Explained, path: &Path) -> Result<()> {
    let plain = pictures::plain(task.image.as_ref())?;
    let cell = plain.as_ref().width();
    let mut sheet = Sheet::new(Layout { columns: 4, group: 4, rows: explained.heads.len(), cell })?;
    // The line is short, and folders are what many names share; explain.json has them in full.
    let name = task.name.rsplit(['/', '\\']).next().unwrap_or(&task.name);
    for (row, checked) in explained.heads.iter().enumerate() {
        let fit = checked.explanation.r2.map_or("none".into(), |r2| format!("{r2:.2}"));
        let (head, output) = (checked.explanation.head, checked.explanation.output);
        sheet.caption(row, 0, &format!("head {head}: {output:.3}, fit {fit}  {name}"));
        sheet.place(row, 0, plain.as_ref())?;
        for (column, picture) in explained.pictures(task.image.as_ref(), row)?.iter().enumerate() {
            sheet.place(row, column + 1, picture.as_ref())?;
        }
    }
    sheet.write_png(path)
}

/// The pictures of each head, for a row a head: the paper's Figures 8 and 9, and the check.
#[derive(Default)]
struct Gallery {
    /// Head and its outlined, masked and occluded image.
    pictures: Vec<(usize, [Image; 3])>,
}

impl Gallery {
    fn add(&mut self, task: &Task, explained: &Explained) -> Result<()> {
        for (index, &head) in task.heads.iter().enumerate() {
            self.pictures.push((head, explained.pictures(task.image.as_ref(), index)?));
        }
        Ok(())
    }

    /// Writes a sheet a kind of picture; gives how many.
    fn write(&self, heads: &[usize], out: &Path) -> Result<usize> {
        let names = ["heads-outlined.png", "heads-masked.png", "heads-occlusion.png"];
        let of = |head: usize| self.pictures.iter().filter(move |(h, _)| *h == head).map(|(_, pictures)| pictures);
        let heads: Vec<usize> = heads.iter().copied().filter(|&head| of(head).next().is_some()).collect();
        let columns = heads.iter().map(|&head| of(head).count()).max().unwrap_or(0);
        let Some((_, [first, ..])) = self.pictures.first() else { return Ok(0) };
        for (kind, name) in names.iter().enumerate() {
            let cell = first.as_ref().width();
            let mut sheet = Sheet::new(Layout { columns, group: columns, rows: heads.len(), cell })?;
            for (row, &head) in heads.iter().enumerate() {
                sheet.caption(row, 0, &format!("head {head}"));
                for (column, pictures) in of(head).enumerate() {
                    sheet.place(row, column, pictures[kind].as_ref())?;
                }
            }
            sheet.write_png(&out.join(name))?;
        }
        Ok(names.len())
    }
}

/// What was found, for people.
fn summary(output: &Output, sheets: usize, out: &Path) -> String {
    let line = |image: &ExplainedImage| {
        let head = |c: &Checked| {
            let fit = c.explanation.r2.map_or("no fit: it answers the same".into(), |r2| format!("fit {r2:.2}"));
            format!("head {} ({:.3}, {fit})", c.explanation.head, c.explanation.output)
        };
        let heads: Vec<String> = image.explanations.iter().map(head).collect();
        let note = if image.above { "" } else { "; none is above the limit, this is the highest" };
        format!("  {}  {}: {}{note}\n", image.picture, image.name, heads.join(", "))
    };
    let lines: String = output.images.iter().map(line).collect();
    let sheets = if sheets > 0 { "heads-outlined.png, heads-masked.png, heads-occlusion.png, " } else { "" };
    format!("{lines}{} images explained: {sheets}explain.json in {}", output.images.len(), out.display())
}
