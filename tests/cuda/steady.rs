//! The steady state: what a step asks of the driver once steps are recorded, and what keeps steps under way apart.

use disentangle::backend::cuda::Cuda;
use disentangle::backend::{Backend, Window};
use disentangle::config::Precision;
use disentangle::data::loader::{Batch, Position};
use disentangle::tensor::Shape;
use disentangle::trainer::Trainer;

use crate::training::{config, fill};
use crate::{Layers, SEEDS, cuda};

/// Steps of a lane until the device has all it needs: a launched one and one that is recorded.
const WARM_UP: u64 = 2;
/// Steps that are counted.
const STEPS: u64 = 6;

#[test]
fn a_step_is_a_copy_a_graph_and_a_wait() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (cuda, config) = (cuda(precision), config(4, 2));
        let mut trainer = Trainer::new(cuda.clone(), config.clone(), 1_000_000).unwrap();
        let mut views = cuda.pixels(2 * config.batch_size * config.image_size * config.image_size * 3).unwrap();
        fill(views.as_mut(), &config, 0);
        let batch = Batch { position: Position { epoch: 0, step: 0 }, samples: vec![], views };
        let mut lanes: Vec<_> = (0..Cuda::LANES).map(|_| Some(trainer.lane().unwrap())).collect();
        let mut steps = |trainer: &mut Trainer<Cuda>, count: u64| {
            for step in 0..count {
                let lane = &mut lanes[step as usize % Cuda::LANES];
                let (_, free) = trainer.step(lane.take().unwrap(), &batch).unwrap();
                *lane = Some(free);
            }
        };
        steps(&mut trainer, WARM_UP * Cuda::LANES as u64);
        let warm = cuda.memory();
        cuda.virtual_gpu.map(|gpu| gpu.take_calls());
        steps(&mut trainer, STEPS);
        let calls = cuda.virtual_gpu.map(|gpu| gpu.take_calls());
        let (before, after) =
            ((warm.allocations, warm.live_bytes), (cuda.memory().allocations, cuda.memory().live_bytes));
        assert_eq!(before, after, "{precision}: memory in the steady state");
        let Some(calls) = calls else { continue };
        println!("{precision}: {calls:?} in {STEPS} steps");
        // One copy of pixels; the report's are in the graph. One wait, for `done`.
        let expected =
            vgpu::Calls { graph_launches: STEPS, copies: STEPS, synchronisations: STEPS, ..vgpu::Calls::default() };
        assert_eq!(calls, expected, "{precision}");
    }
}

/// When the lanes of recorded steps are dropped, their memory serves what comes next: new lanes need next to none of their own.
#[test]
fn recordings_give_their_memory_back() {
    let (cuda, config) = (cuda(Precision::F32), config(4, 2));
    let mut trainer = Trainer::new(cuda.clone(), config.clone(), 1_000_000).unwrap();
    let mut views = cuda.pixels(2 * config.batch_size * config.image_size * config.image_size * 3).unwrap();
    fill(views.as_mut(), &config, 0);
    let batch = Batch { position: Position { epoch: 0, step: 0 }, samples: vec![], views };
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let mut lanes: Vec<_> = (0..Cuda::LANES).map(|_| trainer.lane().unwrap()).collect();
        for _ in 0..(WARM_UP + 1) * Cuda::LANES as u64 {
            let (_, lane) = trainer.step(lanes.pop().unwrap(), &batch).unwrap();
            lanes.insert(0, lane);
        }
        drop(lanes);
        let memory = cuda.memory();
        bytes.push(memory.live_bytes + memory.cached_bytes);
    }
    assert_eq!(bytes[1..], [bytes[0]; 2], "bytes of the pool after each set of lanes");
}

/// Two steps are started on one lane before the first is waited for. The second's pixels must not be there before the first
/// has read its own, and must be there before the second reads: each adds its images to a sum.
#[test]
fn pixels_wait_for_the_step_before_and_steps_for_their_pixels() {
    let shape @ [n, h, w, _] = [2, 8, 8, 3];
    let (bytes, rounds) = (shape.iter().product::<usize>(), 4);
    let cuda = &cuda(Precision::F32);
    for seed in 0..SEEDS {
        cuda.set_seed(seed);
        let window = Window { kernel: [1, 1], stride: 1, padding: 0 };
        let filter = cuda.parameter([1, 1, 1, 3], &[1.0, 2.0, 4.0]);
        let mut sum = cuda.full(Shape::from([n, h, w, 1]), 0.0).unwrap();
        let mut lane = cuda.lane(Shape::from(shape)).unwrap();
        let slots: Vec<_> = (0..2 * rounds)
            .map(|step| {
                let mut slot = cuda.pixels(bytes).unwrap();
                // Powers of two: the sum tells which of them were added.
                slot.as_mut().fill(1 << step);
                slot
            })
            .collect();
        for pair in slots.chunks(2) {
            for slot in pair {
                let started = cuda.start(&mut lane, slot, |images, _| {
                    let y = cuda.conv2d_forward(&images, &filter, window)?;
                    cuda.add_assign(&mut sum, &y)
                });
                started.unwrap();
            }
            cuda.finish(&mut lane).unwrap();
        }
        // Filters add up to 7, powers to 255, of 255.
        let total = 7.0;
        let found = cuda.read(&sum);
        assert!(found.iter().all(|sum| (sum - total).abs() < 1e-5), "seed {seed}: {} instead of {total}", found[0]);
    }
}

/// A step's report is its own: the host waits for the step before it reads the page.
#[test]
fn a_report_is_of_the_step_that_is_finished() {
    let cuda = &cuda(Precision::F32);
    for seed in 0..SEEDS {
        cuda.set_seed(seed);
        let shape = Shape::from([2, 4, 4, 3]);
        let state = cuda.adam_state(seed).unwrap();
        let window = Window { kernel: [4, 4], stride: 1, padding: 0 };
        let filter = cuda.full(Shape::from([1, 4, 4, 3]), 1.0).unwrap();
        let mut lanes = [(); 2].map(|()| cuda.lane(shape).unwrap());
        let mut slots = [(); 2].map(|()| cuda.pixels(shape.elems()).unwrap());
        for step in 0..6usize {
            let (lane, slot) = (&mut lanes[step % 2], &mut slots[step % 2]);
            slot.as_mut().fill(10 * step as u8 + 5);
            let started = cuda.start(lane, slot, |images, report| {
                let y = cuda.global_avg_pool_forward(&cuda.conv2d_forward(&images, &filter, window)?)?;
                let loss = cuda.binary_entropy_forward(&y)?;
                cuda.report(report, [&loss; 4], &state)
            });
            started.unwrap();
            let report = cuda.finish(lane).unwrap();
            // Of the logit, which every output is.
            let logit: f64 = 48.0 * (10.0 * step as f64 + 5.0) / 255.0;
            let p = 1.0 / (1.0 + (-logit).exp());
            let entropy = -(p * p.log2() + (1.0 - p) * (1.0 - p).log2());
            assert!((report.losses[2] - entropy).abs() < 1e-5, "seed {seed} step {step}: {report:?} for {entropy}");
            assert_eq!(report.adam.steps, seed);
        }
    }
}
