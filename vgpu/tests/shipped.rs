//! The kernels that ship: all of them decode, as they ship (sm_80) and compiled for sm_90; some of each kind run, and both give
//! the same bits.

mod common;
use common::*;
use half::bf16;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use vgpu::ptx::{Module, parse};

fn kernels() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../kernels")
}

/// Stems of the kernels' files.
fn stems() -> Vec<String> {
    let files = std::fs::read_dir(kernels()).expect("the folder of the kernels").map(|f| f.expect("a file").path());
    let sources = files.filter(|f| f.extension().is_some_and(|e| e == "cu"));
    let mut stems: Vec<String> = sources.map(|f| f.file_stem().expect("a name").to_string_lossy().into()).collect();
    stems.sort();
    assert!(stems.len() >= 7, "{stems:?}");
    stems
}

fn shipped(stem: &str) -> Arc<Module> {
    let path = kernels().join(format!("ptx/{stem}.ptx"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Arc::new(parse(&text).unwrap_or_else(|e| panic!("{stem}: {e}")))
}

/// Compiled for sm_90, once.
fn compiled(stem: &str) -> Arc<Module> {
    static DONE: Mutex<BTreeMap<String, Arc<Module>>> = Mutex::new(BTreeMap::new());
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    done.entry(stem.into()).or_insert_with(|| compile(stem)).clone()
}

fn compile(stem: &str) -> Arc<Module> {
    let nvcc: Option<&str> = option_env!("VGPU_NVCC");
    let nvcc = nvcc.expect("an nvcc");
    let flags = ["-ptx", "-std=c++17", "-lineinfo", "-arch=compute_90", "-o", "-"];
    let output =
        Command::new(nvcc).current_dir(kernels()).args(flags).arg(format!("{stem}.cu")).output().expect("nvcc");
    assert!(output.status.success(), "{stem}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    Arc::new(parse(&text).unwrap_or_else(|e| panic!("{stem} for sm_90: {e}")))
}

fn names(module: &Module) -> Vec<&str> {
    let mut names: Vec<&str> = module.kernels.iter().map(|k| k.name.as_str()).collect();
    names.sort();
    names
}

#[test]
fn every_shipped_kernel_decodes() {
    let modules: Vec<_> = stems().iter().map(|stem| shipped(stem)).collect();
    let kernels: Vec<_> = modules.iter().flat_map(|m| &m.kernels).collect();
    assert!(kernels.len() > 50, "{} kernels", kernels.len());
}

#[test]
#[cfg_attr(not(nvcc), ignore = "no nvcc")]
fn every_kernel_decodes_compiled_for_sm_90() {
    for stem in stems() {
        let (ours, theirs) = (shipped(&stem), compiled(&stem));
        assert_eq!(theirs.target, "sm_90");
        assert_eq!(names(&ours), names(&theirs));
    }
}

/// Numbers of both signs.
fn numbers(n: usize) -> Vec<f32> {
    let mut random = Random(n as u64);
    (0..n).map(|_| random.unit() * 4.0).collect()
}

fn halves(n: usize) -> Vec<bf16> {
    numbers(n).into_iter().map(bf16::from_f32).collect()
}

/// The parameters of NT-Xent of 128 samples of 32 words, in one split of two tiles.
fn nt_xent(dim: u32) -> Vec<u8> {
    let words = [128u32, dim, 32, 2, 0, 128].into_iter().flat_map(u32::to_le_bytes);
    words.chain(0.5f64.to_le_bytes()).collect()
}

/// What a few kernels of each kind compute: elementwise, with a reduction in shared memory, with tensor cores.
fn run_some(module: impl Fn(&str) -> Arc<Module>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut keep = |out: &Buffer| all.push(out.read::<u8>());

    let (x, y) = (Buffer::of(&numbers(1001)), Buffer::new(2002));
    let m = module("cast");
    clean(&m, "cast_f32_to_bf16", config(1, 256), &[Arg::Ptr(&x), Arg::Ptr(&y), Arg::U64(1001)]);
    keep(&y);

    let (y, partial) = (Buffer::new(4004), Buffer::new(8));
    let args = [Arg::Ptr(&x), Arg::Ptr(&y), Arg::Ptr(&partial), Arg::U64(1001)];
    clean(&module("binary_entropy"), "binary_entropy_forward_f32", config(1, 256), &args);
    keep(&y);
    keep(&partial);

    let (x, y) = (Buffer::of(&halves(3 * 49 * 70)), Buffer::new(3 * 70 * 2));
    let shape = Config { grid: [3, 3, 1], ..config(1, 256) };
    let args = [Arg::Ptr(&x), Arg::Ptr(&y), Arg::U32(49), Arg::U32(70)];
    clean(&module("pool2d"), "global_avg_pool_forward_bf16", shape, &args);
    keep(&y);

    let m = module("nt_xent");
    let samples = [Buffer::of(&numbers(128 * 31)), Buffer::of(&numbers(128 * 31)), Buffer::of(&halves(128 * 63))];
    for (name, z, dim) in [("f32", &samples[0], 31), ("tf32", &samples[1], 31), ("bf16", &samples[2], 63)] {
        let [unit, norm] = [128 * 32 * 4, 512].map(Buffer::new);
        let n = nt_xent(dim);
        let args = [Arg::Ptr(z), Arg::Ptr(&unit), Arg::Ptr(&norm), Arg::Bytes(&n)];
        clean(&m, &format!("nt_xent_normalise_rows_{name}"), config(16, 256), &args);
        let [largest, sum, positive] = [512, 512, 512].map(Buffer::new);
        let args = [Arg::Ptr(&unit), Arg::Ptr(&largest), Arg::Ptr(&sum), Arg::Ptr(&positive), Arg::Bytes(&n)];
        clean(&m, &format!("nt_xent_forward_{name}"), config(2, 256), &args);
        [&unit, &norm, &largest, &sum, &positive].into_iter().for_each(&mut keep);
    }
    all
}

#[test]
#[cfg_attr(not(nvcc), ignore = "no nvcc")]
fn kernels_compiled_for_sm_90_compute_the_same_bits() {
    assert_eq!(run_some(shipped), run_some(compiled));
}

#[test]
fn results_and_counts_do_not_depend_on_the_number_of_threads() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| run_some(shipped))
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}
