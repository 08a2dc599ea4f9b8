//! Handles and descriptors that are numbers, not addresses: never given out twice, so a stale one is recognised.

use std::collections::BTreeMap;
use std::fmt;

/// What a number that is no live handle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Null.
    Null,
    /// It was one, until it was destroyed.
    Destroyed,
    /// It never was one.
    Unknown,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stale::Null => "null",
            Stale::Destroyed => "destroyed before",
            Stale::Unknown => "none of this library's",
        })
    }
}

/// What is behind the live handles of one library.
#[derive(Debug)]
pub struct Table<T> {
    live: BTreeMap<u64, T>,
    first: u64,
    next: u64,
}

const STEP: u64 = 16;

impl<T> Table<T> {
    /// Handles from `first` on, a number that no address is.
    pub const fn new(first: u64) -> Table<T> {
        Table { live: BTreeMap::new(), first, next: first }
    }

    /// A new handle.
    pub fn insert(&mut self, value: T) -> u64 {
        let handle = self.next;
        self.next += STEP;
        self.live.insert(handle, value);
        handle
    }

    fn stale(&self, handle: u64) -> Stale {
        match handle {
            0 => Stale::Null,
            h if (self.first..self.next).contains(&h) && h % STEP == self.first % STEP => Stale::Destroyed,
            _ => Stale::Unknown,
        }
    }

    /// What is behind a handle.
    pub fn get(&self, handle: u64) -> Result<&T, Stale> {
        self.live.get(&handle).ok_or_else(|| self.stale(handle))
    }

    /// What is behind a handle, to change it.
    pub fn get_mut(&mut self, handle: u64) -> Result<&mut T, Stale> {
        let stale = self.stale(handle);
        self.live.get_mut(&handle).ok_or(stale)
    }

    /// Ends a handle.
    pub fn remove(&mut self, handle: u64) -> Result<T, Stale> {
        let stale = self.stale(handle);
        self.live.remove(&handle).ok_or(stale)
    }
}
