//! Compiles kernels/*.cu to the PTX that the library embeds.
//!
//! With nvcc (from `NVCC`, `CUDA_HOME`, `PATH`, the usual places, or scripts/cuda-toolchain) every kernel is compiled and
//! kernels/ptx is refreshed, written only where something changed. Without, the shipped PTX is embedded: its first lines
//! hold a hash of the sources it was made from and one of itself, and if either does not fit, the build fails. An nvcc of
//! another version than the one that wrote a fresh file leaves it alone: it would only exchange one compiler's text for
//! another's. It does compile what is stale.
//!
//! The text is the same wherever it is made: nvcc runs inside kernels/ on relative names, and what it makes absolute (the
//! `.file` lines that -lineinfo writes) is made relative again.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_128;

/// For every kernel. The baseline is sm_80: bf16 and tf32 on tensor cores, which all later devices run as well. sm_90 gets
/// no text of its own, as no kernel uses what only it has: the driver compiles the same PTX for it.
const FLAGS: [&str; 4] = ["-ptx", "-arch=compute_80", "-std=c++17", "-lineinfo"];

/// The PTX ISA the text declares, in place of the newest one its compiler knows (nvcc 13.0 writes 9.0, which only drivers
/// from 580 on load). Drivers refuse a newer number than they know, whatever the text uses. What ours uses is in 7.2:
/// sm_80 with its mma of bf16 and tf32 and its cvt came with 7.0, `.loc ... inlined_at` from -lineinfo with 7.2. So the
/// lowest driver is CUDA 11.2's: 460.27 on Linux. A driver compiles PTX for devices newer than the text's target, so 7.2
/// serves sm_90 too, although sm_90 can be named as a target only from 7.8 on. scripts/check-kernels has ptxas, which
/// refuses instructions that are newer than the declared ISA, assemble every file for both.
const PTX_ISA: &str = "7.2";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("\nerror: {problem}\n");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for path in ["build.rs", "kernels"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for variable in ["NVCC", "CUDA_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let sources = Sources::read(&root)?;
    let nvcc = Nvcc::find(&root)?;
    let texts: Result<Vec<String>, String> = thread::scope(|scope| {
        let (sources, nvcc, out) = (&sources, nvcc.as_ref(), &out);
        let jobs: Vec<_> =
            sources.kernels.iter().map(|name| scope.spawn(move || sources.ptx(name, nvcc, out))).collect();
        jobs.into_iter().map(|job| job.join().map_err(|_| "a compiling thread panicked".to_string())?).collect()
    });
    embed(&sources, &texts?, &out)
}

/// The folder kernels/.
struct Sources {
    folder: PathBuf,
    /// Stems of the .cu files, sorted.
    kernels: Vec<String>,
    /// Names and contents of the .cuh files, sorted: any kernel may include any of them.
    headers: Vec<(String, Vec<u8>)>,
    /// When the newest of all of them changed.
    modified: SystemTime,
}

impl Sources {
    fn read(root: &Path) -> Result<Self, String> {
        let folder = root.join("kernels");
        let (mut kernels, mut headers, mut modified) = (Vec::new(), Vec::new(), SystemTime::UNIX_EPOCH);
        for entry in fs::read_dir(&folder).map_err(at("list", &folder))? {
            let path = entry.map_err(at("list", &folder))?.path();
            let (Some(name), Some(stem)) = (path.file_name(), path.file_stem()) else { continue };
            let (name, stem) = (name.to_string_lossy().into_owned(), stem.to_string_lossy().into_owned());
            match path.extension().and_then(|e| e.to_str()) {
                Some("cu") => kernels.push(stem),
                Some("cuh") => headers.push((name, fs::read(&path).map_err(at("read", &path))?)),
                _ => continue,
            }
            modified = modified.max(fs::metadata(&path).and_then(|m| m.modified()).map_err(at("read", &path))?);
        }
        kernels.sort();
        headers.sort();
        Ok(Sources { folder, kernels, headers, modified })
    }

    /// Of what decides the text of a kernel, but for the compiler's version.
    fn hash(&self, name: &str) -> Result<String, String> {
        let path = self.folder.join(format!("{name}.cu"));
        let mut bytes = format!("{FLAGS:?} {PTX_ISA}\n").into_bytes();
        let source = (format!("{name}.cu"), fs::read(&path).map_err(at("read", &path))?);
        for (name, content) in self.headers.iter().chain([&source]) {
            // A checkout with CRLF line ends is the same source.
            let content: Vec<u8> = content.iter().copied().filter(|&byte| byte != b'\r').collect();
            bytes.extend(format!("{name} {}\n", content.len()).into_bytes());
            bytes.extend(content);
        }
        Ok(format!("{:032x}", xxh3_128(&bytes)))
    }

    /// The PTX of a kernel, fresh, in kernels/ptx as well.
    fn ptx(&self, name: &str, nvcc: Option<&Nvcc>, out: &Path) -> Result<String, String> {
        let hash = self.hash(name)?;
        let path = self.folder.join("ptx").join(format!("{name}.ptx"));
        let shipped = fs::read_to_string(&path).unwrap_or_default().replace('\r', "");
        let fresh = is_fresh(&shipped, &hash);
        let Some(nvcc) = nvcc else {
            return if fresh { Ok(shipped) } else { Err(stale(name, &shipped)) };
        };
        if fresh && !shipped.contains(&format!("V{}\n", nvcc.version)) {
            return Ok(shipped);
        }
        let text = match self.compile(name, &hash, nvcc, out) {
            Ok(text) => text,
            // An nvcc that nobody asked for and that does not work (no host compiler, say) is no reason to fail.
            Err(problem) if fresh && !nvcc.asked_for => {
                println!("cargo::warning=the shipped kernels/ptx/{name}.ptx is used: {}", problem.replace('\n', " "));
                return Ok(shipped);
            }
            Err(problem) => return Err(problem),
        };
        if text != shipped {
            write_atomically(&path, &text, self.modified)?;
        }
        Ok(text)
    }

    fn compile(&self, name: &str, hash: &str, nvcc: &Nvcc, out: &Path) -> Result<String, String> {
        let raw = out.join(format!("{name}.ptx"));
        let mut command = Command::new(&nvcc.path);
        command.current_dir(&self.folder).args(FLAGS).arg("-o").arg(&raw).arg(format!("{name}.cu"));
        let output = command.output().map_err(at("run", &nvcc.path))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{} does not compile kernels/{name}.cu:\n{message}", nvcc.path.display()));
        }
        let text = fs::read_to_string(&raw).map_err(at("read", &raw))?;
        let body = portable(&text, &self.folder)?;
        if body.contains(INTERNAL) {
            let problem =
                "a static function (or one in an unnamed namespace, or of a CUDA header: see the debug strings)";
            return Err(format!("kernels/{name}.cu uses {problem}, which nvcc names after the folder: make it inline"));
        }
        let body_hash = xxh3_128(body.as_bytes());
        Ok(format!("{}{hash}\n{TEXT}{body_hash:032x}\n{body}", sources_line(name)))
    }
}

fn sources_line(name: &str) -> String {
    format!("// Made by build.rs from {name}.cu; not edited by hand. Hash of its sources: ")
}

const TEXT: &str = "// Hash of what follows this line: ";

/// `_INTERNAL_`, as the debug strings of -lineinfo spell what nvcc names after the file's absolute path.
const INTERNAL: &str = "95,73,78,84,69,82,78,65,76,95";

/// Whether `shipped` was made from the sources of this hash and has not been changed since.
fn is_fresh(shipped: &str, hash: &str) -> bool {
    let mut parts = shipped.splitn(3, '\n');
    let (Some(sources), Some(text), Some(body)) = (parts.next(), parts.next(), parts.next()) else { return false };
    sources.ends_with(&format!(": {hash}")) && text == format!("{TEXT}{:032x}", xxh3_128(body.as_bytes()))
}

fn stale(name: &str, shipped: &str) -> String {
    let what = if shipped.is_empty() { "is missing" } else { "was not made from the kernels' sources as they are now" };
    format!(
        "kernels/ptx/{name}.ptx {what}, and there is no nvcc to make it.\n\
         Run scripts/cuda-toolchain (it installs nvcc into target/ from PyPI) and build again; any other nvcc will do if\n\
         NVCC names it, CUDA_HOME holds it or it is on PATH. Or restore kernels/ as it was shipped."
    )
}

/// Removes what depends on where the text was made, and lowers the ISA it declares.
fn portable(text: &str, folder: &Path) -> Result<String, String> {
    let prefix = format!("{}/", folder.canonicalize().map_err(at("find", folder))?.display());
    let mut result = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with(".version ") {
            let _ = writeln!(result, ".version {PTX_ISA}");
        } else if let Some((file, path)) = line.split_once('"').filter(|_| line.trim_start().starts_with(".file")) {
            let path = path.trim_end_matches('"');
            let relative = match path.strip_prefix(&prefix) {
                Some(name) => format!("kernels/{name}"),
                // A header of the toolkit.
                None => format!("cuda/{}", path.rsplit('/').next().unwrap_or(path)),
            };
            let _ = writeln!(result, "{file}\"{relative}\"");
        } else {
            let _ = writeln!(result, "{}", line.trim_end());
        }
    }
    Ok(result)
}

struct Nvcc {
    path: PathBuf,
    /// As in `V13.0.88`.
    version: String,
    /// Named by NVCC, not come upon.
    asked_for: bool,
}

impl Nvcc {
    fn find(root: &Path) -> Result<Option<Self>, String> {
        if let Some(path) = env::var_os("NVCC").filter(|path| !path.is_empty()) {
            let nvcc = Nvcc::at(PathBuf::from(&path), true);
            let problem = || format!("NVCC names {}, which does not run as nvcc", Path::new(&path).display());
            return Ok(Some(nvcc.ok_or_else(problem)?));
        }
        let home = env::var_os("CUDA_HOME").filter(|home| !home.is_empty()).map(|home| PathBuf::from(home).join("bin"));
        let path = env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/local/cuda/bin", "/opt/cuda/bin"].map(PathBuf::from);
        let own = root.join("target/cuda-toolchain/nvidia/cu13/bin");
        if own.is_dir() {
            // Only where it is: cargo takes a path that does not exist for changed.
            println!("cargo::rerun-if-changed={}", own.join("nvcc").display());
        }
        let folders = home.into_iter().chain(env::split_paths(&path)).chain(usual).chain([own]);
        Ok(folders
            .map(|folder| folder.join("nvcc"))
            .filter(|nvcc| nvcc.is_file())
            .find_map(|nvcc| Nvcc::at(nvcc, false)))
    }

    fn at(path: PathBuf, asked_for: bool) -> Option<Self> {
        let output = Command::new(&path).arg("--version").output().ok().filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().find_map(|word| word.strip_prefix('V'))?.to_string();
        Some(Nvcc { path, version, asked_for })
    }
}

/// The PTX as Rust: every kernel file's stem with its text.
fn embed(sources: &Sources, texts: &[String], out: &Path) -> Result<(), String> {
    let mut rust = String::from("[\n");
    for (name, text) in sources.kernels.iter().zip(texts) {
        let path = out.join(format!("{name}.embedded.ptx"));
        fs::write(&path, text).map_err(at("write", &path))?;
        let _ = writeln!(rust, "    ({name:?}, include_str!({path:?})),");
    }
    let path = out.join("ptx.rs");
    fs::write(&path, rust + "]\n").map_err(at("write", &path))
}

/// A reader never sees half a file. The times of file and folder are set back to the sources': cargo would otherwise find
/// that kernels/ changed since this run began, and run again.
fn write_atomically(path: &Path, text: &str, modified: SystemTime) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(at("create", folder))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, text).map_err(at("write", &temporary))?;
    fs::File::options()
        .write(true)
        .open(&temporary)
        .and_then(|f| f.set_modified(modified))
        .map_err(at("date", path))?;
    fs::rename(&temporary, path).map_err(at("write", path))?;
    // Not every system lets a folder be dated; then cargo runs once more, to no effect.
    let _ = fs::File::open(folder).and_then(|f| f.set_modified(modified));
    Ok(())
}

fn at(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> String {
    move |problem| format!("cannot {action} {}: {problem}", path.display())
}
