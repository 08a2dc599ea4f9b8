//! Warp-wide instructions: barrier of the warp, shuffles, votes, matches and reductions.

use super::block::Block;
use super::launch::Step;
use super::op::{Op, ReduxOp, ShuffleMode, VoteMode};
use super::registers::{ALL, LANES, NONE, Reg, each_lane};
use super::shared::SYNCS;
use super::warp::Warp;
use crate::report::Kind;

impl Block<'_> {
    /// Runs a warp-wide instruction once all the lanes that its masks name have come; until then the group waits.
    pub fn warp_wide(&mut self, w: &mut Warp, op: &Op, pc: u32, mask: u32) -> Step<()> {
        let (Op::WarpBarrier { mask: named }
        | Op::Shuffle { mask: named, .. }
        | Op::Vote { mask: named, .. }
        | Op::Match { mask: named, .. }
        | Op::Redux { mask: named, .. }) = *op
        else {
            return Ok(());
        };
        w.split(pc, mask);
        let masks = w.registers.words[named as usize];
        let mut want = 0;
        for lane in (0..LANES).filter(|l| mask >> l & 1 == 1) {
            if masks[lane] >> lane & 1 == 0 {
                let detail = format!("the mask {:#010x} does not name the lane that executes it", masks[lane]);
                return Err(w.fault(Kind::InactiveLane, pc, lane as u32, detail));
            }
            want |= masks[lane];
        }
        if !w.gather(pc, want)? {
            return Ok(());
        }
        // Lanes with different masks form groups of their own.
        let mut left = mask;
        while left != 0 {
            let named = masks[left.trailing_zeros() as usize];
            let members = mask & named;
            left &= !members;
            if let Some(lane) = (0..LANES).find(|&l| named & w.all & !members & w.live >> l & 1 == 1) {
                let detail = format!("lane {lane} is named by the mask {named:#010x} and executes it with another");
                return Err(w.fault(Kind::InactiveLane, pc, lane as u32, detail));
            }
            self.together(w, op, pc, members, named)?;
        }
        Ok(())
    }

    fn together(&mut self, w: &mut Warp, op: &Op, pc: u32, members: u32, named: u32) -> Step<()> {
        let gone = named & w.all & !w.live;
        match *op {
            Op::WarpBarrier { .. } => {
                w.sync += 1;
                if w.sync == SYNCS {
                    (self.epoch, w.sync) = (self.epoch + 1, 0);
                }
            }
            Op::Shuffle { mode, d, p, a, b, c, .. } => self.shuffle(w, mode, [d, p, a, b, c], pc, members),
            Op::Vote { mode, d, a, negated, .. } => {
                let bits = w.registers.preds[a as usize];
                let bits = if negated { !bits } else { bits } & members;
                let truth = match mode {
                    VoteMode::All => bits == members,
                    VoteMode::Any => bits != 0,
                    VoteMode::Uni => bits == members || bits == 0,
                    VoteMode::Ballot => {
                        if d != NONE {
                            each_lane(members, |l| w.registers.words[d as usize][l] = bits);
                        }
                        return self.all_there(w, pc, gone);
                    }
                };
                w.registers.set_pred(d, members, if truth { ALL } else { 0 });
            }
            Op::Match { all, wide, d, p, a, .. } => {
                let value = |w: &Warp, l: usize| match wide {
                    true => w.registers.wides[a as usize][l],
                    false => w.registers.words[a as usize][l] as u64,
                };
                let values: [u64; LANES] = std::array::from_fn(|l| value(w, l));
                let equal = |l: usize| {
                    (0..LANES)
                        .filter(|&k| members >> k & 1 == 1 && values[k] == values[l])
                        .fold(0, |m, k| m | 1u32 << k)
                };
                let mut hits = 0;
                each_lane(members, |l| {
                    let same = equal(l);
                    let same = if all && same != members { 0 } else { same };
                    hits |= ((same != 0) as u32) << l;
                    if d != NONE {
                        w.registers.words[d as usize][l] = same;
                    }
                });
                w.registers.set_pred(p, members, hits);
            }
            Op::Redux { op, d, a, .. } => {
                let row = w.registers.words[a as usize];
                let inputs = (0..LANES).filter(|l| members >> l & 1 == 1).map(|l| row[l]);
                let result = inputs.reduce(|x, y| match op {
                    ReduxOp::Add => x.wrapping_add(y),
                    ReduxOp::MinU => x.min(y),
                    ReduxOp::MaxU => x.max(y),
                    ReduxOp::MinS => (x as i32).min(y as i32) as u32,
                    ReduxOp::MaxS => (x as i32).max(y as i32) as u32,
                    ReduxOp::And => x & y,
                    ReduxOp::Or => x | y,
                    ReduxOp::Xor => x ^ y,
                });
                if let (Some(result), true) = (result, d != NONE) {
                    each_lane(members, |l| w.registers.words[d as usize][l] = result);
                }
            }
            _ => {}
        }
        self.all_there(w, pc, gone)
    }

    /// Lanes that ended cannot take part.
    fn all_there(&mut self, w: &Warp, pc: u32, gone: u32) -> Step<()> {
        if gone != 0 {
            let detail = format!("the mask names lanes {gone:#010x}, whose threads have ended");
            self.note(*w.fault(Kind::InactiveLane, pc, Warp::first(gone), detail));
        }
        Ok(())
    }

    /// `shfl.sync`, after the pseudocode of the PTX ISA.
    fn shuffle(&mut self, w: &mut Warp, mode: ShuffleMode, [d, p, a, b, c]: [Reg; 5], pc: u32, members: u32) {
        let words = &w.registers.words;
        let (values, from, control) = (words[a as usize], words[b as usize], words[c as usize]);
        let (mut inside, mut bad) = (0u32, None);
        let mut out = values;
        each_lane(members, |l| {
            let lane = l as i32;
            let (by, clamp) = ((from[l] & 31) as i32, (control[l] & 31) as i32);
            let segment = (control[l] >> 8 & 31) as i32;
            let last = (lane & segment) | (clamp & !segment);
            let (source, ok) = match mode {
                ShuffleMode::Up => (lane - by, lane - by >= last),
                ShuffleMode::Down => (lane + by, lane + by <= last),
                ShuffleMode::Bfly => (lane ^ by, lane ^ by <= last),
                ShuffleMode::Idx => {
                    let source = (lane & segment) | (by & !segment);
                    (source, source <= last)
                }
            };
            let source = if ok { source as usize } else { l };
            if members >> source & 1 == 0 {
                bad = bad.or(Some((l, source)));
            }
            inside |= (ok as u32) << l;
            out[l] = values[source];
        });
        if d != NONE {
            each_lane(members, |l| w.registers.words[d as usize][l] = out[l]);
        }
        w.registers.set_pred(p, members, inside);
        if let Some((lane, source)) = bad {
            let detail = format!("shfl.sync reads lane {source}, which does not take part");
            self.note(*w.fault(Kind::InactiveLane, pc, lane as u32, detail));
        }
    }
}
