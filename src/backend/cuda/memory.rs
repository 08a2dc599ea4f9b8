//! Device memory that comes back: after the first steps a run asks the driver for none.
//!
//! A block belongs to a size class and returns to its shelf when its last handle drops; the next request of that class gets
//! it at once, without waiting for the device, because all work on blocks is on one stream, in order. What a block held
//! before is still in it.
//!
//! ```text
//!   take, eager  ---> shelf "free"  ---> driver (cuMemAllocAsync)
//!   take, in a recording ---> shelf "recorded", else moved here from "free";  never the driver
//! ```
//!
//! Blocks of a recorded step stay on their own shelf for as long as there are recordings: a replay writes to them whenever it
//! runs, so nothing that lives across replays may get one.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaStream, result};

use super::kernel::{Address, Dtype, Element, Slice, SliceMut};
use crate::backend::Memory;
use crate::{Error, Result};

/// The smallest block, and what all are multiples of.
const GRAIN: usize = 512;
/// Size classes to a power of two: at most an eighth of a block is wasted.
const CLASSES_PER_OCTAVE: usize = 8;

/// Who may get a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shelf {
    Free,
    Recorded,
}

#[derive(Debug, Default)]
struct Shelves {
    free: HashMap<usize, Vec<u64>>,
    recorded: HashMap<usize, Vec<u64>>,
    recording: bool,
    /// Recordings that may be replayed.
    recordings: usize,
    memory: Memory,
}

/// The device's memory, by size class.
#[derive(Debug)]
pub struct Pool {
    shelves: Mutex<Shelves>,
    stream: Arc<CudaStream>,
}

/// A piece of device memory; it returns to its pool when dropped.
#[derive(Debug)]
pub struct Block {
    address: u64,
    bytes: usize,
    shelf: Shelf,
    pool: Arc<Pool>,
}

/// The size class of a request.
fn class(bytes: usize) -> Option<usize> {
    let bytes = bytes.max(1).checked_next_multiple_of(GRAIN)?;
    let step = (bytes.checked_next_power_of_two()? / (2 * CLASSES_PER_OCTAVE)).max(GRAIN);
    bytes.checked_next_multiple_of(step)
}

impl Pool {
    /// An empty pool for work on `stream`.
    pub fn new(stream: Arc<CudaStream>) -> Arc<Self> {
        Arc::new(Pool { shelves: Mutex::default(), stream })
    }

    /// A block of at least `bytes`. Errors if the device has no more memory.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Result<Block> {
        let bytes = class(bytes).ok_or_else(|| Error::Device(format!("{bytes} bytes of device memory")))?;
        let mut shelves = self.lock();
        let recording = shelves.recording;
        let recorded = if recording { shelves.recorded.get_mut(&bytes).and_then(Vec::pop) } else { None };
        let reused = recorded.or_else(|| shelves.free.get_mut(&bytes).and_then(Vec::pop));
        let address = match reused {
            Some(address) => {
                shelves.memory.cached_bytes -= bytes;
                address
            }
            None if recording => {
                return Err(Error::Device(format!(
                    "the recorded step needs {bytes} bytes that no step before it needed"
                )));
            }
            None => {
                let address = self.allocate(&mut shelves, bytes)?;
                shelves.memory.allocations += 1;
                address
            }
        };
        shelves.memory.live_bytes += bytes;
        shelves.memory.peak_bytes = shelves.memory.peak_bytes.max(shelves.memory.live_bytes);
        let shelf = if recording { Shelf::Recorded } else { Shelf::Free };
        Ok(Block { address, bytes, shelf, pool: Arc::clone(self) })
    }

    /// From the driver; if it has no more, once again without what is kept for reuse.
    fn allocate(&self, shelves: &mut Shelves, bytes: usize) -> Result<u64> {
        // SAFETY: the stream is alive; nothing is done with the memory here.
        let allocate = || unsafe { result::malloc_async(self.stream.cu_stream(), bytes) };
        if let Ok(address) = allocate() {
            return Ok(address);
        }
        for (class, addresses) in shelves.free.drain() {
            for address in addresses {
                shelves.memory.cached_bytes -= class;
                // SAFETY: from this pool and on no shelf any more.
                let _ = unsafe { result::free_async(address, self.stream.cu_stream()) };
            }
        }
        let _ = self.stream.synchronize();
        allocate().map_err(|problem| self.out_of_memory(shelves, bytes, &problem.to_string()))
    }

    fn out_of_memory(&self, shelves: &Shelves, bytes: usize, problem: &str) -> Error {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let (free, total) = self.stream.context().mem_get_info().unwrap_or_default();
        Error::Device(format!(
            "out of device memory: {:.0} MiB were asked for; tensors hold {:.0} MiB, recorded steps {:.0} MiB; the device \
             has {:.0} of {:.0} MiB left ({problem}). A smaller --batch-size or --image-size needs less",
            mib(bytes),
            mib(shelves.memory.live_bytes),
            mib(shelves.memory.cached_bytes),
            mib(free),
            mib(total)
        ))
    }

    /// From now on requests are those of a step that is being recorded. What it is given must live as long as the recording.
    pub fn begin_recording(self: &Arc<Self>) -> RecordedMemory {
        let mut shelves = self.lock();
        (shelves.recording, shelves.recordings) = (true, shelves.recordings + 1);
        RecordedMemory(Arc::clone(self))
    }

    /// The end of it.
    pub fn end_recording(&self) {
        self.lock().recording = false;
    }

    /// What the pool holds and has lent.
    pub fn memory(&self) -> Memory {
        self.lock().memory
    }

    /// The shelves stay consistent between statements, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let shelves = self.shelves.get_mut().unwrap_or_else(PoisonError::into_inner);
        for address in shelves.free.drain().chain(shelves.recorded.drain()).flat_map(|(_, addresses)| addresses) {
            // SAFETY: from this pool; every block has come back, as blocks keep the pool alive.
            let _ = unsafe { result::free_async(address, self.stream.cu_stream()) };
        }
        let _ = self.stream.synchronize();
    }
}

/// The memory of a recording. When the last one goes, all of it can be had again for anything.
#[derive(Debug)]
pub struct RecordedMemory(Arc<Pool>);

impl Drop for RecordedMemory {
    fn drop(&mut self) {
        let mut shelves = self.0.lock();
        shelves.recordings -= 1;
        if shelves.recordings == 0 {
            for (bytes, addresses) in std::mem::take(&mut shelves.recorded) {
                shelves.free.entry(bytes).or_default().extend(addresses);
            }
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut shelves = self.pool.lock();
        shelves.memory.live_bytes -= self.bytes;
        shelves.memory.cached_bytes += self.bytes;
        let shelf = match self.shelf {
            Shelf::Recorded if shelves.recordings > 0 => &mut shelves.recorded,
            Shelf::Free | Shelf::Recorded => &mut shelves.free,
        };
        shelf.entry(self.bytes).or_default().push(self.address);
    }
}

impl Block {
    /// Where it begins: a multiple of 512 bytes.
    pub fn address(&self) -> Address {
        Address(self.address)
    }
}

/// Memory of a tensor; a clone is another handle to it.
#[derive(Clone, Debug)]
pub struct Buffer {
    block: Arc<Block>,
    elems: usize,
    dtype: Dtype,
}

impl Buffer {
    /// `elems` elements with arbitrary contents.
    pub fn new(pool: &Arc<Pool>, elems: usize, dtype: Dtype) -> Result<Self> {
        Ok(Buffer { block: Arc::new(pool.take(elems * dtype.bytes())?), elems, dtype })
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Elements.
    pub fn elems(&self) -> usize {
        self.elems
    }

    /// Where it begins.
    pub fn address(&self) -> Address {
        self.block.address()
    }

    /// To read bytes of images. Errors if it is something else.
    pub fn bytes(&self) -> Result<Slice<'_, u8>> {
        self.expect(Dtype::U8)?;
        Ok(Slice::at(self.address(), self.elems))
    }

    /// To read. Errors if the elements are not of type `T`.
    pub fn slice<T: Element>(&self) -> Result<Slice<'_, T>> {
        self.expect(T::DTYPE)?;
        Ok(Slice::at(self.address(), self.elems))
    }

    /// To write. Errors if the elements are not of type `T`, or another handle shares them.
    pub fn slice_mut<T: Element>(&mut self) -> Result<SliceMut<'_, T>> {
        self.expect(T::DTYPE)?;
        if !self.is_unique() {
            return Err(Error::shape("buffer", "written while another tensor shares it"));
        }
        Ok(SliceMut::at(self.address(), self.elems))
    }

    /// Whether no other handle shares the memory.
    pub fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.block).is_some()
    }

    /// Errors if the elements are of another type.
    pub fn expect(&self, dtype: Dtype) -> Result<()> {
        if self.dtype != dtype {
            return Err(Error::shape("buffer", format!("a tensor of {:?} where {dtype:?} is needed", self.dtype)));
        }
        Ok(())
    }
}

/// Memory for the time of a call.
#[derive(Debug)]
pub struct Scratch<T> {
    block: Block,
    elems: usize,
    kind: PhantomData<T>,
}

impl<T> Scratch<T> {
    /// `elems` elements with arbitrary contents.
    pub fn new(pool: &Arc<Pool>, elems: usize) -> Result<Self> {
        Ok(Scratch { block: pool.take(elems * size_of::<T>())?, elems, kind: PhantomData })
    }

    /// Where it begins.
    pub fn address(&self) -> Address {
        self.block.address()
    }

    /// To read.
    pub fn slice(&self) -> Slice<'_, T> {
        Slice::at(self.address(), self.elems)
    }

    /// To write.
    pub fn slice_mut(&mut self) -> SliceMut<'_, T> {
        SliceMut::at(self.address(), self.elems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in (1..70_000).chain([1 << 20, (1 << 20) + 1, 205_520_896, 205_520_897, (1 << 40) - 3]) {
            let class = class(bytes).unwrap();
            assert!(class >= bytes && class.is_multiple_of(GRAIN), "{bytes}");
            assert!(class - bytes < GRAIN || class - bytes <= bytes / 7, "{bytes}: {class}");
            assert_eq!(super::class(class), Some(class), "a class is its own");
        }
        assert_eq!(class(usize::MAX), None);
    }
}
