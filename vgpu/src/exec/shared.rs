//! Shared memory of a block, with what is needed to see races in it.
//!
//! Two accesses of which one writes must be ordered: by a barrier of the block, or between lanes of one warp by
//! `bar.warp.sync` (what `__syncwarp` is). A shuffle orders nothing. Writes of the value that is there already do not count.

use crate::device::Chunk;

/// What is known of some bytes (1, 2 or 4: the kernel's granule).
#[derive(Clone, Copy, Default)]
struct Cell {
    /// Barrier interval of the last accesses.
    epoch: u32,
    /// Thread that wrote in it, plus one.
    writer: u16,
    /// Its warp's interval between warp barriers.
    writer_sync: u16,
    /// Thread that read, plus one; or [`WARP`] and the warp; or [`MANY`].
    reader: u16,
    reader_sync: u16,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unwritten,
    /// An asynchronous copy to it was not waited for.
    InFlight,
    Written,
}

/// Several lanes of one warp read in the same interval.
const WARP: u16 = 0x8000;
/// Threads of several warps read.
const MANY: u16 = 0xffff;

/// Who accesses shared memory, and when.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// Thread of the block.
    pub thread: u16,
    /// Barrier interval.
    pub epoch: u32,
    /// Interval between warp barriers.
    pub sync: u16,
}

/// What an access met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nobody wrote there.
    Uninitialised,
    /// A copy to there was not waited for.
    InFlight,
    /// With this thread.
    WriteAfterWrite(u16),
    /// With this thread, or one of several.
    WriteAfterRead(Option<u16>),
    /// With this thread.
    ReadAfterWrite(u16),
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
        }
    }
}

/// The memory.
pub struct Shared {
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    shift: u32,
}

impl Shared {
    /// `len` bytes, watched in units of `granule` bytes.
    pub fn new(len: u32, granule: u32) -> Shared {
        let shift = granule.clamp(1, 4).trailing_zeros();
        let cells = vec![Cell::default(); (len as usize).div_ceil(1 << shift)];
        Shared { bytes: vec![0xa5; len as usize], cells, shift }
    }
    /// As nobody had written it.
    pub fn reset(&mut self) {
        self.bytes.fill(0xa5);
        self.cells.fill(Cell::default());
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
    #[inline]
    pub fn check_read(&mut self, at: u64, n: u32, who: Who) -> Result<(), Flaw> {
        let range = self.range(at, n);
        let mut result = Ok(());
        let me = who.thread + 1;
        for cell in &mut self.cells[range] {
            match cell.state {
                State::Written => {}
                State::Unwritten => result = Err(Flaw::Uninitialised),
                State::InFlight => result = Err(Flaw::InFlight),
            }
            enter(cell, who);
            if cell.writer != 0 && cell.writer != me && !ordered(cell.writer - 1, cell.writer_sync, who) {
                result = Err(Flaw::ReadAfterWrite(cell.writer - 1));
            }
            let warp = who.thread / 32;
            cell.reader = match cell.reader {
                0 => me,
                r if r == me => me,
                MANY => MANY,
                r if warp_of(r) != warp => MANY,
                _ if cell.reader_sync != who.sync => me,
                _ => WARP | warp,
            };
            cell.reader_sync = who.sync;
        }
        result
    }

    /// Checks and remembers a write of `value`.
    #[inline]
    pub fn check_write(&mut self, at: u64, n: u32, value: &Chunk, who: Who) -> Result<(), Flaw> {
        let range = self.range(at, n);
        let mut result = Ok(());
        let me = who.thread + 1;
        for cell in &mut self.cells[range] {
            enter(cell, who);
            if cell.writer != 0 && cell.writer != me && !ordered(cell.writer - 1, cell.writer_sync, who) {
                result = Err(Flaw::WriteAfterWrite(cell.writer - 1));
            }
            match cell.reader {
                0 => {}
                r if r == me => {}
                MANY => result = Err(Flaw::WriteAfterRead(None)),
                r if warp_of(r) == who.thread / 32 && cell.reader_sync < who.sync => {}
                r => result = Err(Flaw::WriteAfterRead((r & WARP == 0).then(|| r - 1))),
            }
            (cell.writer, cell.writer_sync, cell.state) = (me, who.sync, State::Written);
        }
        match result {
            Err(Flaw::WriteAfterWrite(_) | Flaw::WriteAfterRead(_)) if self.read(at, n) == *value => Ok(()),
            result => result,
        }
    }

    /// An atomic: others may do the same at the same time, so only its first value is checked.
    pub fn check_atomic(&mut self, at: u64, n: u32) -> Result<(), Flaw> {
        let range = self.range(at, n);
        match self.cells[range].iter().all(|c| c.state == State::Written) {
            true => Ok(()),
            false => Err(Flaw::Uninitialised),
        }
    }

    /// An asynchronous copy to these bytes begins.
    pub fn begin_copy(&mut self, at: u64, n: u32) {
        let range = self.range(at, n);
        self.cells[range].iter_mut().for_each(|c| c.state = State::InFlight);
    }
}

fn enter(cell: &mut Cell, who: Who) {
    if cell.epoch != who.epoch {
        *cell = Cell { epoch: who.epoch, state: cell.state, ..Cell::default() };
    }
}

fn ordered(thread: u16, sync: u16, who: Who) -> bool {
    thread / 32 == who.thread / 32 && sync < who.sync
}

fn warp_of(reader: u16) -> u16 {
    if reader & WARP != 0 { reader & !WARP } else { (reader - 1) / 32 }
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
