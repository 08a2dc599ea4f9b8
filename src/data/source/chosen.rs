//! Lists of classes to take: what people write for [`SourceOptions::classes`](super::SourceOptions::classes).

use std::path::Path;

use crate::{Error, Result};

/// The classes of ImageNet-10, WordNet identifiers with spaces between. Chang et al., "Deep Adaptive Image Clustering", ICCV
/// 2017: 13,000 training images.
pub(crate) const IMAGENET_10: &str =
    "n02056570 n02085936 n02128757 n02690373 n02692877 n03095699 n04254680 n04285008 n04467665 n07747607";

/// Subsets of ImageNet by name: WordNet identifiers.
const BUILT_IN: [(&str, &str); 2] = [
    ("imagenet-10", IMAGENET_10),
    // Of the same paper: 15 breeds of dogs, 19,500 training images.
    (
        "imagenet-dogs",
        "n02085936 n02086646 n02088238 n02091467 n02097130 n02099601 n02101388 n02101556 n02102177 n02105056 n02105412 \
         n02105855 n02107142 n02110958 n02112137",
    ),
];

/// Bytes above which a file is no list of classes.
const MAX_FILE: u64 = 1 << 20;

/// The names that `written` stands for, each once: built-in lists and files (`@FILE`) are replaced by what they hold.
///
/// # Errors
/// [`Error::Usage`] for a file that is not there or names no class; [`Error::Io`] if it cannot be read.
pub fn class_names(written: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in written.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        if let Some((_, list)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            names.extend(list.split(' ').map(String::from));
        } else if let Some(path) = name.strip_prefix('@') {
            names.extend(read(Path::new(path))?);
        } else {
            names.push(class_name(name).to_owned());
        }
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

/// The classes in the file at `path`, a line each; empty lines and lines that begin with `#` do not count.
fn read(path: &Path) -> Result<Vec<String>> {
    let metadata = std::fs::metadata(path)
        .map_err(|e| Error::Usage(format!("the list of classes {} cannot be read: {e}", path.display())))?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(Error::Usage(format!("{} is no list of classes: it should be a short text file", path.display())));
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::Usage(format!("{} is no list of classes: not UTF-8 text", path.display())))?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let names: Vec<String> =
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| class_name(line).into()).collect();
    if names.is_empty() {
        return Err(Error::Usage(format!("{} names no class: a name a line", path.display())));
    }
    Ok(names)
}

/// The class a line names: all of it, but of a WordNet identifier with a description behind it (`n02056570 king penguin`)
/// only the identifier.
fn class_name(line: &str) -> &str {
    wordnet_id(line).unwrap_or(line)
}

/// The WordNet identifier (`n` and eight digits) that `text` begins with, if nothing of a word follows directly.
pub fn wordnet_id(text: &str) -> Option<&str> {
    let id = text.get(..9)?;
    let is_id = id.starts_with('n') && id.bytes().skip(1).all(|b| b.is_ascii_digit());
    (is_id && !text[9..].starts_with(|c: char| c.is_alphanumeric())).then_some(id)
}

/// The names of the built-in lists.
pub fn built_in<'a>() -> impl Iterator<Item = &'a str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}
