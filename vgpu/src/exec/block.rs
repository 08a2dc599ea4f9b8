//! A block: its warps, from barrier to barrier.

use super::copy::Copies;
use super::launch::{Counts, Fault, Grid, Step, unfold};
use super::op::{BarrierOp, Op};
use super::registers::{ALL, LANES, NONE, Reg, Registers, each_lane};
use super::shared::{Shared, Who};
use super::warp::{Group, Stop, Warp};
use crate::ptx::Special;
use crate::report::Kind;
use crate::shadow::Accessor;

/// Barriers of a block.
const BARRIERS: usize = 16;

/// What `bar.red` collects.
#[derive(Clone, Copy)]
struct Reduction {
    count: u32,
    all: bool,
    any: bool,
}

const NOTHING: Reduction = Reduction { count: 0, all: true, any: false };

/// A warp that waits.
#[derive(Clone, Copy)]
struct Waiting {
    id: u32,
    threads: u32,
    pc: u32,
    lanes: u32,
}

pub struct Block<'a> {
    pub grid: &'a Grid<'a>,
    pub shared: Shared,
    /// Findings that do not end the launch.
    pub notes: Vec<Fault>,
    pub counts: Counts,
    /// What the block printed.
    pub printed: String,
    /// Barrier interval.
    pub epoch: u32,
    /// Who it is to device memory.
    pub accessor: Accessor,
    /// Allocation that an instruction met last, to look there first.
    pub last: [usize; 64],
    /// Arrived at each barrier without waiting.
    arrived: [u32; BARRIERS],
    reductions: [Reduction; BARRIERS],
    warps: Vec<Warp>,
    /// The registers a warp starts with.
    template: Registers,
}

/// The special registers of a warp that are the same in every block.
fn specials(grid: &Grid, warp: u32) -> Vec<(Reg, [u32; LANES])> {
    let launch = grid.launch;
    let fixed = grid.kernel.specials.iter().filter(|(_, special)| !matches!(special, Special::CtaId(_)));
    let value = |special: Special, lane: usize| match special {
        Special::Tid(axis) => unfold(warp as u64 * 32 + lane as u64, launch.block)[axis as usize],
        Special::NTid(axis) => launch.block[axis as usize],
        Special::NCtaId(axis) => launch.grid[axis as usize],
        Special::LaneId => lane as u32,
        Special::WarpId => warp,
        Special::LaneMaskEq => 1 << lane,
        Special::LaneMaskLt => (1 << lane) - 1,
        Special::LaneMaskLe => ALL >> (31 - lane),
        Special::LaneMaskGt => !(ALL >> (31 - lane)),
        Special::LaneMaskGe => ALL << lane,
        Special::Clock | Special::CtaId(_) => 0, // time stands still: a kernel may not depend on it
        Special::DynamicSharedBytes => launch.dynamic_shared,
    };
    fixed.map(|&(r, special)| (r, std::array::from_fn(|lane| value(special, lane)))).collect()
}

impl<'a> Block<'a> {
    pub fn new(grid: &'a Grid<'a>) -> Self {
        let k = grid.kernel;
        let mut template = Registers {
            words: k.words.iter().map(|&v| [v; LANES]).collect(),
            wides: k.wides.iter().map(|&v| [v; LANES]).collect(),
            preds: vec![0; k.preds],
        };
        for &(r, variable, offset) in &k.relocations {
            template.wides[r as usize] = [grid.launch.variables[variable].wrapping_add(offset); LANES];
        }
        let shared = k.shared_bytes.next_multiple_of(16) + grid.launch.dynamic_shared;
        let shared = if grid.launch.dynamic_shared == 0 { k.shared_bytes } else { shared };
        let threads: u32 = grid.launch.block.iter().product();
        let warps = (0..threads.div_ceil(LANES as u32)).map(|index| Warp {
            index,
            specials: specials(grid, index),
            registers: template.clone(),
            current: Group { pc: 0, mask: 0, parked: false },
            others: Vec::new(),
            live: 0,
            all: if threads - index * 32 >= 32 { ALL } else { (1 << (threads - index * 32)) - 1 },
            sync: 0,
            local: vec![0xa5; k.local_bytes as usize * LANES],
            local_written: vec![false; k.local_bytes as usize * LANES],
            copies: Copies::default(),
            steps: 0,
        });
        Block {
            grid,
            shared: Shared::new(shared, k.shared_granule),
            notes: Vec::new(),
            counts: Counts::default(),
            printed: String::new(),
            epoch: 0,
            accessor: grid.accessor,
            last: [usize::MAX; 64],
            arrived: [0; BARRIERS],
            reductions: [NOTHING; BARRIERS],
            warps: warps.collect(),
            template,
        }
    }

    /// Runs block `index` of the grid.
    pub fn run(&mut self, index: u64) -> Step<()> {
        let mut warps = std::mem::take(&mut self.warps);
        self.epoch += 1;
        self.accessor = self.grid.accessor.block(index);
        self.shared.begin(self.epoch);
        self.arrived = [0; BARRIERS];
        self.reductions = [NOTHING; BARRIERS];
        for w in &mut warps {
            self.start(w, index);
        }
        let result = self.run_warps(&mut warps);
        self.warps = warps;
        result
    }

    fn start(&self, w: &mut Warp, index: u64) {
        if self.grid.kernel.resets {
            w.registers.words.copy_from_slice(&self.template.words);
            w.registers.wides.copy_from_slice(&self.template.wides);
        }
        w.registers.preds.copy_from_slice(&self.template.preds);
        w.live = w.all;
        w.current = Group { pc: 0, mask: w.all, parked: false };
        w.others.clear();
        w.sync = 0;
        w.steps = 0;
        w.copies = Copies::default();
        w.local.fill(0xa5);
        w.local_written.fill(false);
        for (r, row) in &w.specials {
            w.registers.words[*r as usize] = *row;
        }
        let place = unfold(index, self.grid.launch.grid);
        for &(r, special) in &self.grid.kernel.specials {
            if let Special::CtaId(axis) = special {
                w.registers.words[r as usize] = [place[axis as usize]; LANES];
            }
        }
    }

    fn run_warps(&mut self, warps: &mut [Warp]) -> Step<()> {
        let mut waiting: Vec<Option<Waiting>> = vec![None; warps.len()];
        let mut done = vec![false; warps.len()];
        loop {
            for i in 0..warps.len() {
                while !done[i] && waiting[i].is_none() {
                    match self.run_warp(&mut warps[i])? {
                        Stop::Done => done[i] = true,
                        Stop::Barrier { id, threads } => {
                            let w = &warps[i];
                            let lanes = w.current.mask.count_ones();
                            waiting[i] = Some(Waiting { id, threads, pc: w.current.pc - 1, lanes });
                        }
                        Stop::Arrive { .. } => {}
                    }
                }
            }
            if done.iter().all(|&d| d) {
                return Ok(());
            }
            self.release(warps, &mut waiting, &done)?;
        }
    }

    /// Lets the warps go whose barrier is complete; every warp has ended or waits.
    fn release(&mut self, warps: &mut [Warp], waiting: &mut [Option<Waiting>], done: &[bool]) -> Step<()> {
        let mut any = false;
        for id in 0..BARRIERS as u32 {
            let here: Vec<usize> = (0..warps.len()).filter(|&i| waiting[i].is_some_and(|w| w.id == id)).collect();
            let Some(&first) = here.first() else { continue };
            let w = waiting[first].expect("it waits");
            let complete = if w.threads == 0 {
                here.len() + done.iter().filter(|&&d| d).count() == warps.len()
            } else {
                // Warps that wait count as whole, as on a device.
                here.len() as u32 * LANES as u32 + self.arrived[id as usize] >= w.threads
            };
            if !complete {
                continue;
            }
            if let Some(ended) = warps.iter().find(|x| w.threads == 0 && x.live != x.all) {
                let lane = Warp::first(ended.all & !ended.live);
                let fault = warps[first].fault(Kind::DivergentBarrier, w.pc, 0, "");
                return Err(Box::new(Fault {
                    detail: format!("{} threads of this warp wait, this thread has ended before", w.lanes),
                    thread: ended.index * LANES as u32 + lane,
                    ..*fault
                }));
            }
            any = true;
            self.finish(warps, &here, waiting, id);
        }
        if any {
            self.epoch += 1;
            warps.iter_mut().for_each(|w| w.sync = 0);
            return Ok(());
        }
        let (i, w) = waiting.iter().enumerate().find_map(|(i, w)| Some((i, (*w)?))).expect("a warp waits");
        let others: Vec<String> = waiting.iter().flatten().map(|w| w.id.to_string()).collect();
        let detail = format!("warps wait at barriers {} for each other", others.join(", "));
        Err(warps[i].fault(Kind::DivergentBarrier, w.pc, Warp::first(warps[i].current.mask), detail))
    }

    fn finish(&mut self, warps: &mut [Warp], here: &[usize], waiting: &mut [Option<Waiting>], id: u32) {
        let reduction = std::mem::replace(&mut self.reductions[id as usize], NOTHING);
        self.arrived[id as usize] = 0;
        for &i in here {
            let w = &mut warps[i];
            let Some(at) = waiting[i].take() else { continue };
            if let Op::Barrier { op, d, .. } = self.grid.kernel.code[at.pc as usize].op {
                let mask = w.current.mask;
                match op {
                    BarrierOp::RedPopc if d != NONE => {
                        each_lane(mask, |l| w.registers.words[d as usize][l] = reduction.count);
                    }
                    BarrierOp::RedAnd => w.registers.set_pred(d, mask, if reduction.all { ALL } else { 0 }),
                    BarrierOp::RedOr => w.registers.set_pred(d, mask, if reduction.any { ALL } else { 0 }),
                    _ => {}
                }
            }
        }
    }

    /// A warp comes to a barrier.
    pub fn barrier(&mut self, w: &mut Warp, op: &Op, pc: u32, mask: u32) -> Step<Option<Stop>> {
        let &Op::Barrier { op, id, threads, p, negated, .. } = op else { return Ok(None) };
        if mask != w.current.mask {
            let (here, away) = (mask.count_ones(), (w.current.mask & !mask).count_ones());
            return Err(w.fault(
                Kind::DivergentBarrier,
                pc,
                Warp::first(w.current.mask & !mask),
                format!("{here} lanes of a warp come to the barrier, {away} pass it by"),
            ));
        }
        if !w.gather(pc, ALL)? {
            return Ok(None);
        }
        let lane = Warp::first(mask) as usize;
        let id = w.registers.words[id as usize][lane];
        let threads = if threads == NONE { 0 } else { w.registers.words[threads as usize][lane] };
        if id as usize >= BARRIERS {
            return Err(w.fault(Kind::Trap, pc, lane as u32, format!("there is no barrier {id}")));
        }
        if op == BarrierOp::Arrive {
            self.arrived[id as usize] += LANES as u32;
            return Ok(Some(Stop::Arrive { id, threads }));
        }
        if p != NONE {
            let bits = w.registers.preds[p as usize];
            let bits = if negated { !bits } else { bits } & w.current.mask;
            let r = &mut self.reductions[id as usize];
            r.count += bits.count_ones();
            r.all &= bits == w.current.mask;
            r.any |= bits != 0;
        }
        Ok(Some(Stop::Barrier { id, threads }))
    }

    /// A finding that does not end the launch; one a kind and instruction is enough.
    pub fn note(&mut self, fault: Fault) {
        if !self.notes.iter().any(|n| n.kind == fault.kind && n.pc == fault.pc) {
            self.notes.push(fault);
        }
    }

    /// Who a lane is to shared memory.
    pub fn who(&self, w: &Warp, lane: usize) -> Who {
        Who { thread: w.index * LANES as u32 + lane as u32, epoch: self.epoch, sync: w.sync }
    }
}
