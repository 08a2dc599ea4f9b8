//! How kernels that reduce over a matrix's rows cut it up (kernels/columns.cuh).

use cudarc::driver::DeviceRepr;

use super::kernel::{blocks, product, size, value_argument};
use crate::{Error, Result};

/// Threads side by side in a row.
const ACROSS: u32 = 16;
/// Threads of a block that walks.
pub(super) const THREADS: u32 = 256;
/// Columns a block finishes.
const FINISH_COLUMNS: usize = 8;
/// Rows of a chunk, at least: 8 for each of 16 lanes.
const MIN_CHUNK: usize = 128;
/// Threads of a block that combines chunks.
pub(super) const FINISH_THREADS: u32 = 512;
/// Blocks of a launch, about, where there are rows enough: twice as many as the largest device runs at once.
const BLOCKS: usize = 2048;
/// The same where nothing is summed up, so that more blocks cost nothing.
const BLOCKS_OF_ROWS: usize = 8192;
/// Rows of a chunk, at least, where nothing is summed up: 4 for each of 16 lanes.
const MIN_ROWS: usize = 64;

/// A `[views * rows, columns]` matrix in chunks of rows; as in kernels/columns.cuh. Decided by the shape alone, so that
/// sums are added in the same order on every device.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    rows: u64,
    chunk_rows: u64,
    columns: u32,
    views: u32,
    chunks: u32,
    reserved: u32,
}

const _: () = {
    assert!(size_of::<Columns>() == 32 && align_of::<Columns>() == 8);
    assert!(std::mem::offset_of!(Columns, chunk_rows) == 8 && std::mem::offset_of!(Columns, columns) == 16);
    assert!(std::mem::offset_of!(Columns, views) == 20 && std::mem::offset_of!(Columns, chunks) == 24);
};

// SAFETY: plain integers in the kernel's layout, asserted above and in columns.cuh.
unsafe impl DeviceRepr for Columns {}
value_argument!(Columns);

impl Columns {
    /// For `views` parts of `rows` each. Errors where one of the sizes is 0 or too large.
    pub fn new(rows: usize, columns: usize, views: usize) -> Result<Self> {
        let op = "columns";
        if rows == 0 || columns == 0 || views == 0 || views > 65_535 {
            return Err(Error::shape(op, format!("{views} views of {rows} rows and {columns} columns")));
        }
        product(op, &[views, rows, columns])?;
        let matrix = Columns {
            rows: rows as u64,
            chunk_rows: rows as u64,
            columns: size(op, columns)?,
            views: size(op, views)?,
            chunks: 1,
            reserved: 0,
        };
        Ok(matrix.cut(BLOCKS, MIN_CHUNK))
    }

    /// The same matrix for a kernel that goes through the rows without summing them up.
    pub(super) fn by_rows(self) -> Self {
        self.cut(BLOCKS_OF_ROWS, MIN_ROWS)
    }

    /// In chunks for about so many blocks, each of at least `min_rows`.
    fn cut(self, blocks: usize, min_rows: usize) -> Self {
        let (rows, columns, views) = (self.rows as usize, self.columns(), self.views());
        let tiles = columns.div_ceil(ACROSS as usize * if columns.is_multiple_of(4) { 4 } else { 1 });
        // A grid's second dimension is bounded.
        let most = rows.div_ceil(min_rows).clamp(1, 65_535);
        let wanted = (blocks / tiles.saturating_mul(views).max(1)).clamp(1, most);
        let chunk_rows = rows.div_ceil(wanted);
        Columns { chunk_rows: chunk_rows as u64, chunks: rows.div_ceil(chunk_rows) as u32, ..self }
    }

    /// Elements of the matrix.
    pub fn elems(&self) -> usize {
        self.rows as usize * self.columns as usize * self.views as usize
    }

    /// Columns (channels).
    pub fn columns(&self) -> usize {
        self.columns as usize
    }

    /// Parts of the matrix.
    pub fn views(&self) -> usize {
        self.views as usize
    }

    /// Elements of the chunks' partial results, `quantities` for each column.
    pub fn partial_elems(&self, quantities: usize) -> usize {
        self.views() * self.chunks as usize * quantities * self.columns()
    }

    pub(super) fn walk_grid(&self) -> (u32, u32, u32) {
        let vector = if self.columns.is_multiple_of(4) { 4 } else { 1 };
        (self.columns.div_ceil(ACROSS * vector), self.chunks, self.views)
    }

    pub(super) fn finish_grid(&self) -> Result<(u32, u32, u32)> {
        Ok((blocks("columns", self.columns(), FINISH_COLUMNS)?, 1, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_rows() {
        for rows in [1, 15, 16, 127, 128, 129, 1000, 1_605_632] {
            for (columns, views) in [(1, 1), (64, 2), (67, 2), (2048, 2), (100_000, 3)] {
                let m = Columns::new(rows, columns, views).unwrap();
                assert!(m.chunk_rows * u64::from(m.chunks) >= rows as u64, "{m:?}");
                assert!(m.chunk_rows * u64::from(m.chunks - 1) < rows as u64, "{m:?}");
                assert!(m.chunks <= 65_535, "a grid's second dimension: {m:?}");
            }
        }
        assert!(Columns::new(0, 4, 1).is_err() && Columns::new(usize::MAX, 4, 2).is_err());
    }
}
