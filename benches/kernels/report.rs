//! The table and the JSON file of a timed run.

use std::path::PathBuf;
use std::process::Command;

use cudarc::driver::sys;
use serde_json::{Value, json};

use super::cases::{Device, Launch, Result, Scale, Unit};
use super::ceilings::Ceilings;
use super::timing::{Timer, median};

/// Where the JSON goes; `target/kernels.json` otherwise.
const FILE: &str = "KERNEL_BENCH_JSON";

/// The time of a launch, or of a whole case.
pub struct Row {
    /// The operation.
    pub case: &'static str,
    /// Its sizes.
    pub shape: String,
    /// Entry point; `all` for the whole case.
    pub kernel: &'static str,
    /// What was launched.
    pub launches: Vec<Launch>,
    /// Of each measured launch.
    pub seconds: Vec<f64>,
}

/// Numbers of a row, in the units of the table.
struct Figures {
    bytes: u64,
    flops: u64,
    microseconds: f64,
    floor_us: f64,
    gb_per_s: f64,
    tflop_per_s: f64,
    share: f64,
}

impl Row {
    fn figures(&self, ceilings: &Ceilings) -> Figures {
        let (bytes, flops) = (self.launches.iter().map(|l| l.bytes).sum(), self.launches.iter().map(|l| l.flops).sum());
        let (seconds, floor) = (median(&self.seconds), self.launches.iter().map(|l| ceilings.floor(l)).sum::<f64>());
        Figures {
            bytes,
            flops,
            microseconds: seconds * 1e6,
            floor_us: floor * 1e6,
            gb_per_s: bytes as f64 / seconds * 1e-9,
            tflop_per_s: flops as f64 / seconds * 1e-12,
            share: floor / seconds,
        }
    }

    fn unit(&self) -> &'static str {
        match self.launches.iter().map(|launch| launch.unit).find(|&unit| unit != Unit::Fma) {
            Some(Unit::Tf32) => "mma tf32",
            Some(Unit::Bf16) => "mma bf16",
            _ => "fma",
        }
    }

    fn json(&self, ceilings: &Ceilings) -> Value {
        let figures = self.figures(ceilings);
        let extreme = |pick: fn(f64, f64) -> f64, start| 1e6 * self.seconds.iter().copied().fold(start, pick);
        json!({
            "case": self.case, "shape": self.shape, "kernel": self.kernel, "unit": self.unit(),
            "bytes": figures.bytes, "flops": figures.flops, "microseconds": figures.microseconds,
            "min_us": extreme(f64::min, f64::INFINITY), "max_us": extreme(f64::max, 0.0), "measured": self.seconds.len(),
            "gb_per_s": figures.gb_per_s, "tflop_per_s": figures.tflop_per_s,
            "floor_us": figures.floor_us, "share_of_floor": figures.share,
        })
    }
}

/// Writes the JSON file, then prints the table.
pub fn write(device: &Device, timer: &Timer, ceilings: &Ceilings, scale: Scale, rows: &[Row]) -> Result<()> {
    let name = device.stream.context().name()?;
    let (major, minor) = device.stream.context().compute_capability()?;
    let (driver, date) = (driver_version()?, date());
    let path = std::env::var_os(FILE).map_or_else(|| PathBuf::from("target/kernels.json"), PathBuf::from);
    let json = json!({
        "device": name, "compute_capability": format!("{major}.{minor}"), "driver": driver, "date": date,
        "virtual": device.virtual_gpu.is_some(), "shapes": if scale == Scale::Paper { "paper" } else { "tiny" },
        "l2_bytes": timer.l2_bytes,
        "ceilings": {
            "copy_gb_per_s": ceilings.copy * 1e-9, "fma_tflop_per_s": ceilings.fma * 1e-12,
            "mma_tf32_tflop_per_s": ceilings.tf32 * 1e-12, "mma_bf16_tflop_per_s": ceilings.bf16 * 1e-12,
            "smallest_launch_us": ceilings.launch * 1e6,
        },
        "rows": rows.iter().map(|row| row.json(ceilings)).collect::<Vec<_>>(),
    });
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&path, serde_json::to_string_pretty(&json)? + "\n")?;

    println!("\n{name}, driver {driver}, {date}; written to {}", path.display());
    println!(
        "ceilings: copy {:.0} GB/s, fma {:.1}, mma tf32 {:.0}, mma bf16 {:.0} TFLOP/s; smallest launch {:.2} us",
        ceilings.copy * 1e-9,
        ceilings.fma * 1e-12,
        ceilings.tf32 * 1e-12,
        ceilings.bf16 * 1e-12,
        ceilings.launch * 1e6
    );
    println!(
        "{:<24} {:<40} {:<36} {:>10} {:>10} {:>8} {:>8} {:>7}",
        "case", "shape", "kernel", "us", "floor us", "GB/s", "TFLOP/s", "share"
    );
    for row in rows {
        let f = row.figures(ceilings);
        println!(
            "{:<24} {:<40} {:<36} {:>10.2} {:>10.2} {:>8.0} {:>8.2} {:>6.1}%",
            row.case,
            row.shape,
            row.kernel,
            f.microseconds,
            f.floor_us,
            f.gb_per_s,
            f.tflop_per_s,
            100.0 * f.share
        );
    }
    Ok(())
}

/// The kernel module's version where it tells (580.65.06), and the CUDA version that the driver speaks.
fn driver_version() -> Result<String> {
    let mut version = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    let cuda = format!("CUDA {}.{}", version / 1000, version % 1000 / 10);
    let module = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let number =
        module.split_whitespace().find(|word| word.split('.').count() >= 2 && word.starts_with(char::is_numeric));
    Ok(number.map_or_else(|| cuda.clone(), |number| format!("{number} ({cuda})")))
}

/// As the machine tells it.
fn date() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string()).unwrap_or_default()
}
