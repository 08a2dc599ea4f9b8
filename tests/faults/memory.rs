//! Memory stays flat.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Place;

/// Longer than any machine takes that tests run on.
const PATIENCE: Duration = Duration::from_secs(1200);

/// A run in the background, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// 10,000 steps of a network large enough for the allocator's own rounding to stay below 1 %, 33 of them followed by a checkpoint.
const STEPS: usize = 10_000;
const RUN: &str = "train --data shapes:16 --set base_width=16 --image-size 8 --batch-size 4 --epochs 2500 --device cpu --threads 2 \
                   --set eval.every=0 --set eval.restarts=1 --set report=false --checkpoint-every 300steps --out run";

/// Resident memory of a process in KiB; `None` when it has ended.
fn resident(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

#[test]
#[ignore = "takes most of a minute; .ci/run calls it"]
fn ten_thousand_steps_leave_the_memory_where_it_was() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_disentangle"));
    command.current_dir(place.path("")).args(RUN.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = Running(command.spawn().unwrap());
    let log = place.path("run/metrics.jsonl");
    let started = Instant::now();
    // The log's length tells the step.
    let mut samples = Vec::new();
    while run.0.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE, "the run does not get on");
        let logged = log.metadata().map_or(0, |log| log.len() as usize);
        samples.extend(resident(run.0.id()).map(|resident| (logged, resident)));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(run.0.wait().unwrap().success());
    let text = std::fs::read_to_string(&log).unwrap();
    let ends = |line: &str| line.as_ptr() as usize + line.len() - text.as_ptr() as usize;
    let steps: Vec<usize> = text.lines().filter(|line| line.contains(r#""kind":"step""#)).map(ends).collect();
    assert_eq!(steps.len(), STEPS);
    // The middle one of the samples of each thousand steps: a checkpoint takes 2 MiB while it is written, and gives them back.
    // Behind the last step comes the evaluation, which is none.
    let middle = |from: usize| {
        let here = samples.iter().filter(|(logged, _)| (steps[from - 1]..steps[from + 999]).contains(logged));
        let mut here: Vec<u64> = here.map(|&(_, resident)| resident).collect();
        here.sort_unstable();
        assert!(here.len() >= 10, "{} samples from step {from} on", here.len());
        here[here.len() / 2]
    };
    let settled: Vec<u64> = (1..STEPS / 1000).map(|thousand| middle(1000 * thousand)).collect();
    println!("resident in each thousand steps behind the first, KiB: {settled:?}");
    // What leaks grows in every thousand, by more than 34 bytes a step if it is to count. An allocator that has to serve one more
    // thread at once, which is chance on a busy machine, takes its pages once: so the middle one of the differences is judged.
    let (first, last) = (settled[0], settled[settled.len() - 1]);
    let mut grown: Vec<i64> = settled.windows(2).map(|pair| pair[1] as i64 - pair[0] as i64).collect();
    grown.sort_unstable();
    assert!(grown[grown.len() / 2] * 1000 <= first as i64, "{settled:?} KiB");
    assert!(last * 100 <= first * 105, "{settled:?} KiB");
}
