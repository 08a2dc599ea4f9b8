//! `mma.sync`, `ldmatrix` and `stmatrix`: which lane holds which element is as PTX ISA, "Matrix fragments", says.

use super::block::Block;
use super::lanes::{Lanes, Words};
use super::launch::Step;
use super::memory::{Target, lane_address};
use super::op::{Address, MmaShape, Space};
use super::registers::{ALL, LANES, NONE, Reg};
use super::simd::{Tile, multiply_tile, vectorised};
use super::warp::Warp;
use crate::float::{Bf16, F16, Narrow};

fn half(bits: u32, bf16: bool) -> f32 {
    if bf16 { Bf16(bits as u16).widen() } else { F16(bits as u16).widen() }
}

/// tf32 ignores the 13 lowest bits.
fn tf32(bits: u32) -> f32 {
    f32::from_bits(bits & 0xffff_e000)
}

vectorised!(load_rows(block: &mut Block<'_>, w: &Warp, address: &Address, pc: u32, mask: u32, out: &mut Words<4>) -> u32 {
    block.load_together(w, address, 16, pc, mask, out)
});

impl Block<'_> {
    /// `d = a b + c` with f32 accumulation: products are exact, sums are rounded to f32 step by step in the order of k.
    /// A tensor core sums in another order with other guard bits: results differ in the last places.
    pub fn mma(&mut self, w: &mut Warp, shape: MmaShape, d: &[Reg; 4], a: &[Reg; 4], b: &[Reg; 2], c: &[Reg; 4]) {
        let words = &mut w.registers.words;
        let (mut am, mut bm, mut acc): ([[f32; 16]; 16], [[f32; 8]; 16], Tile) =
            ([[0.0; 16]; 16], [[0.0; 8]; 16], [[0.0; 8]; 16]);
        let (k, bf16, wide) = match shape {
            MmaShape::M16N8K16Bf16 => (16, true, false),
            MmaShape::M16N8K16F16 => (16, false, false),
            MmaShape::M16N8K8Bf16 => (8, true, false),
            MmaShape::M16N8K8F16 => (8, false, false),
            MmaShape::M16N8K8Tf32 => (8, false, true),
            MmaShape::M16N8K4Tf32 => (4, false, true),
        };
        // Register by register: the lanes of one are a loop of fixed length.
        for q in 0..4 {
            for (lane, &bits) in words[c[q] as usize].iter().enumerate() {
                acc[lane / 4 + 8 * (q / 2)][lane % 4 * 2 + q % 2] = f32::from_bits(bits);
            }
        }
        for q in (0..4).filter(|&q| a[q] != NONE) {
            for (lane, &bits) in words[a[q] as usize].iter().enumerate() {
                let row = &mut am[lane / 4 + 8 * (q % 2)];
                if wide {
                    row[lane % 4 + 4 * (q / 2)] = tf32(bits);
                } else {
                    let column = lane % 4 * 2 + 8 * (q / 2);
                    (row[column], row[column + 1]) = (half(bits, bf16), half(bits >> 16, bf16));
                }
            }
        }
        for q in (0..2).filter(|&q| b[q] != NONE) {
            for (lane, &bits) in words[b[q] as usize].iter().enumerate() {
                let (column, in_group) = (lane / 4, lane % 4);
                if wide {
                    bm[in_group + 4 * q][column] = tf32(bits);
                } else {
                    let row = in_group * 2 + 8 * q;
                    (bm[row][column], bm[row + 1][column]) = (half(bits, bf16), half(bits >> 16, bf16));
                }
            }
        }
        multiply_tile(&am, &bm, k, &mut acc);
        for q in (0..4).filter(|&q| d[q] != NONE) {
            for (lane, bits) in words[d[q] as usize].iter_mut().enumerate() {
                *bits = acc[lane / 4 + 8 * (q / 2)][lane % 4 * 2 + q % 2].to_bits();
            }
        }
        self.counts.flops += 2 * 16 * 8 * k as u64;
    }

    /// Lane `8 i + r` gives the address of row `r` of matrix `i`; lane `l` gets elements `2 (l % 4)` and the next of row
    /// `l / 4` of each, or of column `l / 4` if transposed.
    pub fn load_matrix(
        &mut self,
        w: &mut Warp,
        address: &Address,
        count: u8,
        transposed: bool,
        d: &[Reg; 4],
        pc: u32,
    ) -> Step<()> {
        // The addresses of all rows at once; those of which there is something to say one by one.
        let (mask, mut words) = (ALL >> (LANES - 8 * count as usize), [[0; 4]; LANES]);
        let left = load_rows(self, w, address, pc, mask, &mut words);
        for lane in Lanes(left) {
            let target = self.target(w, Space::Shared, lane_address(&w.registers, address, lane), 16, pc, lane)?;
            let chunk = self.fetch(w, target, 16, pc, lane);
            words[lane] = std::array::from_fn(|q| (chunk[q / 2] >> (32 * (q % 2))) as u32);
        }
        for (i, &r) in d.iter().enumerate().take(count as usize) {
            let element = |row: usize, column: usize| words[i * 8 + row][column / 2] >> (16 * (column % 2)) & 0xffff;
            if r == NONE {
                continue;
            }
            for lane in 0..LANES {
                let (x, y) = (lane / 4, lane % 4 * 2);
                w.registers.words[r as usize][lane] = match transposed {
                    true => element(y, x) | element(y + 1, x) << 16,
                    false => words[i * 8 + x][y / 2],
                };
            }
        }
        Ok(())
    }

    /// The inverse of [`Block::load_matrix`].
    pub fn store_matrix(
        &mut self,
        w: &mut Warp,
        address: &Address,
        count: u8,
        transposed: bool,
        a: &[Reg; 4],
        pc: u32,
    ) -> Step<()> {
        for (i, &r) in a.iter().enumerate().take(count as usize) {
            let mut rows = [[0u16; 8]; 8];
            for lane in 0..LANES {
                let (x, y, bits) = (lane / 4, lane % 4 * 2, w.registers.words[r as usize][lane]);
                for (offset, value) in [bits as u16, (bits >> 16) as u16].into_iter().enumerate() {
                    let (row, column) = if transposed { (y + offset, x) } else { (x, y + offset) };
                    rows[row][column] = value;
                }
            }
            for (row, elements) in rows.iter().enumerate() {
                let lane = i * 8 + row;
                let at = lane_address(&w.registers, address, lane);
                let target = self.target(w, Space::Shared, at, 16, pc, lane)?;
                let mut chunk = [0; 4];
                for (j, &e) in elements.iter().enumerate() {
                    chunk[j / 4] |= (e as u64) << (16 * (j % 4));
                }
                debug_assert!(matches!(target, Target::Shared(_)));
                self.put(w, target, 16, &chunk, pc, lane)?;
            }
        }
        Ok(())
    }
}
