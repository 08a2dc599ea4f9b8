//! The cache: packed once for the same content, again for another.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use disentangle::Result;
use disentangle::data::cache::{Cache, payload_for};
use disentangle::data::{Dataset, Encoding, GatherOptions};

use crate::{images, open_source, pictures};

/// Opens the images of `location` through `cache`; the data set, its file, and how many images had to be decoded for it.
fn open(cache: &Cache, location: &Path) -> Result<(Dataset, PathBuf, usize)> {
    let source = open_source(location.to_str().unwrap());
    let path = cache.path(cache.content(&*source)?, &GatherOptions::default());
    let decoded = AtomicUsize::new(0);
    let count = |_, _| _ = decoded.fetch_add(1, Relaxed);
    let dataset = cache.open(&path, &*source, &GatherOptions::default(), &count)?;
    Ok((dataset, path, decoded.into_inner()))
}

/// Sets the time of the last change of every file in `folder` back by an hour.
fn age(folder: &Path) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => age(&entry),
            false => std::fs::File::options().write(true).open(entry).unwrap().set_modified(then).unwrap(),
        }
    }
}

#[test]
fn the_same_content_is_packed_once() {
    let (folder, home) = (pictures(), tempfile::tempdir().unwrap());
    let cache = Cache::at(home.path().join("made/when/needed"));
    let (first, path, decoded) = open(&cache, folder.path()).unwrap();
    assert_eq!(decoded, 13);
    let (second, same_path, decoded) = open(&cache, folder.path()).unwrap();
    assert_eq!((decoded, &same_path), (0, &path));
    assert_eq!(images(&first).unwrap(), images(&second).unwrap());
    // The same content elsewhere, and with other times, is the same content.
    age(folder.path());
    let moved = home.path().join("moved");
    std::fs::rename(folder.path(), &moved).unwrap();
    let (_, same_path, decoded) = open(&cache, &moved).unwrap();
    assert_eq!((decoded, same_path), (0, path));
}

#[test]
fn another_content_is_packed_anew() {
    let (folder, home) = (pictures(), tempfile::tempdir().unwrap());
    let cache = Cache::at(home.path());
    let mut paths = vec![open(&cache, folder.path()).unwrap().1];
    let at = |name: &str| folder.path().join(name);
    let changes: [&dyn Fn(); 4] = [
        // One byte of the same length, and the time set back.
        &|| {
            let mut bytes = std::fs::read(at("cats/08.png")).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(at("cats/08.png"), bytes).unwrap();
            age(folder.path());
        },
        &|| std::fs::rename(at("cats/10.png"), at("cats/11.png")).unwrap(),
        &|| std::fs::rename(at("cats/11.png"), at("dogs/10.png")).unwrap(),
        &|| std::fs::remove_file(at("cats/broken.jpg")).unwrap(),
    ];
    for change in changes {
        change();
        let (_, path, decoded) = open(&cache, folder.path()).unwrap();
        assert!(decoded > 0 && !paths.contains(&path));
        paths.push(path);
    }
}

#[test]
fn a_damaged_copy_is_made_again() {
    let (folder, home) = (pictures(), tempfile::tempdir().unwrap());
    let cache = Cache::at(home.path());
    let (data, path, _) = open(&cache, folder.path()).unwrap();
    let whole = images(&data).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for damaged in [&bytes[..bytes.len() - 1], &bytes[..100], b""] {
        std::fs::write(&path, damaged).unwrap();
        let (data, _, decoded) = open(&cache, folder.path()).unwrap();
        assert_eq!((decoded, images(&data).unwrap() == whole), (13, true));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn what_a_killed_run_left_is_swept() {
    let (folder, home) = (pictures(), tempfile::tempdir().unwrap());
    let names = [".writing-old", "kept"].map(|name| home.path().join(name));
    names.iter().for_each(|name| std::fs::write(name, "half of something").unwrap());
    std::fs::write(home.path().join(".writing-now"), "").unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    names
        .iter()
        .for_each(|name| std::fs::File::options().write(true).open(name).unwrap().set_modified(long_ago).unwrap());
    open(&Cache::at(home.path()), folder.path()).unwrap();
    assert_eq!(
        [".writing-old", "kept", ".writing-now"].map(|name| home.path().join(name).exists()),
        [false, true, true]
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_its_name() {
    let (folder, home) = (pictures(), tempfile::tempdir().unwrap());
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = open(&Cache::at(file.join("cache")), folder.path()).err().unwrap();
    assert!(error.to_string().contains("file/cache"), "{error}");
}

#[test]
fn large_sets_of_jpegs_stay_jpegs() {
    let folder = pictures();
    let source = open_source(folder.path().to_str().unwrap());
    assert_eq!(payload_for(&*source, 1 << 20), Encoding::Raw);
    assert_eq!(payload_for(&*source, 1000), Encoding::Jpeg);
    assert_eq!(payload_for(&*open_source("shapes:100"), 1000), Encoding::Raw, "nothing to keep but pixels");
}
