//! Shared memory of a block, with what is needed to see races in it.
//!
//! Two accesses of which one writes must be ordered: by a barrier of the block, or between lanes of one warp by
//! `bar.warp.sync` (what `__syncwarp` is). A shuffle orders nothing. Writes of the value that is there already do not count.

use super::lanes::{Lanes, Words, from, is_run};
use super::registers::LANES;
use crate::device::Chunk;

/// Who, and when: the barrier interval in the upper half; in the lower one the warp's interval between warp barriers, two
/// flags, and the thread. 0 is older than everything.
type Stamp = u64;

/// Threads of a block: the bits of one.
const THREAD: u64 = 1023;
/// Threads of a warp: the bits of one.
const LANE: u64 = LANES as u64 - 1;
/// Of a read: several lanes of the thread's warp read in the same interval.
const WARP: u64 = 1 << 10;
/// Of a read: threads of several warps read.
const MANY: u64 = 1 << 11;
const SYNC_SHIFT: u32 = 12;
/// The barrier interval of a write by an asynchronous copy that was not waited for: later than all others.
const IN_FLIGHT: u64 = (u32::MAX as u64) << 32;

/// Warp barriers that one barrier interval can tell apart.
pub const SYNCS: u32 = 1 << (32 - SYNC_SHIFT);

/// Who accesses shared memory, and when.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// Thread of the block.
    pub thread: u32,
    /// Barrier interval.
    pub epoch: u32,
    /// Interval between warp barriers, below `SYNCS`.
    pub sync: u32,
}

/// What an access met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nobody wrote there.
    Uninitialised,
    /// A copy to there was not waited for.
    InFlight,
    /// With this thread.
    WriteAfterWrite(u32),
    /// With this thread, or one of several.
    WriteAfterRead(Option<u32>),
    /// With this thread.
    ReadAfterWrite(u32),
    /// With a copy that this thread began and did not wait for.
    WriteInFlight(u32),
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Flaw::Uninitialised => write!(f, "read of shared memory that nobody wrote"),
            Flaw::InFlight => write!(f, "read of shared memory while a cp.async to it was not waited for"),
            Flaw::WriteAfterWrite(t) => write!(f, "write after thread {t} wrote"),
            Flaw::WriteAfterRead(Some(t)) => write!(f, "write after thread {t} read"),
            Flaw::WriteAfterRead(None) => write!(f, "write after several threads read"),
            Flaw::ReadAfterWrite(t) => write!(f, "read after thread {t} wrote"),
            Flaw::WriteInFlight(t) => write!(f, "write while a cp.async of thread {t} to it was not waited for"),
        }
    }
}

fn thread(stamp: Stamp) -> u32 {
    (stamp & THREAD) as u32
}

fn is_same_warp(a: Stamp, b: Stamp) -> bool {
    (a ^ b) & THREAD & !LANE == 0
}

impl Who {
    #[inline(always)]
    fn stamp(self) -> Stamp {
        (self.epoch as u64) << 32 | (self.sync << SYNC_SHIFT) as u64 | self.thread as u64
    }
    /// Whether a write, or the one reader of a read, comes before this access: in an earlier interval, by the same thread, or by
    /// the same warp before a warp barrier.
    #[inline(always)]
    fn after(self, stamp: Stamp) -> bool {
        let earlier_sync = (stamp as u32) >> SYNC_SHIFT < self.sync;
        stamp >> 32 < self.epoch as u64
            || thread(stamp) == self.thread
            || (is_same_warp(stamp, self.thread as u64) && earlier_sync)
    }
}

/// Checks a read of what was written then. `start` is a stamp at the beginning of the block.
#[inline(always)]
fn check_read(write: Stamp, start: Stamp, who: Who) -> Result<(), Flaw> {
    match write {
        write if write < start => Err(Flaw::Uninitialised),
        write if write >= IN_FLIGHT => Err(Flaw::InFlight),
        write if who.after(write) => Ok(()),
        write => Err(Flaw::ReadAfterWrite(thread(write))),
    }
}

/// The stamp of reads after `me` read too.
#[inline(always)]
fn after_read(old: Stamp, me: Stamp) -> Stamp {
    let several = if is_same_warp(old, me) { me | WARP } else { old | MANY };
    let several = if old & MANY != 0 { old } else { several };
    let later = ((old ^ me) as u32 >> SYNC_SHIFT != 0) & is_same_warp(old, me) & (old & MANY == 0);
    if (old >> 32 != me >> 32) | (old == me) | later { me } else { several }
}

/// Checks a write to what was written and read then.
#[inline(always)]
fn check_write(write: Stamp, read: Stamp, start: Stamp, who: Who) -> Result<(), Flaw> {
    if write >= IN_FLIGHT {
        return Err(Flaw::WriteInFlight(thread(write)));
    }
    if write >= start && !who.after(write) {
        return Err(Flaw::WriteAfterWrite(thread(write)));
    }
    let alone = read & (WARP | MANY) == 0;
    let warp_before = is_same_warp(read, who.thread as u64) && (read as u32) >> SYNC_SHIFT < who.sync;
    if read >> 32 < who.epoch as u64 || (alone && who.after(read)) || (read & MANY == 0 && warp_before) {
        return Ok(());
    }
    Err(Flaw::WriteAfterRead(alone.then_some(thread(read))))
}

/// The memory, and a stamp of the last write and of the last reads of every few bytes (1, 2 or 4: the kernel's granule).
pub struct Shared {
    bytes: Vec<u8>,
    writes: Vec<Stamp>,
    reads: Vec<Stamp>,
    shift: u32,
    /// Stamps of the block are not below this one.
    start: Stamp,
    /// Asynchronous copies began in this block.
    copies: bool,
}

impl Shared {
    /// `len` bytes, watched in units of `granule` bytes.
    pub fn new(len: u32, granule: u32) -> Shared {
        let shift = granule.clamp(1, 4).trailing_zeros();
        let stamps = vec![0; (len as usize).div_ceil(1 << shift)];
        let bytes = vec![0xa5; len as usize];
        Shared { bytes, writes: stamps.clone(), reads: stamps, shift, start: 1 << 32, copies: false }
    }
    /// A block begins, in an interval that is later than all before: nobody has written.
    pub fn begin(&mut self, epoch: u32) {
        self.bytes.fill(0xa5);
        self.start = (epoch as u64) << 32;
        if std::mem::take(&mut self.copies) {
            // What the block before began and did not wait for.
            self.writes.iter_mut().filter(|w| **w >= IN_FLIGHT).for_each(|w| *w = 0);
        }
    }
    /// Bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Reads `n` bytes; in bounds.
    #[inline]
    pub fn read(&self, at: u64, n: u32) -> Chunk {
        read_bytes(&self.bytes, at, n)
    }
    /// Writes `n` bytes; in bounds.
    #[inline]
    pub fn write(&mut self, at: u64, n: u32, value: &Chunk) {
        write_bytes(&mut self.bytes, at, n, value);
    }

    fn range(&self, at: u64, n: u32) -> std::ops::Range<usize> {
        (at as usize >> self.shift)..((at as usize + n as usize - 1) >> self.shift) + 1
    }

    /// Checks and remembers a read.
    pub fn check_read(&mut self, at: u64, n: u32, who: Who) -> Result<(), Flaw> {
        let mut result = Ok(());
        for i in self.range(at, n) {
            result = check_read(self.writes[i], self.start, who).and(result);
            self.reads[i] = after_read(self.reads[i], who.stamp());
        }
        result
    }

    /// Checks and remembers a write of `value`.
    pub fn check_write(&mut self, at: u64, n: u32, value: &Chunk, who: Who) -> Result<(), Flaw> {
        match self.mark(at, n, who.stamp(), who) {
            Err(Flaw::WriteAfterWrite(_) | Flaw::WriteAfterRead(_)) if self.read(at, n) == *value => Ok(()),
            result => result,
        }
    }

    fn mark(&mut self, at: u64, n: u32, stamp: Stamp, who: Who) -> Result<(), Flaw> {
        let mut result = Ok(());
        for i in self.range(at, n) {
            result = check_write(self.writes[i], self.reads[i], self.start, who).and(result);
            self.writes[i] = stamp;
        }
        result
    }

    /// An atomic: others may do the same at the same time, so only its first value is checked.
    pub fn check_atomic(&mut self, at: u64, n: u32) -> Result<(), Flaw> {
        match self.writes[self.range(at, n)].iter().all(|w| (self.start..IN_FLIGHT).contains(w)) {
            true => Ok(()),
            false => Err(Flaw::Uninitialised),
        }
    }

    /// An asynchronous copy to these bytes begins: it may write from now on.
    pub fn begin_copy(&mut self, at: u64, n: u32, who: Who) -> Result<(), Flaw> {
        self.copies = true;
        self.mark(at, n, who.stamp() | IN_FLIGHT, who)
    }

    /// It was waited for: its thread has written from now on.
    pub fn end_copy(&mut self, at: u64, n: u32, value: &Chunk, who: Who) {
        let range = self.range(at, n);
        self.writes[range].fill(who.stamp());
        self.write(at, n, value);
    }

    /// Where the bytes of a run of all lanes are, and their stamps.
    #[inline(always)]
    fn run<const W: usize>(&self, first: u64) -> Option<[std::ops::Range<usize>; 2]> {
        let (from, n) = (first as usize, 4 * W * LANES);
        let fits = from.is_multiple_of(4 * W) && from <= self.bytes.len() && self.bytes.len() - from >= n;
        fits.then(|| [from..from + n, from >> self.shift..(from + n) >> self.shift])
    }

    #[inline(always)]
    fn load_run<const W: usize>(&mut self, first: u64, who: Who, out: &mut Words<W>) -> bool {
        let Some([bytes, stamps]) = self.run::<W>(first) else { return false };
        let (start, epoch, me, per_lane) = (self.start, (who.epoch as u64) << 32, who.stamp(), (4 * W) >> self.shift);
        let mut bad = false;
        for (lane, writes) in self.writes[stamps.clone()].chunks_exact(per_lane).enumerate() {
            for &write in writes {
                let by_me = (write ^ (me + lane as u64)) & THREAD == 0;
                bad |= (write < start) | (write >= if by_me { IN_FLIGHT } else { epoch });
            }
        }
        if bad {
            return false;
        }
        for (lane, reads) in self.reads[stamps].chunks_exact_mut(per_lane).enumerate() {
            reads.iter_mut().for_each(|read| *read = after_read(*read, me + lane as u64));
        }
        for (word, bytes) in out.as_flattened_mut().iter_mut().zip(self.bytes[bytes].chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        }
        true
    }

    #[inline(always)]
    fn store_run<const W: usize>(&mut self, first: u64, who: Who, values: &Words<W>) -> bool {
        let Some([bytes, stamps]) = self.run::<W>(first) else { return false };
        let (epoch, me, per_lane) = ((who.epoch as u64) << 32, who.stamp(), (4 * W) >> self.shift);
        let mut bad = false;
        let (writes, reads) = (&mut self.writes[stamps.clone()], &self.reads[stamps]);
        for (lane, (writes, reads)) in writes.chunks_exact(per_lane).zip(reads.chunks_exact(per_lane)).enumerate() {
            let me = me + lane as u64;
            for (&write, &read) in writes.iter().zip(reads) {
                bad |= (write >= epoch) & (write != me) | (read >= epoch) & (read != me);
            }
        }
        if bad {
            return false;
        }
        for (lane, writes) in writes.chunks_exact_mut(per_lane).enumerate() {
            writes.fill(me + lane as u64);
        }
        for (word, bytes) in values.as_flattened().iter().zip(self.bytes[bytes].chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        true
    }

    /// Reads `W` words for each lane of `mask`, in order, and returns the lanes that are left at the first of which there is
    /// something to say. `who` is the warp's first thread.
    #[inline(always)]
    pub fn load_words<const W: usize>(&mut self, at: &[u64; LANES], mask: u32, who: Who, out: &mut Words<W>) -> u32 {
        if is_run::<W>(at, mask) && self.load_run(at[0], who, out) {
            return 0;
        }
        // The common granule, a word, for the compiler to know.
        match self.shift {
            2 => self.load_apart::<W, 2>(at, mask, who, out),
            1 => self.load_apart::<W, 1>(at, mask, who, out),
            _ => self.load_apart::<W, 0>(at, mask, who, out),
        }
    }

    #[inline(always)]
    fn load_apart<const W: usize, const SHIFT: u32>(
        &mut self,
        at: &[u64; LANES],
        mask: u32,
        who: Who,
        out: &mut Words<W>,
    ) -> u32 {
        let (n, per_lane, start) = (4 * W, (4 * W) >> SHIFT, self.start);
        let (earlier, first) = ((who.epoch as u64) << 32, who.stamp());
        for lane in Lanes(mask) {
            let byte = at[lane] as usize;
            let Some(bytes) = self.bytes.get(byte..byte.saturating_add(n)).filter(|_| byte.is_multiple_of(n)) else {
                return from(lane, mask);
            };
            let cell = byte >> SHIFT;
            let (writes, reads) = (&self.writes[cell..][..per_lane], &mut self.reads[cell..][..per_lane]);
            for &write in writes {
                let fine = (write >= start) & (write < earlier);
                if !fine && check_read(write, start, Who { thread: who.thread + lane as u32, ..who }).is_err() {
                    return from(lane, mask);
                }
            }
            for read in reads {
                if *read < earlier {
                    *read = first + lane as u64;
                } else if *read & MANY == 0 {
                    *read = after_read(*read, first + lane as u64);
                }
            }
            for (to, word) in out[lane].iter_mut().zip(bytes.chunks_exact(4)) {
                *to = u32::from_le_bytes(word.try_into().expect("four bytes"));
            }
        }
        0
    }

    /// Writes `W` words for each lane; as [`Shared::load_words`].
    #[inline(always)]
    pub fn store_words<const W: usize>(&mut self, at: &[u64; LANES], mask: u32, who: Who, values: &Words<W>) -> u32 {
        if is_run::<W>(at, mask) && self.store_run(at[0], who, values) {
            return 0;
        }
        let (n, per_lane, start) = (4 * W, (4 * W) >> self.shift, self.start);
        let (earlier, first) = ((who.epoch as u64) << 32, who.stamp());
        for lane in Lanes(mask) {
            let to = at[lane] as usize;
            let Some(bytes) = self.bytes.get_mut(to..to.saturating_add(n)).filter(|_| to.is_multiple_of(n)) else {
                return from(lane, mask);
            };
            let cell = to >> self.shift;
            let (writes, reads) = (&mut self.writes[cell..][..per_lane], &self.reads[cell..][..per_lane]);
            for (&write, &read) in writes.iter().zip(reads) {
                let fine = (write < earlier) & (read < earlier);
                if !fine && check_write(write, read, start, Who { thread: who.thread + lane as u32, ..who }).is_err() {
                    return from(lane, mask);
                }
            }
            writes.fill(first + lane as u64);
            for (value, word) in values[lane].iter().zip(bytes.chunks_exact_mut(4)) {
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
        0
    }
}

/// Reads `n` bytes, in bounds, as words.
#[inline]
pub fn read_bytes(bytes: &[u8], at: u64, n: u32) -> Chunk {
    let from = &bytes[at as usize..at as usize + n as usize];
    let mut out = [0; 4];
    match *from {
        [a] => out[0] = a as u64,
        [a, b] => out[0] = u16::from_le_bytes([a, b]) as u64,
        [a, b, c, d] => out[0] = u32::from_le_bytes([a, b, c, d]) as u64,
        _ => {
            for (o, word) in out.iter_mut().zip(from.chunks_exact(8)) {
                *o = u64::from_le_bytes(word.try_into().expect("eight bytes"));
            }
        }
    }
    out
}

/// Writes `n` bytes, in bounds, from words.
#[inline]
pub fn write_bytes(bytes: &mut [u8], at: u64, n: u32, value: &Chunk) {
    let to = &mut bytes[at as usize..at as usize + n as usize];
    match n {
        1 => to[0] = value[0] as u8,
        2 => to.copy_from_slice(&(value[0] as u16).to_le_bytes()),
        4 => to.copy_from_slice(&(value[0] as u32).to_le_bytes()),
        _ => to.chunks_exact_mut(8).zip(value).for_each(|(t, v)| t.copy_from_slice(&v.to_le_bytes())),
    }
}
