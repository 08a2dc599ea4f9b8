//! `cp.async`: copies from device to shared memory that happen as late as they may, when they are waited for.

use super::block::Block;
use super::launch::Step;
use super::memory::lane_address;
use super::op::{Address, Space};
use super::registers::{LANES, NONE, Reg, each_lane};
use super::warp::Warp;
use crate::report::Kind;

struct Copy {
    lane: usize,
    group: u32,
    to: u64,
    from: u64,
    bytes: u32,
    from_bytes: u32,
    pc: u32,
}

/// Copies of a warp that are under way.
#[derive(Default)]
pub struct Copies {
    list: Vec<Copy>,
    /// Groups that each lane has committed.
    committed: [u32; LANES],
}

impl Copies {
    /// `cp.async.commit_group`
    pub fn commit(&mut self, mask: u32) {
        each_lane(mask, |l| self.committed[l] += 1);
    }
}

impl Block<'_> {
    /// `cp.async`: checks now, copies later.
    pub fn copy_begin(
        &mut self,
        w: &mut Warp,
        dst: &Address,
        src: &Address,
        bytes: u32,
        src_bytes: Reg,
        pc: u32,
        mask: u32,
    ) -> Step<()> {
        for lane in (0..LANES).filter(|l| mask >> l & 1 == 1) {
            let from_bytes = match src_bytes {
                NONE => bytes,
                r => w.registers.words[r as usize][lane],
            };
            if from_bytes > bytes {
                let detail = format!("cp.async of {bytes} bytes is to read {from_bytes}");
                return Err(w.fault(Kind::OutOfBounds, pc, lane as u32, detail));
            }
            let to = lane_address(&w.registers, dst, lane);
            let from = lane_address(&w.registers, src, lane);
            if from & (bytes as u64 - 1) != 0 {
                let detail = format!("cp.async of {bytes} bytes from {from:#x}");
                return Err(w.fault(Kind::Misaligned, pc, lane as u32, detail));
            }
            self.target(w, Space::Shared, to, bytes, pc, lane)?;
            if let Err(flaw) = self.shared.begin_copy(to, bytes, self.who(w, lane)) {
                self.note_shared(w, flaw, to, pc, lane);
            }
            let group = w.copies.committed[lane];
            w.copies.list.push(Copy { lane, group, to, from, bytes, from_bytes, pc });
        }
        Ok(())
    }

    /// `cp.async.wait_group` and `wait_all`: carries out what the active lanes wait for.
    pub fn copy_wait(&mut self, w: &mut Warp, pending: Option<u32>, mask: u32) -> Step<()> {
        let list = std::mem::take(&mut w.copies.list);
        for c in list {
            let due = match pending {
                None => true,
                Some(n) => (c.group as u64) + (n as u64) < w.copies.committed[c.lane] as u64,
            };
            if mask >> c.lane & 1 == 0 || !due {
                w.copies.list.push(c);
                continue;
            }
            let mut chunk = [0; 4];
            let mut done = 0;
            while done < c.from_bytes {
                // In powers of two, since the bytes to read may be any number.
                let left = c.from_bytes - done;
                let n = if done == 0 && left.is_power_of_two() { left } else { 1 };
                let target = self.target(w, Space::Global, c.from + done as u64, n, c.pc, c.lane)?;
                let piece = self.fetch(w, target, n, c.pc, c.lane);
                for byte in 0..n {
                    let value = piece[byte as usize / 8] >> (8 * (byte % 8)) & 0xff;
                    let at = done + byte;
                    chunk[at as usize / 8] |= value << (8 * (at % 8));
                }
                done += n;
            }
            self.shared.end_copy(c.to, c.bytes, &chunk, self.who(w, c.lane));
        }
        Ok(())
    }
}
