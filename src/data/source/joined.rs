//! Several sources as one: `--data A --data B`.

use std::borrow::Cow;
use std::path::PathBuf;

use super::{Excluded, Original, PictureKind, Source};
use crate::Result;
use crate::data::Image;

/// The images of all sources, one source after the other. Classes of the same name are one class; ground-truth factors are
/// given up.
pub struct Joined {
    parts: Vec<Part>,
    classes: Vec<String>,
    excluded: Vec<Excluded>,
    len: usize,
}

struct Part {
    location: String,
    source: Box<dyn Source>,
    first: usize,
    /// Class of the whole for each class of the part.
    class_map: Vec<u32>,
}

impl Joined {
    /// Joins sources, each with the location it was opened from.
    pub fn new(sources: Vec<(String, Box<dyn Source>)>) -> Self {
        let mut joined = Joined { parts: Vec::new(), classes: Vec::new(), excluded: Vec::new(), len: 0 };
        for (location, source) in sources {
            let class_map = source.classes().iter().map(|class| joined.class(class)).collect();
            joined.excluded.extend(source.excluded().iter().cloned());
            let first = joined.len;
            joined.len += source.len();
            joined.parts.push(Part { location, source, first, class_map });
        }
        joined
    }

    /// The position of a class, new or known.
    fn class(&mut self, name: &str) -> u32 {
        let known = self.classes.iter().position(|class| class == name);
        known.unwrap_or_else(|| {
            self.classes.push(name.to_owned());
            self.classes.len() - 1
        }) as u32
    }

    /// The part that holds image `i`, and the image's position in it.
    fn part(&self, i: usize) -> (&Part, usize) {
        let part = &self.parts[self.parts.partition_point(|part| part.first <= i) - 1];
        (part, i - part.first)
    }
}

impl Source for Joined {
    fn len(&self) -> usize {
        self.len
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        let (part, i) = self.part(i);
        Cow::Owned(format!("{}:{}", part.location, part.source.name(i)))
    }

    fn label(&self, i: usize) -> Option<u32> {
        let (part, i) = self.part(i);
        part.class_map.get(part.source.label(i)? as usize).copied()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn excluded(&self) -> &[Excluded] {
        &self.excluded
    }

    fn read(&self, i: usize) -> Result<Image> {
        let (part, i) = self.part(i);
        part.source.read(i)
    }

    fn jpeg(&self, i: usize) -> Result<Option<Cow<'_, [u8]>>> {
        let (part, i) = self.part(i);
        part.source.jpeg(i)
    }

    fn original(&self, i: usize) -> Result<Option<Original<'_>>> {
        let (part, i) = self.part(i);
        part.source.original(i)
    }

    fn picture_kind(&self, i: usize) -> Option<PictureKind> {
        let (part, i) = self.part(i);
        part.source.picture_kind(i)
    }

    fn check(&self) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.source.check())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.parts.iter().flat_map(|part| part.source.files()).collect();
        files.sort();
        files.dedup();
        files
    }

    fn kind(&self) -> &'static str {
        "joined sources"
    }
}
