//! Embedding files: arrays for NumPy and a table of the samples.

use crate::atomic_file::write_atomically;
use crate::{Error, Result};
use npyz::WriterBuilder;
use std::io::Write;
use std::path::Path;

/// Writes `data` as a `.npy` file (version 1.0, little-endian float32, C order) of `shape`, whole or not at all.
///
/// # Errors
/// [`Error::Shape`] if the length of `data` is not the product of `shape`; [`Error::Io`] if the file cannot be written.
pub fn write_npy_f32(path: &Path, data: &[f32], shape: &[usize]) -> Result<()> {
    let size = shape.iter().try_fold(1usize, |size, &side| size.checked_mul(side));
    if size != Some(data.len()) {
        return Err(Error::shape("write_npy_f32", format!("{} numbers for the shape {shape:?}", data.len())));
    }
    let shape: Vec<u64> = shape.iter().map(|&side| side as u64).collect();
    write_atomically(path, |file| {
        let mut array = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file).begin_nd()?;
        array.extend(data.iter().copied())?;
        array.finish()
    })
}

/// A column of a table: a name and one entry per row.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    /// The heading.
    pub name: &'a str,
    /// The entries.
    pub entries: Entries<'a>,
}

/// The entries of a column.
#[derive(Clone, Copy, Debug)]
pub enum Entries<'a> {
    /// Text, quoted where CSV asks for it.
    Text(&'a [String]),
    /// Numbers.
    Numbers(&'a [u32]),
    /// Numbers some rows lack (labels of unlabelled images): those cells are empty.
    MaybeNumbers(&'a [Option<u32>]),
    /// Measured values, in the shortest decimal form that reads back as the same number.
    Measures(&'a [f32]),
}

impl Entries<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Entries::Text(entries) => entries.len(),
            Entries::Numbers(entries) => entries.len(),
            Entries::MaybeNumbers(entries) => entries.len(),
            Entries::Measures(entries) => entries.len(),
        }
    }

    /// Writes the entry of `row` over `cell`.
    fn render(&self, row: usize, cell: &mut Vec<u8>) -> std::io::Result<()> {
        cell.clear();
        match self {
            Entries::Text(entries) => write!(cell, "{}", entries[row]),
            Entries::Numbers(entries) => write!(cell, "{}", entries[row]),
            Entries::MaybeNumbers(entries) => entries[row].map_or(Ok(()), |entry| write!(cell, "{entry}")),
            Entries::Measures(entries) => write!(cell, "{}", entries[row]),
        }
    }
}

/// Writes `columns` as comma-separated values (RFC 4180, a heading first, lines ended by `\n`), whole or not at all.
///
/// # Errors
/// [`Error::Shape`] if there are no columns or they differ in length; [`Error::Io`] if the file cannot be written.
pub fn write_table(path: &Path, columns: &[Column]) -> Result<()> {
    let Some(rows) = columns.first().map(|column| column.entries.len()) else {
        return Err(Error::shape("write_table", "no columns"));
    };
    if let Some(other) = columns.iter().find(|column| column.entries.len() != rows) {
        let (name, entries) = (other.name, other.entries.len());
        return Err(Error::shape("write_table", format!("column {name} has {entries} entries, the first has {rows}")));
    }
    write_atomically(path, |file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(columns.iter().map(|column| column.name))?;
        let mut cell = Vec::new();
        for row in 0..rows {
            for column in columns {
                column.entries.render(row, &mut cell)?;
                table.write_field(&cell)?;
            }
            table.write_record(None::<&[u8]>)?;
        }
        table.flush()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.npy");
        let data = [0.0f32, -1.5, f32::MIN_POSITIVE, 3e38, f32::NAN, 0.1];
        write_npy_f32(&path, &data, &[2, 3]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        // The format's own terms: magic, version, a header that pads the data to 64 bytes.
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        assert!((bytes.len() - data.len() * 4).is_multiple_of(64));
        let array = npyz::NpyFile::new(&bytes[..]).unwrap();
        assert_eq!((array.shape(), array.order()), (&[2, 3][..], npyz::Order::C));
        let read: Vec<f32> = array.into_vec().unwrap();
        assert!(read.iter().zip(&data).all(|(a, b)| a.to_bits() == b.to_bits()) && read.len() == data.len());
        write_npy_f32(&path, &[], &[0, 128]).unwrap();
        assert!(matches!(write_npy_f32(&path, &data, &[2, 2]), Err(Error::Shape { .. })));
        assert!(matches!(write_npy_f32(&path, &data, &[usize::MAX, 2]), Err(Error::Shape { .. })));
    }

    #[test]
    fn tables_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.csv");
        let names = ["plain.png".to_string(), "with, comma \"and\" quotes.png".to_string(), String::new()];
        let columns = [
            Column { name: "index", entries: Entries::Numbers(&[0, 1, 2]) },
            Column { name: "name", entries: Entries::Text(&names) },
            Column { name: "label", entries: Entries::MaybeNumbers(&[Some(7), None, Some(0)]) },
            Column { name: "distance", entries: Entries::Measures(&[0.1, 1e-8, 2.0]) },
        ];
        write_table(&path, &columns).unwrap();
        let expected = "index,name,label,distance\n0,plain.png,7,0.1\n1,\"with, comma \"\"and\"\" quotes.png\",,0.00000001\n2,,0,2\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        // One column with empty cells must not lose rows.
        write_table(&path, &columns[2..3]).unwrap();
        let rows = csv::Reader::from_path(&path).unwrap().into_records().filter(|r| r.is_ok()).count();
        assert_eq!(rows, 3);
        let short = [columns[0], Column { name: "label", entries: Entries::Numbers(&[1]) }];
        assert!(write_table(&path, &short).unwrap_err().to_string().contains("label"));
        assert!(write_table(&path, &[]).is_err());
    }
}
