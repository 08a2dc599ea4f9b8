//! `info`: what this program is and what it runs on.

use super::args::preset_lines;
use crate::backend::cuda::libraries;
use crate::data::cache::{CACHE_VARIABLE, Cache};
use std::fmt::Write as _;

/// Memory of this machine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What this process may use: the machine's, or its container's limit.
    pub total: u64,
    /// What is free of it now, caches counted as free.
    pub available: u64,
}

/// The text of `info`.
pub fn info() -> String {
    let mut text = format!("disentangle {}\n\n", env!("CARGO_PKG_VERSION"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut line = |name: &str, value: &str| writeln!(text, "{name:<8} {value}").expect("a string grows");
    line("system", &format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line("cores", &cores.to_string());
    line("SIMD", &simd_features().join(" "));
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let memory = memory().map(|m| format!("{:.1} GiB, {:.1} GiB available", gib(m.total), gib(m.available)));
    line("memory", memory.as_deref().unwrap_or("unknown on this system"));
    line("cache", &cache());
    let usable = libraries::check().is_ok();
    let auto = |takes: bool| if takes { "ready (--device auto takes it)" } else { "ready" };
    line("cpu", auto(!usable));
    line("cuda", if usable { auto(true) } else { "not usable" });
    libraries::inventory().iter().for_each(|what| line("", what));
    text + "\nPresets:\n" + &preset_lines()
}

/// Where packed copies are kept, and how much there is.
fn cache() -> String {
    let Some(cache) = Cache::of_user() else { return format!("no folder for packed copies: set {CACHE_VARIABLE}") };
    let (bytes, copies) = cache.size();
    let what = if copies == 1 { "packed copy" } else { "packed copies" };
    format!("{}: {copies} {what}, {:.1} MiB", cache.folder().display(), bytes as f64 / f64::from(1 << 20))
}

/// The vector instructions of this machine that the CPU backend's matrix products choose between.
pub fn simd_features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        macro_rules! detect {
            ($($name:tt)*) => { $(if std::is_x86_feature_detected!($name) { found.push($name); })* };
        }
        detect!("avx" "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vl" "avx512bf16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! detect {
            ($($name:tt)*) => { $(if std::arch::is_aarch64_feature_detected!($name) { found.push($name); })* };
        }
        detect!("neon" "fp16" "bf16" "sve");
    }
    if found.is_empty() {
        found.push("none detected");
    }
    found
}

/// Memory this process may use; `None` where the system does not say (anything but Linux).
pub fn memory() -> Option<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = Memory { total: field(&text, "MemTotal:")?, available: field(&text, "MemAvailable:")? };
    let limit = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    Some(match (limit("memory.max"), limit("memory.current")) {
        (Some(max), Some(used)) => {
            Memory { total: max.min(machine.total), available: max.saturating_sub(used).min(machine.available) }
        }
        _ => machine,
    })
}

/// A line such as `MemTotal:  123 kB` of /proc/meminfo, in bytes.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_version_devices_and_presets() {
        let text = info();
        for part in
            [env!("CARGO_PKG_VERSION"), "cores", "SIMD", "memory", "cpu      ready", "\ncuda ", "paper-stl10-256"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemFree:         1 kB\nMemTotal:       16384 kB\nHugePages_Total:       0\n";
        assert_eq!(field(text, "MemTotal:"), Some(16384 * 1024));
        assert_eq!(field(text, "MemAvailable:"), None);
        assert_eq!(field("MemTotal: x kB", "MemTotal:"), None);
        if cfg!(target_os = "linux") {
            let memory = memory().unwrap();
            assert!(memory.total >= memory.available && memory.total > 1 << 26, "{memory:?}");
        }
    }
}
