//! Buffers that come back: after the first step a training run allocates no tensor memory.
//!
//! Every buffer remembers its pool and returns to it when its last handle drops; the pool hands it out again to the next
//! request of exactly that length. A step asks for the same lengths each time, so the second finds all of them. What a
//! buffer held before is still in it: whoever asks for one overwrites all of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::{Footprint, Memory};
use crate::{Error, Result};

#[derive(Debug, Default)]
struct Shelf<T> {
    free: HashMap<usize, Vec<Arc<Vec<T>>>>,
    memory: Memory,
}

/// Free buffers by length.
#[derive(Debug, Default)]
pub struct Pool<T>(Mutex<Shelf<T>>);

/// A handle to a buffer of a pool; clones share the memory.
#[derive(Debug)]
pub struct Buffer<T> {
    /// `None` only while dropping.
    data: Option<Arc<Vec<T>>>,
    pool: Arc<Pool<T>>,
}

impl<T: Copy + Default> Pool<T> {
    /// A buffer of `len` elements with arbitrary contents.
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer<T> {
        let mut shelf = self.lock();
        let reused = shelf.free.get_mut(&len).and_then(Vec::pop);
        let bytes = len * size_of::<T>();
        match reused {
            Some(_) => shelf.memory.cached_bytes -= bytes,
            None => shelf.memory.allocations += 1,
        }
        shelf.memory.live_bytes += bytes;
        shelf.memory.peak_bytes = shelf.memory.peak_bytes.max(shelf.memory.live_bytes);
        drop(shelf);
        let data = reused.unwrap_or_else(|| Arc::new(vec![T::default(); len]));
        Buffer { data: Some(data), pool: Arc::clone(self) }
    }
}

impl<T: Copy + Default> Pool<T> {
    /// Sees to it that at least `count` buffers of `len` elements are free.
    pub fn reserve(&self, len: usize, count: usize) {
        let mut shelf = self.lock();
        let free = shelf.free.entry(len).or_default();
        let missing = count.saturating_sub(free.len());
        free.extend((0..missing).map(|_| Arc::new(vec![T::default(); len])));
        shelf.memory.cached_bytes += missing * len * size_of::<T>();
        shelf.memory.allocations += missing;
    }
}

impl<T> Pool<T> {
    /// What the pool holds and has lent.
    pub fn memory(&self) -> Memory {
        self.lock().memory
    }

    /// Forgets the peak: it is what lives now.
    pub fn reset_peak(&self) {
        let mut shelf = self.lock();
        shelf.memory.peak_bytes = shelf.memory.live_bytes;
    }

    /// The shelf stays consistent between statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Shelf<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Buffer<T> {
    /// The elements.
    pub fn read(&self) -> &[T] {
        self.data.as_deref().map_or(&[], Vec::as_slice)
    }

    /// What it takes of its pool; `dtype` names its elements.
    pub fn footprint(&self, dtype: &'static str) -> Footprint {
        let elements = self.read();
        Footprint { buffer: elements.as_ptr().addr(), dtype, bytes: size_of_val(elements) }
    }

    /// The elements, to write; an error if another handle shares them.
    pub fn write(&mut self) -> Result<&mut [T]> {
        let unique = self.data.as_mut().and_then(Arc::get_mut);
        unique.map(Vec::as_mut_slice).ok_or_else(|| Error::shape("buffer", "written while another tensor shares it"))
    }
}

impl<T> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Buffer { data: self.data.clone(), pool: Arc::clone(&self.pool) }
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let Some(mut data) = self.data.take() else { return };
        // Only the last handle returns the memory; if two last handles race, the buffer is freed instead of reused.
        if Arc::get_mut(&mut data).is_some() {
            let bytes = data.len() * size_of::<T>();
            let mut shelf = self.pool.lock();
            shelf.memory.live_bytes = shelf.memory.live_bytes.saturating_sub(bytes);
            shelf.memory.cached_bytes += bytes;
            shelf.free.entry(data.len()).or_default().push(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        let pool = Arc::new(Pool::<f32>::default());
        let first = pool.take(10);
        let shared = first.clone();
        let address = first.read().as_ptr();
        drop(first);
        assert_eq!(pool.memory().live_bytes, 40, "a shared buffer stays");
        drop(shared);
        assert_eq!(pool.memory(), Memory { peak_bytes: 40, cached_bytes: 40, allocations: 1, ..Memory::default() });
        assert_eq!(pool.take(10).read().as_ptr(), address);
        assert_eq!(pool.memory().allocations, 1);
        let _other_length = pool.take(11);
        assert_eq!(pool.memory().allocations, 2);
        pool.reserve(10, 3);
        pool.reserve(10, 2);
        let memory = Memory { live_bytes: 44, peak_bytes: 44, cached_bytes: 120, allocations: 4, ..Memory::default() };
        assert_eq!(pool.memory(), memory, "one was there");
        let _three: Vec<_> = (0..3).map(|_| pool.take(10)).collect();
        assert_eq!(pool.memory().allocations, 4);
    }

    #[test]
    fn shared_buffers_are_not_written() {
        let pool = Arc::new(Pool::<f32>::default());
        let mut first = pool.take(3);
        assert!(first.write().is_ok());
        let shared = first.clone();
        assert!(first.write().is_err());
        drop(shared);
        assert!(first.write().is_ok());
    }
}
