//! A data set's own files, sorted into a folder a cluster: copied, or linked to.
//!
//! The folder appears whole or not at all: it is filled under another name beside its place and then renamed. Names of files
//! are last components only, so nothing, whatever an archive calls its entries, is written anywhere else.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use image::ImageEncoder as _;
use image::codecs::png::PngEncoder;

use crate::atomic_file::TEMPORARY;
use crate::data::source::Original;
use crate::data::{Dataset, Source};
use crate::{Error, Result};

/// How an image comes into its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// A copy of its file; of an archive's entry what is in it; of a record without a file a PNG of its pixels.
    Copy,
    /// A symbolic link to its file: relative where the data were named by a relative path, else absolute.
    Link,
}

/// Sorts the images of `dataset`, which was made of `source`, into `folder`: `cluster-03/NAME`, `clusters[i]` for image i.
///
/// Where two images of a cluster have one name, the later ones (in the order of the data set) are called `NAME-2.jpg`,
/// `NAME-3.jpg`, ... `folder` must not exist, or be empty.
///
/// # Errors
/// [`Error::Usage`] if `folder` holds something, or images have no files to link to; [`Error::Io`] if something cannot be
/// read or written.
pub fn sort(dataset: &Dataset, source: &dyn Source, clusters: &[u32], folder: &Path, placing: Placing) -> Result<()> {
    check(source, folder, placing)?;
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(Error::io("create the folder", parent))?;
    let staging =
        tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(parent).map_err(Error::io("write in", parent))?;
    let digits = clusters.iter().max().map_or(2, |max| max.to_string().len().max(2));
    let by_name: HashMap<String, usize> = (0..source.len()).map(|i| (source.name(i).into_owned(), i)).collect();
    let mut taken: HashSet<(u32, String)> = HashSet::new();
    let real_parent = fs::canonicalize(parent).map_err(Error::io("resolve", parent))?;
    let name_of_folder = folder.file_name().unwrap_or_default();
    for (i, &cluster) in clusters.iter().enumerate() {
        let Some(&own) = by_name.get(dataset.name(i)) else {
            return Err(Error::Usage(format!("{} is not in the data any more: nothing was sorted", dataset.name(i))));
        };
        let place = format!("cluster-{cluster:0digits$}");
        let target = staging.path().join(&place);
        if !target.exists() {
            fs::create_dir(&target).map_err(Error::io("create the folder", &target))?;
        }
        let original = source.original(own)?;
        let name = free_name(file_name(dataset.name(i), original.is_some(), i), cluster, &mut taken);
        let path = target.join(name);
        match (placing, original) {
            (Placing::Link, Some(Original::File(file))) => {
                link(&target_of(file, &real_parent.join(name_of_folder).join(&place))?, &path)?;
            }
            (Placing::Link, _) => return Err(no_files()),
            (Placing::Copy, Some(Original::File(file))) => {
                fs::copy(file, &path).map(drop).map_err(Error::io("copy", file))?;
            }
            (Placing::Copy, Some(Original::Entry(bytes))) => write(&path, &bytes)?,
            (Placing::Copy, None) => write(&path, &as_png(source, own)?)?,
        }
    }
    source.check()?;
    // In the place of an empty folder a rename works where it works at all; on other systems the place must be free.
    let _ = fs::remove_dir(folder);
    let staging = staging.keep();
    open_to_all(&staging);
    fs::rename(&staging, folder).map_err(|e| {
        let _ = fs::remove_dir_all(&staging);
        Error::io("write", folder)(e)
    })
}

/// Whether images of `source` can be sorted into `folder`: asked before the work is done.
///
/// # Errors
/// As [`sort`].
pub fn check(source: &dyn Source, folder: &Path, placing: Placing) -> Result<()> {
    if folder.file_name().is_none() {
        return Err(Error::Usage(format!("{}: name a folder that does not exist yet", folder.display())));
    }
    if fs::symlink_metadata(folder).is_ok() {
        let empty = fs::read_dir(folder).map_err(Error::io("list", folder))?.next().is_none();
        if !empty {
            let problem = format!("{} is not empty: name a folder that does not exist yet", folder.display());
            return Err(Error::Usage(problem));
        }
    }
    if placing == Placing::Link {
        for i in 0..source.len() {
            if !matches!(source.original(i)?, Some(Original::File(_))) {
                return Err(no_files());
            }
        }
    }
    Ok(())
}

fn no_files() -> Error {
    Error::Usage(
        "--link-to: these images are no files of their own (they lie in an archive, or are records): use --copy-to"
            .into(),
    )
}

/// A folder made for one's own eyes only gets the permissions of any new folder.
#[cfg(unix)]
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // What the user's mask leaves shows on a folder that was made plainly inside.
    if let Some(Ok(child)) = fs::read_dir(folder).ok().and_then(|mut children| children.next())
        && let Ok(plain) = child.metadata()
    {
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(plain.permissions().mode() & 0o777));
    }
}

#[cfg(not(unix))]
fn open_to_all(_folder: &Path) {}

/// The last component of an image's name, fit to be a file's; what is no file becomes a PNG.
fn file_name(name: &str, is_file: bool, i: usize) -> String {
    let last = name.rsplit(['/', '\\', ':']).next().unwrap_or_default();
    let last: String = last.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    let last = if last.trim_matches(['.', ' ']).is_empty() { format!("image-{i}") } else { last };
    if is_file { last } else { format!("{last}.png") }
}

/// `name`, or with a number before its extension if the cluster has it. Case does not count: on some systems it does not
/// tell files apart.
fn free_name(name: String, cluster: u32, taken: &mut HashSet<(u32, String)>) -> String {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem.to_owned(), format!(".{extension}")),
        _ => (name.clone(), String::new()),
    };
    let candidates = std::iter::once(name).chain((2..).map(|n| format!("{stem}-{n}{extension}")));
    candidates
        .into_iter()
        .find(|candidate| taken.insert((cluster, candidate.to_lowercase())))
        .expect("numbers do not end")
}

/// What a link in `folder` (a real path) to `file` has to say.
fn target_of(file: &Path, folder: &Path) -> Result<PathBuf> {
    if file.is_absolute() {
        return Ok(file.to_path_buf());
    }
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = fs::canonicalize(parent).map_err(Error::io("resolve", parent))?;
    Ok(relative(folder, &real).join(file.file_name().unwrap_or_default()))
}

/// The way from the folder `from` to `to`; both are real paths.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<Component>, Vec<Component>) = (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| Component::ParentDir);
    up.chain(to[common..].iter().copied()).collect()
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, path).map_err(Error::io("link", path))
}

#[cfg(windows)]
fn link(target: &Path, path: &Path) -> Result<()> {
    std::os::windows::fs::symlink_file(target, path).map_err(Error::io("link", path))
}

/// Writes a file that is not there yet.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = File::options().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(Error::io("write", path))
}

/// The pixels of a record as a PNG.
fn as_png(source: &dyn Source, i: usize) -> Result<Cow<'static, [u8]>> {
    let image = source.read(i)?;
    let image = image.as_ref();
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(image.pixels(), image.width() as u32, image.height() as u32, image::ExtendedColorType::Rgb8)
        .map_err(|e| Error::shape("png", e.to_string()))?;
    Ok(Cow::Owned(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_last_components_and_unique() {
        for (name, file, expected) in [
            ("a/b/c.jpg", true, "c.jpg"),
            ("shapes#17", false, "shapes#17.png"),
            ("../../..", true, "image-5"),
            ("a/..\\..\\x.png", true, "x.png"),
            ("x.tar:in/y.JPG", true, "y.JPG"),
            ("C:evil.png", true, "evil.png"),
            ("", false, "image-5.png"),
            ("a\u{7}b.png", true, "a_b.png"),
        ] {
            assert_eq!(file_name(name, file, 5), expected);
        }
        let mut taken = HashSet::new();
        let names: Vec<String> =
            ["a.jpg", "A.JPG", "a.jpg", "a-2.jpg", ".x", ".x"].map(|n| free_name(n.into(), 1, &mut taken)).into();
        assert_eq!(names, ["a.jpg", "A-2.JPG", "a-3.jpg", "a-2-2.jpg", ".x", ".x-2"]);
        assert_eq!(free_name("a.jpg".into(), 2, &mut taken), "a.jpg");
    }

    #[test]
    fn links_lead_from_where_they_are() {
        let way = |from: &str, to: &str| relative(Path::new(from), Path::new(to)).to_str().unwrap().to_owned();
        assert_eq!(way("/a/out/cluster-01", "/a/photos/x"), "../../photos/x");
        assert_eq!(way("/a/b", "/a/b/c"), "c");
        assert_eq!(way("/a", "/b"), "../b");
        assert_eq!(target_of(Path::new("/data/x.png"), Path::new("/out/c")).unwrap(), Path::new("/data/x.png"));
    }
}
