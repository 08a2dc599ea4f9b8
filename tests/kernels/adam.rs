//! Adam over several parameters at once, with clipping, against the CPU in double precision.
//!
//! The bound on an error is twice that of the CPU's f32, plus 16 f32 roundings of the largest number of its kind for each
//! step made (a moment has six operations behind it in a step, a parameter about a dozen).

use cudarc::driver::CudaSlice;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::adam::{Chunk, Config, Keep, Norm, Prepare, State, Update};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::{AdamConfig, AdamTensors, Backend, Kept, LARGEST_NORM, Stepped};
use disentangle::tensor::{Shape, Tensor};

use crate::{Device, Parity, UNIT, device, largest, numbers, wide};

/// Elements of each parameter: one, less than a vector of four, a block's threads and one beside, a chunk of 16,384 and one
/// beside, and several chunks with a tail.
const LENGTHS: [usize; 8] = [1, 3, 64, 255, 1025, 16_384, 16_385, 40_001];
const CONFIG: Config = Config { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip_norm: 0.0 };
const LEARNING_RATES: [f64; 4] = [3e-3, 2e-3, 1e-3, 5e-4];

/// One parameter on the device.
struct Parameter {
    param: CudaSlice<f32>,
    grad: CudaSlice<f32>,
    exp_avg: CudaSlice<f32>,
    exp_avg_sq: CudaSlice<f32>,
}

/// Elements of each kept tensor: as those of parameters, and an odd one.
const KEPT: [usize; 3] = [7, 512, 16_400];

/// A running statistic and what it was before the step.
struct Statistic {
    value: CudaSlice<f32>,
    before: CudaSlice<f32>,
}

/// What training keeps on the device.
struct Training {
    parameters: Vec<Parameter>,
    statistics: Vec<Statistic>,
    /// Of parameters, then of statistics.
    chunks: CudaSlice<Chunk>,
    /// Of statistics.
    kept: CudaSlice<Chunk>,
    partial: CudaSlice<f64>,
    loss: CudaSlice<f32>,
    state: CudaSlice<State>,
}

impl Training {
    fn new(device: &Device, params: &[Vec<f32>]) -> Self {
        let stream = &device.stream;
        let mut parameters: Vec<Parameter> = params
            .iter()
            .map(|values| Parameter {
                param: device.upload(values),
                grad: device.upload(&vec![0.0; values.len()]),
                exp_avg: device.upload(&vec![0.0; values.len()]),
                exp_avg_sq: device.upload(&vec![0.0; values.len()]),
            })
            .collect();
        let mut statistics: Vec<Statistic> = KEPT
            .iter()
            .map(|&elems| Statistic { value: device.upload(&numbers(elems, 1.0)), before: device.unwritten(elems) })
            .collect();
        let keep = |Statistic { value, before }: &mut Statistic| {
            Chunk::keep(&SliceMut::of(value, stream), &SliceMut::of(before, stream)).unwrap()
        };
        let kept: Vec<Chunk> = statistics.iter_mut().flat_map(keep).collect();
        let mut chunks: Vec<Chunk> = parameters
            .iter_mut()
            .flat_map(|p| {
                let grad = Slice::of(&p.grad, stream);
                let [param, m, v] =
                    [&mut p.param, &mut p.exp_avg, &mut p.exp_avg_sq].map(|memory| SliceMut::of(memory, stream));
                Chunk::cut(&param, &grad, &m, &v).unwrap()
            })
            .collect();
        chunks.extend(&kept);
        let (partial, chunks) = (device.unwritten(chunks.len()), device.upload(&chunks));
        let (kept, loss, state) = (device.upload(&kept), device.upload(&[0.5]), device.upload(&[State::default()]));
        Training { parameters, statistics, chunks, kept, partial, loss, state }
    }

    /// One step with these gradients, in which nothing else changes; what the device then says of itself.
    fn step(&mut self, device: &Device, grads: &[Vec<f32>], learning_rate: f64, config: Config) -> State {
        self.step_with(device, grads, learning_rate, config, |_| ())
    }

    /// The same with a forward pass.
    fn step_with(
        &mut self,
        device: &Device,
        grads: &[Vec<f32>],
        learning_rate: f64,
        config: Config,
        forward: impl FnOnce(&mut Self),
    ) -> State {
        let (kernels, stream) = (&device.kernels, &device.stream);
        // SAFETY: the statistics live in `self`.
        unsafe { Keep { chunks: Slice::of(&self.kept, stream) }.launch(kernels) }.unwrap();
        forward(self);
        for (parameter, grad) in self.parameters.iter_mut().zip(grads) {
            stream.memcpy_htod(grad, &mut parameter.grad).unwrap();
        }
        let [mut state] = device.download(&self.state)[..] else { panic!("one state") };
        state.learning_rate = learning_rate;
        stream.memcpy_htod(&[state], &mut self.state).unwrap();
        let norm = Norm { chunks: Slice::of(&self.chunks, stream), partial: SliceMut::of(&mut self.partial, stream) };
        // SAFETY: the parameters live in `self`.
        unsafe { norm.launch(kernels) }.unwrap();
        let prepare = Prepare {
            partial: Slice::of(&self.partial, stream),
            loss: Some(Slice::of(&self.loss, stream)),
            count: self.chunks.len() as u32,
            state: SliceMut::of(&mut self.state, stream),
            config,
        };
        prepare.launch(kernels).unwrap();
        let update = Update { chunks: Slice::of(&self.chunks, stream), state: Slice::of(&self.state, stream) };
        // SAFETY: as above, and nothing else runs on the device.
        unsafe { update.launch(kernels) }.unwrap();
        device.download(&self.state)[0]
    }

    fn statistics(&self, device: &Device) -> Vec<Vec<f32>> {
        self.statistics.iter().map(|statistic| device.download(&statistic.value)).collect()
    }

    /// Has steps made again.
    fn release(&mut self, device: &Device) {
        let (state, _) = device.download(&self.state)[0].released();
        device.stream.memcpy_htod(&[state], &mut self.state).unwrap();
    }

    /// Parameters, first and second moments, one parameter behind the other.
    fn values(&self, device: &Device) -> [Vec<f32>; 3] {
        let all = |which: fn(&Parameter) -> &CudaSlice<f32>| -> Vec<f32> {
            self.parameters.iter().flat_map(|p| device.download(which(p))).collect()
        };
        [all(|p| &p.param), all(|p| &p.exp_avg), all(|p| &p.exp_avg_sq)]
    }
}

/// The same on the CPU.
struct Twin<B: Backend> {
    cpu: B,
    /// Parameter and moments.
    tensors: Vec<[Tensor<B>; 3]>,
    state: B::AdamState,
}

impl<B: Backend> Twin<B> {
    fn new(cpu: B, params: &[Vec<f32>]) -> Self {
        let tensor = |values: &Vec<f32>| {
            let shape = Shape::from([values.len()]);
            [cpu.upload(shape, &wide(values)), cpu.full(shape, 0.0), cpu.full(shape, 0.0)].map(|made| made.unwrap())
        };
        let tensors = params.iter().map(tensor).collect();
        let state = cpu.adam_state(0).unwrap();
        Twin { cpu, tensors, state }
    }

    fn step(&mut self, grads: &[Vec<f32>], learning_rate: f64, config: Config) {
        let Config { beta1, beta2, eps, weight_decay, clip_norm } = config;
        let config = AdamConfig { beta1, beta2, eps, weight_decay, clip_norm };
        self.cpu.set_learning_rate(&mut self.state, learning_rate).unwrap();
        let upload = |grad: &Vec<f32>| self.cpu.upload(Shape::from([grad.len()]), &wide(grad)).unwrap();
        let grads: Vec<Tensor<B>> = grads.iter().map(upload).collect();
        let Twin { cpu, tensors, state } = self;
        let stepped = cpu.adam(
            |visit| {
                tensors.iter_mut().zip(&grads).try_for_each(|([param, exp_avg, exp_avg_sq], grad)| {
                    visit(Stepped::Trained(AdamTensors { param, grad, exp_avg, exp_avg_sq }))
                })
            },
            None,
            state,
            &config,
        );
        stepped.unwrap();
    }

    fn values(&self, which: usize) -> Vec<f64> {
        self.tensors.iter().flat_map(|tensors| self.cpu.download(&tensors[which]).unwrap()).collect()
    }
}

/// Parameters and moments after two steps, for comparing bits.
pub fn two_steps(device: &Device) -> [Vec<f64>; 3] {
    let mut training = Training::new(device, &parameters());
    for step in 0..2 {
        training.step(device, &gradients(step), 1e-3, Config { clip_norm: 2.0, ..CONFIG });
    }
    training.values(device).map(|values| wide(&values))
}

fn norm(grads: &[Vec<f32>]) -> f64 {
    grads.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt()
}

fn parameters() -> Vec<Vec<f32>> {
    LENGTHS.iter().map(|&elems| numbers(elems, 0.1)).collect()
}

/// Different ones for each step, smaller from step to step.
fn gradients(step: usize) -> Vec<Vec<f32>> {
    gradients_of(0.02, step)
}

fn gradients_of(size: f64, step: usize) -> Vec<Vec<f32>> {
    let scale = size / (step + 1) as f64;
    LENGTHS.iter().map(|&elems| numbers(elems + step + 1, scale)[step + 1..].to_vec()).collect()
}

fn check(device: &Device, config: Config, size: f64) {
    let params = parameters();
    let mut training = Training::new(device, &params);
    let (mut exact, mut plain) = (Twin::new(Cpu::<f64>::new(), &params), Twin::new(Cpu::<f32>::new(), &params));
    for (i, learning_rate) in LEARNING_RATES.into_iter().enumerate() {
        let grads = gradients_of(size, i);
        let state = training.step(device, &grads, learning_rate, config);
        exact.step(&grads, learning_rate, config);
        plain.step(&grads, learning_rate, config);
        let exact_norm = norm(&grads);
        assert!((state.norm - exact_norm).abs() <= 1e-12 * exact_norm, "{} instead of {exact_norm}", state.norm);
        assert_eq!((state.step, state.nonfinite_steps, state.learning_rate), (i as u64 + 1, 0, learning_rate));
    }
    for (which, found) in training.values(device).iter().enumerate() {
        let (found, exact, plain) = (wide(found), exact.values(which), plain.values(which));
        let floor = 16.0 * UNIT * largest(&exact) * LEARNING_RATES.len() as f64;
        let name = ["parameter", "first moment", "second moment"][which];
        Parity { found: &found, exact: &exact, plain: &plain, floor }.check::<f32>(&format!("{name}, {config:?}"));
    }
}

#[test]
fn steps_are_the_cpus() {
    let device = device();
    check(&device, CONFIG, 0.02);
    check(&device, Config { weight_decay: 0.05, beta1: 0.8, beta2: 0.95, eps: 1e-4, ..CONFIG }, 0.02);
    // The first gradients have a norm of 5.5: clipped, then for the third and fourth (below 2) no more.
    assert!(norm(&gradients(1)) > 2.0 && norm(&gradients(2)) < 2.0);
    check(&device, Config { clip_norm: 2.0, ..CONFIG }, 0.02);
    check(&device, Config { clip_norm: 1e-3, weight_decay: 0.01, ..CONFIG }, 0.02);
    // A norm of the size of the 1e-6 that is added to it.
    check(&device, Config { clip_norm: 1e-7, eps: 1e-10, ..CONFIG }, 4e-9);
}

#[test]
fn gradients_that_are_not_finite_leave_a_step_out() {
    let device = device();
    let params = parameters();
    let mut training = Training::new(&device, &params);
    training.step(&device, &gradients(0), 1e-3, CONFIG);
    let before = training.values(&device);
    for (skipped, (tensor, element, value)) in
        [(0, 0, f32::NAN), (7, 40_000, f32::INFINITY), (5, 16_383, f32::NEG_INFINITY), (1, 2, -f32::NAN)]
            .into_iter()
            .enumerate()
    {
        let mut grads = gradients(1);
        grads[tensor][element] = value;
        let state = training.step(&device, &grads, 1e-3, CONFIG);
        assert_eq!((state.step, state.nonfinite_steps), (1, skipped as u64 + 1));
        assert!(!state.norm.is_finite() && state.left_out(), "{}", state.norm);
        assert_eq!(training.values(&device), before, "parameter {tensor}, element {element}");
        training.release(&device);
    }
    // The next step is the second, as if nothing had been.
    let state = training.step(&device, &gradients(1), 1e-3, CONFIG);
    assert_eq!((state.step, state.nonfinite_steps), (2, 4));
    let mut straight = Training::new(&device, &params);
    straight.step(&device, &gradients(0), 1e-3, CONFIG);
    straight.step(&device, &gradients(1), 1e-3, CONFIG);
    assert_eq!(training.values(&device), straight.values(&device));
}

/// Whatever leaves a step out, running statistics are then what they were before it, to the bit, and steps are made again only
/// when the host says so.
#[test]
fn a_step_that_is_left_out_changes_nothing_and_those_after_it_wait() {
    let device = device();
    let params = parameters();
    let infinite = |kept: usize, element: usize| {
        move |training: &mut Training| {
            let value = &mut training.statistics[kept].value;
            let mut values = host(value);
            values[element] = f32::INFINITY;
            value.stream().clone().memcpy_htod(&values, value).unwrap();
        }
    };
    type Break = Box<dyn FnOnce(&mut Training)>;
    let loss = |loss: f32| -> Break {
        Box::new(move |training| training.loss.stream().clone().memcpy_htod(&[loss], &mut training.loss).unwrap())
    };
    let breaks: [(Break, bool); 5] = [
        (loss(f32::NAN), true),
        (loss(f32::NEG_INFINITY), true),
        (Box::new(infinite(0, 6)), false),
        (Box::new(infinite(2, 16_384)), false),
        (Box::new(infinite(1, 0)), false),
    ];
    let mut training = Training::new(&device, &params);
    // A forward pass that changes the statistics.
    let moved = |training: &mut Training, by: f32| {
        for Statistic { value, .. } in &mut training.statistics {
            let values: Vec<f32> = host(value).iter().map(|x| x + by).collect();
            value.stream().clone().memcpy_htod(&values, value).unwrap();
        }
    };
    let state = training.step_with(&device, &gradients(0), 1e-3, CONFIG, |training| moved(training, 1.0));
    assert!(!state.left_out() && state.norm.is_finite());
    for (case, (break_it, finite_norm)) in breaks.into_iter().enumerate() {
        let before = (training.values(&device), training.statistics(&device));
        let state = training.step_with(&device, &gradients(1), 1e-3, CONFIG, |training| {
            moved(training, 0.5);
            break_it(training);
        });
        assert!(state.left_out() && state.norm.is_finite() == finite_norm, "case {case}: {state:?}");
        assert_eq!(before, (training.values(&device), training.statistics(&device)), "case {case}");
        // A good step after it, already under way.
        training.loss = device.upload(&[0.5]);
        let state = training.step_with(&device, &gradients(1), 1e-3, CONFIG, |training| moved(training, 0.25));
        assert_eq!((state.left_out(), state.step), (true, case as u64 + 1), "case {case}");
        assert_eq!(before, (training.values(&device), training.statistics(&device)), "case {case}, the step after");
        training.release(&device);
        let state = training.step_with(&device, &gradients(1), 1e-3, CONFIG, |training| moved(training, 0.125));
        assert_eq!((state.left_out(), state.step), (false, case as u64 + 2), "case {case}");
        let after = training.statistics(&device);
        assert!(after.iter().flatten().zip(before.1.iter().flatten()).all(|(after, before)| *after == before + 0.125));
    }
}

fn host(memory: &CudaSlice<f32>) -> Vec<f32> {
    memory.stream().clone().clone_dtoh(memory).unwrap()
}

/// The second moment is the square of the gradient, in f32: what has none is left out, on both devices.
#[test]
fn gradients_whose_square_is_infinite_leave_a_step_out() {
    let device = device();
    let params = vec![vec![0.5f32; 3]];
    for (size, left_out) in [(LARGEST_NORM * (1.0 - 1e-6), false), (LARGEST_NORM * (1.0 + 1e-6), true)] {
        let grads = vec![vec![0.0, size as f32, 0.0]];
        let mut training = Training::new(&device, &params);
        let state = training.step(&device, &grads, 1e-3, CONFIG);
        assert_eq!(state.left_out(), left_out, "{size:e}");
        assert!(training.values(&device).iter().flatten().all(|x| x.is_finite()));
        let mut twin = Twin::new(Cpu::<f32>::new(), &params);
        twin.step(&grads, 1e-3, CONFIG);
        assert_eq!(twin.cpu.adam_report(&twin.state).unwrap().left_out, left_out, "{size:e}");
        // Clipped it has one.
        let mut training = Training::new(&device, &params);
        assert!(!training.step(&device, &grads, 1e-3, Config { clip_norm: 1.0, ..CONFIG }).left_out());
    }
}

/// The same on the CPU.
#[test]
fn the_cpu_puts_kept_tensors_back() {
    let cpu = Cpu::<f32>::new();
    let tensor = |value: f64| cpu.upload(Shape::from([3]), &[value, 2.0, 3.0]).unwrap();
    let (mut param, mut exp_avg, mut exp_avg_sq, grad) = (tensor(1.0), tensor(0.0), tensor(0.0), tensor(0.1));
    let (mut value, mut before) = (tensor(1.0), cpu.full(Shape::from([3]), 0.0).unwrap());
    let config = AdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip_norm: 0.0 };
    let mut state = cpu.adam_state(0).unwrap();
    cpu.set_learning_rate(&mut state, 0.1).unwrap();
    let mut step = |became: f64, loss: f64, state: &mut _| {
        cpu.keep([Kept { value: &mut value, before: &mut before }].into_iter(), state).unwrap();
        value = tensor(became);
        let tensors = |visit: &mut disentangle::backend::Visit<Cpu<f32>>| {
            let (exp_avg, exp_avg_sq) = (&mut exp_avg, &mut exp_avg_sq);
            visit(Stepped::Trained(AdamTensors { param: &mut param, grad: &grad, exp_avg, exp_avg_sq }))?;
            visit(Stepped::Kept(Kept { value: &mut value, before: &mut before }))
        };
        let loss = cpu.full(Shape::SCALAR, loss).unwrap();
        cpu.adam(tensors, Some(&loss), state, &config).unwrap();
        let report = cpu.adam_report(state).unwrap();
        (cpu.download(&value).unwrap()[0], cpu.download(&param).unwrap()[0], report.left_out, report.steps)
    };
    let first = step(2.0, 1.0, &mut state);
    assert!(first.0 == 2.0 && first.1 < 1.0 && !first.2);
    for (became, loss) in [(f64::INFINITY, 1.0), (4.0, f64::NAN), (5.0, f64::INFINITY), (6.0, 1.0)] {
        // The last one is good, but waits.
        assert_eq!(step(became, loss, &mut state), (2.0, first.1, true, 1), "{became} {loss}");
    }
    cpu.release(&mut state).unwrap();
    let last = step(7.0, 1.0, &mut state);
    assert!(last.0 == 7.0 && last.1 < first.1 && !last.2 && last.3 == 2);
}

#[test]
fn huge_gradients_have_a_norm_and_no_gradient_has_none() {
    let device = device();
    let params = parameters();
    let mut training = Training::new(&device, &params);
    let huge: Vec<Vec<f32>> = LENGTHS.iter().map(|&elems| numbers(elems, 1e30)).collect();
    let clipped = Config { clip_norm: 1.0, ..CONFIG };
    let state = training.step(&device, &huge, 1e-3, clipped);
    assert!((state.norm / norm(&huge) - 1.0).abs() <= 1e-12 && state.step == 1);
    let mut exact = Twin::new(Cpu::<f64>::new(), &params);
    exact.step(&huge, 1e-3, clipped);
    let zero: Vec<Vec<f32>> = LENGTHS.iter().map(|&elems| vec![0.0; elems]).collect();
    assert_eq!(training.step(&device, &zero, 1e-3, clipped).norm, 0.0);
    exact.step(&zero, 1e-3, clipped);
    for (which, found) in training.values(&device).iter().enumerate() {
        let (found, exact) = (wide(found), exact.values(which));
        let floor = 32.0 * UNIT * largest(&exact);
        Parity { found: &found, exact: &exact, plain: &exact, floor }.check::<f32>(&format!("{which}"));
    }
}

#[test]
fn more_chunks_than_a_block_has_threads() {
    let device = device();
    let (kernels, stream) = (&device.kernels, &device.stream);
    let grad = device.upload(&[1.0f32, -2.0, 3.0, 0.5, -1.0]);
    let [mut param, mut m, mut v] = [(); 3].map(|()| device.upload(&[0.0f32; 5]));
    let [param, m, v] = [&mut param, &mut m, &mut v].map(|memory| SliceMut::of(memory, stream));
    let chunk = Chunk::cut(&param, &Slice::of(&grad, stream), &m, &v).unwrap();
    for count in [1023, 1024, 1025, 2500] {
        // The same five gradients again and again: adam_norm only reads.
        let chunks = device.upload(&chunk.repeat(count));
        let (mut partial, mut state) = (device.unwritten::<f64>(count), device.upload(&[State::default()]));
        let norm = Norm { chunks: Slice::of(&chunks, stream), partial: SliceMut::of(&mut partial, stream) };
        // SAFETY: the parameter outlives the launch, whose result is waited for.
        unsafe { norm.launch(kernels) }.unwrap();
        let prepare = Prepare {
            partial: Slice::of(&partial, stream),
            loss: None,
            state: SliceMut::of(&mut state, stream),
            count: count as u32,
            config: CONFIG,
        };
        prepare.launch(kernels).unwrap();
        let (found, exact) = (device.download(&state)[0].norm, (15.25 * count as f64).sqrt());
        assert!((found - exact).abs() <= 1e-12 * exact, "{count} chunks: {found} instead of {exact}");
    }
}
