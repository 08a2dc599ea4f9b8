//! Loads and stores of a warp: its lanes together as far as nothing is wrong, then each for itself.

use super::block::Block;
use super::global;
use super::lanes::{Words, from_registers, to_registers};
use super::launch::Step;
use super::memory::lane_address;
use super::op::{Access, Address, Space};
use super::registers::{LANES, NONE, Registers};
use super::shared::read_bytes;
use super::simd::vectorised;
use super::warp::Warp;
use crate::device::{self, Allocation, Chunk, Life};
use crate::ptx::Type;
use crate::window;
use std::sync::Arc;

impl Block<'_> {
    /// `ld`
    pub fn load(&mut self, w: &mut Warp, a: &Access, pc: u32, mask: u32) -> Step<()> {
        let left = load_lanes(self, w, a, pc, mask);
        if left == 0 { Ok(()) } else { self.load_each(w, a, pc, left) }
    }

    #[inline(always)]
    fn load_to_registers<const W: usize>(&mut self, w: &mut Warp, a: &Access, pc: u32, mask: u32) -> u32 {
        let (n, mut words) = (a.ty.size() * a.count as u32, [[0; W]; LANES]);
        let left = self.load_together(w, &a.address, n, pc, mask, &mut words);
        if left != mask {
            to_registers(&words, a, mask & !left, &mut w.registers);
        }
        left
    }

    #[cold]
    fn load_each(&mut self, w: &mut Warp, a: &Access, pc: u32, mask: u32) -> Step<()> {
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
        let left = store_lanes(self, w, a, pc, mask);
        if left == 0 { Ok(()) } else { self.store_each(w, a, pc, left) }
    }

    #[cold]
    fn store_each(&mut self, w: &mut Warp, a: &Access, pc: u32, mask: u32) -> Step<()> {
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

    /// Loads `n` bytes, at most `W` words, for each lane of `mask` and returns the lanes that are left: from the first on
    /// with which something may be wrong, or all for what is not covered here.
    #[inline(always)]
    pub fn load_together<const W: usize>(
        &mut self,
        w: &Warp,
        address: &Address,
        n: u32,
        pc: u32,
        mask: u32,
        out: &mut Words<W>,
    ) -> u32 {
        if address.space == Space::Param && address.base == NONE {
            return self.load_parameter(address, n, mask, out);
        }
        let mut at = lane_addresses(&w.registers, address);
        match self.window(address.space, &mut at, mask, pc) {
            Window::Global(memory) => {
                let left = if n == 4 * W as u32 {
                    global::load_words(memory, &at, mask, self.accessor, out)
                } else {
                    let mut narrow = [[0]; LANES];
                    let left = match n {
                        1 => global::load_part::<1>(memory, &at, mask, self.accessor, &mut narrow),
                        _ => global::load_part::<2>(memory, &at, mask, self.accessor, &mut narrow),
                    };
                    out.iter_mut().zip(narrow).for_each(|(to, from)| to[0] = from[0]);
                    left
                };
                self.counts.global_read += n as u64 * (mask & !left).count_ones() as u64;
                left
            }
            Window::Shared if n == 4 * W as u32 => {
                let who = self.who(w, 0);
                self.shared.load_words(&at, mask, who, out)
            }
            _ => mask,
        }
    }

    #[inline(always)]
    fn load_parameter<const W: usize>(&self, address: &Address, n: u32, mask: u32, out: &mut Words<W>) -> u32 {
        let at = (address.offset as u64).wrapping_sub(window::PARAM);
        let params = &self.grid.launch.params;
        if !at.is_multiple_of(n as u64) || at.saturating_add(n as u64) > params.len() as u64 {
            return mask;
        }
        let chunk = read_bytes(params, at, n);
        *out = [std::array::from_fn(|q| (chunk[q / 2] >> (32 * (q % 2))) as u32); LANES];
        0
    }

    #[inline(always)]
    fn store_together<const W: usize>(&mut self, w: &Warp, a: &Access, pc: u32, mask: u32) -> u32 {
        let n = a.ty.size() * a.count as u32;
        let mut at = lane_addresses(&w.registers, &a.address);
        let window = self.window(a.address.space, &mut at, mask, pc);
        if matches!(window, Window::Other) {
            return mask;
        }
        let values = from_registers::<W>(&w.registers, a);
        match window {
            Window::Global(memory) if !memory.constant => {
                let left = if n == 4 * W as u32 {
                    global::store_words(memory, &at, mask, self.accessor, &values)
                } else {
                    let narrow = std::array::from_fn(|lane| [values[lane][0]]);
                    match n {
                        1 => global::store_part::<1>(memory, &at, mask, self.accessor, &narrow),
                        _ => global::store_halves(memory, &at, mask, self.accessor, &narrow),
                    }
                };
                self.counts.global_written += n as u64 * (mask & !left).count_ones() as u64;
                left
            }
            Window::Shared if n == 4 * W as u32 => {
                let who = self.who(w, 0);
                self.shared.store_words(&at, mask, who, &values)
            }
            _ => mask,
        }
    }
}

impl<'a> Block<'a> {
    /// Where the first lane's address leads, and all addresses as offsets from its start.
    #[inline(always)]
    fn window(&mut self, space: Space, at: &mut [u64; LANES], mask: u32, pc: u32) -> Window<'a> {
        let first = at[Warp::first(mask) as usize];
        match space {
            Space::Shared => Window::Shared,
            Space::Global | Space::Generic if first >= window::GLOBAL => {
                let list: &'a [Arc<Allocation>] = &self.grid.memory;
                let slot = &mut self.last[pc as usize % self.last.len()];
                let holds = |a: &Arc<Allocation>| first.wrapping_sub(a.base) < a.len;
                if !list.get(*slot).is_some_and(holds) {
                    let Some(found) = device::find(list, first, 1) else { return Window::Other };
                    *slot = found;
                }
                let memory: &'a Allocation = &list[*slot];
                if memory.life() != Life::Live {
                    return Window::Other;
                }
                at.iter_mut().for_each(|a| *a = a.wrapping_sub(memory.base));
                Window::Global(memory)
            }
            Space::Generic if first.wrapping_sub(window::SHARED) < window::SIZE => {
                at.iter_mut().for_each(|a| *a = a.wrapping_sub(window::SHARED));
                Window::Shared
            }
            _ => Window::Other,
        }
    }
}

vectorised!(load_lanes(block: &mut Block<'_>, w: &mut Warp, a: &Access, pc: u32, mask: u32) -> u32 {
    match a.ty.size() * a.count as u32 {
        1..=4 => block.load_to_registers::<1>(w, a, pc, mask),
        8 => block.load_to_registers::<2>(w, a, pc, mask),
        16 => block.load_to_registers::<4>(w, a, pc, mask),
        _ => mask,
    }
});

vectorised!(store_lanes(block: &mut Block<'_>, w: &Warp, a: &Access, pc: u32, mask: u32) -> u32 {
    match a.ty.size() * a.count as u32 {
        1 | 2 | 4 => block.store_together::<1>(w, a, pc, mask),
        8 => block.store_together::<2>(w, a, pc, mask),
        16 => block.store_together::<4>(w, a, pc, mask),
        _ => mask,
    }
});

/// What the lanes of a warp access together.
enum Window<'a> {
    Global(&'a Allocation),
    Shared,
    /// Something else, or nothing that is in order.
    Other,
}

/// The addresses of all lanes.
#[inline(always)]
fn lane_addresses(registers: &Registers, a: &Address) -> [u64; LANES] {
    let offset = a.offset as u64;
    match (a.base, a.wide) {
        (NONE, _) => [offset; LANES],
        (r, true) => {
            let row = &registers.wides[r as usize];
            std::array::from_fn(|lane| row[lane].wrapping_add(offset))
        }
        (r, false) => {
            let row = &registers.words[r as usize];
            std::array::from_fn(|lane| (row[lane] as u64).wrapping_add(offset))
        }
    }
}

fn part(chunk: &Chunk, index: usize, size: u32) -> u64 {
    let at = index * size as usize;
    let word = chunk[at / 8] >> (8 * (at % 8));
    if size == 8 { word } else { word & ((1 << (8 * size)) - 1) }
}
