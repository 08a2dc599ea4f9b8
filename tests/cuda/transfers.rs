//! Between host and device, what computes next to nothing, and the optimiser.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::{AdamConfig, AdamReport, AdamTensors, Backend, Stepped, Visit};
use disentangle::config::Precision;
use disentangle::tensor::{Shape, Tensor};

use crate::bounds::{UNIT, largest, parity, rounding, within};
use crate::{Layers, cuda, held, in_each_precision, numbers};

#[test]
fn tensors_come_back_as_they_went() {
    in_each_precision(|cuda, precision| {
        let values: Vec<f64> = numbers(Precision::F32, 1021, 3.0);
        let x = cuda.parameter([1021], &values);
        assert_eq!(cuda.read(&x), values);
        let rounded = cuda.to_activations(&x).unwrap();
        let expected = |x: &f64| match precision {
            Precision::Bf16 => f64::from(held(precision, *x as f32)),
            Precision::Tf32 | Precision::F32 => *x,
        };
        assert_eq!(cuda.read(&rounded), values.iter().map(expected).collect::<Vec<_>>());
        assert_eq!(cuda.scalar(&cuda.parameter(Shape::SCALAR, &[-2.5])).unwrap(), -2.5);
        assert_eq!(cuda.read(&cuda.full(Shape::from([3, 7]), 0.1).unwrap()), [f64::from(0.1f32); 21]);
        let bytes: Vec<u8> = (0..=255).chain(0..32).collect();
        let images = cuda.upload_images(Shape::from([2, 6, 8, 3]), &bytes).unwrap();
        let found = cuda.read(&images);
        within("images", &found, &bytes.iter().map(|&p| f64::from(p) / 255.0).collect::<Vec<_>>(), |_| UNIT);
    });
}

#[test]
fn sums_and_multiples_are_the_cpus() {
    in_each_precision(|cuda, precision| {
        for count in [1, 5, 1024, 4099] {
            let (a, b) = (numbers(precision, count, 1.0), numbers(precision, count, 2.0));
            let bound = |exact: f64| (UNIT + rounding(precision)) * exact.abs();
            let sums: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            let (mut x, y) = (cuda.activations([count], &a), cuda.activations([count], &b));
            cuda.add_assign(&mut x, &y).unwrap();
            within("sum", &cuda.read(&x), &sums, |i| bound(sums[i]));
            // Another handle keeps its values.
            let kept = cuda.activations([count], &a);
            let mut shared = kept.clone();
            cuda.add_assign(&mut shared, &y).unwrap();
            assert_eq!((cuda.read(&kept), cuda.read(&shared)), (a.clone(), cuda.read(&x)));
            let multiples: Vec<f64> = a.iter().map(|a| -0.3 * a).collect();
            let found = cuda.read(&cuda.scale(&kept, -0.3).unwrap());
            within("multiple", &found, &multiples, |i| 2.0 * UNIT * multiples[i].abs() + bound(multiples[i]));
        }
    });
}

/// What the pool counts: bytes of living tensors, and that memory is used again.
#[test]
fn memory_is_used_again() {
    let cuda = cuda(Precision::F32);
    let before = cuda.memory();
    let x = cuda.full(Shape::from([1000]), 1.0).unwrap();
    let with = cuda.memory();
    assert!((4000..=4608).contains(&(with.live_bytes - before.live_bytes)), "{before:?} {with:?}");
    drop(x);
    assert_eq!(cuda.memory().live_bytes, before.live_bytes);
    let y = cuda.full(Shape::from([999]), 2.0).unwrap();
    assert_eq!(cuda.memory().allocations, with.allocations);
    assert_eq!(cuda.read(&y), [2.0; 999]);
}

/// Elements of the parameters: one, a few, and more than a chunk of the kernel.
const LENGTHS: [usize; 3] = [1, 70, 16_389];
const CONFIG: AdamConfig = AdamConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-4, clip_norm: 0.0 };

/// Parameters, first and second moments.
struct Optimiser<B: Backend> {
    tensors: [Vec<Tensor<B>>; 3],
    state: B::AdamState,
}

impl<B: Layers> Optimiser<B> {
    fn new(backend: &B, steps: u64) -> Self {
        let values = LENGTHS.map(|length| numbers(Precision::F32, length, 0.5));
        let params = values.iter().map(|values| backend.parameter([values.len()], values)).collect();
        let zeros = || LENGTHS.iter().map(|&length| backend.full(Shape::from([length]), 0.0).unwrap()).collect();
        Optimiser { tensors: [params, zeros(), zeros()], state: backend.adam_state(steps).unwrap() }
    }

    fn step(&mut self, backend: &B, grads: &[Vec<f64>], learning_rate: f64, config: &AdamConfig) -> AdamReport {
        let grads: Vec<_> = grads.iter().map(|values| backend.parameter([values.len()], values)).collect();
        backend.set_learning_rate(&mut self.state, learning_rate).unwrap();
        let Optimiser { tensors: [params, first, second], state } = self;
        let tensors = |visit: &mut Visit<B>| {
            let moments = first.iter_mut().zip(second.iter_mut());
            params.iter_mut().zip(moments).zip(&grads).try_for_each(|((param, (exp_avg, exp_avg_sq)), grad)| {
                visit(Stepped::Trained(AdamTensors { param, grad, exp_avg, exp_avg_sq }))
            })
        };
        backend.adam(tensors, None, state, config).unwrap();
        backend.adam_report(&self.state).unwrap()
    }

    fn values(&self, backend: &B) -> [Vec<f64>; 3] {
        self.tensors.each_ref().map(|all| all.iter().flat_map(|tensor| backend.read(tensor)).collect())
    }
}

/// Gradients of a step.
fn gradients(step: usize) -> Vec<Vec<f64>> {
    LENGTHS.iter().map(|&length| numbers(Precision::F32, length, 0.1 + step as f64)).collect()
}

/// A moment has six operations behind it in a step, a parameter about a dozen.
#[test]
fn adam_is_the_cpus() {
    in_each_precision(|cuda, precision| {
        for clip_norm in [0.0, 1.0, 1e6] {
            let config = AdamConfig { clip_norm, ..CONFIG };
            let (f64s, f32s) = (Cpu::<f64>::new(), Cpu::<f32>::new());
            let mut found = Optimiser::new(&**cuda, 3);
            let (mut exact, mut plain) = (Optimiser::new(&f64s, 3), Optimiser::new(&f32s, 3));
            for (step, learning_rate) in [3e-3, 3e-3, 1e-3].into_iter().enumerate() {
                let grads = gradients(step);
                let report = found.step(cuda, &grads, learning_rate, &config);
                let right = exact.step(&f64s, &grads, learning_rate, &config);
                plain.step(&f32s, &grads, learning_rate, &config);
                assert_eq!((report.steps, report.nonfinite_steps), (4 + step as u64, 0));
                assert!((report.grad_norm / right.grad_norm - 1.0).abs() <= 1e-12, "{report:?} {right:?}");
            }
            let [found, exact, plain] = [found.values(cuda), exact.values(&f64s), plain.values(&f32s)];
            for (i, name) in ["parameters", "first moments", "second moments"].into_iter().enumerate() {
                let floor = 3.0 * 16.0 * UNIT * largest(&exact[i]);
                parity(&format!("{precision} {name}"), &found[i], [&exact[i], &plain[i]], floor, 0.0);
            }
        }
    });
}

#[test]
fn gradients_that_are_not_finite_change_nothing() {
    let cuda = cuda(Precision::F32);
    for spoilt in [f64::NAN, f64::INFINITY] {
        let mut optimiser = Optimiser::new(&*cuda, 0);
        optimiser.step(&cuda, &gradients(0), 1e-3, &CONFIG);
        let before = optimiser.values(&cuda);
        let mut grads = gradients(1);
        grads[2][16_388] = spoilt;
        let report = optimiser.step(&cuda, &grads, 1e-3, &CONFIG);
        assert!(!report.grad_norm.is_finite());
        assert_eq!((report.steps, report.nonfinite_steps), (1, 1));
        assert_eq!(optimiser.values(&cuda), before);
        cuda.release(&mut optimiser.state).unwrap();
        let report = optimiser.step(&cuda, &gradients(1), 1e-3, &CONFIG);
        assert_eq!((report.steps, report.nonfinite_steps), (2, 1));
        assert_ne!(optimiser.values(&cuda), before);
    }
}
