//! Loads, stores and atomics of lanes, with their checks.

use super::block::Block;
use super::launch::Step;
use super::op::{Access, Address, Atomic, AtomicOp, Space};
use super::registers::{LANES, NONE, Registers};
use super::shared::{Flaw as SharedFlaw, read_bytes, write_bytes};
use super::warp::Warp;
use crate::device::{self, Chunk, Flaw, Life};
use crate::float::{Bf16, F16, Narrow, Rounding};
use crate::ptx::Type;
use crate::report::Kind;
use crate::window;
use std::sync::atomic::Ordering::Relaxed;

/// Where an address leads.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// An allocation (by its place in the launch's list) and an offset in it.
    Global(usize, u64),
    Shared(u64),
    /// Offset in the thread's own memory.
    Local(u64),
    /// Offset in the parameters.
    Param(u64),
}

/// The address of a lane.
#[inline(always)]
pub fn lane_address(registers: &Registers, a: &Address, lane: usize) -> u64 {
    let base = match (a.base, a.wide) {
        (NONE, _) => 0,
        (r, true) => registers.wides[r as usize][lane],
        (r, false) => registers.words[r as usize][lane] as u64,
    };
    base.wrapping_add(a.offset as u64)
}

/// Whether an atomic of this type is covered.
pub fn atomic_covers(op: AtomicOp, ty: Type) -> bool {
    use AtomicOp::*;
    match ty {
        Type::F32 | Type::F64 | Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2 => op == Add,
        Type::U32 => matches!(op, Add | Min | Max | Inc | Dec | Exch | Cas | And | Or | Xor),
        Type::S32 | Type::S64 | Type::U64 => matches!(op, Add | Min | Max | Exch | Cas),
        Type::B32 | Type::B64 => matches!(op, And | Or | Xor | Exch | Cas),
        Type::B16 => op == Cas,
        _ => false,
    }
}

impl Block<'_> {
    /// Finds where `n` bytes at an address lie, or ends the launch.
    #[inline]
    pub fn target(&mut self, w: &Warp, space: Space, address: u64, n: u32, pc: u32, lane: usize) -> Step<Target> {
        if address & (n as u64 - 1) != 0 {
            let detail = format!("access of {n} bytes at {address:#x}");
            return Err(w.fault(Kind::Misaligned, pc, lane as u32, detail));
        }
        let (space, address) = match space {
            Space::Generic => match address {
                a if a >= window::GLOBAL => (Space::Global, a),
                a if (window::SHARED..window::SHARED + window::SIZE).contains(&a) => {
                    (Space::Shared, a - window::SHARED)
                }
                a if (window::LOCAL..window::LOCAL + window::SIZE).contains(&a) => (Space::Local, a - window::LOCAL),
                a if (window::PARAM..window::PARAM + 32768).contains(&a) => (Space::Param, a),
                a => (Space::Global, a),
            },
            space => (space, address),
        };
        let n = n as u64;
        let within = |name: &str, size: u64, target: Target, at: u64| match at.checked_add(n) {
            Some(end) if end <= size => Ok(target),
            _ => {
                let detail = format!("{n} bytes at {at:#x} of {size} bytes of {name}");
                Err(w.fault(Kind::OutOfBounds, pc, lane as u32, detail))
            }
        };
        match space {
            Space::Shared => within("shared memory", self.shared.len(), Target::Shared(address), address),
            Space::Local => {
                within("local memory", self.grid.kernel.local_bytes as u64, Target::Local(address), address)
            }
            Space::Param => {
                let at = address.wrapping_sub(window::PARAM);
                within("parameters", self.grid.launch.params.len() as u64, Target::Param(at), at)
            }
            _ => self.global(w, address, n, pc, lane),
        }
    }

    #[inline]
    fn global(&mut self, w: &Warp, address: u64, n: u64, pc: u32, lane: usize) -> Step<Target> {
        let list = &self.grid.memory;
        let slot = pc as usize % self.last.len();
        let guess = self.last[slot];
        let hit = list.get(guess).is_some_and(|a| address >= a.base && address - a.base + n <= a.len);
        let found = if hit { Some(guess) } else { device::find(list, address, n) };
        match found {
            Some(i) if list[i].life() == Life::Live => {
                self.last[slot] = i;
                Ok(Target::Global(i, address - list[i].base))
            }
            Some(i) => {
                let (kind, what) = match list[i].life() {
                    Life::Pending => (Kind::OutOfBounds, "whose stream-ordered allocation has not happened yet"),
                    _ => (Kind::UseAfterFree, "that was released in stream order before"),
                };
                let detail = format!("{n} bytes at {address:#x}, in memory {what}");
                Err(w.fault(kind, pc, lane as u32, detail))
            }
            None => {
                let (freed, detail) = device::describe(address, n);
                let kind = if freed { Kind::UseAfterFree } else { Kind::OutOfBounds };
                Err(w.fault(kind, pc, lane as u32, detail))
            }
        }
    }

    fn note_global(&mut self, w: &Warp, flaw: Flaw, i: usize, offset: u64, n: u32, pc: u32, lane: usize) {
        let len = self.grid.memory[i].len;
        let (kind, detail) = match flaw {
            Flaw::Uninitialised => {
                (Kind::Uninitialised, format!("{n} bytes from byte {offset} of an allocation of {len} bytes"))
            }
            Flaw::Race(block) => (
                Kind::Race,
                format!("{n} bytes from byte {offset} of {len}, which block {block} writes in this launch"),
            ),
        };
        self.note(*w.fault(kind, pc, lane as u32, detail));
    }

    /// Turns a flaw of a shared access into a finding.
    pub fn note_shared(&mut self, w: &Warp, flaw: SharedFlaw, at: u64, pc: u32, lane: usize) {
        let kind = match flaw {
            SharedFlaw::Uninitialised | SharedFlaw::InFlight => Kind::Uninitialised,
            _ => Kind::Race,
        };
        self.note(*w.fault(kind, pc, lane as u32, format!("shared memory byte {at:#x}: {flaw}")));
    }

    /// Reads for a lane.
    #[inline]
    pub fn fetch(&mut self, w: &Warp, target: Target, n: u32, pc: u32, lane: usize) -> Chunk {
        match target {
            Target::Global(i, offset) => {
                let a = &self.grid.memory[i];
                self.counts.global_read += n as u64;
                let value = a.read(offset, n);
                if let Err(flaw) = a.check_read(offset, n, self.writer) {
                    self.note_global(w, flaw, i, offset, n, pc, lane);
                }
                value
            }
            Target::Shared(at) => {
                if let Err(flaw) = self.shared.check_read(at, n, self.who(w, lane)) {
                    self.note_shared(w, flaw, at, pc, lane);
                }
                self.shared.read(at, n)
            }
            Target::Local(at) => {
                let start = lane as u64 * self.grid.kernel.local_bytes as u64 + at;
                if !w.local_written[start as usize..start as usize + n as usize].iter().all(|&x| x) {
                    let detail = format!("{n} bytes of local memory at {at:#x}");
                    self.note(*w.fault(Kind::Uninitialised, pc, lane as u32, detail));
                }
                read_bytes(&w.local, start, n)
            }
            Target::Param(at) => read_bytes(&self.grid.launch.params, at, n),
        }
    }

    /// Writes for a lane.
    #[inline]
    pub fn put(&mut self, w: &mut Warp, target: Target, n: u32, value: &Chunk, pc: u32, lane: usize) -> Step<()> {
        match target {
            Target::Global(i, offset) => {
                let a = &self.grid.memory[i];
                if a.constant {
                    return Err(w.fault(Kind::WriteToConstant, pc, lane as u32, "`.const` memory is for reading"));
                }
                self.counts.global_written += n as u64;
                let flaw = a.mark_write(offset, n, self.writer, false);
                if let Err(flaw) = flaw
                    && a.read(offset, n) != *value
                {
                    self.note_global(w, flaw, i, offset, n, pc, lane);
                }
                self.grid.memory[i].write(offset, n, value);
            }
            Target::Shared(at) => {
                if let Err(flaw) = self.shared.check_write(at, n, value, self.who(w, lane)) {
                    self.note_shared(w, flaw, at, pc, lane);
                }
                self.shared.write(at, n, value);
            }
            Target::Local(at) => {
                let start = lane as u64 * self.grid.kernel.local_bytes as u64 + at;
                w.local_written[start as usize..start as usize + n as usize].fill(true);
                write_bytes(&mut w.local, start, n, value);
            }
            Target::Param(_) => {
                return Err(w.fault(Kind::WriteToConstant, pc, lane as u32, "parameters are for reading"));
            }
        }
        Ok(())
    }

    /// `ld`
    pub fn load(&mut self, w: &mut Warp, a: &Access, pc: u32, mask: u32) -> Step<()> {
        let size = a.ty.size();
        let n = size * a.count as u32;
        for lane in (0..LANES).filter(|l| mask >> l & 1 == 1) {
            let target = self.target(w, a.address.space, lane_address(&w.registers, &a.address, lane), n, pc, lane)?;
            let chunk = self.fetch(w, target, n, pc, lane);
            for q in 0..a.count as usize {
                let value = part(&chunk, q, size);
                let value = match a.ty {
                    Type::S8 => value as i8 as i64 as u64,
                    Type::S16 => value as i16 as i64 as u64,
                    Type::S32 => value as i32 as i64 as u64,
                    _ => value,
                };
                match a.regs[q] {
                    NONE => {}
                    r if a.wide => w.registers.wides[r as usize][lane] = value,
                    r => w.registers.words[r as usize][lane] = value as u32,
                }
            }
        }
        Ok(())
    }

    /// `st`
    pub fn store(&mut self, w: &mut Warp, a: &Access, pc: u32, mask: u32) -> Step<()> {
        let size = a.ty.size();
        let n = size * a.count as u32;
        let keep = if size == 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
        for lane in (0..LANES).filter(|l| mask >> l & 1 == 1) {
            let target = self.target(w, a.address.space, lane_address(&w.registers, &a.address, lane), n, pc, lane)?;
            let mut chunk = [0; 4];
            for q in 0..a.count as usize {
                let r = a.regs[q] as usize;
                let value = if a.wide { w.registers.wides[r][lane] } else { w.registers.words[r][lane] as u64 };
                let at = q * size as usize;
                chunk[at / 8] |= (value & keep) << (8 * (at % 8));
            }
            self.put(w, target, n, &chunk, pc, lane)?;
        }
        Ok(())
    }

    /// `atom` and `red`: lanes one after the other.
    pub fn atomic(&mut self, w: &mut Warp, a: &Atomic, pc: u32, mask: u32) -> Step<()> {
        let n = a.ty.size();
        let read = |w: &Warp, r, lane: usize| match (r, n) {
            (NONE, _) => 0,
            (r, 8) => w.registers.wides[r as usize][lane],
            (r, _) => w.registers.words[r as usize][lane] as u64,
        };
        for lane in (0..LANES).filter(|l| mask >> l & 1 == 1) {
            let address = lane_address(&w.registers, &a.address, lane);
            let (x, y) = (read(w, a.a, lane), read(w, a.b, lane));
            let old = match self.target(w, a.address.space, address, n, pc, lane)? {
                Target::Global(i, offset) => self.atomic_global(w, a, i, offset, [x, y], pc, lane),
                Target::Shared(at) => {
                    if let Err(flaw) = self.shared.check_atomic(at, n) {
                        self.note_shared(w, flaw, at, pc, lane);
                    }
                    let old = self.shared.read(at, n)[0];
                    self.shared.write(at, n, &[apply(a.op, a.ty, old, x, y), 0, 0, 0]);
                    old
                }
                target => {
                    let old = self.fetch(w, target, n, pc, lane)[0];
                    self.put(w, target, n, &[apply(a.op, a.ty, old, x, y), 0, 0, 0], pc, lane)?;
                    old
                }
            };
            match (a.d, n) {
                (NONE, _) => {}
                (d, 8) => w.registers.wides[d as usize][lane] = old,
                (d, _) => w.registers.words[d as usize][lane] = old as u32,
            }
        }
        Ok(())
    }

    fn atomic_global(
        &mut self,
        w: &Warp,
        a: &Atomic,
        i: usize,
        offset: u64,
        [x, y]: [u64; 2],
        pc: u32,
        lane: usize,
    ) -> u64 {
        let (memory, n) = (&self.grid.memory[i], a.ty.size());
        self.counts.global_read += n as u64;
        self.counts.global_written += n as u64;
        let flaw = memory.check_read(offset, n, self.writer);
        // The shadow of a word that an atomic wrote says "several blocks".
        let _ = memory.mark_write(offset, n, self.writer, true);
        let change = |old: u64| apply(a.op, a.ty, old, x, y);
        // The closures never give up, so there is no error.
        let old = match n {
            2 => memory
                .cell16(offset)
                .fetch_update(Relaxed, Relaxed, |v| Some(change(v as u64) as u16))
                .map_or(0, u64::from),
            4 => memory
                .cell32(offset)
                .fetch_update(Relaxed, Relaxed, |v| Some(change(v as u64) as u32))
                .map_or(0, u64::from),
            _ => memory.cell64(offset).fetch_update(Relaxed, Relaxed, |v| Some(change(v))).unwrap_or(0),
        };
        if let Err(flaw) = flaw {
            self.note_global(w, flaw, i, offset, n, pc, lane);
        }
        old
    }
}

fn part(chunk: &Chunk, index: usize, size: u32) -> u64 {
    let at = index * size as usize;
    let word = chunk[at / 8] >> (8 * (at % 8));
    if size == 8 { word } else { word & ((1 << (8 * size)) - 1) }
}

/// The new value of an atomic operation.
fn apply(op: AtomicOp, ty: Type, old: u64, x: u64, y: u64) -> u64 {
    use AtomicOp::*;
    fn add<T: Narrow>(a: T, b: T) -> T {
        T::round(a.widen() as f64 + b.widen() as f64, Rounding::Nearest)
    }
    let halves = |f: fn(u16, u16) -> u16| {
        f(old as u16, x as u16) as u64 | (f((old >> 16) as u16, (x >> 16) as u16) as u64) << 16
    };
    match (op, ty) {
        (Exch, _) => x,
        (Cas, Type::B16) => {
            if old as u16 == x as u16 {
                y
            } else {
                old
            }
        }
        (Cas, _) => {
            if old == x {
                y
            } else {
                old
            }
        }
        (And, _) => old & x,
        (Or, _) => old | x,
        (Xor, _) => old ^ x,
        (Inc, _) => {
            if old as u32 >= x as u32 {
                0
            } else {
                old + 1
            }
        }
        (Dec, _) => {
            if old as u32 == 0 || old as u32 > x as u32 {
                x
            } else {
                old - 1
            }
        }
        (Add, Type::F32) => (f32::from_bits(old as u32) + f32::from_bits(x as u32)).to_bits() as u64,
        (Add, Type::F64) => (f64::from_bits(old) + f64::from_bits(x)).to_bits(),
        (Add, Type::F16) => add(F16(old as u16), F16(x as u16)).0 as u64,
        (Add, Type::Bf16) => add(Bf16(old as u16), Bf16(x as u16)).0 as u64,
        (Add, Type::F16x2) => halves(|a, b| add(F16(a), F16(b)).0),
        (Add, Type::Bf16x2) => halves(|a, b| add(Bf16(a), Bf16(b)).0),
        (Add, Type::U64 | Type::S64) => old.wrapping_add(x),
        (Add, _) => (old as u32).wrapping_add(x as u32) as u64,
        (Min, Type::S32) => (old as i32).min(x as i32) as u32 as u64,
        (Max, Type::S32) => (old as i32).max(x as i32) as u32 as u64,
        (Min, Type::S64) => (old as i64).min(x as i64) as u64,
        (Max, Type::S64) => (old as i64).max(x as i64) as u64,
        (Min, _) => old.min(x),
        (Max, _) => old.max(x),
    }
}
