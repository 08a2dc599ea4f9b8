//! Steps that are not finite, on both devices: the state before them is kept to the byte, with as many steps under way as the
//! device likes; and the first number that was not finite is found.

use std::collections::VecDeque;

use disentangle::backend::Backend;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::Cuda;
use disentangle::checkpoint::{Checkpoint, DataStamp, Meta};
use disentangle::config::{Config, Precision};
use disentangle::data::loader::{Batch, Position};
use disentangle::nonfinite::{Pass, Site, search};
use disentangle::snapshot;
use disentangle::trainer::{Finished, Trainer};

use crate::cuda;
use crate::training::{config, fill};

/// Weights, running statistics and moments, as bits; and the number of steps made.
type State = (Vec<u64>, u64);

fn state<B: Backend>(trainer: &Trainer<B>) -> State {
    let cpu_or_cuda = trainer.params.backend();
    let bits = |x| cpu_or_cuda.download(x).unwrap().into_iter().map(f64::to_bits);
    let params = trainer.params.iter().flat_map(|(_, param)| bits(&param.tensor));
    let moments = trainer.adam.moments().flat_map(|(_, m, v)| bits(m).chain(bits(v)));
    (params.chain(moments).collect(), trainer.adam.steps())
}

fn trainer<B: Backend>(backend: &B, config: &Config) -> Trainer<B> {
    Trainer::new(backend.clone(), config.clone(), 1_000_000).unwrap()
}

/// Multiplies a parameter by a factor, before any step.
fn scale<B: Backend>(trainer: &mut Trainer<B>, name: &str, factor: f64) {
    let backend = trainer.params.backend().clone();
    let (_, param) = trainer.params.iter_mut().find(|(_, param)| param.name == name).expect(name);
    let values: Vec<f64> = backend.download(&param.tensor).unwrap().iter().map(|x| x * factor).collect();
    param.tensor = backend.upload(param.tensor.shape(), &values).unwrap();
}

fn read<B: Backend>(trainer: &Trainer<B>, name: &str) -> Vec<f64> {
    let (_, param) = trainer.params.iter().find(|(_, param)| param.name == name).expect(name);
    trainer.params.backend().download(&param.tensor).unwrap()
}

/// The views of a step: dark ones, or bright ones, whose variance is some 7,000 times theirs.
fn views<B: Backend>(backend: &B, config: &Config, step: u64, bright: bool) -> B::Pixels {
    let mut views = backend.pixels(2 * config.batch_size * config.image_size * config.image_size * 3).unwrap();
    fill(views.as_mut(), config, step);
    if !bright {
        views.as_mut().iter_mut().for_each(|byte| *byte /= 85);
    }
    views
}

/// Training as `train` does it under the policy `skip`. Gives the steps that were left out.
fn train<B: Backend>(trainer: &mut Trainer<B>, steps: u64, bright: impl Fn(u64) -> bool) -> Vec<u64> {
    let (backend, config) = (trainer.params.backend().clone(), trainer.config.clone());
    let mut waiting: VecDeque<_> =
        (0..steps).map(|step| (step, views(&backend, &config, step, bright(step)))).collect();
    let mut lanes: Vec<B::Lane> = (0..B::LANES).map(|_| trainer.lane().unwrap()).collect();
    let (mut under_way, mut left_out) = (VecDeque::new(), Vec::new());
    while !(waiting.is_empty() && under_way.is_empty()) {
        if let Some((number, views)) = waiting.pop_front() {
            assert_eq!(trainer.position.step, number);
            let batch = Batch { position: trainer.position, samples: vec![], views };
            under_way.push_back((number, trainer.start(lanes.pop().unwrap(), &batch).unwrap(), batch.views));
        }
        while under_way.len() > if waiting.is_empty() { 0 } else { B::LANES - 1 } {
            let (number, step, _) = under_way.pop_front().unwrap();
            let (finished, lane) = trainer.finish(step).unwrap();
            lanes.insert(0, lane);
            if let Finished::LeftOut(bad) = finished {
                assert_eq!(bad.position.step, number);
                left_out.push(number);
                // Those that followed are left out as well, and come again.
                for (number, step, views) in std::mem::take(&mut under_way).into_iter().rev() {
                    let (finished, lane) = trainer.finish(step).unwrap();
                    assert!(
                        matches!(finished, Finished::LeftOut(_)),
                        "step {number} was made after {}",
                        bad.position.step
                    );
                    lanes.insert(0, lane);
                    waiting.push_front((number, views));
                }
                trainer.leave_out(bad.position).unwrap();
            }
        }
    }
    left_out
}

/// By what the first filter is to be multiplied for the variance behind it to be infinite in 32 bits in a bright batch, and
/// finite in dark ones.
fn touchy_factor(config: &Config) -> f64 {
    let mut probe = trainer(&Cpu::<f32>::new(), config);
    train(&mut probe, 1, |_| true);
    // Two views: 0.81 + 0.19 variance.
    let largest = read(&probe, "backbone.bn1.running_var").into_iter().fold(0.0, f64::max);
    let variance = (largest - 0.81) / 0.19;
    (20.0 * f64::from(f32::MAX) / variance).sqrt()
}

/// A trainer that makes a step on dark batches only.
fn touchy<B: Backend>(backend: &B, config: &Config, factor: f64) -> Trainer<B> {
    let mut trainer = trainer(backend, config);
    scale(&mut trainer, "backbone.conv1.weight", factor);
    trainer
}

/// Batches of such a run: steps are launched, recorded and replayed.
const BATCHES: u64 = 9;

/// A run in which one batch's step is left out is the run that never saw this batch.
fn left_out_is_never_seen<B: Backend>(backend: &B, config: &Config, bads: &[u64]) {
    let (steps, factor) = (BATCHES, touchy_factor(config));
    for &bad in bads {
        let mut found = touchy(backend, config, factor);
        assert_eq!(train(&mut found, steps, |step| step == bad), [bad]);
        assert!(read(&found, "backbone.bn1.running_var").iter().all(|var| var.is_finite()));
        let mut straight = touchy(backend, config, factor);
        assert!(train(&mut straight, bad, |_| false).is_empty());
        straight.leave_out(straight.position).unwrap();
        let (rest, first) = (steps - bad - 1, bad + 1);
        // The rest, with the same views.
        let mut lanes: Vec<B::Lane> = (0..B::LANES).map(|_| straight.lane().unwrap()).collect();
        for step in first..first + rest {
            let views = views(backend, config, step, false);
            let batch = Batch { position: Position { epoch: 0, step }, samples: vec![], views };
            let (_, lane) = straight.step(lanes.pop().unwrap(), &batch).unwrap();
            lanes.insert(0, lane);
        }
        assert_eq!(found.adam.steps(), steps - 1);
        assert!(state(&found) == state(&straight), "{}: bad step {bad}", B::NAME);
        assert_eq!(found.epoch_losses, straight.epoch_losses, "{}: bad step {bad}", B::NAME);
    }
}

/// A learning rate of 1e38 in one step, and the next steps are infinite: the state is that after it, to the byte.
fn the_state_before_is_kept<B: Backend>(backend: &B, config: &Config) {
    let run = |bad: u64| {
        let mut trainer = trainer(backend, config);
        train(&mut trainer, 2 * B::LANES as u64 + 1, |_| true);
        let learning_rate = std::mem::replace(&mut trainer.config.learning_rate, 1e38);
        let lane = trainer.lane().unwrap();
        let batch = Batch { position: trainer.position, samples: vec![], views: views(backend, config, 99, true) };
        trainer.step(lane, &batch).unwrap();
        trainer.config.learning_rate = learning_rate;
        let first = trainer.position.step;
        let lanes: Vec<B::Lane> = (0..bad).map(|_| trainer.lane().unwrap()).collect();
        let steps: Vec<_> = lanes.into_iter().map(|lane| trainer.start(lane, &batch).unwrap()).collect();
        for (i, step) in steps.into_iter().enumerate() {
            let (Finished::LeftOut(bad), _) = trainer.finish(step).unwrap() else { panic!("step {i} was made") };
            assert_eq!(bad.position.step, first + i as u64);
            assert!(!bad.losses.total.is_finite() && bad.to_string().contains("the loss is "), "{bad}");
        }
        state(&trainer)
    };
    let before = run(0);
    assert!(before.0.iter().all(|&bits| f64::from_bits(bits).is_finite()));
    assert!(before == run(2 * B::LANES as u64), "{}", B::NAME);
}

#[test]
fn a_batch_that_is_left_out_was_never_seen() {
    let config = config(4, 2);
    left_out_is_never_seen(&Cpu::<f32>::new(), &config, &[0, 1, 5, BATCHES - 1]);
    let cuda = cuda(Precision::F32);
    left_out_is_never_seen::<Cuda>(&cuda, &config, &[1, 6]);
}

#[test]
fn the_state_before_a_bad_step_is_kept_to_the_byte() {
    let config = config(4, 2);
    the_state_before_is_kept(&Cpu::<f32>::new(), &config);
    let cuda = cuda(Precision::Bf16);
    the_state_before_is_kept::<Cuda>(&cuda, &config);
}

/// What a search finds in a network with these parameters multiplied by these factors.
fn found<B: Backend>(backend: &B, config: &Config, factors: &[(&str, f64)]) -> Option<Site> {
    let mut trainer = trainer(backend, config);
    factors.iter().for_each(|(name, factor)| scale(&mut trainer, name, *factor));
    let meta = Meta {
        program: String::new(),
        config: config.clone(),
        epoch: 0,
        step: 0,
        step_in_epoch: 0,
        data: DataStamp::default(),
        losses: trainer.epoch_losses,
    };
    let checkpoint = Checkpoint { tensors: snapshot::whole(&trainer.params, &trainer.adam).unwrap(), meta };
    let views = views(backend, config, 0, true);
    let found = search(backend, config, &checkpoint, views.as_ref()).unwrap();
    // The step itself says the same.
    let batch = Batch { position: Position { epoch: 0, step: 0 }, samples: vec![], views };
    let lane = trainer.lane().unwrap();
    let step = trainer.start(lane, &batch).unwrap();
    let (finished, _) = trainer.finish(step).unwrap();
    let (losses, norm, left_out) = match finished {
        Finished::Made(record) => {
            ([record.loss, record.loss_instance, record.loss_feature, record.entropy], record.grad_norm, false)
        }
        Finished::LeftOut(bad) => {
            let losses = bad.losses;
            ([losses.total, losses.instance, losses.feature, losses.entropy], bad.grad_norm, true)
        }
    };
    let again = [found.losses.total, found.losses.instance, found.losses.feature, found.losses.entropy];
    let bits = |values: [f64; 4], norm: f64| {
        values.into_iter().chain([norm]).map(|x| if x.is_nan() { 0 } else { x.to_bits() }).collect::<Vec<_>>()
    };
    assert_eq!(bits(losses, norm), bits(again, found.grad_norm), "{}: {factors:?}", B::NAME);
    assert_eq!(left_out, found.site.is_some(), "{}: {factors:?}", B::NAME);
    found.site
}

/// Configuration, factors of parameters; when, operation, layer and tensor.
type Case<'a> = (&'a Config, &'a [(&'a str, f64)], Pass, &'a str, &'a str, &'a str);

fn sites<B: Backend>(backend: &B) {
    let clipped = config(4, 2);
    let free = Config { clip_norm: 0.0, ..clipped.clone() };
    assert_eq!(found(backend, &clipped, &[]), None);
    let cases: [Case; 6] = [
        (
            &clipped,
            &[("backbone.conv1.weight", 1e300)],
            Pass::State,
            "parameter",
            "backbone.conv1",
            "backbone.conv1.weight",
        ),
        (&clipped, &[("backbone.conv1.weight", 1e39)], Pass::Forward, "conv2d", "backbone.conv1", "its output"),
        (
            &clipped,
            &[("backbone.layer2.0.conv2.weight", 1e25)],
            Pass::Forward,
            "batch_norm",
            "backbone.layer2.0.bn2",
            "backbone.layer2.0.bn2.running_var",
        ),
        (
            &clipped,
            &[("instance_projector.3.weight", 1.5e39)],
            Pass::Forward,
            "linear",
            "instance_projector.3",
            "its output",
        ),
        // What a batch norm multiplies by, the next layer divides by: only that layer's gradient knows.
        (
            &free,
            &[("instance_projector.1.weight", 1e25), ("instance_projector.3.weight", 1e-25)],
            Pass::Update,
            "adam",
            "all",
            "norm of the clipped gradient",
        ),
        (
            &Config { temperature_instance: 1e-3, ..free.clone() },
            &[
                ("instance_projector.1.weight", 1e35),
                ("instance_projector.3.weight", 1e-36),
                ("instance_projector.3.bias", 1e-3),
            ],
            Pass::Backward,
            "linear",
            "instance_projector.3",
            "the gradient of instance_projector.3.weight",
        ),
    ];
    let mut wrong = Vec::new();
    for (config, factors, pass, op, layer, tensor) in cases {
        let site = found(backend, config, factors);
        let Some(site) = site else {
            wrong.push(format!("{factors:?}: nothing"));
            continue;
        };
        println!("{}: {site}", B::NAME);
        let is = (site.pass, site.op.as_str(), site.layer.as_str(), site.tensor.as_str());
        if is != (pass, op, layer, tensor) {
            wrong.push(format!("{}: {factors:?}: {site}", B::NAME));
        }
        assert!(site.first.len() == site.shape.len() && site.first.iter().zip(&site.shape).all(|(i, side)| i < side));
        assert!(pass == Pass::Update || !site.value.0.is_finite());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_first_tensor_that_is_not_finite_is_found() {
    sites(&Cpu::<f32>::new());
    let cuda = cuda(Precision::F32);
    sites::<Cuda>(&cuda);
}
