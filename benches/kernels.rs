//! Every kernel of kernels/*.cu, at the shapes of a training step of ResNet-34 at 224 px.
//!
//! On a GPU: device time of each launch between two events, the L2 cache flushed before; the median as time, GB/s and
//! TFLOP/s; and its share of the floor, which is the bytes or the operations that the file's header states, at the speed of
//! a copy or of a loop of the same instructions, measured first, in the same run. The table comes last; `KERNEL_BENCH_JSON`
//! names the JSON file (`target/kernels.json`).
//!
//! Without a GPU: what the virtual one counts for small shapes (instructions, operations, bytes), beside the committed
//! `benches/kernels/counts.json`. The test `kernel_counts` fails where a count grows.
//!
//! `KERNEL_BENCH_SHAPES=tiny` or `paper` chooses the shapes, and that times are taken, on whatever device there is.

#[path = "kernels/cases/mod.rs"]
mod cases;
#[path = "kernels/ceilings.rs"]
mod ceilings;
#[path = "kernels/report.rs"]
mod report;
#[path = "kernels/timing.rs"]
mod timing;

use std::time::Duration;

use criterion::{Criterion, SamplingMode};

use cases::{Device, Plan, Result, Scale, counts, plans};
use ceilings::Ceilings;
use report::Row;
use timing::Timer;

/// Chooses the shapes.
const SHAPES: &str = "KERNEL_BENCH_SHAPES";

fn main() -> Result<()> {
    let device = Device::open()?;
    let scale = match std::env::var(SHAPES).ok().as_deref() {
        Some("tiny") => Some(Scale::Tiny),
        Some("paper") => Some(Scale::Paper),
        Some(other) => return Err(format!("{SHAPES} is tiny or paper, not {other}").into()),
        None => None,
    };
    match (device.virtual_gpu, scale) {
        (Some(gpu), None) => print_counts(&counts::count(&device, gpu)?),
        (_, scale) => time(&device, scale.unwrap_or(Scale::Paper)),
    }
}

/// The counts with their change against the committed table.
fn print_counts(found: &counts::Table) -> Result<()> {
    if std::env::var_os(counts::UPDATE).is_some() {
        counts::commit(found)?;
    }
    let committed = counts::committed().unwrap_or_default();
    println!(
        "{:<100} {:>14} {:>12} {:>12} {:>12} {:>8}",
        "virtual GPU", "instructions", "flops", "bytes read", "written", "change"
    );
    for (name, count) in found {
        let change = committed.get(name).map_or("new".to_string(), |before| {
            let share = count.thread_instructions as f64 / before.thread_instructions as f64 - 1.0;
            format!("{:+.1}%", 100.0 * share)
        });
        println!(
            "{name:<100} {:>14} {:>12} {:>12} {:>12} {change:>8}",
            count.thread_instructions, count.flops, count.bytes_read, count.bytes_written
        );
    }
    let regressions = counts::regressions(found, &committed);
    println!("\n{} counts more than {}% above the table", regressions.len(), 100.0 * counts::TOLERANCE);
    regressions.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Times every launch by itself, and every case of more than one launch as a whole.
fn time(device: &Device, scale: Scale) -> Result<()> {
    let mut timer = Timer::new(device, scale)?;
    let ceilings = Ceilings::measure(device, &mut timer, scale)?;
    // Criterion plans by the host's clock, so the flushes count towards these; it repeats a launch 60 times or more.
    let mut criterion = Criterion::default()
        .sample_size(10)
        .nresamples(1000)
        .warm_up_time(Duration::from_millis(30))
        .measurement_time(Duration::from_millis(120))
        .without_plots()
        .configure_from_args();
    let mut rows = Vec::new();
    for plan in plans(scale) {
        rows.extend(time_plan(device, &mut timer, &mut criterion, &plan)?);
    }
    report::write(device, &timer, &ceilings, scale, &rows)
}

fn time_plan(device: &Device, timer: &mut Timer, criterion: &mut Criterion, plan: &Plan) -> Result<Vec<Row>> {
    let mut case = plan.make(device)?;
    let launches = case.launches().to_vec();
    let mut group = criterion.benchmark_group(format!("{} {}", plan.name, plan.shape));
    group.sampling_mode(SamplingMode::Flat);
    let single = launches.iter().enumerate().map(|(index, launch)| (launch.kernel, index..index + 1));
    let whole = (launches.len() > 1).then_some(("all", 0..launches.len()));
    let mut rows = Vec::new();
    for (kernel, range) in single.chain(whole) {
        let (mut seconds, mut failure) = (Vec::new(), None);
        group.bench_function(kernel, |bencher| {
            bencher.iter_custom(|times| {
                let work = || range.clone().try_for_each(|index| case.launch(device, index));
                let measured = timer.measure(device, times, work).unwrap_or_else(|problem| {
                    failure = Some(problem);
                    Vec::new()
                });
                // Criterion does not take nothing for a time.
                let total = measured.iter().sum::<f64>().max(1e-9);
                seconds.extend(measured);
                Duration::from_secs_f64(total)
            });
        });
        if let Some(problem) = failure {
            return Err(problem);
        }
        // Nothing was measured where the command line's filter says so.
        if !seconds.is_empty() {
            let (case, shape, launches) = (plan.name, plan.shape.clone(), launches[range].to_vec());
            rows.push(Row { case, shape, kernel, launches, seconds });
        }
    }
    group.finish();
    Ok(rows)
}
