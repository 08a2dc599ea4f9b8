//! Loads, stores, atomics, asynchronous copies and matrix loads.

use super::build::Builder;
use super::decode::Decoding;
use super::parse::Operand;
use super::{Bank, PtxResult, Type};
use crate::exec::{Access, Address, Atomic, AtomicOp, NONE, Op, Reg, Space};

/// Decodes a memory instruction; `false` if this is none.
pub(super) fn decode<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<bool> {
    match s.base {
        "ld" | "ldu" => load(b, s)?,
        "st" => store(b, s)?,
        "atom" | "red" => atomic(b, s)?,
        "cp" if s.has("async") => copy_async(b, s)?,
        "ldmatrix" => matrix(b, s, 1)?,
        "stmatrix" => matrix(b, s, 0)?,
        "prefetch" | "prefetchu" | "discard" | "applypriority" => {}
        "membar" | "fence" if !s.has("proxy") => s.push(b, Op::Fence)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn space(s: &Decoding<'_, '_>) -> PtxResult<Space> {
    for word in &s.mods {
        return Ok(match *word {
            "global" | "const" => Space::Global,
            "shared" | "shared::cta" => Space::Shared,
            "local" => Space::Local,
            "param" | "param::entry" => Space::Param,
            "shared::cluster" | "param::func" => return s.refuse(),
            _ => continue,
        });
    }
    Ok(Space::Generic)
}

fn address<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>, operand: usize, space: Space) -> PtxResult<Address> {
    let operand = s.operand(operand)?.clone();
    b.address(&operand, space, s.line())
}

/// Notes how finely accesses to shared memory are made.
fn note_shared(b: &mut Builder<'_>, space: Space, bytes: u32) {
    if matches!(space, Space::Shared | Space::Generic) {
        b.kernel.shared_granule = b.kernel.shared_granule.min(bytes);
    }
}

fn access<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>, registers: usize, at: usize) -> PtxResult<Access> {
    const KNOWN: &[&str] = &[
        "global",
        "const",
        "shared",
        "shared::cta",
        "local",
        "param",
        "param::entry",
        "v2",
        "v4",
        "v8",
        "nc",
        "ca",
        "cg",
        "cs",
        "cv",
        "lu",
        "wb",
        "wt",
        "weak",
        "relaxed",
        "acquire",
        "release",
        "volatile",
        "cta",
        "gpu",
        "sys",
        "L1::no_allocate",
        "L1::evict_first",
        "L1::evict_last",
        "L1::evict_normal",
        "L1::evict_unchanged",
        "L2::64B",
        "L2::128B",
        "L2::256B",
    ];
    if s.mods.iter().any(|m| !KNOWN.contains(m) && Type::named(m).is_none()) || s.types.len() != 1 {
        return s.refuse();
    }
    let (ty, space) = (s.last_type()?, space(s)?);
    let operand = s.operand(registers)?.clone();
    let parts = match operand {
        Operand::Vector(parts) => parts,
        one => vec![one],
    };
    let count = [("v2", 2), ("v4", 4), ("v8", 8)].iter().find(|(m, _)| s.has(m)).map_or(1, |(_, n)| *n);
    if parts.len() != count || ty == Type::Pred {
        return s.fail("has a vector of another length than its name says");
    }
    let mut bank = ty.bank();
    if let (Bank::Word, Operand::Name(name)) = (bank, &parts[0])
        && let Some((Bank::Wide, _)) = b.find_register(name)
    {
        bank = Bank::Wide; // a narrow number into a 64-bit register
    }
    let mut regs = [NONE; 8];
    for (reg, part) in regs.iter_mut().zip(&parts) {
        *reg = if registers == 0 { s.result(b, part, bank)? } else { s.source(b, part, bank, ty)? };
    }
    let address = address(b, s, at, space)?;
    note_shared(b, space, ty.size() * count as u32);
    Ok(Access { address, ty, count: count as u8, regs, wide: bank == Bank::Wide })
}

fn load<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    let access = access(b, s, 0, 1)?;
    s.push(b, Op::Load(access))
}

fn store<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    let access = access(b, s, 1, 0)?;
    match access.address.space {
        Space::Param => s.fail("writes parameters of the kernel"),
        _ => s.push(b, Op::Store(access)),
    }
}

fn atomic<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    const ORDER: &[&str] =
        &["relaxed", "acquire", "release", "acq_rel", "cta", "gpu", "sys", "global", "shared", "shared::cta", "noftz"];
    let words: Vec<&str> = s.mods.iter().copied().filter(|m| !ORDER.contains(m) && Type::named(m).is_none()).collect();
    let (ty, space) = (s.last_type()?, space(s)?);
    let op = match words[..] {
        ["add"] => AtomicOp::Add,
        ["min"] => AtomicOp::Min,
        ["max"] => AtomicOp::Max,
        ["inc"] => AtomicOp::Inc,
        ["dec"] => AtomicOp::Dec,
        ["and"] => AtomicOp::And,
        ["or"] => AtomicOp::Or,
        ["xor"] => AtomicOp::Xor,
        ["exch"] => AtomicOp::Exch,
        ["cas"] => AtomicOp::Cas,
        _ => return s.refuse(),
    };
    if !crate::exec::atomic_covers(op, ty) {
        return s.refuse();
    }
    let reads = s.base == "atom";
    let first = reads as usize;
    let d = if reads { s.result(b, s.operand(0)?, ty.bank())? } else { NONE };
    let address = address(b, s, first, space)?;
    let a = s.source(b, s.operand(first + 1)?, ty.bank(), ty)?;
    let second = if op == AtomicOp::Cas { s.source(b, s.operand(first + 2)?, ty.bank(), ty)? } else { NONE };
    if matches!(space, Space::Global | Space::Generic) {
        b.kernel.global_atomics = true;
    }
    note_shared(b, space, ty.size());
    s.push(b, Op::Atomic(Atomic { address, op, ty, d, a, b: second }))
}

fn integer(s: &Decoding<'_, '_>, index: usize) -> PtxResult<u32> {
    match s.operand(index)? {
        Operand::Number(super::cursor::Number::Int(v)) => {
            (*v).try_into().or_else(|_| s.fail("has a number out of range"))
        }
        _ => s.fail("needs a number there"),
    }
}

fn copy_async<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    if s.has("bulk") || s.has("mbarrier") {
        return s.refuse();
    }
    if s.has("commit_group") {
        return s.push(b, Op::CopyCommit);
    }
    if s.has("wait_all") {
        return s.push(b, Op::CopyWait { pending: None });
    }
    if s.has("wait_group") {
        let pending = Some(integer(s, 0)?);
        return s.push(b, Op::CopyWait { pending });
    }
    let known =
        |m: &&str| matches!(*m, "async" | "ca" | "cg" | "shared" | "shared::cta" | "global") || m.starts_with("L2::");
    if !s.mods.iter().all(known) {
        return s.refuse();
    }
    let dst = address(b, s, 0, Space::Shared)?;
    let src = address(b, s, 1, Space::Global)?;
    let bytes = integer(s, 2)?;
    if !matches!(bytes, 4 | 8 | 16) {
        return s.fail("copies a number of bytes other than 4, 8 or 16");
    }
    let src_bytes = match s.statement.operands.get(3) {
        Some(operand) => s.source(b, operand, Bank::Word, Type::U32)?,
        None => NONE,
    };
    note_shared(b, Space::Shared, bytes);
    s.push(b, Op::CopyAsync { dst, src, bytes: bytes as u8, src_bytes })
}

/// `ldmatrix` (address last) and `stmatrix` (address first) of 8x8 matrices of 16 bits.
fn matrix<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>, at: usize) -> PtxResult<()> {
    let known = ["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta", "b16"];
    if !s.mods.iter().all(|m| known.contains(m)) || !s.has("m8n8") || !s.has("b16") {
        return s.refuse();
    }
    let count = [("x2", 2u8), ("x4", 4)].iter().find(|(m, _)| s.has(m)).map_or(1, |(_, n)| *n);
    let parts = match s.operand(1 - at)?.clone() {
        Operand::Vector(parts) => parts,
        one => vec![one],
    };
    if parts.len() != count as usize {
        return s.fail("has another number of registers than its name says");
    }
    let mut regs: [Reg; 4] = [NONE; 4];
    for (reg, part) in regs.iter_mut().zip(&parts) {
        *reg = if at == 1 { s.result(b, part, Bank::Word)? } else { s.source(b, part, Bank::Word, Type::B32)? };
    }
    let address = address(b, s, at, Space::Shared)?;
    let transposed = s.has("trans");
    s.push(
        b,
        if at == 1 {
            Op::LoadMatrix { address, count, transposed, d: regs }
        } else {
            Op::StoreMatrix { address, count, transposed, a: regs }
        },
    )
}
