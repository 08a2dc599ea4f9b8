//! The driver's entry points, with the names and signatures of `cuda.h`, and the state behind them.
//!
//! One lock guards everything: an entry point takes it, and work that a call forces runs under it. Handles are numbers
//! that are never used twice and never dereferenced.

mod calls;
mod capture;
mod context;
mod launch;
mod library;
mod memory;
mod module;
mod names;
mod own;
mod queue;
mod refused;
mod stream;
mod work;

use crate::exec::Counts;
pub use calls::Calls;
use capture::{Capture, Graph};
use module::{Function, Loaded};
use queue::{Event, Stream};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `CUresult`.
pub type Status = u32;
/// What an entry point returns before it becomes a status.
pub type Outcome = Result<(), Status>;

pub const INVALID_VALUE: Status = 1;
pub const OUT_OF_MEMORY: Status = 2;
pub const INVALID_DEVICE: Status = 101;
pub const NO_BINARY: Status = 209;
pub const INVALID_CONTEXT: Status = 201;
pub const INVALID_PTX: Status = 218;
pub const INVALID_HANDLE: Status = 400;
pub const NOT_FOUND: Status = 500;
pub const NOT_READY: Status = 600;
pub const NOT_SUPPORTED: Status = 801;
pub const CAPTURE_UNSUPPORTED: Status = 900;
pub const CAPTURE_INVALIDATED: Status = 901;
pub const CAPTURE_UNMATCHED: Status = 903;
pub const CAPTURE_UNJOINED: Status = 904;
pub const CAPTURE_ISOLATION: Status = 905;
pub const CAPTURE_IMPLICIT: Status = 906;
pub const CAPTURED_EVENT: Status = 907;
pub const UNKNOWN: Status = 999;

/// Everything the driver knows besides device memory.
#[derive(Default)]
pub struct Driver {
    pub streams: BTreeMap<u64, Stream>,
    pub events: HashMap<u64, Event>,
    pub modules: HashMap<u64, Loaded>,
    pub functions: HashMap<u64, Function>,
    pub captures: HashMap<u64, Capture>,
    pub graphs: HashMap<u64, Arc<Graph>>,
    pub executables: HashMap<u64, Arc<Graph>>,
    /// Page-locked host memory: first byte and layout size.
    pub pinned: BTreeMap<usize, usize>,
    /// Bytes of it there may be, once known.
    pub pinned_most: Option<usize>,
    pub counts: Counts,
    pub calls: Calls,
    /// Work that was done, by kind and name, and how often.
    pub done: BTreeMap<String, u64>,
    /// What the memory pool was told to keep. Nothing depends on it here.
    pub release_threshold: u64,
    last_handle: u64,
    random: Option<u64>,
    /// How often the primary context is retained.
    pub retained: u32,
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

thread_local! {
    /// The thread's current context: 0 or [`CONTEXT`].
    pub static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// The handle of the only context.
pub const CONTEXT: u64 = 0xc0_0000;
/// The handle of the only memory pool.
pub const POOL: u64 = 0xd0_0000;

impl Driver {
    pub fn handle(&mut self) -> u64 {
        self.last_handle += 16;
        0x10_0000_0000 + self.last_handle
    }

    pub fn set_seed(&mut self, seed: u64) {
        self.random = Some(seed);
    }

    /// A number below `n`, from the seed (`VGPU_SEED`, 0 if it is not set).
    pub fn draw(&mut self, n: u64) -> u64 {
        let state = self
            .random
            .get_or_insert_with(|| std::env::var("VGPU_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0));
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}

/// Runs `f` on the driver's state; a bug in it becomes an error rather than unwinding into C.
pub fn with(f: impl FnOnce(&mut Driver) -> Outcome) -> Status {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut guard: MutexGuard<'_, Option<Driver>> = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
        f(guard.get_or_insert_default())
    }));
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(status)) => status,
        Err(_) => UNKNOWN,
    }
}

/// Writes a result where a caller wants it.
///
/// # Safety
/// `to` is null or a caller's variable of that type.
pub unsafe fn put<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, so by contract valid.
    unsafe { to.write(value) };
    Ok(())
}

/// Declares entry points: `fn name(driver; arguments) { ... }`, whose body is an [`Outcome`].
macro_rules! entry_points {
    ($($(#[$meta:meta])* fn $name:ident($driver:ident $(, $argument:ident: $ty:ty)*) $body:block)*) => { $(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub unsafe extern "C" fn $name($($argument: $ty),*) -> $crate::driver::Status {
            $crate::driver::with(|$driver| $body)
        }
    )* };
}
pub(crate) use entry_points;
