//! Adam over several parameters at once, with clipping, against the CPU in double precision.
//!
//! The bound on an error is twice that of the CPU's f32, plus 16 f32 roundings of the largest number of its kind for each
//! step made (a moment has six operations behind it in a step, a parameter about a dozen).

use cudarc::driver::CudaSlice;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::adam::{Chunk, Config, Norm, Prepare, State, Update};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::{AdamConfig, AdamTensors, Backend};
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

/// What training keeps on the device.
struct Training {
    parameters: Vec<Parameter>,
    chunks: CudaSlice<Chunk>,
    partial: CudaSlice<f64>,
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
        let chunks: Vec<Chunk> = parameters
            .iter_mut()
            .flat_map(|p| {
                let grad = Slice::of(&p.grad, stream);
                let [param, m, v] =
                    [&mut p.param, &mut p.exp_avg, &mut p.exp_avg_sq].map(|memory| SliceMut::of(memory, stream));
                Chunk::cut(&param, &grad, &m, &v).unwrap()
            })
            .collect();
        let (partial, chunks) = (device.unwritten(chunks.len()), device.upload(&chunks));
        Training { parameters, chunks, partial, state: device.upload(&[State::default()]) }
    }

    /// One step with these gradients; what the device then says of itself.
    fn step(&mut self, device: &Device, grads: &[Vec<f32>], learning_rate: f64, config: Config) -> State {
        let (kernels, stream) = (&device.kernels, &device.stream);
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
        let tensors = self
            .tensors
            .iter_mut()
            .zip(&grads)
            .map(|([param, exp_avg, exp_avg_sq], grad)| Ok(AdamTensors { param, grad, exp_avg, exp_avg_sq }));
        self.cpu.adam(grads.iter().map(Ok), tensors, &mut self.state, &config).unwrap();
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
        assert!(!state.norm.is_finite(), "{}", state.norm);
        assert_eq!(training.values(&device), before, "parameter {tensor}, element {element}");
    }
    // The next step is the second, as if nothing had been.
    let state = training.step(&device, &gradients(1), 1e-3, CONFIG);
    assert_eq!((state.step, state.nonfinite_steps), (2, 4));
    let mut straight = Training::new(&device, &params);
    straight.step(&device, &gradients(0), 1e-3, CONFIG);
    straight.step(&device, &gradients(1), 1e-3, CONFIG);
    assert_eq!(training.values(&device), straight.values(&device));
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
            state: SliceMut::of(&mut state, stream),
            count: count as u32,
            config: CONFIG,
        };
        prepare.launch(kernels).unwrap();
        let (found, exact) = (device.download(&state)[0].norm, (15.25 * count as f64).sqrt());
        assert!((found - exact).abs() <= 1e-12 * exact, "{count} chunks: {found} instead of {exact}");
    }
}
