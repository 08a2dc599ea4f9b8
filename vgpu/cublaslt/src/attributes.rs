//! Attributes of descriptors: each has a number, a size and a value, as in `cublasLt.h`.

use crate::entry::{INVALID_VALUE, NOT_SUPPORTED, Refusal, refused};
use std::ffi::c_void;

/// An attribute: its number, its bytes, its value to begin with.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    pub number: u32,
    pub bytes: usize,
    pub initial: u64,
}

const fn attribute(number: u32, bytes: usize, initial: u64) -> Attribute {
    Attribute { number, bytes, initial }
}

/// A kind of descriptor.
#[derive(Debug)]
pub struct Schema {
    /// Its name in reports.
    pub name: &'static str,
    pub attributes: &'static [Attribute],
    /// Numbers of attributes that the real library has and this one has not.
    pub uncovered: &'static [u32],
}

/// Attributes of `cublasLtMatmulDesc_t` (`CUBLASLT_MATMUL_DESC_*`).
pub mod desc {
    pub const COMPUTE_TYPE: u32 = 0;
    pub const SCALE_TYPE: u32 = 1;
    pub const POINTER_MODE: u32 = 2;
    pub const TRANSA: u32 = 3;
    pub const TRANSB: u32 = 4;
    pub const TRANSC: u32 = 5;
    pub const FILL_MODE: u32 = 6;
    pub const EPILOGUE: u32 = 7;
    pub const BIAS_POINTER: u32 = 8;
    pub const BIAS_DATA_TYPE: u32 = 26;
    /// `CUBLAS_FILL_MODE_FULL`
    pub const FULL: u64 = 2;
    /// A data type that was not set: that of the result.
    pub const SAME_TYPE: u64 = u32::MAX as u64;
}

/// Attributes of `cublasLtMatrixLayout_t` (`CUBLASLT_MATRIX_LAYOUT_*`).
pub mod layout {
    pub const TYPE: u32 = 0;
    pub const ORDER: u32 = 1;
    pub const ROWS: u32 = 2;
    pub const COLS: u32 = 3;
    pub const LD: u32 = 4;
    pub const BATCH_COUNT: u32 = 5;
}

/// Attributes of `cublasLtMatmulPreference_t` (`CUBLASLT_MATMUL_PREF_*`).
pub mod preference {
    pub const MAX_WORKSPACE_BYTES: u32 = 1;
    pub const REDUCTION_SCHEME_MASK: u32 = 3;
    /// Of A; B, C and D follow.
    pub const MIN_ALIGNMENT_BYTES: u32 = 5;
}

pub static DESC: Schema = Schema {
    name: "operation descriptor",
    attributes: &[
        attribute(desc::COMPUTE_TYPE, 4, 0),
        attribute(desc::SCALE_TYPE, 4, 0),
        attribute(desc::POINTER_MODE, 4, 0),
        attribute(desc::TRANSA, 4, 0),
        attribute(desc::TRANSB, 4, 0),
        attribute(desc::TRANSC, 4, 0),
        attribute(desc::FILL_MODE, 4, desc::FULL),
        attribute(desc::EPILOGUE, 4, 1),
        attribute(desc::BIAS_POINTER, 8, 0),
        attribute(desc::BIAS_DATA_TYPE, 4, desc::SAME_TYPE),
    ],
    uncovered: &[10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23, 24, 25, 31, 32, 33, 34, 35, 36, 37, 38],
};

pub static LAYOUT: Schema = Schema {
    name: "matrix layout",
    attributes: &[
        attribute(layout::TYPE, 4, 0),
        attribute(layout::ORDER, 4, 0),
        attribute(layout::ROWS, 8, 0),
        attribute(layout::COLS, 8, 0),
        attribute(layout::LD, 8, 0),
        attribute(layout::BATCH_COUNT, 4, 1),
    ],
    uncovered: &[6, 7, 8],
};

pub static PREFERENCE: Schema = Schema {
    name: "preference",
    attributes: &[
        attribute(preference::MAX_WORKSPACE_BYTES, 8, 0),
        attribute(preference::REDUCTION_SCHEME_MASK, 4, 7),
        attribute(preference::MIN_ALIGNMENT_BYTES, 4, 256),
        attribute(preference::MIN_ALIGNMENT_BYTES + 1, 4, 256),
        attribute(preference::MIN_ALIGNMENT_BYTES + 2, 4, 256),
        attribute(preference::MIN_ALIGNMENT_BYTES + 3, 4, 256),
    ],
    uncovered: &[0, 9, 12],
};

/// A descriptor.
#[derive(Clone, Debug)]
pub struct Attributes {
    schema: &'static Schema,
    values: Vec<u64>,
}

impl Attributes {
    pub fn new(schema: &'static Schema) -> Attributes {
        Attributes { schema, values: schema.attributes.iter().map(|a| a.initial).collect() }
    }

    fn place(&self, number: u32) -> Result<usize, Refusal> {
        if let Some(i) = self.schema.attributes.iter().position(|a| a.number == number) {
            return Ok(i);
        }
        let name = self.schema.name;
        if self.schema.uncovered.contains(&number) {
            return refused(NOT_SUPPORTED, format!("attribute {number} of the {name} is not covered by this stand-in"));
        }
        refused(INVALID_VALUE, format!("the {name} has no attribute {number}"))
    }

    fn sized(&self, number: u32, bytes: usize) -> Result<usize, Refusal> {
        let i = self.place(number)?;
        let want = self.schema.attributes[i].bytes;
        if bytes != want {
            let detail = format!("attribute {number} of the {} has {want} bytes, not {bytes}", self.schema.name);
            return refused(INVALID_VALUE, detail);
        }
        Ok(i)
    }

    /// The value of an attribute that the schema has.
    pub fn value(&self, number: u32) -> u64 {
        self.place(number).map_or(0, |i| self.values[i])
    }

    /// Sets an attribute that the schema has.
    pub fn put(&mut self, number: u32, value: u64) {
        if let Ok(i) = self.place(number) {
            self.values[i] = value;
        }
    }

    /// `...SetAttribute`
    ///
    /// # Safety
    /// `from` is null or has `bytes` bytes.
    pub unsafe fn set(&mut self, number: u32, from: *const c_void, bytes: usize) -> Result<(), Refusal> {
        let i = self.sized(number, bytes)?;
        if from.is_null() {
            return refused(INVALID_VALUE, format!("the value of attribute {number} is null"));
        }
        let mut value = [0u8; 8];
        // SAFETY: by contract, and attributes have at most eight bytes.
        unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), value.as_mut_ptr(), bytes) };
        self.values[i] = u64::from_le_bytes(value);
        Ok(())
    }

    /// `...GetAttribute`: with 0 bytes, how many it has.
    ///
    /// # Safety
    /// `to` is null or has room for `bytes` bytes; `written` is null or a variable.
    pub unsafe fn get(&self, number: u32, to: *mut c_void, bytes: usize, written: *mut usize) -> Result<(), Refusal> {
        let i = if bytes == 0 { self.place(number)? } else { self.sized(number, bytes)? };
        let size = self.schema.attributes[i].bytes;
        if bytes == 0 && written.is_null() || bytes != 0 && to.is_null() {
            return refused(INVALID_VALUE, format!("nowhere to write the value of attribute {number} to"));
        }
        // SAFETY: by contract.
        unsafe {
            if bytes != 0 {
                std::ptr::copy_nonoverlapping(self.values[i].to_le_bytes().as_ptr(), to.cast::<u8>(), size);
            }
            if !written.is_null() {
                written.write(size);
            }
        }
        Ok(())
    }
}
