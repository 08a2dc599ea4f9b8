//! Tables as Parquet files: typed columns, and vectors as lists of floats.

use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::arrays::{Column, Entries};
use crate::atomic_file::{WriteSeek, write_atomically};
use crate::{Error, Result};

/// Rows in a group: bounds what is held besides the columns.
const GROUP: usize = 1 << 14;

/// A column of vectors, all of one length.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    /// The heading.
    pub name: &'a str,
    /// Row-major.
    pub values: &'a [f32],
    /// Numbers in a row, at least 1.
    pub dim: usize,
}

/// Writes `columns` and `vectors` as a Parquet file, whole or not at all: text as strings, numbers as 32-bit integers
/// (missing ones null), measures as floats, vectors as lists of floats.
///
/// # Errors
/// [`Error::Shape`] if there are no columns or they differ in length; [`Error::Io`] if the file cannot be written.
pub fn write_parquet(path: &Path, columns: &[Column], vectors: &[Vectors]) -> Result<()> {
    let lengths = columns.iter().map(|column| column.entries.len());
    let lengths: Vec<usize> = lengths.chain(vectors.iter().map(|v| v.values.len() / v.dim.max(1))).collect();
    let Some(&rows) = lengths.first() else { return Err(Error::shape("write_parquet", "no columns")) };
    if lengths.iter().any(|&length| length != rows) {
        return Err(Error::shape("write_parquet", format!("columns of {lengths:?} rows")));
    }
    write_atomically(path, |file| {
        write(file, columns, vectors, rows).map_err(|e| match e {
            ParquetError::External(e) => std::io::Error::other(e),
            e => std::io::Error::other(e.to_string()),
        })
    })
}

fn write(file: &mut dyn WriteSeek, columns: &[Column], vectors: &[Vectors], rows: usize) -> Result<(), ParquetError> {
    let fields = columns.iter().map(|column| {
        let kind = match column.entries {
            Entries::Text(_) => ("REQUIRED BYTE_ARRAY", " (STRING)"),
            Entries::Numbers(_) => ("REQUIRED INT32", ""),
            Entries::MaybeNumbers(_) => ("OPTIONAL INT32", ""),
            Entries::Measures(_) => ("REQUIRED FLOAT", ""),
        };
        format!("{} {}{};", kind.0, column.name, kind.1)
    });
    let lists = vectors.iter().map(|vectors| {
        format!("REQUIRED group {} (LIST) {{ REPEATED group list {{ REQUIRED FLOAT element; }} }}", vectors.name)
    });
    let schema = format!("message rows {{ {} }}", fields.chain(lists).collect::<Vec<_>>().join(" "));
    let properties = WriterProperties::builder().set_created_by(format!("disentangle {}", env!("CARGO_PKG_VERSION")));
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(parse_message_type(&schema)?), Arc::new(properties.build()))?;
    for first in (0..rows).step_by(GROUP) {
        let range = first..(first + GROUP).min(rows);
        let mut group = writer.next_row_group()?;
        columns.iter().try_for_each(|column| write_entries(&mut group, column.entries, range.clone()))?;
        vectors.iter().try_for_each(|vectors| write_vectors(&mut group, *vectors, range.clone()))?;
        group.close()?;
    }
    writer.close().map(drop)
}

type Group<'a, 'b> = SerializedRowGroupWriter<'a, &'b mut dyn WriteSeek>;
type Rows = std::ops::Range<usize>;

fn write_entries(group: &mut Group, entries: Entries, rows: Rows) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Err(ParquetError::General("a column too many".into())) };
    match entries {
        Entries::Text(text) => {
            let values: Vec<ByteArray> = text[rows].iter().map(|text| text.as_str().into()).collect();
            column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
        }
        Entries::Numbers(numbers) => {
            let values: Vec<i32> = numbers[rows].iter().map(|&n| n as i32).collect();
            column.typed::<Int32Type>().write_batch(&values, None, None)?;
        }
        Entries::MaybeNumbers(numbers) => {
            let values: Vec<i32> = numbers[rows.clone()].iter().flatten().map(|&n| n as i32).collect();
            let present: Vec<i16> = numbers[rows].iter().map(|n| i16::from(n.is_some())).collect();
            column.typed::<Int32Type>().write_batch(&values, Some(&present), None)?;
        }
        Entries::Measures(values) => {
            column.typed::<FloatType>().write_batch(&values[rows], None, None)?;
        }
    }
    column.close()
}

fn write_vectors(group: &mut Group, Vectors { values, dim, .. }: Vectors, rows: Rows) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Err(ParquetError::General("a column too many".into())) };
    let values = &values[rows.start * dim..rows.end * dim];
    // Level 1: an element of a list. A repetition of 0 begins a row.
    let defined = vec![1i16; values.len()];
    let repeated: Vec<i16> = (0..values.len()).map(|i| i16::from(!i.is_multiple_of(dim))).collect();
    column.typed::<FloatType>().write_batch(values, Some(&defined), Some(&repeated))?;
    column.close()
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    #[test]
    fn tables_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let n = GROUP + 3;
        let names: Vec<String> = (0..n).map(|i| format!("ä,\"{i}\"\n")).collect();
        let labels: Vec<Option<u32>> = (0..n as u32).map(|i| (i % 3 > 0).then_some(i)).collect();
        let values: Vec<f32> = (0..2 * n).map(|i| i as f32 / 4.0).collect();
        let columns = [
            Column { name: "name", entries: Entries::Text(&names) },
            Column { name: "label", entries: Entries::MaybeNumbers(&labels) },
            Column { name: "confidence", entries: Entries::Measures(&values[..n]) },
        ];
        let vectors = [Vectors { name: "h", values: &values, dim: 2 }];
        write_parquet(&path, &columns, &vectors).unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.num_row_groups(), 2);
        let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(rows.len(), n);
        assert_eq!(
            rows[n - 1],
            format!(
                "{{name: \"ä,\"{0}\"\n\", label: null, confidence: {1:.1}, h: [{2:.1}, {3}]}}",
                n - 1,
                (n - 1) as f64 / 4.0,
                (2 * n - 2) as f64 / 4.0,
                (2 * n - 1) as f64 / 4.0
            )
        );
        assert!(rows[1].contains("label: 1,"), "{}", rows[1]);
        assert!(matches!(
            write_parquet(&path, &columns, &[Vectors { dim: 3, ..vectors[0] }]),
            Err(Error::Shape { .. })
        ));
        assert!(matches!(write_parquet(&path, &[], &[]), Err(Error::Shape { .. })));
    }
}
