//! Device memory for the lanes of a warp: the words of one allocation, with their shadow.
//!
//! Each function takes the lanes of `mask` in order and returns those that are left at the first of which there is
//! something to say: an address out of place, bytes that nobody wrote, a race. That lane did nothing yet.
//!
//! Most shadow words are like their neighbours: those of one launch and one block, or of the host. So what was found to
//! be in order is remembered, and the next word only compared with it.

use super::lanes::{Lanes, Words, from, is_run};
use super::registers::{ALL, LANES};
use crate::device::Allocation;
use crate::shadow::{Accessor, Shadow, is_written};
use std::sync::atomic::Ordering::Relaxed;

/// The pairs of words that a run covers, if they all lie in the allocation.
#[inline(always)]
fn pairs<const W: usize>(memory: &Allocation, first: u64) -> Option<std::ops::Range<usize>> {
    let (from, n, all) = ((first / 8) as usize, LANES * W / 2, (memory.len / 8) as usize);
    let aligned = first.is_multiple_of(if W == 1 { 8 } else { 4 * W as u64 });
    (aligned && from <= all && all - from >= n).then_some(from..from + n)
}

/// Remembers that a block read two words.
#[inline(always)]
fn note_pair(shadow: &Shadow, pair: usize, who: Accessor) {
    let reads = &shadow.read_pairs()[pair];
    let old = reads.load(Relaxed);
    if old != who.read_pair() {
        reads.store(who.after_reading_pair(old), Relaxed);
    }
}

#[inline(always)]
fn load_run<const W: usize>(memory: &Allocation, first: u64, who: Accessor, out: &mut Words<W>) -> bool {
    let (Some(range), shadow) = (pairs::<W>(memory, first), &memory.shadow) else { return false };
    let mut good = who.written_pair();
    for shade in &shadow.write_pairs()[range.clone()] {
        let shade = shade.load(Relaxed);
        if shade != good {
            if !who.may_read_pair(shade) {
                return false;
            }
            good = shade;
        }
    }
    if who.is_watched() {
        range.clone().for_each(|pair| note_pair(shadow, pair, who));
    }
    for (to, from) in out.as_flattened_mut().chunks_exact_mut(2).zip(&memory.pairs()[range]) {
        let two = from.load(Relaxed);
        (to[0], to[1]) = (two as u32, (two >> 32) as u32);
    }
    true
}

#[inline(always)]
fn store_run<const W: usize>(memory: &Allocation, first: u64, who: Accessor, values: &Words<W>) -> bool {
    let (Some(range), shadow) = (pairs::<W>(memory, first), &memory.shadow) else { return false };
    if who.is_watched() {
        let (mut good, mut good_read) = (who.written_pair(), who.read_pair());
        let (writes, reads) = (&shadow.write_pairs()[range.clone()], &shadow.read_pairs()[range.clone()]);
        for (shade, read) in writes.iter().zip(reads) {
            let (shade, read) = (shade.load(Relaxed), read.load(Relaxed));
            if shade != good || read != good_read {
                if who.is_foreign_pair(shade) | who.is_foreign_pair(read) {
                    return false;
                }
                (good, good_read) = (shade, read);
            }
        }
    }
    let stamp = who.written_pair();
    shadow.write_pairs()[range.clone()].iter().for_each(|shade| shade.store(stamp, Relaxed));
    for (to, from) in memory.pairs()[range].iter().zip(values.as_flattened().chunks_exact(2)) {
        to.store(from[0] as u64 | (from[1] as u64) << 32, Relaxed);
    }
    true
}

/// Loads `W` words a lane.
#[inline(always)]
pub fn load_words<const W: usize>(
    memory: &Allocation,
    at: &[u64; LANES],
    mask: u32,
    who: Accessor,
    out: &mut Words<W>,
) -> u32 {
    if is_run::<W>(at, mask) && load_run(memory, at[0], who, out) {
        return 0;
    }
    let (whole, shadow) = ((memory.len / 4) as usize, &memory.shadow);
    let (words, writes) = (&memory.words()[..whole], &shadow.writes()[..whole]);
    if whole < W {
        return mask;
    }
    let mut good = who.written();
    for lane in Lanes(mask) {
        let word = (at[lane] / 4) as usize;
        if !at[lane].is_multiple_of(4 * W as u64) || word > whole - W {
            return from(lane, mask);
        }
        for q in 0..W {
            let shade = writes[word + q].load(Relaxed);
            if shade != good {
                if !who.may_read(shade) {
                    return from(lane, mask);
                }
                good = shade;
            }
        }
        for q in 0..W {
            shadow.note_read(word + q, who, false);
            out[lane][q] = words[word + q].load(Relaxed);
        }
    }
    0
}

/// Stores `W` words a lane.
#[inline(always)]
pub fn store_words<const W: usize>(
    memory: &Allocation,
    at: &[u64; LANES],
    mask: u32,
    who: Accessor,
    values: &Words<W>,
) -> u32 {
    if is_run::<W>(at, mask) && store_run(memory, at[0], who, values) {
        return 0;
    }
    let (whole, shadow) = ((memory.len / 4) as usize, &memory.shadow);
    let (words, writes, reads) = (&memory.words()[..whole], &shadow.writes()[..whole], &shadow.reads()[..whole]);
    if whole < W {
        return mask;
    }
    let stamp = who.written();
    for lane in Lanes(mask) {
        let word = (at[lane] / 4) as usize;
        if !at[lane].is_multiple_of(4 * W as u64) || word > whole - W {
            return from(lane, mask);
        }
        let foreign = |i: usize| who.is_foreign(writes[i].load(Relaxed)) | who.is_foreign(reads[i].load(Relaxed));
        if (word..word + W).any(foreign) {
            return from(lane, mask);
        }
        for q in 0..W {
            writes[word + q].store(stamp, Relaxed);
            words[word + q].store(values[lane][q], Relaxed);
        }
    }
    0
}

/// Loads `N` bytes a lane, less than a word.
#[inline(always)]
pub fn load_part<const N: u64>(
    memory: &Allocation,
    at: &[u64; LANES],
    mask: u32,
    who: Accessor,
    out: &mut Words<1>,
) -> u32 {
    let (words, shadow) = (memory.words(), &memory.shadow);
    for lane in Lanes(mask) {
        let (word, byte) = ((at[lane] / 4) as usize, at[lane] % 4);
        if !at[lane].is_multiple_of(N) || at[lane].saturating_add(N) > memory.len {
            return from(lane, mask);
        }
        let (want, shade) = (((1 << N) - 1) << byte, shadow.writes()[word].load(Relaxed));
        if !is_written(shade, want) || who.is_foreign(shade) {
            return from(lane, mask);
        }
        shadow.note_read(word, who, true);
        out[lane][0] = words[word].load(Relaxed) >> (8 * byte) & (u32::MAX >> (32 - 8 * N));
    }
    0
}

/// Stores two bytes a lane. Where lanes are neighbours, pairs of them are words.
#[inline(always)]
pub fn store_halves(memory: &Allocation, at: &[u64; LANES], mask: u32, who: Accessor, values: &Words<1>) -> u32 {
    let neighbours = at.iter().zip(&at[1..]).all(|(a, b)| a.wrapping_add(2) == *b);
    if mask != ALL || !at[0].is_multiple_of(4) || !neighbours {
        return store_part::<2>(memory, at, mask, who, values);
    }
    let (mut pairs, mut places) = ([[0]; LANES], [0; LANES]);
    for pair in 0..LANES / 2 {
        places[pair] = at[2 * pair];
        pairs[pair] = [values[2 * pair][0] | values[2 * pair + 1][0] << 16];
    }
    let left = store_words::<1>(memory, &places, u32::from(u16::MAX), who, &pairs);
    if left == 0 { 0 } else { ALL << (2 * left.trailing_zeros()) }
}

/// Stores `N` bytes a lane, less than a word.
#[inline(always)]
pub fn store_part<const N: u64>(
    memory: &Allocation,
    at: &[u64; LANES],
    mask: u32,
    who: Accessor,
    values: &Words<1>,
) -> u32 {
    let shadow = &memory.shadow;
    for lane in Lanes(mask) {
        let (word, byte) = ((at[lane] / 4) as usize, at[lane] % 4);
        if !at[lane].is_multiple_of(N) || at[lane].saturating_add(N) > memory.len {
            return from(lane, mask);
        }
        let (write, read) = (shadow.writes()[word].load(Relaxed), shadow.reads()[word].load(Relaxed));
        if who.is_foreign(write) | who.is_foreign(read) {
            return from(lane, mask);
        }
        shadow.write_part(word, ((1 << N) - 1) << byte, who);
        memory.write(at[lane], N as u32, &[values[lane][0] as u64, 0, 0, 0]);
    }
    0
}
