//! Event files for TensorBoard, and what its embedding projector reads.
//!
//! An event file is a run of records (TFRecord): length, masked CRC-32C of the length, data, masked CRC-32C of the data; the
//! data are `Event` messages of TensorFlow's protocol buffers (`event.proto`, `summary.proto`), of which a handful of fields
//! is needed: they are encoded here. A file is written as a whole, from the logs, under one name: whatever happened to a
//! run, no step is in it twice.

use std::path::Path;

use crate::Result;
use crate::atomic_file::write_atomically;

/// The name under which TensorBoard finds the file (it asks for `tfevents` in it).
pub const FILE: &str = "events.out.tfevents.0000000000.disentangle";
/// What the first record of a file says.
const VERSION: &str = "brain.Event:2";

/// Events in the order they were added.
pub struct Events(Vec<u8>);

/// A protocol buffer being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn integer(mut self, field: u64, value: u64) -> Self {
        self.key(field, 0);
        self.varint(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }
}

/// CRC-32C as TFRecord stores it: rotated and shifted, so that a checksum of data with checksums in it stays one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

impl Events {
    /// No events yet; `wall_time` (seconds since 1970) is when the run began.
    pub fn new(wall_time: f64) -> Events {
        let mut events = Events(Vec::new());
        events.record(Message::default().double(1, wall_time).bytes(3, VERSION.as_bytes()));
        events
    }

    fn record(&mut self, event: Message) {
        let length = (event.0.len() as u64).to_le_bytes();
        self.0.extend(length);
        self.0.extend(masked_crc(&length).to_le_bytes());
        self.0.extend(&event.0);
        self.0.extend(masked_crc(&event.0).to_le_bytes());
    }

    fn value(&mut self, wall_time: f64, step: u64, value: Message) {
        let summary = Message::default().bytes(1, &value.0);
        self.record(Message::default().double(1, wall_time).integer(2, step).bytes(5, &summary.0));
    }

    /// A number at a step.
    pub fn scalar(&mut self, wall_time: f64, step: u64, tag: &str, value: f64) {
        self.value(wall_time, step, Message::default().bytes(1, tag.as_bytes()).float(2, value as f32));
    }

    /// A picture at a step: a PNG of `width` x `height` pixels.
    pub fn image(&mut self, wall_time: f64, step: u64, tag: &str, png: &[u8], [width, height]: [usize; 2]) {
        // colorspace 3: RGB.
        let image = Message::default().integer(1, height as u64).integer(2, width as u64).integer(3, 3).bytes(4, png);
        self.value(wall_time, step, Message::default().bytes(1, tag.as_bytes()).bytes(4, &image.0));
    }

    /// The file as it will be written.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes [`FILE`] in `folder`, in one step.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_atomically(&folder.join(FILE), |file| file.write_all(&self.0))
    }
}

/// One embedding for the projector.
pub struct Projection<'a> {
    /// Its name, also in file names: letters.
    pub name: &'a str,
    /// Points, row-major.
    pub values: &'a [f32],
    /// Numbers a point.
    pub dim: usize,
}

/// Writes what TensorBoard's projector reads to `folder`: `NAME.tsv` of each embedding, `metadata.tsv` with a line a point
/// under `heading`, `sprite.png` (thumbnails in the points' order, `side` pixels each) and `projector_config.pbtxt`.
///
/// # Errors
/// [`crate::Error::Io`] if a file cannot be written.
pub fn write_projector(
    folder: &Path,
    projections: &[Projection],
    heading: &[&str],
    metadata: &[Vec<String>],
    sprite_png: &[u8],
    side: usize,
) -> Result<()> {
    // Tabs and line ends are what the format is made of.
    let plain = |text: &str| text.replace(|c: char| c.is_control(), " ");
    let line = |cells: &mut dyn Iterator<Item = &str>| cells.map(plain).collect::<Vec<_>>().join("\t");
    write_atomically(&folder.join("metadata.tsv"), |file| {
        // A single column stands without a heading.
        if heading.len() > 1 {
            writeln!(file, "{}", line(&mut heading.iter().copied()))?;
        }
        metadata.iter().try_for_each(|row| writeln!(file, "{}", line(&mut row.iter().map(String::as_str))))
    })?;
    write_atomically(&folder.join("sprite.png"), |file| file.write_all(sprite_png))?;
    let mut config = String::new();
    for Projection { name, values, dim } in projections {
        write_atomically(&folder.join(format!("{name}.tsv")), |file| {
            values.chunks_exact(*dim).try_for_each(|row| {
                let numbers: Vec<String> = row.iter().map(f32::to_string).collect();
                writeln!(file, "{}", numbers.join("\t"))
            })
        })?;
        config += &format!(
            "embeddings {{\n  tensor_name: \"{name}\"\n  tensor_path: \"{name}.tsv\"\n  metadata_path: \"metadata.tsv\"\n  \
             sprite {{\n    image_path: \"sprite.png\"\n    single_image_dim: {side}\n    single_image_dim: {side}\n  }}\n}}\n"
        );
    }
    write_atomically(&folder.join("projector_config.pbtxt"), |file| file.write_all(config.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_what_the_format_says() {
        // CRC-32C of nine digits is 0xe3069283 (RFC 3720's check value); masked by the definition.
        let crc = 0xe306_9283u32;
        assert_eq!(masked_crc(b"123456789"), crc.rotate_right(15).wrapping_add(0xa282_ead8));
        let mut events = Events::new(2.0);
        events.scalar(3.0, 300, "a", 0.5);
        let first = 8 + 4 + (9 + 2 + VERSION.len()) + 4;
        let record = &events.bytes()[first..];
        let data: &[u8] = &[
            0x09, 0, 0, 0, 0, 0, 0, 0x08, 0x40, // wall_time = 3.0
            0x10, 0xac, 0x02, // step = 300
            0x2a, 10, 0x0a, 8, // summary { value {
            0x0a, 1, b'a', 0x15, 0, 0, 0, 0x3f, // tag, simple_value = 0.5
        ];
        assert_eq!(record[..8], (data.len() as u64).to_le_bytes());
        assert_eq!(record[8..12], masked_crc(&record[..8]).to_le_bytes());
        assert_eq!(&record[12..12 + data.len()], data);
        assert_eq!(record[12 + data.len()..], masked_crc(data).to_le_bytes());
    }

    #[test]
    fn the_projector_finds_a_line_a_point() {
        let folder = tempfile::tempdir().unwrap();
        let values = [1.0, 2.5, -3.0, 0.0];
        let rows = [vec!["a\tb".to_owned(), "1".to_owned()], vec!["c\nd".to_owned(), "2".to_owned()]];
        let projection = Projection { name: "h", values: &values, dim: 2 };
        write_projector(folder.path(), &[projection], &["name", "cluster"], &rows, b"png", 64).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("metadata.tsv"), "name\tcluster\na b\t1\nc d\t2\n");
        assert_eq!(read("h.tsv"), "1\t2.5\n-3\t0\n");
        assert!(read("projector_config.pbtxt").contains("tensor_path: \"h.tsv\""));
    }
}
