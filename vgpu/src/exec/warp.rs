//! A warp: its registers, its groups of lanes, and the order in which they run.

use super::block::Block;
use super::copy::Copies;
use super::launch::{Fault, Step};
use super::op::{Inst, Op};
use super::registers::{ALL, LANES, NONE, Reg, Registers};
use crate::report::Kind;

/// Lanes that run together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub pc: u32,
    pub mask: u32,
    /// Waits at a warp-synchronous instruction for other lanes.
    pub parked: bool,
}

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All threads ended.
    Done,
    /// All live threads wait at a barrier: its number, and how many threads it is for (0: all).
    Barrier { id: u32, threads: u32 },
    /// Counted at a barrier without waiting.
    Arrive { id: u32, threads: u32 },
}

pub struct Warp {
    pub index: u32,
    /// Special registers that are the same in every block.
    pub specials: Vec<(Reg, [u32; LANES])>,
    pub registers: Registers,
    /// The running group; no lanes: choose another.
    pub current: Group,
    pub others: Vec<Group>,
    /// Threads that have not ended.
    pub live: u32,
    /// Threads it started with.
    pub all: u32,
    /// Interval between warp barriers.
    pub sync: u32,
    pub local: Vec<u8>,
    /// Written bytes of local memory.
    pub local_written: Vec<bool>,
    pub copies: Copies,
    /// Instructions since the block began.
    pub steps: u64,
}

/// Steps after which a warp counts as never ending.
const ENDLESS: u64 = 1 << 33;

impl Warp {
    /// Lane of which the current instruction is told in a finding.
    pub fn first(mask: u32) -> u32 {
        if mask == 0 { 0 } else { mask.trailing_zeros() }
    }

    pub fn fault(&self, kind: Kind, pc: u32, lane: u32, detail: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { kind, detail: detail.into(), pc, thread: self.index * LANES as u32 + lane })
    }

    /// Goes on with the lowest program counter that is not parked; groups that meet become one.
    fn reschedule(&mut self) -> Step<()> {
        if self.current.mask != 0 {
            self.others.push(self.current);
        }
        let Some(pc) = self.others.iter().filter(|g| !g.parked).map(|g| g.pc).min() else {
            let waiting: Vec<String> = self.others.iter().map(|g| format!("{:#010x}", g.mask)).collect();
            let first = self.others.iter().min_by_key(|g| g.pc).copied().unwrap_or(self.current);
            return Err(self.fault(
                Kind::DivergentBarrier,
                first.pc,
                Warp::first(first.mask),
                format!("lanes {} of a warp wait at different places for each other", waiting.join(" and ")),
            ));
        };
        let mut mask = 0;
        self.others.retain(|g| {
            let here = g.pc == pc;
            mask |= if here { g.mask } else { 0 };
            !here
        });
        self.current = Group { pc, mask, parked: false };
        Ok(())
    }

    /// Leaves only `mask` at this instruction; the others of the group go on behind it.
    pub fn split(&mut self, pc: u32, mask: u32) {
        let rest = self.current.mask & !mask;
        if rest != 0 {
            self.others.push(Group { pc: pc + 1, mask: rest, parked: false });
            self.current.mask = mask;
        }
    }

    /// Whether all live lanes of `want` are here; if not, the group waits and another goes on.
    pub fn gather(&mut self, pc: u32, want: u32) -> Step<bool> {
        if want & self.live & !self.current.mask == 0 {
            self.current.pc = pc + 1;
            return Ok(true);
        }
        self.others.push(Group { pc, mask: self.current.mask, parked: true });
        self.current.mask = 0;
        self.reschedule()?;
        Ok(false)
    }

    fn exit(&mut self, mask: u32) -> Step<bool> {
        self.live &= !mask;
        self.current.mask &= !mask;
        self.others.iter_mut().for_each(|g| g.parked = false); // they may have waited for these
        if self.live == 0 {
            return Ok(true);
        }
        if self.current.mask == 0 {
            self.reschedule()?;
        }
        Ok(false)
    }
}

impl Block<'_> {
    /// Runs a warp until it stops.
    pub fn run_warp(&mut self, w: &mut Warp) -> Step<Stop> {
        let code: &[Inst] = &self.grid.kernel.code;
        let (mut steps, mut lanes) = (0u64, 0u64);
        let result = loop {
            if !w.others.is_empty() {
                let pc = w.current.pc;
                if w.current.mask == 0 || w.others.iter().any(|g| g.pc == pc || (g.pc < pc && !g.parked)) {
                    w.reschedule()?;
                }
            }
            let pc = w.current.pc;
            let inst = &code[pc as usize];
            w.current.pc = pc + 1;
            let mut mask = w.current.mask;
            if inst.guard != NONE {
                let guard = w.registers.preds[inst.guard as usize];
                mask &= if inst.guard_negated { !guard } else { guard };
            }
            steps += 1;
            lanes += mask.count_ones() as u64;
            if mask == 0 {
                continue;
            }
            match &inst.op {
                Op::Alu(run, operands) => run(&mut w.registers, operands, mask),
                Op::Branch { target } => {
                    if mask == w.current.mask {
                        w.current.pc = *target;
                    } else {
                        w.others.push(Group { pc: *target, mask, parked: false });
                        w.current.mask &= !mask;
                    }
                    if *target <= pc && w.steps + steps > ENDLESS {
                        break Err(w.fault(Kind::Trap, pc, Warp::first(mask), "the kernel does not end"));
                    }
                }
                Op::Exit => match w.exit(mask) {
                    Ok(true) => break Ok(Stop::Done),
                    Ok(false) => {}
                    Err(fault) => break Err(fault),
                },
                Op::Fence => {}
                op => match self.special(w, op, pc, mask) {
                    Ok(None) => {}
                    Ok(Some(stop)) => break Ok(stop),
                    Err(fault) => break Err(fault),
                },
            }
        };
        w.steps += steps;
        self.counts.warp_instructions += steps;
        self.counts.thread_instructions += lanes;
        result
    }

    /// Everything that is not arithmetic or control flow.
    fn special(&mut self, w: &mut Warp, op: &Op, pc: u32, mask: u32) -> Step<Option<Stop>> {
        match op {
            Op::Load(access) => self.load(w, access, pc, mask)?,
            Op::Store(access) => self.store(w, access, pc, mask)?,
            Op::Atomic(atomic) => self.atomic(w, atomic, pc, mask)?,
            Op::CopyAsync { dst, src, bytes, src_bytes } => {
                self.copy_begin(w, dst, src, *bytes as u32, *src_bytes, pc, mask)?
            }
            Op::CopyCommit => w.copies.commit(mask),
            Op::CopyWait { pending } => self.copy_wait(w, *pending, mask)?,
            Op::Trap => return Err(w.fault(Kind::Trap, pc, Warp::first(mask), "the kernel executed `trap`")),
            &Op::Print { format, arguments, result } => self.print(w, [format, arguments, result], pc, mask)?,
            &Op::AssertFail { message, file, line, function } => {
                self.assert_fail(w, [message, file, line, function], pc, mask)?
            }
            Op::ActiveMask { d } => w.registers.words[*d as usize] = [mask; LANES],
            Op::Mma { shape, d, a, b, c } => {
                w.split(pc, mask);
                if w.gather(pc, ALL)? {
                    self.need_all(w, pc)?;
                    self.mma(w, *shape, d, a, b, c);
                }
            }
            Op::LoadMatrix { address, count, transposed, d } => {
                w.split(pc, mask);
                if w.gather(pc, ALL)? {
                    self.need_all(w, pc)?;
                    self.load_matrix(w, address, *count, *transposed, d, pc)?;
                }
            }
            Op::StoreMatrix { address, count, transposed, a } => {
                w.split(pc, mask);
                if w.gather(pc, ALL)? {
                    self.need_all(w, pc)?;
                    self.store_matrix(w, address, *count, *transposed, a, pc)?;
                }
            }
            Op::Barrier { .. } => return self.barrier(w, op, pc, mask),
            _ => self.warp_wide(w, op, pc, mask)?,
        }
        Ok(None)
    }

    /// Instructions on matrices need all 32 lanes.
    fn need_all(&mut self, w: &Warp, pc: u32) -> Step<()> {
        if w.current.mask == ALL {
            return Ok(());
        }
        let missing = Warp::first(!w.current.mask);
        Err(w.fault(
            Kind::InactiveLane,
            pc,
            missing,
            "an instruction of the whole warp is reached by some of its lanes",
        ))
    }
}
