//! The same bits on every run, in whatever order streams make progress.

use disentangle::backend::cuda::bias::BiasAdd;
use disentangle::backend::cuda::columns::Columns;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::cuda::nt_xent::{Bf16, F32, Tf32};
use disentangle::backend::{Activation, Residual, Window};
use half::bf16;

use crate::batch_norm::{self, Problem};
use crate::nt_xent::{self, Input};
use crate::{Device, Number, adam, bias, binary_entropy, device, held, kmeans, numbers, pool2d};

/// Everything that the kernels of this type give for some inputs.
fn of_type<T: Number>(device: &Device) -> Vec<Vec<f64>> {
    let mut results = Vec::new();
    let p = Problem::new::<T>([300, 20, 2], Residual::Added, Activation::Relu);
    let (forward, gradients) = batch_norm::on_device::<T>(device, &p);
    results.extend(forward.into_iter().chain(gradients));
    let (y, db) = bias::on_device::<T>(device, &held::<T>(numbers(300 * 20, 1.0)), &numbers(20, 1.0));
    let (loss, heads, da) = binary_entropy::on_device::<T>(device, &held::<T>(numbers(3001, 2.0)), 1.0);
    let (dims, window) = ([2, 9, 9, 5], Window { kernel: [3, 3], stride: 2, padding: 1 });
    let (x, dy) = (held::<T>(numbers(2 * 81 * 5, 1.0)), held::<T>(numbers(2 * 25 * 5, 1.0)));
    let (max, dmax) = pool2d::max_on_device::<T>(device, (dims, window), &x, &dy);
    let (avg, davg) = pool2d::avg_on_device::<T>(device, dims, &x, &dy[..10]);
    results.extend([y, db, vec![loss], heads, da, max, dmax, avg, davg]);
    results
}

fn of_precision<P: nt_xent::Rounding>(device: &Device) -> Vec<Vec<f64>> {
    let z = held::<bf16>(numbers(70 * 130, 1.0));
    [Input::rows(&z, [70, 130]), Input::columns(&z, [70, 130])]
        .into_iter()
        .flat_map(|input| {
            let (loss, dz) = nt_xent::on_device::<P>(device, input, 1.0);
            [vec![loss], dz]
        })
        .collect()
}

fn everything(device: &Device) -> Vec<Vec<u64>> {
    let mut results = of_type::<f32>(device);
    results.extend(of_type::<bf16>(device));
    results.extend(of_precision::<F32>(device));
    results.extend(of_precision::<Tf32>(device));
    results.extend(of_precision::<Bf16>(device));
    results.extend(adam::two_steps(device));
    results.extend(kmeans::everything(device));
    results.into_iter().map(|values| values.into_iter().map(f64::to_bits).collect()).collect()
}

impl Device {
    /// Another order in which streams make progress. A real device has its own.
    fn seed(&self, seed: u64) {
        if let Some(gpu) = self.virtual_gpu {
            gpu.set_seed(seed);
        }
    }
}

#[test]
fn the_same_bits_twice_and_under_other_orders_of_streams() {
    let device = device();
    let first = everything(&device);
    assert!(first.iter().all(|values| !values.is_empty()));
    for seed in 0..4 {
        device.seed(seed);
        let again = everything(&device);
        for (i, (first, again)) in first.iter().zip(&again).enumerate() {
            assert_eq!(first, again, "result {i} under seed {seed}");
        }
    }
}

/// Input comes and results go on a stream of their own, in step with the kernels by events alone.
#[test]
fn events_order_a_copy_stream_and_the_kernels() {
    let device = device();
    let (kernels, stream, context) = (&device.kernels, &device.stream, device.stream.context());
    // SAFETY: every use below is ordered by an event of this test or by a synchronisation.
    unsafe { context.disable_event_tracking() };
    let copies = context.new_stream().unwrap();
    let (x, b, shape) = (numbers(64 * 12, 1.0), numbers(12, 1.0), Columns::new(64, 12, 1).unwrap());
    let exact: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + b[i % 12]).collect();
    for seed in 0..16 {
        device.seed(seed);
        let (memory, bias) = (copies.clone_htod(&x).unwrap(), copies.clone_htod(&b).unwrap());
        // SAFETY: the kernel writes all of it.
        let mut y = unsafe { copies.alloc::<f32>(x.len()) }.unwrap();
        stream.wait(&copies.record_event(None).unwrap()).unwrap();
        let add = BiasAdd {
            x: Slice::of(&memory, stream),
            b: Slice::of(&bias, stream),
            y: SliceMut::of(&mut y, stream),
            shape,
        };
        add.launch(kernels).unwrap();
        copies.wait(&stream.record_event(None).unwrap()).unwrap();
        let found = copies.clone_dtoh(&y).unwrap();
        copies.synchronize().unwrap_or_else(|e| panic!("seed {seed}: {e}: {}", device.report()));
        assert_eq!(found, exact, "seed {seed}");
    }
}
