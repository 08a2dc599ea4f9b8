//! Some classes of a source: `--classes imagenet-10`.

use std::borrow::Cow;
use std::path::PathBuf;

use super::chosen::{self, wordnet_id};
use super::{Excluded, Factor, Original, PictureKind, Source, counted};
use crate::config::did_you_mean;
use crate::data::Image;
use crate::{Error, Result};

/// The images of some classes of a source, in its order; the classes are numbered anew from 0, in its order too.
struct Selected {
    source: Box<dyn Source>,
    /// Per image: its index in the source, and its class.
    kept: Vec<(usize, u32)>,
    classes: Vec<String>,
    factors: Vec<Factor>,
}

/// Narrows `source`, opened from `location`, to the classes that `written` stands for; nothing written is no narrowing. A class is meant by its name,
/// or, if that begins with a WordNet identifier (`n02056570_king_penguin`), by that.
///
/// # Errors
/// [`Error::Usage`] if a class is not there (with the nearest one), or the source is unlabelled.
pub fn select(source: Box<dyn Source>, location: &str, written: &[String]) -> Result<Box<dyn Source>> {
    let wanted = chosen::class_names(written)?;
    if wanted.is_empty() {
        return Ok(source);
    }
    if source.classes().is_empty() {
        let problem =
            format!("classes = {written:?}: {location} has no classes to choose from ({})", source.describe());
        return Err(Error::Usage(problem));
    }
    let mut taken = vec![false; source.classes().len()];
    let mut missing: Vec<&str> = Vec::new();
    for name in &wanted {
        let exact = source.classes().iter().position(|class| class == name);
        let by_id = || source.classes().iter().position(|class| wordnet_id(class) == Some(name));
        match exact.or_else(by_id) {
            Some(class) => taken[class] = true,
            None => missing.push(name),
        }
    }
    if let [first, others @ ..] = &missing[..] {
        return Err(not_there(&*source, location, first, others));
    }
    let new: Vec<Option<u32>> = taken
        .iter()
        .scan(0, |next, &taken| {
            *next += u32::from(taken);
            Some(taken.then(|| *next - 1))
        })
        .collect();
    let class_of = |i: usize| new.get(source.label(i)? as usize).copied().flatten();
    let kept: Vec<(usize, u32)> = (0..source.len()).filter_map(|i| Some((i, class_of(i)?))).collect();
    if kept.is_empty() {
        return Err(Error::Usage(format!("classes = {written:?}: no images of them in {location}")));
    }
    let classes = source.classes().iter().zip(&taken).filter(|(_, taken)| **taken).map(|(c, _)| c.clone()).collect();
    let narrowed = |factor: &Factor| Factor {
        name: factor.name.clone(),
        values: factor.values.clone(),
        labels: kept.iter().map(|&(i, _)| factor.labels[i]).collect(),
    };
    let factors = source.factors().iter().map(narrowed).collect();
    Ok(Box::new(Selected { source, kept, classes, factors }))
}

fn not_there(source: &dyn Source, location: &str, name: &str, others: &[&str]) -> Error {
    let known = source.classes().iter().map(String::as_str).chain(chosen::built_in());
    let hint = did_you_mean(name, known);
    let hint = if hint.is_empty() {
        let some: Vec<&str> = source.classes().iter().take(5).map(String::as_str).collect();
        let more = if source.classes().len() > 5 { ", ..." } else { "" };
        format!("; there are {}{more}", some.join(", "))
    } else {
        hint
    };
    let others = match others.len() {
        0 => String::new(),
        n => format!(" (and {} more)", counted(n, "class", "classes")),
    };
    Error::Usage(format!("no class '{name}'{others} in {location} ({}){hint}", source.describe()))
}

impl Source for Selected {
    fn len(&self) -> usize {
        self.kept.len()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        self.source.name(self.kept[i].0)
    }

    fn label(&self, i: usize) -> Option<u32> {
        Some(self.kept[i].1)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn factors(&self) -> &[Factor] {
        &self.factors
    }

    fn excluded(&self) -> &[Excluded] {
        self.source.excluded()
    }

    fn read(&self, i: usize) -> Result<Image> {
        self.source.read(self.kept[i].0)
    }

    fn jpeg(&self, i: usize) -> Result<Option<Cow<'_, [u8]>>> {
        self.source.jpeg(self.kept[i].0)
    }

    fn original(&self, i: usize) -> Result<Option<Original<'_>>> {
        self.source.original(self.kept[i].0)
    }

    fn picture_kind(&self, i: usize) -> Option<PictureKind> {
        self.source.picture_kind(self.kept[i].0)
    }

    fn check(&self) -> Result<()> {
        self.source.check()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.source.files()
    }

    fn kind(&self) -> &'static str {
        self.source.kind()
    }
}
