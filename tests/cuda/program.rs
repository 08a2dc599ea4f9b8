//! The program as a user runs it, with `--device cuda`, unmodified: where there is no GPU, the loader is told of the virtual
//! one before it starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{SEEDS, virtual_gpu};

/// Options of a run of 4 steps.
const TINY: &str = "--data shapes:16 --set base_width=2 --image-size 32 --batch-size 4 --set eval.restarts=1 --set report=false --epochs 1";

/// Drivers and libraries that stand in for CUDA's, beside this test's own program.
const LIBRARIES: [&str; 3] = ["libvgpu.so", "libvgpu_cudnn.so", "libvgpu_cublaslt.so"];

/// Whether a command finds a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Here,
    Missing,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Where commands run; removed with all they wrote.
pub struct Folder(tempfile::TempDir, Vec<(&'static str, String)>);

/// The program: where cargo built it, or beside this test where both were taken elsewhere.
fn program() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_disentangle"));
    if built.exists() { built.into() } else { std::env::current_exe().unwrap().with_file_name("disentangle") }
}

/// The stand-ins, as `LD_PRELOAD` takes them.
fn stand_ins() -> String {
    let given = std::env::var_os("VGPU_LIBRARY").map(PathBuf::from);
    let folder = given.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let folder = folder.unwrap_or_else(|| std::env::current_exe().unwrap().parent().unwrap().to_path_buf());
    LIBRARIES.map(|name| folder.join(name).display().to_string()).join(":")
}

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap(), Vec::new())
    }

    /// The same folder, with a variable in the environment of its commands.
    pub fn with(mut self, name: &'static str, value: String) -> Folder {
        self.1.push((name, value));
        self
    }

    /// Runs `disentangle` with `words`, which are separated by spaces.
    pub fn run(&self, words: &str, driver: Driver) -> Said {
        self.run_with(words, driver, &[])
    }

    /// A command with `words`, which are separated by spaces.
    fn command(&self, words: &str, driver: Driver, variables: &[(&'static str, String)]) -> Command {
        let mut command = Command::new(program());
        command.envs(self.1.iter().chain(variables).map(|(name, value)| (name, value)));
        command.current_dir(self.0.path()).args(words.split_whitespace());
        command.env("DISENTANGLE_CACHE", self.0.path().join("cache"));
        match (driver, virtual_gpu()) {
            (Driver::Here, Some(_)) => command.env("LD_PRELOAD", stand_ins()),
            (Driver::Here, None) => &mut command,
            // A real driver cannot be hidden, but its devices can.
            (Driver::Missing, _) => command.env("CUDA_VISIBLE_DEVICES", "-1").env_remove("LD_PRELOAD"),
        };
        command
    }

    /// [`Folder::run`] with more variables in its environment.
    fn run_with(&self, words: &str, driver: Driver, variables: &[(&'static str, String)]) -> Said {
        let Output { status, stdout, stderr } = self.command(words, driver, variables).output().unwrap();
        let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(!err.contains("panicked"), "{words}: {err}");
        assert!(!err.lines().any(|line| line.starts_with("vgpu: ")), "{words}: {err}");
        Said { code: status.code(), out, err }
    }

    /// As [`Folder::run`], of a command that ends well.
    #[track_caller]
    pub fn done(&self, words: &str) -> Said {
        self.done_with(words, &[])
    }

    #[track_caller]
    pub fn done_with(&self, words: &str, variables: &[(&'static str, String)]) -> Said {
        let said = self.run_with(words, Driver::Here, variables);
        assert_eq!(said.code, Some(0), "{words}: {}", said.err);
        said
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.0.path().join(name).exists()
    }

    /// Numbers of a .npy file.
    pub fn array(&self, name: &str) -> Vec<f32> {
        npyz::NpyFile::new(&self.read(name)[..]).unwrap().into_vec().unwrap()
    }

    /// Lines of a run's log of this kind.
    fn records(&self, run: &str, kind: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(&format!("{run}/metrics.jsonl"))).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &Value| line["kind"] == kind)
            .collect()
    }
}

#[test]
fn a_model_is_trained_scored_and_used() {
    let folder = Folder::new();
    let said = folder.done(&format!("train {TINY} --device cuda --out run"));
    assert!(said.err.contains("device: ") && !said.err.contains("device: CPU"), "{}", said.err);
    assert!(!said.err.contains("kernel by kernel"), "steps are not recorded: {}", said.err);
    let steps = folder.records("run", "step");
    assert_eq!(steps.len(), 4);
    assert!(steps.iter().all(|step| step["loss"].as_f64().is_some_and(f64::is_finite)), "{steps:?}");
    let json: Value = serde_json::from_str(&folder.done("eval run --json --device cuda").out).unwrap();
    assert_eq!(json, serde_json::from_slice::<Value>(&folder.read("run/results.json")).unwrap());
    let said = folder.done("embed run --data shapes:10 --device cuda --out on_cuda");
    assert!(said.out.contains("10 images"), "{}", said.out);
    for (name, columns) in [("h", 16), ("z", 4), ("y", 4)] {
        let bytes = folder.read(&format!("on_cuda/{name}.npy"));
        let file = npyz::NpyFile::new(&bytes[..]).unwrap();
        assert_eq!(file.shape(), [10, columns]);
        assert!(file.into_vec::<f32>().unwrap().iter().all(|value| value.is_finite()));
    }
}

/// A run that stopped at an epoch goes on where it was: with the same steps, and losses as of the run that never stopped but for
/// the engines that cuDNN's timing chose in each process, whose sums have another order. And a network trained on one device
/// gives the same embeddings on the other, but for some hundred roundings that batch norms magnify.
#[test]
fn a_run_is_resumed_and_its_model_used_elsewhere() {
    let folder = Folder::new();
    let tiny = TINY.replace("--epochs 1", "--epochs 2 --set keep=0 --precision f32");
    folder.done(&format!("train {tiny} --device cuda --out run"));
    let whole = folder.records("run", "step");
    std::fs::remove_file(folder.0.path().join("run/checkpoint-epoch0002.safetensors")).unwrap();
    let said = folder.done("train --resume --out run --device cuda");
    assert!(said.err.contains("resuming after step 4"), "{}", said.err);
    let resumed = folder.records("run", "step");
    assert_eq!((whole.len(), resumed.len()), (8, 8));
    for (whole, resumed) in whole.iter().zip(&resumed) {
        ["epoch", "step", "learning_rate"].iter().for_each(|key| assert_eq!(whole[key], resumed[key]));
        let [whole, resumed] = [whole, resumed].map(|step| step["loss"].as_f64().unwrap());
        assert!((whole - resumed).abs() <= 1e-3 * whole.abs(), "{resumed} for {whole}");
    }
    folder.done("embed run --data shapes:10 --device cuda --out on_cuda");
    folder.done("embed run --data shapes:10 --device cpu --out on_cpu");
    let [cuda, cpu] = ["on_cuda", "on_cpu"]
        .map(|out| npyz::NpyFile::new(&folder.read(&format!("{out}/h.npy"))[..]).unwrap().into_vec::<f32>().unwrap());
    let largest = cpu.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let apart = cuda.iter().zip(&cpu).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(apart <= 1e-4 * largest, "{apart} of {largest}");
}

/// The first run on a device chooses engines by timing. Killed at once, it has left its choices: the resumed run takes them, and
/// ends in the bytes of the run that was never killed.
#[test]
#[cfg(unix)]
fn killed_in_its_first_steps_and_resumed_is_uninterrupted() {
    let folder = Folder::new();
    let run = TINY.replace("--epochs 1", "--epochs 2 --set keep=0 --checkpoint-every 1step --set eval.every=1");
    let words = format!("train {run} --device cuda --out killed");
    let mut child =
        folder.command(&words, Driver::Here, &[]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let first = "killed/checkpoint-epoch0000-step000001.safetensors";
    while !folder.exists(first) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its first checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    folder.done("train --resume --out killed --device cuda");
    folder.done(&format!("train {run} --device cuda --out whole"));
    for name in
        ["metrics.jsonl", "results.json", "checkpoint-epoch0001.safetensors", "checkpoint-epoch0002.safetensors"]
    {
        assert!(folder.read(&format!("killed/{name}")) == folder.read(&format!("whole/{name}")), "{name}");
    }
}

/// What a step's line says but for the time it took.
fn steps(folder: &Folder, run: &str) -> Vec<[Value; 7]> {
    let keys = ["step", "loss", "loss_instance", "loss_feature", "entropy", "grad_norm", "learning_rate"];
    folder.records(run, "step").iter().map(|line| keys.map(|key| line[key].clone())).collect()
}

/// Training, resuming, scoring and embedding, whatever the order in which streams make progress: the same bits. Engines are chosen
/// once, by the first run, and kept in the cache.
#[test]
fn all_commands_do_the_same_under_any_order_of_streams() {
    let folder = Folder::new();
    let tiny = "--data shapes:8 --set base_width=1 --image-size 8 --batch-size 4 --set eval.restarts=1 --set report=false --device cuda";
    folder.done(&format!("train {tiny} --epochs 2 --set keep=0 --out run"));
    folder.done("embed run --data shapes:8 --device cuda --out e");
    let (whole, scores) = (steps(&folder, "run"), folder.read("run/results.json"));
    let arrays = ["h", "z", "y"].map(|name| folder.read(&format!("e/{name}.npy")));
    assert_eq!(whole.len(), 4);
    // Of which a real device has one, its own.
    let seeds: Vec<u64> = if virtual_gpu().is_some() { (1..=SEEDS).collect() } else { vec![1] };
    let check = |seed: u64| {
        let order = [("VGPU_SEED", seed.to_string())];
        folder.done_with(&format!("train {tiny} --epochs 1 --out run{seed}"), &order);
        folder.done_with(&format!("train --resume --epochs 2 --out run{seed} --device cuda"), &order);
        assert_eq!(steps(&folder, &format!("run{seed}")), whole, "seed {seed}");
        assert_eq!(folder.read(&format!("run{seed}/results.json")), scores, "seed {seed}");
        let json = folder.done_with("eval run --json --device cuda", &order).out;
        let [json, scores] = [json.as_bytes(), &scores].map(|json| serde_json::from_slice::<Value>(json).unwrap());
        assert_eq!(json, scores, "seed {seed}");
        folder.done_with(&format!("embed run --data shapes:8 --device cuda --out e{seed}"), &order);
        let found = ["h", "z", "y"].map(|name| folder.read(&format!("e{seed}/{name}.npy")));
        assert!(found == arrays, "seed {seed}");
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = seeds
            .chunks(seeds.len().div_ceil(2))
            .map(|seeds| scope.spawn(|| seeds.iter().for_each(|&seed| check(seed))))
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

/// Weights of a checkpoint that no step is finite with: the run stops with a report, which a replay on the same device reproduces,
/// and on the other one calls what it is.
#[test]
fn a_step_that_is_not_finite_is_reported_and_repeated() {
    let folder = Folder::new();
    folder.done(&format!("train {TINY} --device cuda --out run"));
    let path = folder.0.path().join("run/checkpoint-epoch0001.safetensors");
    let mut checkpoint = disentangle::checkpoint::Checkpoint::load(&path).unwrap();
    let weight = checkpoint.tensors.iter_mut().find(|t| t.name == "backbone.layer1.0.conv1.weight").unwrap();
    weight.data.fill(1e38);
    checkpoint.save(&path).unwrap();
    let said = folder.run("train --resume --out run --epochs 2 --device cuda", Driver::Here);
    assert_eq!(said.code, Some(1), "{}", said.err);
    for part in
        ["step 5 (epoch 2, its step 1) is not finite", "forward, conv2d of backbone.layer1.0.conv1", "its images"]
    {
        assert!(said.err.contains(part), "no `{part}` in {}", said.err);
    }
    assert!(folder.done("replay run/nonfinite-step000005.json").out.contains("reproduced"));
    let kept = folder.0.path().join("run/nonfinite-step000005.safetensors");
    let kept = disentangle::checkpoint::Checkpoint::load(&kept).unwrap();
    assert!(kept.tensors == checkpoint.tensors, "the state before the step has changed");
    let said = folder.run("replay run/nonfinite-step000005.json --device cpu", Driver::Missing);
    assert!(said.err.contains("of a run on cuda: here it may differ"), "{}", said.err);
}

#[test]
fn without_a_driver_the_cpu_is_taken_or_an_error_says_what_to_install() {
    let folder = Folder::new();
    let said = folder.run(&format!("train {TINY} --device auto --out run"), Driver::Missing);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let line = said.err.lines().find(|line| line.contains("device: CPU")).unwrap_or_else(|| panic!("{}", said.err));
    assert!(line.contains("driver"), "no reason in: {line}");
    let said = folder.run(&format!("train {TINY} --device cuda --out other"), Driver::Missing);
    assert_eq!(said.code, Some(1), "{}", said.err);
    let error = said.err.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: ") && error.contains("driver"), "{error}");
    assert!(virtual_gpu().is_none() || error.contains("install"), "{error}");
    assert!(!folder.0.path().join("other").exists(), "a run was begun");
}

#[test]
fn info_names_devices_and_what_is_missing() {
    let folder = Folder::new();
    let said = folder.done("info");
    for part in
        ["cuda     ready (--device auto takes it)", "driver for CUDA", "cuda:0: ", "sm_", "cuDNN 9.", "cuBLASLt "]
    {
        assert!(said.out.contains(part), "no `{part}` in {}", said.out);
    }
    let said = folder.run("info", Driver::Missing);
    assert_eq!(said.code, Some(0));
    for part in ["cpu      ready (--device auto takes it)", "cuda     not usable", "driver"] {
        assert!(said.out.contains(part), "no `{part}` in {}", said.out);
    }
}

/// Each of the three replaced by another under its name: it opens, and nothing that is called is in it.
#[test]
#[cfg(target_os = "linux")]
fn a_library_that_is_not_whole_is_an_error() {
    if virtual_gpu().is_none() {
        return; // a real driver comes first
    }
    let all: Vec<String> = stand_ins().split(':').map(str::to_owned).collect();
    for (replaced, (name, says)) in
        [("libcuda.so.1", "the NVIDIA driver"), ("libcudnn.so.9", "cuDNN"), ("libcublasLt.so.13", "cuBLASLt")]
            .into_iter()
            .enumerate()
    {
        let folder = Folder::new();
        std::fs::copy(&all[(replaced + 1) % 3], folder.0.path().join(name)).unwrap();
        let rest: Vec<&str> = (0..3).filter(|&library| library != replaced).map(|library| &*all[library]).collect();
        for (words, code) in [("info", 0), (&*format!("train {TINY} --device cuda --out run"), 1)] {
            let mut command = folder.command(words, Driver::Missing, &[]);
            // Without a driver its libraries are not loaded: they would be, were they called.
            command.env_remove("CUDA_VISIBLE_DEVICES").env("LD_LIBRARY_PATH", folder.0.path());
            let Output { status, stdout, stderr } = command.env("LD_PRELOAD", rest.join(":")).output().unwrap();
            let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
            assert_eq!(status.code(), Some(code), "{name}: {words}: {said}");
            assert!(
                said.contains(&format!("{says} ({name}) is too old or not whole: it lacks ")),
                "{name}: {words}: {said}"
            );
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let folder = Folder::new();
    let said = folder.run(&format!("train {TINY} --device cuda:17 --out run"), Driver::Here);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("error: "), "{}", said.err);
}
