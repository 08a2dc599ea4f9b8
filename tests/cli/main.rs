//! The program as a user runs it: tiny networks on tiny data, whole commands, their files, exit codes and words.

mod bad_input;
mod checkpoints;
mod inference;
mod inspect;
mod nonfinite;
mod pack;
mod refusals;
mod resume;
mod signals;
mod train;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

/// Options of a run that takes a fraction of a second: 4 steps an epoch.
const TINY: &str = "train --data shapes:64 --set base_width=4 --image-size 32 --batch-size 16 --set eval.restarts=1";

/// No command here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder to run commands in, removed with all they wrote; `work` in it is where they run, `cache` is for packed copies.
struct Folder(tempfile::TempDir);

/// What a command left behind.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.path("")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("work").join(name)
    }

    /// Runs `disentangle` with `words`, which are separated by spaces.
    fn run(&self, words: &str) -> Said {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_disentangle"));
        let command = command.current_dir(self.path("")).args(words.split_whitespace()).timeout(PATIENCE);
        let command = command.env("DISENTANGLE_CACHE", self.path("../cache"));
        let Output { status, stdout, stderr } = command.output().unwrap();
        let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(!err.contains("panicked"), "{words}: {err}");
        Said { code: status.code().unwrap_or(-1), out, err }
    }

    /// As [`Folder::run`], of a command that ends well; gives what it printed on stdout.
    #[track_caller]
    fn done(&self, words: &str) -> String {
        let said = self.run(words);
        assert_eq!(said.code, 0, "{words}: {}", said.err);
        said.out
    }

    /// As [`Folder::run`], of a command that fails with `code` and says why in one line, the last one, with all `parts`.
    #[track_caller]
    fn refused(&self, words: &str, code: i32, parts: &[&str]) -> Said {
        let said = self.run(words);
        assert_eq!(said.code, code, "{words}: {}", said.err);
        let errors: Vec<&str> = said.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{words}: {}", said.err);
        assert_eq!(said.err.lines().last(), errors.last().copied(), "{words}: {}", said.err);
        parts.iter().for_each(|part| assert!(errors[0].contains(part), "{words}: no `{part}` in: {}", errors[0]));
        said
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// Writes a file, making its folders.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// A checkpoint.
    fn checkpoint(&self, name: &str) -> disentangle::checkpoint::Checkpoint {
        disentangle::checkpoint::Checkpoint::load(&self.path(name)).unwrap()
    }

    /// The names in a folder, sorted.
    fn names(&self, name: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Fills a folder with `count` pictures `NN.png` of 20 x 16 pixels, no two alike.
    fn pictures(&self, folder: &str, count: u32) {
        std::fs::create_dir_all(self.path(folder)).unwrap();
        for i in 0..count {
            self.write(&format!("{folder}/{i:02}.png"), picture(20, 16, i));
        }
    }

    /// `metrics.jsonl` of a run. Every line is a whole record, and none tells the time.
    fn metrics(&self, run: &str) -> Vec<BTreeMap<String, Value>> {
        let lines = self.lines(run, "metrics.jsonl");
        assert!(lines.iter().all(|line| !line.contains_key("seconds") && !line.contains_key("views_per_s")));
        lines
    }

    /// A log of a run.
    fn lines(&self, run: &str, name: &str) -> Vec<BTreeMap<String, Value>> {
        let text = String::from_utf8(self.read(&format!("{run}/{name}"))).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The last step in the log of a run that goes on.
    fn metrics_so_far(&self, run: &str) -> u64 {
        let text = String::from_utf8(self.read(&format!("{run}/metrics.jsonl"))).unwrap();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.next_back().and_then(|line| line["step"].as_u64()).unwrap_or(0)
    }

    /// The names of a run's checkpoints, oldest first.
    fn checkpoints(&self, run: &str) -> Vec<String> {
        let list = disentangle::checkpoint::list(&self.path(run)).unwrap();
        list.into_iter().map(|(_, path)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }
}

/// A PNG of some colours.
fn picture(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let colour = |x: u32, y: u32| [x * 12 + seed * 31, y * 15 + seed * 57, (x * y + seed * 83) * 3].map(|v| v as u8);
    encode(image::RgbImage::from_fn(width, height, |x, y| image::Rgb(colour(x, y))), image::ImageFormat::Png)
}

fn encode(picture: impl Into<image::DynamicImage>, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.into().write_to(&mut std::io::Cursor::new(&mut bytes), format).unwrap();
    bytes
}

/// Copies the files of a folder.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
