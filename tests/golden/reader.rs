//! Golden files: a `.safetensors` file with a `.json` sidecar that describes it.
//!
//! What a test reads is noted: a tensor that no test looked at is a failure, so that a file cannot hold references that are
//! silently ignored.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// What a golden file holds references for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NtXent,
    Feature,
    Layers,
    Adam,
    Cosine,
    Model,
    Augment,
    Metrics,
}

/// A kind, how its files' names start, and last parts of tensor names that only this kind has (for files named otherwise).
const KINDS: [(Kind, &str, &[&str]); 8] = [
    (Kind::NtXent, "ntxent", &["dz1"]),
    (Kind::Feature, "feature", &["dfeat_dy1"]),
    (Kind::Layers, "layers", &["running_mean_in", "indices", "dw"]),
    (Kind::Adam, "adam", &["p0_in"]),
    (Kind::Cosine, "cosine", &["closed_form"]),
    (Kind::Model, "model", &["h1_eval"]),
    (Kind::Augment, "augment", &["image"]),
    (Kind::Metrics, "metrics", &["scores", "matrix", "best_inertia", "inertia"]),
];

/// `tests/golden` and the directories of `GOLDEN_DIR`.
pub fn directories() -> Vec<PathBuf> {
    // Cargo names the folder at run time too, and a bundle that travelled names its own.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut all = vec![Path::new(&root).join("tests/golden")];
    let further = std::env::var_os("GOLDEN_DIR").unwrap_or_default();
    all.extend(std::env::split_paths(&further).filter(|path| !path.as_os_str().is_empty()));
    all
}

/// The golden files of a directory, by name.
///
/// # Panics
/// If the directory cannot be read or holds a sidecar of no known kind.
pub fn files(directory: &Path) -> Vec<(Kind, PathBuf)> {
    let entries = std::fs::read_dir(directory);
    let entries = entries.unwrap_or_else(|e| panic!("golden directory {} (of GOLDEN_DIR?): {e}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    let kind = |path: PathBuf| {
        let sidecar = read_json(&path);
        (kind(&sidecar).unwrap_or_else(|| panic!("{}: not of a known kind", path.display())), path)
    };
    paths.into_iter().map(kind).collect()
}

fn kind(sidecar: &Value) -> Option<Kind> {
    let file = sidecar["file"].as_str()?;
    let tensors = sidecar["tensors"].as_object()?;
    let holds = |leaf: &str| tensors.keys().any(|name| name.rsplit('/').next() == Some(leaf));
    let named = KINDS.iter().find(|(_, prefix, _)| file.starts_with(prefix));
    let found = named.or_else(|| KINDS.iter().find(|(_, _, leaves)| leaves.iter().any(|leaf| holds(leaf))));
    found.map(|&(kind, _, _)| kind)
}

/// Runs `check` on every golden file of a kind; all tensors of a file must be read by it or passed over by name.
pub fn each(kind: Kind, check: impl Fn(&Golden)) {
    for (i, directory) in directories().iter().enumerate() {
        let of_kind: Vec<_> = files(directory).into_iter().filter(|(k, _)| *k == kind).collect();
        assert!(i > 0 || !of_kind.is_empty(), "{} holds no file of kind {kind:?}", directory.display());
        for (_, path) in of_kind {
            let golden = Golden::open(path);
            check(&golden);
            golden.assert_all_read();
        }
    }
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An array of a golden file.
#[derive(Clone)]
pub struct Array {
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Exact for every type the files hold.
    pub values: Vec<f64>,
    /// Whether it is stored in single precision: for a result, that it was rounded.
    pub single: bool,
}

impl Array {
    /// Images NCHW to NHWC, filters OIHW to KRSC; other ranks are the same in both layouts.
    pub fn channels_last(&self) -> Array {
        let &[n, c, h, w] = self.shape.as_slice() else { return self.clone() };
        let source = |i: usize| (i / (h * w * c) * c + i % c) * h * w + i / c % (h * w);
        let values = (0..self.values.len()).map(|i| self.values[source(i)]).collect();
        Array { shape: vec![n, h, w, c], values, single: self.single }
    }

    /// One array over another: two views as a batch.
    pub fn over(&self, below: &Array) -> Array {
        assert_eq!(self.shape[1..], below.shape[1..], "views of different shapes");
        let mut shape = self.shape.clone();
        shape[0] += below.shape[0];
        Array { shape, values: [&self.values[..], &below.values[..]].concat(), single: self.single && below.single }
    }

    /// Elements changed one by one.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Array {
        Array { values: self.values.iter().map(|&x| f(x)).collect(), ..self.clone() }
    }
}

/// An open golden file.
pub struct Golden {
    /// The sidecar's path.
    pub path: PathBuf,
    /// The sidecar.
    pub sidecar: Value,
    bytes: Vec<u8>,
    read: RefCell<BTreeSet<String>>,
}

impl Golden {
    fn open(path: PathBuf) -> Self {
        let sidecar = read_json(&path);
        let file = path.with_file_name(sidecar["file"].as_str().expect("the sidecar names its file"));
        let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Golden { path, sidecar, bytes, read: RefCell::default() }
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sidecar["tensors"].as_object().expect("tensors").keys().map(String::as_str)
    }

    /// First parts of the tensors' names, each once: the cases of a file.
    pub fn cases(&self) -> BTreeSet<&str> {
        self.names().filter_map(|name| Some(name.split_once('/')?.0)).collect()
    }

    /// The part of the names between `prefix` and the next slash, each once.
    pub fn parts_after(&self, prefix: &str) -> BTreeSet<&str> {
        self.names().filter_map(|name| Some(name.strip_prefix(prefix)?.split_once('/')?.0)).collect()
    }

    /// What comes before `/leaf` in the names that end so.
    pub fn cases_with(&self, leaf: &str) -> Vec<&str> {
        self.names().filter_map(|name| name.strip_suffix(leaf)?.strip_suffix('/')).collect()
    }

    /// Whether there is such a tensor.
    pub fn holds(&self, name: &str) -> bool {
        !self.sidecar["tensors"][name].is_null()
    }

    /// What the sidecar says of a tensor.
    pub fn entry(&self, name: &str) -> &Value {
        &self.sidecar["tensors"][name]
    }

    /// A text of the sidecar, by its path of keys.
    pub fn text(&self, keys: &[&str]) -> &str {
        let value = keys.iter().fold(&self.sidecar, |value, key| &value[key]);
        value.as_str().unwrap_or_else(|| panic!("{}: no text {keys:?}", self.path.display()))
    }

    /// A number of the sidecar, by its path of keys.
    pub fn number(&self, keys: &[&str]) -> f64 {
        let value = keys.iter().fold(&self.sidecar, |value, key| &value[key]);
        value.as_f64().unwrap_or_else(|| panic!("{}: no number {keys:?}", self.path.display()))
    }

    /// A tensor's bytes as stored, with its shape.
    pub fn raw(&self, name: &str) -> (&[u8], Vec<usize>) {
        let view = self.view(name);
        (view.data(), view.shape().to_vec())
    }

    /// A tensor as f64.
    pub fn array(&self, name: &str) -> Array {
        let view = self.view(name);
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
            Dtype::I32 => data.as_chunks().0.iter().map(|&b| f64::from(i32::from_le_bytes(b))).collect(),
            other => panic!("{}: {name} is {other:?}", self.path.display()),
        };
        Array { shape: view.shape().to_vec(), values, single: view.dtype() == Dtype::F32 }
    }

    /// A tensor of one element.
    pub fn scalar(&self, name: &str) -> f64 {
        let array = self.array(name);
        assert_eq!(array.values.len(), 1, "{}: {name} is a scalar", self.path.display());
        array.values[0]
    }

    /// Notes a tensor as known but not compared; the caller says why in a comment.
    pub fn pass_over(&self, name: &str) {
        assert!(self.holds(name), "{}: no tensor {name}", self.path.display());
        self.read.borrow_mut().insert(name.to_owned());
    }

    fn view(&self, name: &str) -> safetensors::tensor::TensorView<'_> {
        self.pass_over(name);
        let place = || format!("{}: {name}", self.path.display());
        let view = SafeTensors::deserialize(&self.bytes).and_then(|file| file.tensor(name));
        let view = view.unwrap_or_else(|e| panic!("{}: {e}", place()));
        let described: Vec<u64> =
            self.entry(name)["shape"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let stored: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
        assert_eq!(described, stored, "{}: shapes of sidecar and file", place());
        view
    }

    fn assert_all_read(&self) {
        let read = self.read.borrow();
        let unread: Vec<_> = self.names().filter(|name| !read.contains(*name)).collect();
        assert!(unread.is_empty(), "{}: no test knows these tensors: {unread:?}", self.path.display());
    }
}

/// The number that follows `key` in a text: `number_after("lr 3e-4, eps 1e-8", "eps ")` is 1e-8.
pub fn number_after(text: &str, key: &str) -> Option<f64> {
    let rest = &text[text.find(key)? + key.len()..];
    let end = rest.find(|c: char| !(c.is_ascii_digit() || ".e-+".contains(c))).unwrap_or(rest.len());
    rest[..end].trim_end_matches(['.', 'e', '-', '+']).parse().ok()
}
