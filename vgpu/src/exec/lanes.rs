//! What the lanes of a warp load or store, as words, and its way to and from registers.

use super::op::Access;
use super::registers::{ALL, LANES, NONE, Registers};
use crate::ptx::Type;

/// `W` words of each lane. What is shorter than a word lies in the low bits of the first.
pub type Words<const W: usize> = [[u32; W]; LANES];

/// The lanes of a mask, in order.
#[derive(Clone, Copy)]
pub struct Lanes(pub u32);

impl Iterator for Lanes {
    type Item = usize;
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let lane = self.0.trailing_zeros() as usize;
        (self.0 != 0).then(|| {
            self.0 &= self.0 - 1;
            lane
        })
    }
}

/// The lanes of a mask from this one on.
#[inline(always)]
pub fn from(lane: usize, mask: u32) -> u32 {
    mask & ALL << lane
}

/// Whether the lanes access `4 * W` bytes each, one behind the other.
#[inline(always)]
pub fn is_run<const W: usize>(at: &[u64; LANES], mask: u32) -> bool {
    let mut apart = 0;
    for (lane, a) in at.iter().enumerate() {
        apart |= a ^ at[0].wrapping_add((4 * W * lane) as u64);
    }
    mask == ALL && apart == 0
}

/// Overwrites the lanes of `mask`.
#[inline(always)]
pub fn blend<T: Copy>(row: &mut [T; LANES], mask: u32, new: impl Fn(usize) -> T) {
    if mask == ALL {
        for (lane, old) in row.iter_mut().enumerate() {
            *old = new(lane);
        }
    } else {
        for (lane, old) in row.iter_mut().enumerate() {
            *old = if mask >> lane & 1 == 1 { new(lane) } else { *old };
        }
    }
}

/// Puts what was loaded into the registers of `access`.
#[inline(always)]
pub fn to_registers<const W: usize>(words: &Words<W>, access: &Access, mask: u32, registers: &mut Registers) {
    let size = access.ty.size() as usize;
    for (q, &r) in access.regs.iter().enumerate().take(access.count as usize).filter(|&(_, &r)| r != NONE) {
        let (at, shift) = (q * size / 4 % W, 8 * (q * size % 4));
        if size == 4 && !access.wide {
            blend(&mut registers.words[r as usize], mask, |lane| words[lane][at]);
        } else if size == 8 {
            let value = |lane: usize| words[lane][at] as u64 | (words[lane][(at + 1) % W] as u64) << 32;
            blend(&mut registers.wides[r as usize], mask, value);
        } else {
            narrow_to_register(words, access, mask, r, (at, shift), registers);
        }
    }
}

/// Numbers of less than 32 bits, or into a register that is wider than they are.
fn narrow_to_register<const W: usize>(
    words: &Words<W>,
    access: &Access,
    mask: u32,
    r: u16,
    (at, shift): (usize, usize),
    registers: &mut Registers,
) {
    let extend: fn(u32) -> u32 = match access.ty {
        Type::S8 => |v| v as i8 as i32 as u32,
        Type::S16 => |v| v as i16 as i32 as u32,
        ty if ty.size() == 1 => |v| v as u8 as u32,
        ty if ty.size() == 2 => |v| v as u16 as u32,
        _ => |v| v,
    };
    let signed = matches!(access.ty, Type::S8 | Type::S16 | Type::S32);
    let value = |lane: usize| extend(words[lane][at] >> shift);
    match (access.wide, signed) {
        (false, _) => blend(&mut registers.words[r as usize], mask, value),
        (true, true) => blend(&mut registers.wides[r as usize], mask, |lane| value(lane) as i32 as i64 as u64),
        (true, false) => blend(&mut registers.wides[r as usize], mask, |lane| value(lane) as u64),
    }
}

/// What is to be stored from the registers of `access`.
#[inline(always)]
pub fn from_registers<const W: usize>(registers: &Registers, access: &Access) -> Words<W> {
    let size = access.ty.size() as usize;
    let mut words = [[0; W]; LANES];
    for (q, &r) in access.regs.iter().enumerate().take(access.count as usize) {
        let (at, shift) = (q * size / 4 % W, 8 * (q * size % 4));
        match (access.wide, size) {
            (true, 8) => {
                let row = &registers.wides[r as usize];
                for (to, &value) in words.iter_mut().zip(row) {
                    (to[at], to[(at + 1) % W]) = (value as u32, (value >> 32) as u32);
                }
            }
            (false, 4) => {
                words.iter_mut().zip(&registers.words[r as usize]).for_each(|(to, &value)| to[at] = value);
            }
            (wide, _) => {
                let keep = if size >= 4 { u32::MAX } else { (1 << (8 * size)) - 1 };
                for (lane, to) in words.iter_mut().enumerate() {
                    let value =
                        if wide { registers.wides[r as usize][lane] as u32 } else { registers.words[r as usize][lane] };
                    to[at] |= (value & keep) << shift;
                }
            }
        }
    }
    words
}
