//! Strided matrix products on raw views: the one door to the `gemm` crate.
//!
//! Convolutions hand out many small products that write disjoint, interleaved parts of one output from several threads,
//! which slices cannot express. [`Output`] carries that right across threads; every view is checked against the length of
//! its memory before a product runs.

use std::marker::PhantomData;

use super::real::Real;

/// A strided matrix inside a slice: element (i, j) is at `offset + i row_stride + j column_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Position of element (0, 0).
    pub offset: usize,
    /// Step between rows.
    pub row_stride: usize,
    /// Step between columns.
    pub column_stride: usize,
}

impl Layout {
    /// Row-major with rows `row_stride` apart and contiguous columns.
    pub fn rows(offset: usize, row_stride: usize) -> Self {
        Layout { offset, row_stride, column_stride: 1 }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        Layout { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    /// Whether a `rows` x `columns` matrix lies inside `len` elements.
    fn fits(&self, rows: usize, columns: usize, len: usize) -> bool {
        rows == 0
            || columns == 0
            || self.offset + (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < len
    }
}

/// Memory that several tasks write, each its own part.
pub struct Output<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: an `Output` is the exclusive borrow of a slice, split by its users: `write_product` and `slice` are unsafe and
// ask their callers to keep concurrent writes apart.
unsafe impl<T: Send> Send for Output<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<'_, T> {}

/// What happens to the value that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replaced.
    Overwrite,
    /// Added to.
    Accumulate,
}

impl<'a, T: Real> Output<'a, T> {
    /// Takes the slice for the duration of the tasks.
    pub fn new(data: &'a mut [T]) -> Self {
        Output { data: data.as_mut_ptr(), len: data.len(), lifetime: PhantomData }
    }

    /// `out = a b` or `out += a b`, out `m x n`, a `m x k`, b `k x n`, on this thread.
    ///
    /// # Safety
    /// No other task reads or writes the elements that `layout` names while this runs.
    ///
    /// # Panics
    /// If a view does not lie inside its memory: a wrong geometry must not become a stray write.
    pub unsafe fn write_product(
        &self,
        (m, n, k): (usize, usize, usize),
        layout: Layout,
        write: Write,
        (a, a_layout): (&[T], Layout),
        (b, b_layout): (&[T], Layout),
    ) {
        assert!(layout.fits(m, n, self.len), "product writes outside its output");
        assert!(a_layout.fits(m, k, a.len()) && b_layout.fits(k, n, b.len()), "product reads outside its input");
        if m == 0 || n == 0 {
            return;
        }
        let accumulate = write == Write::Accumulate;
        // SAFETY: all three views were checked to lie inside their memory; `a` and `b` are shared borrows, the output is
        // exclusively ours by the caller's promise. With `read_dst` false the old values are not read. Strides fit in
        // isize because the views fit in memory.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                self.data.add(layout.offset),
                layout.column_stride as isize,
                layout.row_stride as isize,
                accumulate,
                a.as_ptr().add(a_layout.offset.min(a.len())),
                a_layout.column_stride as isize,
                a_layout.row_stride as isize,
                b.as_ptr().add(b_layout.offset.min(b.len())),
                b_layout.column_stride as isize,
                b_layout.row_stride as isize,
                if accumulate { T::ONE } else { T::ZERO },
                T::ONE,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }

    /// Elements `start .. start + len`, to write.
    ///
    /// # Safety
    /// No other task reads or writes them while the slice lives.
    ///
    /// # Panics
    /// If the range is not inside the memory.
    #[allow(clippy::mut_from_ref)] // that is what the type is for; the promise is the caller's
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len), "slice outside its output");
        // SAFETY: inside the borrow by the check, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// `out = a b` over slices, all row-major and dense, on this thread: out `m x n`, a `m x k`, b `k x n`.
pub fn product<T: Real>(size: (usize, usize, usize), out: &mut [T], a: (&[T], Layout), b: (&[T], Layout)) {
    let n = size.1;
    // SAFETY: `out` is borrowed exclusively for the call.
    unsafe { Output::new(out).write_product(size, Layout::rows(0, n), Write::Overwrite, a, b) }
}
