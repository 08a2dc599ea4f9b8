//! Barriers, and instructions in which the lanes of a warp take part together.

use super::build::Builder;
use super::decode::Decoding;
use super::parse::Operand;
use super::{Bank, PtxResult, Type};
use crate::exec::{BarrierOp, MmaShape, NONE, Op, ReduxOp, Reg, ShuffleMode, VoteMode};

/// Decodes a warp-wide instruction; `false` if this is none.
pub(super) fn decode<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<bool> {
    match s.base {
        "bar" | "barrier" if s.has("warp") => {
            let mask = word(b, s, 0)?;
            s.push(b, Op::WarpBarrier { mask })?;
        }
        "bar" | "barrier" => barrier(b, s)?,
        "shfl" => shuffle(b, s)?,
        "vote" => vote(b, s)?,
        "match" => matching(b, s)?,
        "redux" => redux(b, s)?,
        "activemask" => {
            let d = s.result(b, s.operand(0)?, Bank::Word)?;
            s.push(b, Op::ActiveMask { d })?;
        }
        "mma" => mma(b, s)?,
        "griddepcontrol" | "nanosleep" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

fn word<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>, index: usize) -> PtxResult<Reg> {
    let operand = s.operand(index)?.clone();
    s.source(b, &operand, Bank::Word, Type::B32)
}

fn barrier<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    let op = match (s.has("sync"), s.has("arrive"), s.has("red")) {
        (true, false, false) => BarrierOp::Sync,
        (false, true, false) => BarrierOp::Arrive,
        (false, false, true) if s.has("popc") => BarrierOp::RedPopc,
        (false, false, true) if s.has("and") => BarrierOp::RedAnd,
        (false, false, true) if s.has("or") => BarrierOp::RedOr,
        _ => return s.refuse(),
    };
    if s.has("cluster") {
        return s.refuse();
    }
    let reduces = matches!(op, BarrierOp::RedPopc | BarrierOp::RedAnd | BarrierOp::RedOr);
    let first = reduces as usize;
    let last = s.statement.operands.len() - first.min(s.statement.operands.len());
    let d = match op {
        BarrierOp::RedPopc => s.result(b, s.operand(0)?, Bank::Word)?,
        BarrierOp::RedAnd | BarrierOp::RedOr => s.result(b, s.operand(0)?, Bank::Pred)?,
        _ => NONE,
    };
    let (p, negated) = if reduces { s.pred(b, &s.operand(last)?.clone())? } else { (NONE, false) };
    let id = word(b, s, first)?;
    let threads = match s.statement.operands.len() - 2 * first {
        2 => word(b, s, first + 1)?,
        1 => NONE,
        _ => return s.refuse(),
    };
    s.push(b, Op::Barrier { op, id, threads, d, p, negated })
}

/// The two results of `d|p`.
fn pair<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>, bank: Bank) -> PtxResult<(Reg, Reg)> {
    match s.operand(0)? {
        Operand::Pair(d, p) => Ok((s.result(b, &Operand::Name(d), bank)?, s.result(b, &Operand::Name(p), Bank::Pred)?)),
        one => Ok((s.result(b, one, bank)?, NONE)),
    }
}

fn shuffle<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    let mode = match s.mods[..] {
        ["sync", "up", "b32"] => ShuffleMode::Up,
        ["sync", "down", "b32"] => ShuffleMode::Down,
        ["sync", "bfly", "b32"] => ShuffleMode::Bfly,
        ["sync", "idx", "b32"] => ShuffleMode::Idx,
        _ => return s.refuse(),
    };
    let (d, p) = pair(b, s, Bank::Word)?;
    let (a, from, c, mask) = (word(b, s, 1)?, word(b, s, 2)?, word(b, s, 3)?, word(b, s, 4)?);
    s.push(b, Op::Shuffle { mode, d, p, a, b: from, c, mask })
}

fn vote<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    let (mode, bank) = match s.mods[..] {
        ["sync", "all", "pred"] => (VoteMode::All, Bank::Pred),
        ["sync", "any", "pred"] => (VoteMode::Any, Bank::Pred),
        ["sync", "uni", "pred"] => (VoteMode::Uni, Bank::Pred),
        ["sync", "ballot", "b32"] => (VoteMode::Ballot, Bank::Word),
        _ => return s.refuse(),
    };
    let d = s.result(b, s.operand(0)?, bank)?;
    let (a, negated) = s.pred(b, &s.operand(1)?.clone())?;
    let mask = word(b, s, 2)?;
    s.push(b, Op::Vote { mode, d, a, negated, mask })
}

fn matching<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    let (all, wide) = match s.mods[..] {
        ["any", "sync", "b32"] => (false, false),
        ["any", "sync", "b64"] => (false, true),
        ["all", "sync", "b32"] => (true, false),
        ["all", "sync", "b64"] => (true, true),
        _ => return s.refuse(),
    };
    let (d, p) = pair(b, s, Bank::Word)?;
    let ty = s.last_type()?;
    let a = s.source(b, &s.operand(1)?.clone(), ty.bank(), ty)?;
    let mask = word(b, s, 2)?;
    s.push(b, Op::Match { all, wide, d, p, a, mask })
}

fn redux<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    let op = match s.mods[..] {
        ["sync", "add", "u32" | "s32"] => ReduxOp::Add,
        ["sync", "min", "u32"] => ReduxOp::MinU,
        ["sync", "min", "s32"] => ReduxOp::MinS,
        ["sync", "max", "u32"] => ReduxOp::MaxU,
        ["sync", "max", "s32"] => ReduxOp::MaxS,
        ["sync", "and", "b32"] => ReduxOp::And,
        ["sync", "or", "b32"] => ReduxOp::Or,
        ["sync", "xor", "b32"] => ReduxOp::Xor,
        _ => return s.refuse(),
    };
    let d = s.result(b, s.operand(0)?, Bank::Word)?;
    let (a, mask) = (word(b, s, 1)?, word(b, s, 2)?);
    s.push(b, Op::Redux { op, d, a, mask })
}

fn mma<'a>(b: &mut Builder<'a>, s: &Decoding<'_, 'a>) -> PtxResult<()> {
    let shape = match s.mods[..] {
        ["sync", "aligned", "m16n8k16", "row", "col", "f32", "bf16", "bf16", "f32"] => MmaShape::M16N8K16Bf16,
        ["sync", "aligned", "m16n8k16", "row", "col", "f32", "f16", "f16", "f32"] => MmaShape::M16N8K16F16,
        ["sync", "aligned", "m16n8k8", "row", "col", "f32", "bf16", "bf16", "f32"] => MmaShape::M16N8K8Bf16,
        ["sync", "aligned", "m16n8k8", "row", "col", "f32", "f16", "f16", "f32"] => MmaShape::M16N8K8F16,
        ["sync", "aligned", "m16n8k8", "row", "col", "f32", "tf32", "tf32", "f32"] => MmaShape::M16N8K8Tf32,
        ["sync", "aligned", "m16n8k4", "row", "col", "f32", "tf32", "tf32", "f32"] => MmaShape::M16N8K4Tf32,
        _ => return s.refuse(),
    };
    let (a_count, b_count) = match shape {
        MmaShape::M16N8K16Bf16 | MmaShape::M16N8K16F16 | MmaShape::M16N8K8Tf32 => (4, 2),
        _ => (2, 1),
    };
    let mut lists = [[NONE; 4]; 4];
    for (index, count) in [4, a_count, b_count, 4].into_iter().enumerate() {
        let parts = match s.operand(index)?.clone() {
            Operand::Vector(parts) => parts,
            one => vec![one],
        };
        if parts.len() != count {
            return s.fail("has another number of registers than its shape needs");
        }
        for (reg, part) in lists[index].iter_mut().zip(&parts) {
            *reg = match index {
                0 => s.result(b, part, Bank::Word)?,
                _ => s.source(b, part, Bank::Word, Type::F32)?,
            };
        }
    }
    let [d, a, bb, c] = lists;
    s.push(b, Op::Mma { shape, d, a, b: [bb[0], bb[1]], c })
}
