//! Max pooling and the global average.
//!
//! A largest value is exact. A gradient adds up to 9 numbers (windows that share a position), a mean H W of them: each in f32
//! with an error of at most count x 2^-24 of the sum of their sizes. Results in bf16 are rounded once more.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::cuda::pool2d::{
    GlobalAvgPoolBackward, GlobalAvgPoolForward, MaxPool, MaxPoolBackward, MaxPoolForward,
};
use disentangle::backend::{Backend, Window};
use disentangle::tensor::Shape;
use half::bf16;

use crate::{Device, Number, Parity, UNIT, device, held, numbers, wide};

/// `[N, H, W, C]`: a single pixel, odd sizes, one column, a block's elements and more; odd sizes of channels by four.
const SHAPES: [[usize; 4]; 7] =
    [[1, 1, 1, 1], [2, 7, 9, 5], [1, 8, 1, 3], [2, 32, 32, 8], [3, 5, 6, 33], [2, 7, 9, 8], [1, 1, 1, 4]];

/// The stem's, and others with overlap, without, and with pixels between windows.
const WINDOWS: [Window; 4] = [
    Window { kernel: [3, 3], stride: 2, padding: 1 },
    Window { kernel: [1, 1], stride: 1, padding: 0 },
    Window { kernel: [3, 2], stride: 1, padding: 1 },
    Window { kernel: [2, 2], stride: 3, padding: 1 },
];

/// The largest value of each window and the gradient of the input.
pub fn max_on_device<T: Number>(
    device: &Device,
    (dims, window): ([usize; 4], Window),
    x: &[f32],
    dy: &[f32],
) -> (Vec<f64>, Vec<f64>) {
    let (kernels, stream) = (&device.kernels, &device.stream);
    let pool = MaxPool::new(Shape::from(dims), window).unwrap();
    let (elems, outputs) = (x.len(), dy.len());
    let (x, dy) = (device.upload_as::<T>(x), device.upload_as::<T>(dy));
    let (mut y, mut argmax) = (device.unwritten::<T>(outputs), device.unwritten::<u8>(outputs));
    let forward = MaxPoolForward {
        x: Slice::of(&x, stream),
        y: SliceMut::of(&mut y, stream),
        argmax: SliceMut::of(&mut argmax, stream),
        count: outputs as u64,
        shape: pool,
    };
    forward.launch(kernels).unwrap();
    let mut dx = device.unwritten::<T>(elems);
    let backward = MaxPoolBackward {
        dy: Slice::of(&dy, stream),
        argmax: Slice::of(&argmax, stream),
        dx: SliceMut::of(&mut dx, stream),
        count: elems as u64,
        shape: pool,
    };
    backward.launch(kernels).unwrap();
    (device.read(&y), device.read(&dx))
}

fn check_max<T: Number>(device: &Device, dims: [usize; 4], window: Window, x: &[f32]) {
    let (cpu, shape) = (Cpu::<f64>::new(), Shape::from(dims));
    let exact_x = cpu.upload(shape, &wide(x)).unwrap();
    let (exact, argmax) = cpu.max_pool_forward(&exact_x, window).unwrap();
    let exact_y = cpu.download(&exact).unwrap();
    let dy = held::<T>(numbers(exact_y.len(), 1.0));
    let exact_dy = cpu.upload(exact.shape(), &wide(&dy)).unwrap();
    let exact_dx = cpu.max_pool_backward(&exact_dy, &argmax, shape, window).unwrap();
    let exact_dx = cpu.download(&exact_dx).unwrap();

    let (y, dx) = max_on_device::<T>(device, (dims, window), x, &dy);
    let case = format!("{dims:?} {window:?}");
    Parity { found: &y, exact: &exact_y, plain: &exact_y, floor: 0.0 }.check::<f32>(&format!("{case}: y"));
    let floor = 9.0 * 9.0 * 5.0 * UNIT;
    Parity { found: &dx, exact: &exact_dx, plain: &exact_dx, floor }.check::<T>(&format!("{case}: dx"));
}

#[test]
fn max_pool_and_its_gradient() {
    let device = device();
    for (dims, window) in SHAPES.into_iter().flat_map(|dims| WINDOWS.map(|window| (dims, window))) {
        // Few different values, so that there are ties; the first of them counts.
        let x: Vec<f32> = numbers(Shape::from(dims).elems(), 2.0).into_iter().map(f32::round).collect();
        check_max::<f32>(&device, dims, window, &x);
        check_max::<bf16>(&device, dims, window, &x);
    }
}

/// NaN wins, the last of several; minus infinity counts where there is nothing else.
#[test]
fn max_pool_of_what_is_no_number() {
    let device = device();
    let dims = [2, 9, 7, 5];
    let mut x: Vec<f32> = numbers(Shape::from(dims).elems(), 2.0).into_iter().map(f32::round).collect();
    x.iter_mut().step_by(11).for_each(|x| *x = f32::NAN);
    x.iter_mut().skip(3).step_by(17).for_each(|x| *x = f32::INFINITY);
    for window in WINDOWS {
        check_max::<f32>(&device, dims, window, &x);
        check_max::<bf16>(&device, dims, window, &x);
        check_max::<f32>(&device, dims, window, &vec![f32::NEG_INFINITY; x.len()]);
    }
}

/// The mean over positions and the gradient of the input.
pub fn avg_on_device<T: Number>(
    device: &Device,
    [n, h, w, c]: [usize; 4],
    x: &[f32],
    dy: &[f32],
) -> (Vec<f64>, Vec<f64>) {
    let (kernels, stream, elems) = (&device.kernels, &device.stream, x.len());
    let (x, dy) = (device.upload_as::<T>(x), device.upload_as::<T>(dy));
    let (mut y, mut dx) = (device.unwritten::<T>(n * c), device.unwritten::<T>(elems));
    let forward = GlobalAvgPoolForward {
        x: Slice::of(&x, stream),
        y: SliceMut::of(&mut y, stream),
        pixels: (h * w) as u32,
        channels: c as u32,
    };
    forward.launch(kernels).unwrap();
    let backward = GlobalAvgPoolBackward {
        dy: Slice::of(&dy, stream),
        dx: SliceMut::of(&mut dx, stream),
        count: elems as u64,
        pixels: (h * w) as u32,
        channels: c as u32,
    };
    backward.launch(kernels).unwrap();
    (device.read(&y), device.read(&dx))
}

#[test]
fn global_avg_pool_and_its_gradient() {
    fn check<T: Number>(device: &Device, dims @ [n, h, w, c]: [usize; 4]) {
        let (cpu, shape) = (Cpu::<f64>::new(), Shape::from(dims));
        let (x, dy) = (held::<T>(numbers(shape.elems(), 1.0)), held::<T>(numbers(n * c, 1.0)));
        let exact_y = cpu.global_avg_pool_forward(&cpu.upload(shape, &wide(&x)).unwrap()).unwrap();
        let exact_dy = cpu.upload(Shape::from([n, c]), &wide(&dy)).unwrap();
        let exact_dx = cpu.global_avg_pool_backward(&exact_dy, shape).unwrap();
        let [exact_y, exact_dx] = [exact_y, exact_dx].map(|exact| cpu.download(&exact).unwrap());

        let (y, dx) = avg_on_device::<T>(device, dims, &x, &dy);
        let floor = 5.0 * (h * w) as f64 * UNIT;
        Parity { found: &y, exact: &exact_y, plain: &exact_y, floor }.check::<T>(&format!("{dims:?}: y"));
        let floor = 5.0 * 2.0 * UNIT;
        Parity { found: &dx, exact: &exact_dx, plain: &exact_dx, floor }.check::<T>(&format!("{dims:?}: dx"));
    }
    let device = device();
    // ResNet's end, at 224 and at 32 pixels, with fewer channels.
    for dims in SHAPES.into_iter().chain([[2, 7, 7, 64], [3, 4, 4, 65]]) {
        check::<f32>(&device, dims);
        check::<bf16>(&device, dims);
    }
}

#[test]
fn what_is_no_number_stays_in_its_image_and_channel() {
    let device = device();
    let dims @ [n, h, w, c] = [3, 5, 6, 33];
    let mut x = numbers(n * h * w * c, 1.0);
    x[(h * w + 29) * c + 32] = f32::NAN;
    x[7] = f32::NEG_INFINITY;
    let (y, _) = avg_on_device::<f32>(&device, dims, &x, &numbers(n * c, 1.0));
    for (i, y) in y.iter().enumerate() {
        assert_eq!((y.is_nan(), *y == f64::NEG_INFINITY), (i == c + 32, i == 7), "{i}: {y}");
    }
}
