//! Checkpoints: a model, its optimiser and its position in a run, as one safetensors file.
//!
//! Tensors are float32 under torchvision's names and in its orders (`backbone.conv1.weight` OIHW, ...), so that
//! `safetensors.torch.load_file` and `load_state_dict` read them as they are; Adam's moments stand beside them as
//! `optimizer.exp_avg.NAME` and `optimizer.exp_avg_sq.NAME`. The header's `__metadata__` holds [`Meta`], a CRC-32 of each
//! tensor and one of the metadata. The same state gives the same bytes.
//!
//! Reading trusts nothing: the `safetensors` crate checks the header, the offsets here are checked again, then the
//! checksums, and only then does anyone see a number.

mod folder;

pub use folder::{Damaged, Newest, best, find, list, load_newest, newest, path_at, prune};

use crate::atomic_file::write_atomically;
use crate::config::Config;
use crate::data::loader::Position;
use crate::loss::LossValues;
use crate::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// What `format` in the metadata says.
const FORMAT: &str = "disentangle.checkpoint";
/// The layout's version: raised when a reader of the previous one would misunderstand.
const FORMAT_VERSION: u32 = 1;
/// Bytes of the header's length in front of the header.
const LENGTH_BYTES: usize = 8;
/// Longest header that is read, in bytes: safetensors' own limit.
const LONGEST_HEADER: u64 = 100_000_000;
/// How the names of what is not the model's but its optimiser's begin.
const OPTIMIZER: &str = "optimizer.";

/// A named float32 array, rows outermost.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// torchvision's name, or `optimizer.exp_avg.NAME`, `optimizer.exp_avg_sq.NAME`.
    pub name: String,
    /// Sides; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many numbers as the product of the sides.
    pub data: Vec<f32>,
}

/// Where a run stood and what it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// Version of the program that wrote the file.
    pub program: String,
    /// The run's full configuration.
    pub config: Config,
    /// Epochs completed.
    pub epoch: u64,
    /// Optimiser steps taken since the beginning.
    pub step: u64,
    /// Steps taken in the epoch that is not complete; 0 at an epoch's end.
    pub step_in_epoch: u64,
    /// The data trained on.
    pub data: DataStamp,
    /// Mean losses of the last epoch (so far).
    pub losses: LossValues,
}

/// Which data a run has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataStamp {
    /// What it is, in words.
    pub description: String,
    /// Number of images.
    pub images: u64,
    /// Checksum of the content; equal data have equal fingerprints.
    pub fingerprint: u64,
}

/// Everything a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Weights, running statistics and the optimiser's moments; no name twice.
    pub tensors: Vec<NamedTensor>,
    /// Position and origin.
    pub meta: Meta,
}

/// `__metadata__` of a file: strings under stable keys.
type Metadata = BTreeMap<String, String>;

impl Checkpoint {
    /// Writes the file at `path` whole or not at all (see [`write_atomically`]).
    ///
    /// Errors: [`Error::Shape`] if a tensor's data do not fill its shape or a name stands twice; [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let header = self.header()?;
        write_atomically(path, |file| {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            self.tensors.iter().try_for_each(|tensor| write_floats(file, &tensor.data))
        })
    }

    /// Reads and checks the file at `path`.
    ///
    /// Errors: [`Error::Io`] if it cannot be read; [`Error::Format`], in one line that names the file, if it is no
    /// checkpoint, was written by a newer version, is cut short or has changed since it was written.
    pub fn load(path: &Path) -> Result<Checkpoint> {
        Checkpoint::read(path)?.map_err(|unfit| Error::format(path, unfit.problem()))
    }

    /// [`Checkpoint::load`] that tells damage from a newer version.
    fn read(path: &Path) -> Result<Result<Checkpoint, Unfit>> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Ok(parse(&bytes))
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&NamedTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// [`weights_hash`] of its tensors.
    pub fn weights_hash(&self) -> String {
        weights_hash(&self.tensors)
    }

    /// The file's JSON header, padded with spaces so that the numbers start at a multiple of 8 bytes.
    ///
    /// Written here rather than by the crate, whose metadata is a hash map: its order, and with it the file's bytes,
    /// would differ from run to run.
    fn header(&self) -> Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Entry<'a> {
            dtype: &'static str,
            shape: &'a [usize],
            data_offsets: [usize; 2],
        }
        let (mut header, mut checksums) = (serde_json::Map::new(), BTreeMap::new());
        let mut end = 0;
        for NamedTensor { name, shape, data } in &self.tensors {
            let size = shape.iter().try_fold(1usize, |size, &side| size.checked_mul(side));
            if size != Some(data.len()) {
                return Err(Error::shape("checkpoint", format!("{name}: {} numbers for {shape:?}", data.len())));
            }
            let start = end;
            end += 4 * data.len();
            let entry = json(&Entry { dtype: "F32", shape, data_offsets: [start, end] });
            if header.insert(name.clone(), entry).is_some() || name == "__metadata__" {
                return Err(Error::shape("checkpoint", format!("two tensors called {name}")));
            }
            checksums.insert(name.clone(), hex(tensor_crc32(shape, data)));
        }
        let mut metadata = self.meta.to_metadata();
        metadata.insert("tensor_crc32".to_owned(), json(&checksums).to_string());
        metadata.insert("metadata_crc32".to_owned(), hex(metadata_crc32(&metadata)));
        header.insert("__metadata__".to_owned(), json(&metadata));
        let mut text = serde_json::Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(LENGTH_BYTES), b' ');
        Ok(text)
    }
}

/// Why the content of a file is not a checkpoint to go on from.
#[derive(Debug)]
enum Unfit {
    /// It is no checkpoint, or not the one that was written.
    Damaged(String),
    /// It was written by a later version of the program.
    Newer(String),
}

impl Unfit {
    /// What is wrong, in a user's words.
    fn problem(self) -> String {
        match self {
            Unfit::Damaged(problem) | Unfit::Newer(problem) => problem,
        }
    }
}

impl From<String> for Unfit {
    fn from(problem: String) -> Self {
        Unfit::Damaged(problem)
    }
}

impl From<&str> for Unfit {
    fn from(problem: &str) -> Self {
        Unfit::Damaged(problem.to_owned())
    }
}

/// Says which weights a model has: xxh3, 128 bits, in hexadecimal, over name, shape and float32 bytes of every tensor but
/// the optimiser's, in the order of their names. Equal weights have equal hashes whatever wrote them.
pub fn weights_hash(tensors: &[NamedTensor]) -> String {
    let mut model: Vec<&NamedTensor> = tensors.iter().filter(|t| !t.name.starts_with(OPTIMIZER)).collect();
    model.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Xxh3::new();
    for NamedTensor { name, shape, data } in model {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&(shape.len() as u64).to_le_bytes());
        shape.iter().for_each(|&side| hash.update(&(side as u64).to_le_bytes()));
        little_endian(data, |bytes| hash.update(bytes));
    }
    format!("{:032x}", hash.digest128())
}

impl Meta {
    /// Reads the header of the file at `path` and nothing of its numbers: whether it is whole is known by its length alone.
    ///
    /// Errors: as [`Checkpoint::load`].
    pub fn read(path: &Path) -> Result<Meta> {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let mut header = Vec::new();
        let mut read = || -> io::Result<(u64, u64)> {
            let mut length = [0; LENGTH_BYTES];
            file.read_exact(&mut length)?;
            let length = u64::from_le_bytes(length);
            (&mut file).take(length.min(LONGEST_HEADER)).read_to_end(&mut header)?;
            Ok((length, file.metadata()?.len()))
        };
        let (length, file_bytes) = match read() {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => (u64::MAX, 0),
            read => read.map_err(Error::io("read", path))?,
        };
        let whole = header.len() as u64 == length;
        let meta = if whole { parse_header(&header, file_bytes) } else { Err("cut short or damaged".into()) };
        meta.map_err(|unfit| Error::format(path, unfit.problem()))
    }

    /// The step that would have been next.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, step: self.step_in_epoch }
    }

    /// The strings of a file's `__metadata__`.
    fn to_metadata(&self) -> Metadata {
        let LossValues { total, instance, feature, entropy } = self.losses;
        let entries = [
            ("format", FORMAT.to_owned()),
            ("format_version", FORMAT_VERSION.to_string()),
            ("program", self.program.clone()),
            ("config", self.config.to_toml()),
            ("epoch", self.epoch.to_string()),
            ("step", self.step.to_string()),
            ("step_in_epoch", self.step_in_epoch.to_string()),
            ("data", self.data.description.clone()),
            ("data_images", self.data.images.to_string()),
            ("data_fingerprint", format!("{:016x}", self.data.fingerprint)),
            ("losses", format!("{total} {instance} {feature} {entropy}")), // NaN is no JSON
        ];
        entries.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// The reverse of [`Meta::to_metadata`].
    fn from_metadata(metadata: &Metadata) -> Result<Meta, String> {
        let text = |key: &str| metadata.get(key).cloned().ok_or_else(|| format!("its metadata lack '{key}'"));
        let bad = |key: &str| format!("its metadata's '{key}' makes no sense");
        let number = |key: &str| text(key)?.parse::<u64>().map_err(|_| bad(key));
        let losses: Vec<f64> = text("losses")?.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [total, instance, feature, entropy] = losses[..] else { return Err(bad("losses")) };
        let fingerprint = u64::from_str_radix(&text("data_fingerprint")?, 16).map_err(|_| bad("data_fingerprint"))?;
        Ok(Meta {
            program: text("program")?,
            config: Config::from_toml(&text("config")?, "its configuration").map_err(|error| error.to_string())?,
            epoch: number("epoch")?,
            step: number("step")?,
            step_in_epoch: number("step_in_epoch")?,
            data: DataStamp { description: text("data")?, images: number("data_images")?, fingerprint },
            losses: LossValues { total, instance, feature, entropy },
        })
    }
}

/// The metadata of a header of a file of so many bytes.
fn parse_header(header: &[u8], file_bytes: u64) -> Result<Meta, Unfit> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        metadata: Metadata,
        #[serde(flatten)]
        tensors: HashMap<String, Place>,
    }
    #[derive(Deserialize)]
    struct Place {
        data_offsets: [u64; 2],
    }
    let Header { metadata, tensors } =
        serde_json::from_slice(header).map_err(|error| format!("its header makes no sense ({error})"))?;
    check_format(&metadata)?;
    let numbers = tensors.values().map(|tensor| tensor.data_offsets[1]).max().unwrap_or(0);
    let expected = numbers.checked_add((LENGTH_BYTES + header.len()) as u64);
    if expected != Some(file_bytes) {
        return Err(format!("cut short or damaged ({file_bytes} bytes)").into());
    }
    Ok(Meta::from_metadata(&metadata)?)
}

/// Reads a whole file's bytes, or says what is wrong with them.
fn parse(bytes: &[u8]) -> Result<Checkpoint, Unfit> {
    let (header_len, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| unreadable(bytes, &error.to_string()))?;
    let metadata: Metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    check_format(&metadata)?;
    let checksums: HashMap<String, String> = metadata
        .get("tensor_crc32")
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or("its metadata lack the tensors' checksums")?;
    let meta = Meta::from_metadata(&metadata)?;
    let numbers = LENGTH_BYTES.checked_add(header_len).and_then(|start| bytes.get(start..)).unwrap_or_default();
    let mut tensors = Vec::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        if info.dtype != Dtype::F32 {
            return Err(format!("tensor '{name}' is {:?}, expected F32", info.dtype).into());
        }
        let (start, end) = info.data_offsets;
        let data = numbers.get(start..end).ok_or_else(|| format!("tensor '{name}' lies outside the file"))?;
        let data: Vec<f32> = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if checksums.get(&name) != Some(&hex(tensor_crc32(&info.shape, &data))) {
            return Err(
                format!("checksum mismatch in tensor '{name}': the file has changed since it was written").into()
            );
        }
        tensors.push(NamedTensor { name, shape: info.shape.clone(), data });
    }
    if tensors.len() != checksums.len() {
        return Err(format!("{} tensors where {} were written", tensors.len(), checksums.len()).into());
    }
    Ok(Checkpoint { tensors, meta })
}

/// Why the header cannot be read, in a user's words.
fn unreadable(bytes: &[u8], crate_says: &str) -> String {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    match (length, bytes.get(LENGTH_BYTES)) {
        (Some(length), Some(b'{')) if length <= LONGEST_HEADER => {
            format!("a safetensors file that is cut short or damaged ({crate_says}, {} bytes)", bytes.len())
        }
        _ => format!("not a checkpoint: no safetensors header ({crate_says})"),
    }
}

/// Checks name, version and checksum of the metadata.
fn check_format(metadata: &Metadata) -> Result<(), Unfit> {
    if metadata.get("format").is_none_or(|format| format != FORMAT) {
        return Err("a safetensors file, but not a checkpoint of this program".into());
    }
    let version = metadata.get("format_version").and_then(|version| version.parse::<u32>().ok());
    match version {
        Some(FORMAT_VERSION) => {}
        Some(version) if version > FORMAT_VERSION => {
            let writer = metadata.get("program").map_or("?", String::as_str);
            return Err(Unfit::Newer(format!(
                "checkpoint format {version}, written by disentangle {writer}; this is {}, which reads format {FORMAT_VERSION}",
                env!("CARGO_PKG_VERSION")
            )));
        }
        _ => return Err("its metadata's 'format_version' makes no sense".into()),
    }
    if metadata.get("metadata_crc32") != Some(&hex(metadata_crc32(metadata))) {
        return Err("checksum mismatch in the metadata: the file has changed since it was written".into());
    }
    Ok(())
}

/// CRC-32 of all keys and values but its own, each closed by a 0 byte.
fn metadata_crc32(metadata: &Metadata) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for (key, value) in metadata.iter().filter(|(key, _)| *key != "metadata_crc32") {
        [key.as_bytes(), &[0], value.as_bytes(), &[0]].iter().for_each(|bytes| crc.update(bytes));
    }
    crc.finalize()
}

/// CRC-32 of the shape (each side as a little-endian u64) and the numbers as they lie in the file.
///
/// The shape is in it because other sides can have the same product, above all for empty tensors.
fn tensor_crc32(shape: &[usize], data: &[f32]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    shape.iter().for_each(|&side| crc.update(&(side as u64).to_le_bytes()));
    little_endian(data, |bytes| crc.update(bytes));
    crc.finalize()
}

/// Writes the numbers, little-endian.
fn write_floats(file: &mut dyn Write, data: &[f32]) -> io::Result<()> {
    let mut result = Ok(());
    little_endian(data, |bytes| {
        if result.is_ok() {
            result = file.write_all(bytes);
        }
    });
    result
}

/// Hands over the numbers' little-endian bytes, in place where the machine is little-endian.
fn little_endian(data: &[f32], mut take: impl FnMut(&[u8])) {
    if cfg!(target_endian = "little") {
        take(bytemuck::cast_slice(data));
    } else {
        data.iter().for_each(|x| take(&x.to_le_bytes()));
    }
}

/// Eight hexadecimal digits.
fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}

/// `value` as JSON. The types it is called with have string keys and integers only, which cannot fail.
fn json<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).expect("maps of strings and integers are JSON")
}
