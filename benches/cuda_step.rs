//! The whole training step on a CUDA device, on resident data: what the engine reaches when no image has to be read.
//!
//! `cargo bench --bench cuda_step -- --backbone 34 --px 224 --batch 128 --batch 256`; needs a GPU with cuDNN and cuBLASLt.
//! Prints a JSON line a case: medians over steps between the ends of steps, memory; `--convolutions` adds a line for each convolution with the
//! engine that was chosen and its time.

use std::time::Instant;

use clap::Parser;
use disentangle::backend::cuda::Cuda;
use disentangle::backend::{Backend, Samples};
use disentangle::config::{Config, Overrides, Precision};
use disentangle::data::loader::{Batch, Position};
use disentangle::tensor::Shape;
use disentangle::trainer::{Finished, Trainer};
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// ResNet 18, 34 or 50.
    #[arg(long, default_value = "34")]
    backbone: String,
    /// Side of a view.
    #[arg(long, default_value_t = 224)]
    px: usize,
    /// Images in a step; each gives two views. Repeatable.
    #[arg(long, default_values_t = [128, 256])]
    batch: Vec<usize>,
    /// bf16, tf32 or f32.
    #[arg(long, default_values_t = [Precision::Bf16])]
    precision: Vec<Precision>,
    /// Steps that are timed.
    #[arg(long, default_value_t = 30)]
    steps: usize,
    /// Samples of an NT-Xent of 128 elements each, forward and backward, instead of steps: what memory it takes.
    #[arg(long, value_name = "2R")]
    nt_xent: Option<usize>,
    /// Lists the convolutions.
    #[arg(long)]
    convolutions: bool,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Steps before those that are timed: engines are chosen, memory is allocated, steps are recorded.
const WARM_UP: usize = 8;

fn config(args: &Args, batch: usize) -> Config {
    let set = [
        "data=shapes".to_owned(),
        format!("backbone=resnet{}", args.backbone),
        format!("image_size={}", args.px),
        format!("batch_size={batch}"),
        "stem=imagenet".to_owned(),
        "base_width=64".to_owned(),
    ];
    Overrides { set: set.into(), ..Overrides::default() }.resolve().expect("a valid configuration")
}

/// Seconds between the ends of steps, two of which are under way at a time.
fn time(trainer: &mut Trainer<Cuda>, batch: &Batch<<Cuda as Backend>::Pixels>, steps: usize) -> (Vec<f64>, f64) {
    let mut free = vec![trainer.lane().expect("a lane"), trainer.lane().expect("a lane")];
    let mut under_way = std::collections::VecDeque::new();
    let (mut seconds, mut clock, mut loss) = (Vec::new(), Instant::now(), f64::NAN);
    for step in 0..WARM_UP + steps {
        under_way.push_back(trainer.start(free.pop().expect("a free lane"), batch).expect("a step"));
        if under_way.len() == 2 {
            let (finished, lane) = trainer.finish(under_way.pop_front().expect("a step")).expect("a step");
            free.push(lane);
            let Finished::Made(record) = finished else { panic!("a step is not finite") };
            loss = record.loss;
            if step > WARM_UP {
                seconds.push(clock.elapsed().as_secs_f64());
            }
            clock = Instant::now();
        }
    }
    for step in under_way {
        trainer.finish(step).expect("a step");
    }
    (seconds, loss)
}

/// Time and the pool's report for the instance loss of `samples` samples.
fn nt_xent(precision: Precision, samples: usize) -> disentangle::Result<()> {
    let cuda = Cuda::new(0, precision)?;
    let values: Vec<f64> =
        (0..samples * 128).map(|i| ((i.wrapping_mul(2_654_435_761) >> 7) % 2001) as f64 - 1000.0).collect();
    let before = cuda.memory().peak_bytes;
    let z = cuda.upload(Shape::from([samples, 128]), &values)?;
    let z = if precision == Precision::Bf16 { cuda.to_activations(&z)? } else { z };
    let dloss = cuda.full(Shape::SCALAR, 1.0)?;
    let mut seconds = Vec::new();
    for _ in 0..3 {
        let clock = Instant::now();
        let (loss, saved) = cuda.nt_xent_forward(&z, Samples::Rows, 0.5)?;
        let dz = cuda.nt_xent_backward(&saved, &dloss, z.shape(), Samples::Rows, 0.5)?;
        let loss = cuda.scalar(&loss)?;
        seconds.push((clock.elapsed().as_secs_f64(), loss));
        drop(dz);
    }
    let (best, loss) = seconds.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
    let peak = cuda.memory().peak_bytes - before;
    println!(
        "{}",
        json!({"case": format!("nt_xent 2R = {samples}, d = 128, {precision}"), "ms": 1e3 * best, "loss": loss,
        "peak_mib": peak as f64 / f64::from(1 << 20)})
    );
    Ok(())
}

fn main() {
    let args = Args::parse();
    if let Some(samples) = args.nt_xent {
        for &precision in &args.precision {
            if let Err(why) = nt_xent(precision, samples) {
                println!("ignored: {why}");
            }
        }
        return;
    }
    for precision in &args.precision {
        for &size in &args.batch {
            let cuda = match Cuda::new(0, *precision) {
                Ok(cuda) => cuda,
                Err(why) => return println!("ignored: {why}"),
            };
            let mut views = cuda.pixels(2 * size * args.px * args.px * 3).expect("page-locked memory");
            views
                .as_mut()
                .iter_mut()
                .enumerate()
                .for_each(|(i, p)| *p = ((i as u32).wrapping_mul(2_654_435_761) >> 11) as u8);
            let batch = Batch { position: Position { epoch: 0, step: 0 }, samples: (0..size).collect(), views };
            let clock = Instant::now();
            let mut trainer = Trainer::new(cuda.clone(), config(&args, size), usize::MAX).expect("a network");
            let (mut seconds, loss) = time(&mut trainer, &batch, args.steps);
            let all = clock.elapsed().as_secs_f64();
            seconds.sort_by(f64::total_cmp);
            let (median, memory) = (seconds[seconds.len() / 2], cuda.memory());
            println!(
                "{}",
                json!({
                    "case": format!("resnet{} {} px batch {size} {precision}", args.backbone, args.px),
                    "device": cuda.describe(),
                    "views_per_s": 2.0 * size as f64 / median,
                    "median_ms": 1e3 * median, "min_ms": 1e3 * seconds[0], "max_ms": 1e3 * seconds[seconds.len() - 1],
                    "peak_mib": memory.peak_bytes >> 20, "cached_mib": memory.cached_bytes >> 20,
                    "loss": loss, "with_warm_up_s": all,
                })
            );
            if args.convolutions {
                let mut total = 0.0;
                for (c, engine, ms) in cuda.convolutions() {
                    total += ms;
                    println!(
                        "  {:?} x {:?} w {:?} stride {} -> {:?}: engine {engine}, {ms:.3} ms, {:.0} TFLOP/s",
                        c.direction,
                        c.x,
                        c.w,
                        c.stride,
                        c.output,
                        c.flops() / f64::from(ms) / 1e9
                    );
                }
                println!("  {total:.2} ms, each once");
            }
        }
    }
}
