//! Device memory: allocations and their addresses.

use crate::shadow::Shadow;
use crate::window;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Up to 32 bytes, as little-endian words.
pub type Chunk = [u64; 4];

/// Where a stream-ordered allocation is in its life. Others are live from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The stream has not come to the allocation yet.
    Pending,
    /// Usable.
    Live,
    /// The stream has passed the release.
    Freed,
}

/// A piece of device memory.
pub struct Allocation {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// Kernels may not write.
    pub constant: bool,
    /// A module's variable: not an allocation of the program.
    pub of_module: bool,
    /// Who wrote and read what.
    pub shadow: Shadow,
    life: AtomicU8,
    bytes: *mut u8,
    layout: Layout,
}

// SAFETY: the pointer is owned, and all access through it is atomic or by a caller that keeps others away (`host`).
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Allocation {
    fn new(base: u64, len: u64, constant: bool, life: Life) -> Allocation {
        let size = len.max(32).next_multiple_of(32) as usize;
        let layout = Layout::from_size_align(size, 32).expect("a size that was checked");
        // SAFETY: the size is not 0.
        let bytes = unsafe { alloc_zeroed(layout) };
        if bytes.is_null() {
            handle_alloc_error(layout);
        }
        let life = AtomicU8::new(life as u8);
        Allocation { base, len, constant, of_module: false, shadow: Shadow::new(len), life, bytes, layout }
    }

    /// Where it is in its life.
    pub fn life(&self) -> Life {
        match self.life.load(Relaxed) {
            0 => Life::Pending,
            1 => Life::Live,
            _ => Life::Freed,
        }
    }
    /// Moves it on.
    pub fn set_life(&self, life: Life) {
        self.life.store(life as u8, Relaxed);
    }

    fn at(&self, offset: u64, n: u64) -> *mut u8 {
        assert!(offset.checked_add(n).is_some_and(|end| end <= self.len), "access outside of an allocation");
        // SAFETY: within the allocation, as just checked.
        unsafe { self.bytes.add(offset as usize) }
    }
    /// The 32-bit cell at an offset that divides by four.
    pub fn cell32(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: in bounds by `at`, aligned by the assertion; kernels only access memory through atomics.
        unsafe { AtomicU32::from_ptr(aligned(self.at(offset, 4))) }
    }
    /// The 64-bit cell at an offset that divides by eight.
    pub fn cell64(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: as for `cell32`.
        unsafe { AtomicU64::from_ptr(aligned(self.at(offset, 8))) }
    }
    /// The 16-bit cell at an even offset.
    pub fn cell16(&self, offset: u64) -> &AtomicU16 {
        // SAFETY: as for `cell32`.
        unsafe { AtomicU16::from_ptr(aligned(self.at(offset, 2))) }
    }
    fn cell8(&self, offset: u64) -> &AtomicU8 {
        // SAFETY: as for `cell32`.
        unsafe { AtomicU8::from_ptr(self.at(offset, 1)) }
    }

    /// Reads `n` bytes (a power of two up to 32) at an offset that divides by `n`.
    #[inline]
    pub fn read(&self, offset: u64, n: u32) -> Chunk {
        let mut out = [0; 4];
        match n {
            1 => out[0] = self.cell8(offset).load(Relaxed) as u64,
            2 => out[0] = self.cell16(offset).load(Relaxed) as u64,
            4 => out[0] = self.cell32(offset).load(Relaxed) as u64,
            _ => {
                for (i, o) in out.iter_mut().enumerate().take(n as usize / 8) {
                    *o = self.cell64(offset + 8 * i as u64).load(Relaxed);
                }
            }
        }
        out
    }

    /// Writes `n` bytes; as [`Allocation::read`].
    #[inline]
    pub fn write(&self, offset: u64, n: u32, value: &Chunk) {
        match n {
            1 => self.cell8(offset).store(value[0] as u8, Relaxed),
            2 => self.cell16(offset).store(value[0] as u16, Relaxed),
            4 => self.cell32(offset).store(value[0] as u32, Relaxed),
            _ => {
                for (i, v) in value.iter().enumerate().take(n as usize / 8) {
                    self.cell64(offset + 8 * i as u64).store(*v, Relaxed);
                }
            }
        }
    }

    /// All bytes as words; those that fill up the last word belong to nobody.
    #[inline(always)]
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: the memory is a multiple of 32 bytes, so it holds the words that `len` begins; aligned to 32.
        unsafe { std::slice::from_raw_parts(self.bytes.cast(), self.len.div_ceil(4) as usize) }
    }

    /// Whole pairs of words.
    #[inline(always)]
    pub fn pairs(&self) -> &[AtomicU64] {
        // SAFETY: as for `words`.
        unsafe { std::slice::from_raw_parts(self.bytes.cast(), (self.len / 8) as usize) }
    }

    /// Marks bytes as written by the host or a copy.
    pub fn mark_host(&self, offset: u64, n: u64) {
        self.shadow.write_host(offset, n);
    }
    /// The first of `n` bytes that nobody wrote.
    pub fn first_unwritten(&self, offset: u64, n: u64) -> Option<u64> {
        self.shadow.first_unwritten(offset, n)
    }

    /// The bytes as the host sees them. No kernel runs while the driver copies (see `driver::stream`).
    pub fn host(&self, offset: u64, n: u64) -> *mut u8 {
        self.at(offset, n)
    }

    /// Copies bytes and what is known of them.
    pub fn copy_from(&self, to: u64, from: &Allocation, offset: u64, n: u64) {
        // SAFETY: both ranges are in bounds by `at`, and no kernel runs while the driver copies; they may overlap.
        unsafe { std::ptr::copy(from.at(offset, n), self.at(to, n), n as usize) };
        self.shadow.copy_from(to, &from.shadow, offset, n);
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody else frees it.
        unsafe { dealloc(self.bytes, self.layout) };
    }
}

fn aligned<T>(p: *mut u8) -> *mut T {
    assert!((p as usize).is_multiple_of(align_of::<T>()), "an unaligned access that nobody refused");
    p.cast()
}

/// Bytes between two allocations that belong to neither.
const GAP: u64 = 4096;

/// What is asked of the pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes in use.
    pub used: u64,
    /// Most bytes that were in use at once.
    pub used_high: u64,
}

struct Table {
    live: Vec<Arc<Allocation>>,
    freed: Vec<(u64, u64)>,
    next: u64,
    usage: Usage,
}

static TABLE: Mutex<Table> = Mutex::new(Table {
    live: Vec::new(),
    freed: Vec::new(),
    next: window::GLOBAL,
    usage: Usage { used: 0, used_high: 0 },
});

fn table() -> std::sync::MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of device memory there are, unless `VGPU_MEMORY` or [`set_total`] says otherwise.
const TOTAL: u64 = 8 << 30;

/// What was set; 0: not yet.
static SET: AtomicU64 = AtomicU64::new(0);

/// Bytes of device memory there are.
pub fn total() -> u64 {
    if SET.load(Relaxed) == 0 {
        let asked = std::env::var("VGPU_MEMORY").ok().and_then(|bytes| bytes.parse().ok());
        SET.store(asked.filter(|&bytes| bytes > 0).unwrap_or(TOTAL), Relaxed);
    }
    SET.load(Relaxed)
}

/// From now on there are so many; 0: as at the start. What is in use stays.
pub fn set_total(bytes: u64) {
    SET.store(bytes, Relaxed);
}

/// A new allocation; `None` if device memory does not suffice. Addresses are multiples of 512.
pub fn allocate(len: u64, life: Life, variable: Option<bool>) -> Option<Arc<Allocation>> {
    let mut t = table();
    if len > total().saturating_sub(t.usage.used) {
        return None;
    }
    let base = t.next;
    t.next += (len + GAP).next_multiple_of(512);
    let mut allocation = Allocation::new(base, len, variable == Some(true), life);
    allocation.of_module = variable.is_some();
    let allocation = Arc::new(allocation);
    t.usage.used += len;
    t.usage.used_high = t.usage.used_high.max(t.usage.used);
    t.live.push(allocation.clone()); // addresses only grow, so the table stays sorted
    Some(allocation)
}

/// Takes an allocation out of the table; its address stays known as freed.
pub fn remove(base: u64) -> Option<Arc<Allocation>> {
    let mut t = table();
    let at = t.live.binary_search_by_key(&base, |a| a.base).ok()?;
    let a = t.live.remove(at);
    t.usage.used -= a.len;
    t.freed.push((a.base, a.len));
    Some(a)
}

/// All live allocations, sorted by address.
pub fn snapshot() -> Vec<Arc<Allocation>> {
    table().live.clone()
}

/// Bytes in use, and their peak.
pub fn usage() -> Usage {
    table().usage
}

/// Forgets the peak.
pub fn reset_peak() {
    let mut t = table();
    t.usage.used_high = t.usage.used;
}

/// The allocation that holds `n` bytes from `address` on, of a sorted list.
pub fn find(list: &[Arc<Allocation>], address: u64, n: u64) -> Option<usize> {
    let at = list.partition_point(|a| a.base <= address).checked_sub(1)?;
    (address - list[at].base).checked_add(n).is_some_and(|end| end <= list[at].len).then_some(at)
}

/// Whether an address lies in, or at the end of, memory that there is or ever was.
pub fn was_given(address: u64) -> bool {
    let t = table();
    let near = |base: u64, len: u64| address >= base && address - base <= len;
    t.live.iter().any(|a| near(a.base, a.len)) || t.freed.iter().any(|&(base, len)| near(base, len))
}

/// What an address that belongs to no allocation is near to; `true` if it was freed.
pub fn describe(address: u64, n: u64) -> (bool, String) {
    let t = table();
    let inside = |&&(base, len): &&(u64, u64)| address >= base && address < base + len.max(1);
    if let Some((base, len)) = t.freed.iter().find(inside) {
        return (true, format!("{n} bytes at {address:#x}, byte {} of {len} that were freed", address - base));
    }
    let below = t.live.iter().rev().find(|a| a.base <= address);
    let near = match below {
        Some(a) if address - a.base < a.len + GAP => {
            format!("byte {} of an allocation of {} bytes", address - a.base, a.len)
        }
        _ => match t.live.iter().find(|a| a.base > address && a.base - address <= GAP / 2) {
            Some(a) => format!("{} bytes before an allocation of {} bytes", a.base - address, a.len),
            None => "no allocation near".into(),
        },
    };
    (false, format!("{n} bytes at {address:#x}: {near}"))
}
