//! Decoded instructions.

use super::registers::{Alu, Operands, Reg};
use crate::ptx::{Loc, Type};

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Device memory, module variables and `.const` among it.
    Global,
    /// Of a block.
    Shared,
    /// Of a thread.
    Local,
    /// Arguments of the launch.
    Param,
    /// Whichever window the address lies in.
    Generic,
}

/// `[base + offset]`.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// Its space.
    pub space: Space,
    /// Register, or [`NONE`](super::NONE).
    pub base: Reg,
    /// The base is 64 bits wide.
    pub wide: bool,
    /// Bytes.
    pub offset: i64,
}

/// A load or store of `count` neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Where.
    pub address: Address,
    /// Type of each.
    pub ty: Type,
    /// 1, 2, 4 or 8.
    pub count: u8,
    /// Registers.
    pub regs: [Reg; 8],
    /// The registers are 64 bits wide.
    pub wide: bool,
}

/// What an atomic operation does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are PTX's
pub enum AtomicOp {
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    Exch,
    Cas,
}

/// `atom` and `red`.
#[derive(Clone, Copy, Debug)]
pub struct Atomic {
    /// Where.
    pub address: Address,
    /// What.
    pub op: AtomicOp,
    /// On what.
    pub ty: Type,
    /// Old value, or none (`red`).
    pub d: Reg,
    /// Operand; of `cas` what to compare with.
    pub a: Reg,
    /// Of `cas` what to write.
    pub b: Reg,
}

/// From which lane `shfl` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are PTX's
pub enum ShuffleMode {
    Up,
    Down,
    Bfly,
    Idx,
}

/// What `vote` makes of the predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are PTX's
pub enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

/// What `redux` makes of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are PTX's
pub enum ReduxOp {
    Add,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
}

/// What `bar` does besides waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are PTX's
pub enum BarrierOp {
    Sync,
    Arrive,
    RedPopc,
    RedAnd,
    RedOr,
}

/// Shapes of `mma.sync` with f32 accumulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // shape and input type
pub enum MmaShape {
    M16N8K16Bf16,
    M16N8K16F16,
    M16N8K8Bf16,
    M16N8K8F16,
    M16N8K8Tf32,
    M16N8K4Tf32,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // fields are the operands, in PTX's order
pub enum Op {
    /// Registers to registers, each lane for itself.
    Alu(Alu, Operands),
    Load(Access),
    Store(Access),
    Atomic(Atomic),
    Branch {
        target: u32,
    },
    Exit,
    /// `bar.sync`, `barrier.sync`, `bar.red`, `bar.arrive`.
    Barrier {
        op: BarrierOp,
        id: Reg,
        threads: Reg,
        d: Reg,
        p: Reg,
        negated: bool,
    },
    /// `bar.warp.sync`.
    WarpBarrier {
        mask: Reg,
    },
    Shuffle {
        mode: ShuffleMode,
        d: Reg,
        p: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
        mask: Reg,
    },
    Vote {
        mode: VoteMode,
        d: Reg,
        a: Reg,
        negated: bool,
        mask: Reg,
    },
    Match {
        all: bool,
        wide: bool,
        d: Reg,
        p: Reg,
        a: Reg,
        mask: Reg,
    },
    Redux {
        op: ReduxOp,
        d: Reg,
        a: Reg,
        mask: Reg,
    },
    ActiveMask {
        d: Reg,
    },
    Mma {
        shape: MmaShape,
        d: [Reg; 4],
        a: [Reg; 4],
        b: [Reg; 2],
        c: [Reg; 4],
    },
    LoadMatrix {
        address: Address,
        count: u8,
        transposed: bool,
        d: [Reg; 4],
    },
    StoreMatrix {
        address: Address,
        count: u8,
        transposed: bool,
        a: [Reg; 4],
    },
    CopyAsync {
        dst: Address,
        src: Address,
        bytes: u8,
        /// Bytes to read (the rest becomes zero), or none for all.
        src_bytes: Reg,
    },
    CopyCommit,
    /// Waits until at most so many groups are under way; `None` for all copies, committed or not.
    CopyWait {
        pending: Option<u32>,
    },
    /// Orders memory for others; nothing to do where every access takes effect at once.
    Fence,
    Trap,
    /// `vprintf`: where in local memory its parameters and its result lie.
    Print {
        format: u32,
        arguments: u32,
        result: u32,
    },
    /// `__assertfail`: likewise.
    AssertFail {
        message: u32,
        file: u32,
        line: u32,
        function: u32,
    },
}

/// An instruction with its guard and source place.
#[derive(Clone, Copy, Debug)]
pub struct Inst {
    /// What it does.
    pub op: Op,
    /// Predicate register, or [`NONE`](super::NONE).
    pub guard: Reg,
    /// Runs where the guard is false.
    pub guard_negated: bool,
    /// Source place.
    pub loc: Loc,
}
