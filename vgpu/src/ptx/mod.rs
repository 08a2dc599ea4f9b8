//! PTX text to pre-decoded instructions.
//!
//! The subset is what nvcc 13 emits for `compute_80` and `compute_90` from kernels without recursion and calls through
//! pointers. Whatever is outside of it is refused when the module is loaded, by name and line; nothing is skipped that would change a result.
//!
//! `lex` cuts the text into words, `parse` reads directives and statements, `build` gives every register, constant and
//! special register a place in the register file, `call` expands functions, and `decode` turns a statement into an [`Inst`](crate::exec::Inst).

mod build;
mod call;
mod cursor;
mod decode;
mod decode_memory;
mod decode_warp;
mod lex;
mod parse;

pub use parse::parse;

use std::fmt;

/// Why a module cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtxError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for PtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for PtxError {}

/// Result of reading PTX.
pub type PtxResult<T> = Result<T, PtxError>;

/// An error at a line.
pub(crate) fn error<T>(line: u32, message: impl Into<String>) -> PtxResult<T> {
    Err(PtxError { line, message: message.into() })
}

/// A scalar type of PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are PTX's
pub enum Type {
    Pred,
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    F16,
    Bf16,
    B32,
    U32,
    S32,
    F32,
    F16x2,
    Bf16x2,
    Tf32,
    B64,
    U64,
    S64,
    F64,
}

impl Type {
    /// From a modifier without its dot.
    pub fn named(name: &str) -> Option<Type> {
        use Type::*;
        Some(match name {
            "pred" => Pred,
            "b8" => B8,
            "u8" => U8,
            "s8" => S8,
            "b16" => B16,
            "u16" => U16,
            "s16" => S16,
            "f16" => F16,
            "bf16" => Bf16,
            "b32" => B32,
            "u32" => U32,
            "s32" => S32,
            "f32" => F32,
            "f16x2" => F16x2,
            "bf16x2" => Bf16x2,
            "tf32" => Tf32,
            "b64" => B64,
            "u64" => U64,
            "s64" => S64,
            "f64" => F64,
            _ => return None,
        })
    }

    /// Bytes in memory.
    pub fn size(self) -> u32 {
        use Type::*;
        match self {
            Pred | B8 | U8 | S8 => 1,
            B16 | U16 | S16 | F16 | Bf16 => 2,
            B32 | U32 | S32 | F32 | F16x2 | Bf16x2 | Tf32 => 4,
            B64 | U64 | S64 | F64 => 8,
        }
    }

    /// Which part of the register file holds it.
    pub fn bank(self) -> Bank {
        match (self, self.size()) {
            (Type::Pred, _) => Bank::Pred,
            (_, 8) => Bank::Wide,
            _ => Bank::Word,
        }
    }
}

/// The parts of the register file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bank {
    /// Predicates: a bit for each lane.
    Pred,
    /// Up to 32 bits a lane.
    Word,
    /// 64 bits a lane.
    Wide,
}

/// A variable of a module in `.global` or `.const` space.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// What it starts with; shorter than `size` means zeros follow.
    pub initial: Vec<u8>,
    /// Kernels may not write it.
    pub constant: bool,
}

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Where it lies in the parameter space.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// What its address on the host must divide by, at least.
    pub align: u32,
}

/// A place in a source file, from `.loc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loc {
    /// Number of a `.file` directive; 0 without one.
    pub file: u32,
    /// Line in it.
    pub line: u32,
}

/// An entry point, decoded.
#[derive(Debug)]
pub struct Kernel {
    /// Name in the PTX.
    pub name: String,
    /// Instructions; the last one always ends the thread.
    pub code: Vec<crate::exec::Inst>,
    /// What each register of the word bank holds before the first instruction (constants; else poison).
    pub words: Vec<u32>,
    /// The same of the wide bank.
    pub wides: Vec<u64>,
    /// Predicate registers.
    pub preds: usize,
    /// Word registers that hold special registers.
    pub specials: Vec<(u16, Special)>,
    /// Wide registers that are addresses of module variables: (register, variable, byte offset).
    pub relocations: Vec<(u16, usize, u64)>,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// Parameters (by number) that are used as addresses of device memory.
    pub pointers: Vec<usize>,
    /// Bytes of parameter space.
    pub param_bytes: u32,
    /// Bytes of static shared memory.
    pub shared_bytes: u32,
    /// Bytes of local memory a thread.
    pub local_bytes: u32,
    /// Most threads a block may have.
    pub max_threads: u32,
    /// Bytes that the smallest access to shared memory moves, 4 at most: how finely races are told apart.
    pub shared_granule: u32,
    /// It uses atomics on global memory, so blocks run one after the other to keep results the same.
    pub global_atomics: bool,
    /// Some register is read before the text writes it, so all start over with each block: what such a read finds must not
    /// depend on the block before.
    pub resets: bool,
}

/// A special register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are PTX's
pub enum Special {
    Tid(u8),
    NTid(u8),
    CtaId(u8),
    NCtaId(u8),
    LaneId,
    WarpId,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    Clock,
    DynamicSharedBytes,
}

/// A module, decoded.
#[derive(Debug, Default)]
pub struct Module {
    /// Entry points.
    pub kernels: Vec<Kernel>,
    /// Variables.
    pub variables: Vec<Variable>,
    /// Names of source files by number.
    pub files: Vec<(u32, String)>,
    /// The `.target`, such as `sm_80`.
    pub target: String,
    /// The PTX version, times ten.
    pub version: u32,
}

impl Module {
    /// The name of a source place: `file:line`, or `?` without `.loc`.
    pub fn place(&self, loc: Loc) -> String {
        if loc.line == 0 {
            return "?".into();
        }
        match self.files.iter().find(|(n, _)| *n == loc.file) {
            Some((_, path)) => format!("{}:{}", path.rsplit('/').next().unwrap_or(path), loc.line),
            None => format!("line {}", loc.line),
        }
    }
}
