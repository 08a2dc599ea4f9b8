//! A lane's access to memory, with all its checks and their findings.

use super::block::Block;
use super::launch::Step;
use super::op::{Address, Space};
use super::registers::{NONE, Registers};
use super::shared::{Flaw as SharedFlaw, read_bytes, write_bytes};
use super::warp::Warp;
use crate::device::{self, Chunk, Life};
use crate::report::Kind;
use crate::shadow::Flaw;
use crate::window;

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

    pub fn note_global(&mut self, w: &Warp, flaw: Flaw, i: usize, offset: u64, n: u32, pc: u32, lane: usize) {
        let len = self.grid.memory[i].len;
        let (kind, detail) = match flaw {
            Flaw::Uninitialised => {
                (Kind::Uninitialised, format!("{n} bytes from byte {offset} of an allocation of {len} bytes"))
            }
            Flaw::Written(by) | Flaw::Read(by) => {
                let did = if matches!(flaw, Flaw::Written(_)) { "writes" } else { "reads" };
                let who = by.map_or("another block".into(), |block| format!("block {block}"));
                (Kind::Race, format!("{n} bytes from byte {offset} of {len}, which {who} {did} in this launch"))
            }
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
                if let Err(flaw) = a.shadow.read(offset, n as u64, self.accessor) {
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
                let flaw = a.shadow.write(offset, n as u64, self.accessor);
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
}
