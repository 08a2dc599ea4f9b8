//! A grid: blocks side by side, findings in the order of blocks.

use super::block::Block;
use crate::device::{self, Allocation};
use crate::ptx::{Kernel, Module};
use crate::report::{self, Finding, Kind};
use crate::shadow::Accessor;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// A kernel with its arguments.
#[derive(Clone)]
pub struct Launch {
    /// Where the kernel is from.
    pub module: Arc<Module>,
    /// Which kernel of the module.
    pub kernel: usize,
    /// Addresses of the module's variables.
    pub variables: Arc<Vec<u64>>,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Parameter space.
    pub params: Vec<u8>,
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)] // crosses to the program that asks
pub struct Counts {
    /// Instructions, of each thread.
    pub thread_instructions: u64,
    /// Instructions, of each warp.
    pub warp_instructions: u64,
    /// Floating-point operations of `mma` (two for each multiply-add).
    pub flops: u64,
    /// Bytes that loads, copies and atomics read from device memory.
    pub global_read: u64,
    /// Bytes that stores and atomics wrote there.
    pub global_written: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, o: Counts) {
        self.thread_instructions += o.thread_instructions;
        self.warp_instructions += o.warp_instructions;
        self.flops += o.flops;
        self.global_read += o.global_read;
        self.global_written += o.global_written;
    }
}

/// A finding inside of a block.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Class.
    pub kind: Kind,
    /// What happened.
    pub detail: String,
    /// Instruction.
    pub pc: u32,
    /// Thread of the block.
    pub thread: u32,
}

/// `Err` ends the launch.
pub type Step<T> = Result<T, Box<Fault>>;

/// What blocks share.
pub struct Grid<'a> {
    pub launch: &'a Launch,
    pub kernel: &'a Kernel,
    pub memory: Vec<Arc<Allocation>>,
    /// The launch's first block to device memory.
    pub accessor: Accessor,
}

/// Findings that are kept of one launch.
const KEPT: usize = 16;

/// Runs a launch to its end or its first fatal finding, and returns what it did and what was found.
pub fn run(launch: &Launch) -> (Counts, Vec<Finding>) {
    let kernel = &launch.module.kernels[launch.kernel];
    let blocks: u64 = launch.grid.iter().map(|&n| n as u64).product();
    let memory = device::snapshot();
    // Kernels with atomics order their blocks by them, which nobody follows here.
    let accessor = match kernel.global_atomics {
        true => Accessor::UNWATCHED,
        false => Accessor::of_launch(blocks, || memory.iter().for_each(|a| a.shadow.renew())),
    };
    let grid = Grid { launch, kernel, memory, accessor };
    let stop = AtomicU64::new(u64::MAX);
    let total = Mutex::new((Counts::default(), Vec::<(u64, Fault)>::new()));
    let printed = Mutex::new(Vec::<(u64, String)>::new());
    let range = |from: u64, to: u64| {
        let mut block = Block::new(&grid);
        let mut found = Vec::new();
        for index in from..to {
            if index > stop.load(Relaxed) {
                break;
            }
            let fatal = block.run(index);
            found.extend(block.notes.drain(..).map(|fault| (index, fault)));
            if !block.printed.is_empty() {
                let text = std::mem::take(&mut block.printed);
                printed.lock().unwrap_or_else(PoisonError::into_inner).push((index, text));
            }
            if let Err(fault) = fatal {
                stop.fetch_min(index, Relaxed);
                found.push((index, *fault));
                break;
            }
        }
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        total.0 += block.counts;
        total.1.append(&mut found);
        total.1.sort_by_key(|f| f.0);
        total.1.truncate(KEPT);
    };
    if kernel.global_atomics {
        range(0, blocks); // one after the other: sums of floats come out the same every time
    } else {
        let piece = blocks.div_ceil(4 * rayon::current_num_threads() as u64).clamp(1, 64);
        (0..blocks.div_ceil(piece)).into_par_iter().for_each(|i| range(i * piece, ((i + 1) * piece).min(blocks)));
    }
    let (counts, found) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let limit = stop.load(Relaxed);
    let mut printed = printed.into_inner().unwrap_or_else(PoisonError::into_inner);
    printed.sort_by_key(|p| p.0);
    printed.iter().filter(|p| p.0 <= limit).for_each(|p| report::print(&p.1));
    let findings = found.into_iter().filter(|(i, _)| *i <= limit).map(|(i, f)| finding(launch, kernel, i, f));
    (counts, findings.collect())
}

fn finding(launch: &Launch, kernel: &Kernel, index: u64, fault: Fault) -> Finding {
    let place = kernel.code.get(fault.pc as usize).map_or_else(|| "?".into(), |i| launch.module.place(i.loc));
    Finding {
        kind: fault.kind,
        by: format!("kernel `{}`", kernel.name),
        place,
        thread: Some((unfold(index, launch.grid), unfold(fault.thread as u64, launch.block))),
        detail: fault.detail,
    }
}

/// A linear index as coordinates, x first.
pub fn unfold(index: u64, size: [u32; 3]) -> [u32; 3] {
    let [x, y, _] = size.map(|n| n.max(1) as u64);
    [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32]
}
