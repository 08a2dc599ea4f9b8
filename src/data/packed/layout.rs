//! The bytes of a packed file, and every check that a reader's trust rests on.

use std::collections::HashSet;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

use crate::data::catalog::{Catalog, Encoding, Sample};
use crate::data::source::{Excluded, Factor, MAX_PIXELS};

/// First bytes of a packed file. The first is no ASCII, the last two turn up changed after a transfer as text.
pub const MAGIC: [u8; 8] = *b"\x89CDPACK\n";
/// The format described here.
pub const VERSION: u32 = 1;
/// Read as another number on a machine of the other byte order.
const BYTE_ORDER: u32 = 0x0102_0304;
/// Where the payload begins: a page, so that images of whole pages lie on pages.
pub const PAYLOAD_START: usize = 4096;
/// Bytes of payload under one checksum.
pub const BLOCK_BYTES: u32 = 1 << 18;
/// The tables begin at a multiple of this.
const TABLE_ALIGN: u64 = 64;

/// The first bytes of the file; the rest of the first page is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    magic: [u8; 8],
    byte_order: u32,
    version: u32,
    /// Of the whole file.
    file_bytes: u64,
    payload_bytes: u64,
    samples: u64,
    factors: u32,
    block_bytes: u32,
    names_bytes: u64,
    meta_bytes: u64,
    /// See [`Catalog::fingerprint`].
    fingerprint: u32,
    /// CRC-32 of all tables.
    tables_crc: u32,
    /// Always 0.
    reserved: u32,
    /// CRC-32 of the header up to here.
    header_crc: u32,
}

const HEADER_BYTES: usize = size_of::<Header>();

/// The JSON table.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    kind: String,
    classes: Vec<String>,
    factors: Vec<FactorMeta>,
    excluded: Vec<Excluded>,
}

/// A factor without its labels, which are a table of their own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FactorMeta {
    name: String,
    values: Vec<String>,
}

/// A packed file's parts, owned: nothing here can change under the reader any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// The data set without its pixels.
    pub catalog: Catalog,
    /// CRC-32 of each block of the payload.
    pub block_crcs: Vec<u32>,
}

/// Places of the tables in the file, in order and without gaps.
struct Places {
    samples: Range<usize>,
    factors: Range<usize>,
    blocks: Range<usize>,
    names: Range<usize>,
    meta: Range<usize>,
}

impl Header {
    /// Lays the tables out; `None` if a count does not fit into the file or the memory of any machine.
    fn places(&self) -> Option<Places> {
        let blocks = self.payload_bytes.div_ceil(u64::from(self.block_bytes));
        let start = (PAYLOAD_START as u64).checked_add(self.payload_bytes)?.checked_next_multiple_of(TABLE_ALIGN)?;
        let lengths = [
            self.samples.checked_mul(size_of::<Sample>() as u64)?,
            self.samples.checked_mul(u64::from(self.factors))?.checked_mul(4)?,
            blocks.checked_mul(4)?,
            self.names_bytes,
            self.meta_bytes,
        ];
        let mut at = start;
        let mut next = |length: u64| {
            let end = at.checked_add(length)?;
            let range = usize::try_from(at).ok()?..usize::try_from(end).ok()?;
            at = end;
            Some(range)
        };
        let [samples, factors, blocks, names, meta] = lengths;
        let places = Places {
            samples: next(samples)?,
            factors: next(factors)?,
            blocks: next(blocks)?,
            names: next(names)?,
            meta: next(meta)?,
        };
        (at == self.file_bytes).then_some(places)
    }

    /// The bytes under the header's own checksum.
    fn checked_bytes(&self) -> &[u8] {
        &bytemuck::bytes_of(self)[..HEADER_BYTES - 4]
    }
}

/// The first page of a file and its tables, as bytes.
pub fn encode(contents: &Contents) -> (Vec<u8>, Vec<u8>) {
    let Contents { catalog, block_crcs } = contents;
    let factor = |f: &Factor| FactorMeta { name: f.name.clone(), values: f.values.clone() };
    let meta = Meta {
        kind: catalog.kind.clone(),
        classes: catalog.classes.clone(),
        factors: catalog.factors.iter().map(factor).collect(),
        excluded: catalog.excluded.clone(),
    };
    let meta = serde_json::to_vec(&meta).expect("strings and lists have a JSON form");
    let payload_bytes = catalog.payload_bytes();
    let end = PAYLOAD_START as u64 + payload_bytes;
    let mut tables = vec![0; (end.next_multiple_of(TABLE_ALIGN) - end) as usize];
    let padding = tables.len();
    tables.extend_from_slice(bytemuck::cast_slice(&catalog.samples));
    catalog.factors.iter().for_each(|factor| tables.extend_from_slice(bytemuck::cast_slice(&factor.labels)));
    tables.extend_from_slice(bytemuck::cast_slice(block_crcs));
    tables.extend_from_slice(catalog.names.as_bytes());
    tables.extend_from_slice(&meta);
    let mut header = Header {
        magic: MAGIC,
        byte_order: BYTE_ORDER,
        version: VERSION,
        file_bytes: end + tables.len() as u64,
        payload_bytes,
        samples: catalog.samples.len() as u64,
        factors: catalog.factors.len() as u32,
        block_bytes: BLOCK_BYTES,
        names_bytes: catalog.names.len() as u64,
        meta_bytes: meta.len() as u64,
        fingerprint: catalog.fingerprint,
        tables_crc: crc32fast::hash(&tables[padding..]),
        reserved: 0,
        header_crc: 0,
    };
    header.header_crc = crc32fast::hash(header.checked_bytes());
    let mut page = bytemuck::bytes_of(&header).to_vec();
    page.resize(PAYLOAD_START, 0);
    (page, tables)
}

/// Reads header and tables of a packed file, `file`, without touching its payload, and checks all that a reader will trust:
/// that the file is whole; that every image lies in the payload, right after the one before; sizes, labels and names.
///
/// # Errors
/// What is wrong, for people.
pub fn decode(file: &[u8]) -> Result<Contents, String> {
    let header = header(file)?;
    if crc32fast::hash(header.checked_bytes()) != header.header_crc {
        return Err("damaged header: wrong checksum".into());
    }
    if header.file_bytes != file.len() as u64 {
        return Err(format!(
            "{} bytes long, but {} were written: copy or pack it again",
            file.len(),
            header.file_bytes
        ));
    }
    let places = header.places().ok_or("damaged header: its counts do not make a file of this size")?;
    // From here on every range lies in the file.
    if crc32fast::hash(&file[places.samples.start..]) != header.tables_crc {
        return Err("damaged tables: wrong checksum: copy or pack it again".into());
    }
    let numbers =
        |range: Range<usize>| -> Vec<u32> { file[range].chunks_exact(4).map(bytemuck::pod_read_unaligned).collect() };
    let names = std::str::from_utf8(&file[places.names]).map_err(|_| "names that are not UTF-8")?;
    let meta: Meta = serde_json::from_slice(&file[places.meta]).map_err(|e| format!("unreadable description: {e}"))?;
    if meta.factors.len() != header.factors as usize {
        return Err(format!("{} factors described, {} counted", meta.factors.len(), header.factors));
    }
    let samples = file[places.samples].chunks_exact(size_of::<Sample>()).map(bytemuck::pod_read_unaligned).collect();
    let labels = numbers(places.factors);
    let factors = meta.factors.into_iter().enumerate().map(|(f, FactorMeta { name, values })| {
        let n = header.samples as usize;
        Factor { name, values, labels: labels[f * n..(f + 1) * n].to_vec() }
    });
    let catalog = Catalog {
        kind: meta.kind,
        classes: meta.classes,
        factors: factors.collect(),
        excluded: meta.excluded,
        fingerprint: header.fingerprint,
        samples,
        names: names.to_owned(),
    };
    check(&catalog, &header)?;
    Ok(Contents { catalog, block_crcs: numbers(places.blocks) })
}

fn header(file: &[u8]) -> Result<Header, String> {
    if !file.starts_with(&MAGIC) {
        return Err("not a packed file: `disentangle pack` makes one".into());
    }
    let header: Header = match file.get(..HEADER_BYTES) {
        Some(bytes) if file.len() >= PAYLOAD_START => bytemuck::pod_read_unaligned(bytes),
        _ => return Err(format!("cut short after {} bytes: copy or pack it again", file.len())),
    };
    if header.byte_order != BYTE_ORDER {
        return Err("written on a machine of the other byte order: pack it again here".into());
    }
    if header.version != VERSION {
        let version = header.version;
        return Err(format!("version {version} of the format, this program reads {VERSION}: pack it again"));
    }
    if header.block_bytes != BLOCK_BYTES {
        return Err(format!("damaged header: blocks of {} bytes", header.block_bytes));
    }
    Ok(header)
}

/// Checks what checksums cannot: that a writer told the truth.
fn check(catalog: &Catalog, header: &Header) -> Result<(), String> {
    if catalog.samples.is_empty() {
        return Err("no images in it".into());
    }
    let (mut offset, mut name_start, mut names) = (0, 0, HashSet::new());
    for (i, sample) in catalog.samples.iter().enumerate() {
        let wrong = |what: String| format!("image {i}: {what}");
        let name = usize::try_from(sample.name_end).ok().and_then(|end| catalog.names.get(name_start..end));
        let name = name.filter(|name| !name.is_empty()).ok_or_else(|| wrong("its name is not in the table".into()))?;
        if !names.insert(name) {
            return Err(wrong(format!("a second image called {name}")));
        }
        check_sample(sample, catalog.classes.len()).map_err(|what| wrong(format!("{name}: {what}")))?;
        if sample.offset != offset {
            return Err(wrong(format!("{name}: lies at {} instead of {offset}", sample.offset)));
        }
        offset = sample.range().end;
        name_start += name.len();
    }
    if offset != header.payload_bytes || name_start != catalog.names.len() {
        return Err(format!("the images fill {offset} of {} bytes", header.payload_bytes));
    }
    check_texts(catalog)?;
    for factor in &catalog.factors {
        if let Some(label) = factor.labels.iter().find(|&&label| label as usize >= factor.values.len()) {
            return Err(format!("factor {}: label {label} of {} values", factor.name, factor.values.len()));
        }
    }
    Ok(())
}

/// Texts reach terminals, and files of lines: no control characters may hide in them. (Sources write them as `\xNN`.)
fn check_texts(catalog: &Catalog) -> Result<(), String> {
    let factors = catalog.factors.iter().flat_map(|factor| factor.values.iter().chain([&factor.name]));
    let excluded = catalog.excluded.iter().flat_map(|excluded| [&excluded.name, &excluded.reason]);
    let texts = catalog.classes.iter().chain(factors).chain(excluded).chain([&catalog.kind, &catalog.names]);
    match texts.into_iter().find(|text| text.chars().any(char::is_control)) {
        Some(_) => Err("a name or a description in it has control characters".into()),
        None => Ok(()),
    }
}

fn check_sample(sample: &Sample, classes: usize) -> Result<(), String> {
    let (width, height) = (sample.width, sample.height);
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(format!("a size of {width} x {height} pixels"));
    }
    let whole = match sample.encoding() {
        Some(Encoding::Raw) => u64::from(sample.bytes) == sample.raw_bytes(),
        Some(Encoding::Jpeg) => sample.bytes > 0,
        None => return Err(format!("encoding {} is not known", sample.encoding)),
    };
    if !whole {
        return Err(format!("{} bytes for {width} x {height} pixels", sample.bytes));
    }
    if sample.label().is_some_and(|label| label as usize >= classes) {
        return Err(format!("label {} of {classes} classes", sample.label));
    }
    if sample.offset.checked_add(u64::from(sample.bytes)).is_none() {
        return Err(format!("lies at {}", sample.offset));
    }
    Ok(())
}
