//! What the virtual GPU counts in every launch of the small cases, beside a committed table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vgpu::VirtualGpu;

use super::{Device, Launch, Result, Scale, Unit, plans};

/// Share by which a count may be above the table's.
pub const TOLERANCE: f64 = 0.02;

/// Set to write the table anew.
pub const UPDATE: &str = "UPDATE_KERNEL_COUNTS";

/// Of one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Instructions, of each thread.
    pub thread_instructions: u64,
    /// Operations of fused multiply-adds and of tensor cores.
    pub flops: u64,
    /// Bytes that loads read.
    pub bytes_read: u64,
    /// Bytes that stores wrote.
    pub bytes_written: u64,
}

impl Count {
    fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("thread instructions", self.thread_instructions),
            ("flops", self.flops),
            ("bytes read", self.bytes_read),
            ("bytes written", self.bytes_written),
        ]
    }
}

/// By operation, shape and kernel.
pub type Table = BTreeMap<String, Count>;

/// Counts all small cases.
pub fn count(device: &Device, gpu: VirtualGpu) -> Result<Table> {
    let mut table = Table::new();
    for plan in plans(Scale::Tiny) {
        let mut case = plan.make(device)?;
        for index in 0..case.launches().len() {
            gpu.take_counts();
            case.launch(device, index)?;
            device.stream.synchronize()?;
            let counts = gpu.take_counts();
            let count = Count {
                thread_instructions: counts.thread_instructions,
                flops: counts.flops,
                bytes_read: counts.global_read,
                bytes_written: counts.global_written,
            };
            let launch = case.launches()[index];
            let name = format!("{} {}: {}", plan.name, plan.shape, launch.kernel);
            check_floor(&name, &count, &launch)?;
            table.insert(name, count);
        }
    }
    match gpu.last_report() {
        report if report.is_empty() => Ok(table),
        report => Err(report.into()),
    }
}

/// A floor above what a launch does is no floor. (Of arithmetic outside of tensor cores, not all is counted.)
fn check_floor(name: &str, count: &Count, launch: &Launch) -> Result<()> {
    let bytes = count.bytes_read + count.bytes_written;
    if launch.bytes > bytes {
        return Err(format!("{name}: the floor is {} bytes, but {bytes} are moved", launch.bytes).into());
    }
    if launch.unit != Unit::Fma && launch.flops > count.flops {
        return Err(format!("{name}: the floor is {} flops, but {} are done", launch.flops, count.flops).into());
    }
    Ok(())
}

/// Where the committed table is.
pub fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "benches", "kernels", "counts.json"].iter().collect()
}

/// The committed table.
pub fn committed() -> Result<Table> {
    Ok(serde_json::from_slice(&std::fs::read(path())?)?)
}

/// Writes the table that is to be committed.
pub fn commit(table: &Table) -> Result<()> {
    Ok(std::fs::write(path(), serde_json::to_string_pretty(table)? + "\n")?)
}

/// What is worse than in the committed table, a line each: counts that grew, launches that one of both lacks.
pub fn regressions(found: &Table, committed: &Table) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, count) in found {
        let Some(before) = committed.get(name) else {
            lines.push(format!("{name} is not in the table"));
            continue;
        };
        for ((what, now), (_, before)) in count.named().into_iter().zip(before.named()) {
            if now as f64 > before as f64 * (1.0 + TOLERANCE) {
                lines.push(format!("{name}: {now} {what}, {before} before"));
            }
        }
    }
    let gone = committed.keys().filter(|name| !found.contains_key(*name));
    lines.extend(gone.map(|name| format!("{name} is in the table and was not counted")));
    lines
}
