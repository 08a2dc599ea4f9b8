//! What is known of device memory: which bytes were written, and which blocks of the running launch wrote and read them.
//!
//! Every four bytes have two words of shadow, one of their writes, one of their reads. Bits 0..4 of the first say which of
//! the bytes were ever written. Bit 4 of both says that the accesses covered less than the four bytes: two blocks that
//! share a word but own different bytes of it are no race, so where both covered a part only, nothing is said. The bits
//! above hold a tag, which is a block of a launch. Tags are given out one after the other over all launches, so those of
//! earlier launches, and of the host (0), are never taken for one of this launch.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

const WRITTEN: u32 = 15;
const PART: u32 = 16;
const SHIFT: u32 = 5;
/// One more than the largest tag.
const TAGS: u32 = 1 << (32 - SHIFT);

/// Who accesses: a block of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Accessor {
    /// The tag of the launch's first block.
    first: u32,
    /// Blocks of the launch; this number as a block means several of them.
    blocks: u32,
    /// The block.
    block: u32,
}

/// What an access met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Bytes nobody wrote.
    Uninitialised,
    /// Another block wrote there in the same launch: this one, or one of several.
    Written(Option<u32>),
    /// Another block read there in the same launch: this one, or one of several.
    Read(Option<u32>),
}

impl Accessor {
    /// One whose races nobody looks for.
    pub const UNWATCHED: Accessor = Accessor { first: TAGS, blocks: 0, block: 0 };

    /// The first block of a launch. `renew` makes all shadows forget their tags: it is called when there are no more.
    /// A launch with more blocks than there are tags is not watched.
    pub fn of_launch(blocks: u64, renew: impl FnOnce()) -> Accessor {
        static NEXT: Mutex<u32> = Mutex::new(1);
        let Some(blocks) = u32::try_from(blocks).ok().filter(|&n| n < TAGS / 2) else { return Accessor::UNWATCHED };
        let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
        if TAGS - *next <= blocks {
            renew();
            *next = 1;
        }
        let first = *next;
        *next += blocks + 1;
        Accessor { first, blocks, block: 0 }
    }

    /// Another block of the same launch.
    pub fn block(self, block: u64) -> Accessor {
        Accessor { block: if self.first == TAGS { 0 } else { block as u32 }, ..self }
    }

    /// Whether races are looked for.
    #[inline(always)]
    pub fn is_watched(self) -> bool {
        self.first != TAGS
    }
    #[inline(always)]
    fn tag(self, block: u32) -> u32 {
        if self.first == TAGS { 0 } else { (self.first + block) << SHIFT }
    }
    /// A write's word after this block wrote all of it.
    #[inline(always)]
    pub fn written(self) -> u32 {
        WRITTEN | self.tag(self.block)
    }
    /// Two of them.
    #[inline(always)]
    pub fn written_pair(self) -> u64 {
        pair(self.written())
    }
    /// The words of two reads after this block read all of them.
    #[inline(always)]
    pub fn read_pair(self) -> u64 {
        pair(self.tag(self.block))
    }
    /// Whether there is nothing to say about a read of a whole word.
    #[inline(always)]
    pub fn may_read(self, write: u32) -> bool {
        is_written(write, WRITTEN) & !self.is_foreign(write)
    }
    /// The same of two words.
    #[inline(always)]
    pub fn may_read_pair(self, writes: u64) -> bool {
        self.may_read(writes as u32) & self.may_read((writes >> 32) as u32)
    }
    /// Whether one of two words names another block.
    #[inline(always)]
    pub fn is_foreign_pair(self, words: u64) -> bool {
        self.is_foreign(words as u32) | self.is_foreign((words >> 32) as u32)
    }
    /// The words of two reads after this block read there.
    #[inline(always)]
    pub fn after_reading_pair(self, old: u64) -> u64 {
        let [low, high] = [old as u32, (old >> 32) as u32].map(|old| self.after_read(old, false) as u64);
        low | high << 32
    }
    /// The block of this launch that a word names; several count as one.
    #[inline(always)]
    fn named(self, word: u32) -> Option<u32> {
        let block = (word >> SHIFT).wrapping_sub(self.first);
        (block <= self.blocks && self.first != TAGS).then_some(block)
    }
    fn one(self, block: u32) -> Option<u32> {
        (block != self.blocks).then_some(block)
    }
    /// Whether a word names another block of this launch, or several.
    #[inline(always)]
    pub fn is_foreign(self, word: u32) -> bool {
        let block = (word >> SHIFT).wrapping_sub(self.first);
        (block <= self.blocks) & (block != self.block)
    }

    /// A read's word after this block read there.
    fn after_read(self, old: u32, part: bool) -> u32 {
        let part = if part { PART } else { 0 };
        match self.named(old) {
            None => self.tag(self.block) | part,
            Some(block) if block == self.block => self.tag(block) | (part & old),
            Some(_) => self.tag(self.blocks) | (part & old),
        }
    }
    /// A write's word after this block wrote the bytes `want`, less than all four.
    fn after_part(self, old: u32, want: u32) -> u32 {
        let tag = match self.named(old) {
            None => self.tag(self.block) | PART,
            Some(block) if block == self.block => self.tag(block) | (old & PART),
            Some(_) => self.tag(self.blocks) | PART,
        };
        (old & WRITTEN) | want | tag
    }
}

/// Whether a write's word says that all the bytes of `want` were written.
#[inline(always)]
pub fn is_written(write: u32, want: u32) -> bool {
    write & want == want
}

#[inline(always)]
fn pair(word: u32) -> u64 {
    word as u64 | (word as u64) << 32
}

/// The shadow of an allocation: its words, in pairs.
pub struct Shadow {
    writes: Box<[AtomicU64]>,
    reads: Box<[AtomicU64]>,
}

/// Zeros that take no memory until they are touched.
fn zeros(n: usize) -> Box<[AtomicU64]> {
    let words = Box::into_raw(vec![0u64; n].into_boxed_slice());
    // SAFETY: an atomic has the layout of its number, and the box is the only owner.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}

#[inline(always)]
fn words_of(pairs: &[AtomicU64]) -> &[AtomicU32] {
    // SAFETY: the same memory, whose alignment is more than enough. Both sizes are atomic; one access of another size at
    // the same time sees an old or a new word, which is all that is asked of it.
    unsafe { std::slice::from_raw_parts(pairs.as_ptr().cast(), pairs.len() * 2) }
}

/// The bits of the bytes of `word` among the `n` from `offset` on.
#[inline(always)]
fn covered(word: u64, offset: u64, n: u64) -> u32 {
    let (from, to) = (offset.max(word * 4) - word * 4, (offset + n).min(word * 4 + 4) - word * 4);
    WRITTEN & (WRITTEN << from) & !(WRITTEN << to)
}

impl Shadow {
    /// Of `len` bytes that nobody wrote.
    pub fn new(len: u64) -> Shadow {
        let pairs = len.div_ceil(8).max(1) as usize;
        Shadow { writes: zeros(pairs), reads: zeros(pairs) }
    }

    /// Of each word, who wrote.
    #[inline(always)]
    pub fn writes(&self) -> &[AtomicU32] {
        words_of(&self.writes)
    }
    /// Of each word, who read.
    #[inline(always)]
    pub fn reads(&self) -> &[AtomicU32] {
        words_of(&self.reads)
    }
    /// Writes, two words at a time.
    #[inline(always)]
    pub fn write_pairs(&self) -> &[AtomicU64] {
        &self.writes
    }
    /// Reads, two words at a time.
    #[inline(always)]
    pub fn read_pairs(&self) -> &[AtomicU64] {
        &self.reads
    }

    /// Forgets all tags.
    pub fn renew(&self) {
        self.writes().iter().for_each(|w| w.store(w.load(Relaxed) & WRITTEN, Relaxed));
        self.reads.iter().for_each(|r| r.store(0, Relaxed));
    }

    /// Remembers that a block read a word, or a part of it.
    #[inline(always)]
    pub fn note_read(&self, word: usize, who: Accessor, part: bool) {
        let cell = &self.reads()[word];
        let old = cell.load(Relaxed);
        if old != who.tag(who.block) && who.is_watched() {
            cell.store(who.after_read(old, part), Relaxed);
        }
    }

    /// Remembers and checks a read of `n` bytes.
    pub fn read(&self, offset: u64, n: u64, who: Accessor) -> Result<(), Flaw> {
        for word in offset / 4..(offset + n).div_ceil(4) {
            let want = covered(word, offset, n);
            // Remembered before it is checked, and writes likewise: of two blocks at the same time one sees the other.
            self.note_read(word as usize, who, want != WRITTEN);
            let write = self.writes()[word as usize].load(Relaxed);
            if write & want != want {
                return Err(Flaw::Uninitialised);
            }
            let apart = want != WRITTEN && write & PART != 0;
            match who.named(write) {
                Some(block) if block != who.block && !apart => return Err(Flaw::Written(who.one(block))),
                _ => {}
            }
        }
        Ok(())
    }

    /// Remembers that a block wrote the bytes `want` of a word, less than all.
    #[inline(always)]
    pub fn write_part(&self, word: usize, want: u32, who: Accessor) {
        let cell = &self.writes()[word];
        if cell.load(Relaxed) != who.written() {
            // The closure never gives up, so there is no error.
            let _ = cell.fetch_update(Relaxed, Relaxed, |old| Some(who.after_part(old, want)));
        }
    }

    /// Remembers and checks a write of `n` bytes. A flaw is none if the bytes were the same before.
    pub fn write(&self, offset: u64, n: u64, who: Accessor) -> Result<(), Flaw> {
        let mut result = Ok(());
        for word in offset / 4..(offset + n).div_ceil(4) {
            let (want, cell) = (covered(word, offset, n), &self.writes()[word as usize]);
            let part = want != WRITTEN;
            let old = match part {
                false => cell.swap(who.written(), Relaxed),
                // The closure never gives up, so there is no error.
                true => cell.fetch_update(Relaxed, Relaxed, |old| Some(who.after_part(old, want))).unwrap_or(0),
            };
            let read = self.reads()[word as usize].load(Relaxed);
            match (who.named(old), who.named(read)) {
                (Some(block), _) if block != who.block && !(part && old & PART != 0) => {
                    result = Err(Flaw::Written(who.one(block)));
                }
                (_, Some(block)) if block != who.block && !(part && read & PART != 0) => {
                    result = Err(Flaw::Read(who.one(block)));
                }
                _ => {}
            }
        }
        result
    }

    /// Marks bytes as written by an atomic: others may do the same at the same time.
    pub fn write_atomic(&self, offset: u64, n: u64) {
        for word in offset / 4..(offset + n).div_ceil(4) {
            self.writes()[word as usize].fetch_or(covered(word, offset, n), Relaxed);
        }
    }

    /// Marks bytes as written by the host or a copy.
    pub fn write_host(&self, offset: u64, n: u64) {
        for word in offset / 4..(offset + n).div_ceil(4) {
            let cell = &self.writes()[word as usize];
            cell.store((cell.load(Relaxed) & WRITTEN) | covered(word, offset, n), Relaxed);
        }
    }

    /// The first of `n` bytes that nobody wrote.
    pub fn first_unwritten(&self, offset: u64, n: u64) -> Option<u64> {
        (offset / 4..(offset + n).div_ceil(4)).find_map(|word| {
            let missing = covered(word, offset, n) & !self.writes()[word as usize].load(Relaxed);
            (missing != 0).then(|| word * 4 + missing.trailing_zeros() as u64)
        })
    }

    /// Copies what is known of the writes of `n` bytes.
    pub fn copy_from(&self, to: u64, from: &Shadow, offset: u64, n: u64) {
        let written = |word: u64| from.writes()[word as usize].load(Relaxed) & WRITTEN;
        let mut done = 0;
        while done < n {
            let (at, source) = (to + done, offset + done);
            let cell = &self.writes()[(at / 4) as usize];
            if at % 4 == 0 && source % 4 == 0 && n - done >= 4 {
                cell.store(written(source / 4), Relaxed);
                done += 4;
            } else {
                let bit = written(source / 4) >> (source % 4) & 1;
                cell.store((cell.load(Relaxed) & WRITTEN & !(1 << (at % 4))) | bit << (at % 4), Relaxed);
                done += 1;
            }
        }
    }
}
