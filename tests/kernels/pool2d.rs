//! Max pooling and the global average.
//!
//! A largest value is exact. A gradient adds up to 9 numbers (windows that share a position), a mean H W of them: each in f32
//! with an error of at most count x 2^-24 of the sum of their sizes.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::cuda::pool2d::{
    GlobalAvgPoolBackward, GlobalAvgPoolForward, MaxPool, MaxPoolBackward, MaxPoolForward,
};
use disentangle::backend::{Backend, Window};
use disentangle::tensor::Shape;

use crate::{UNIT, device, distance, numbers, wide};

/// [N, H, W, C]: a single pixel, odd sizes, one column, a block's elements and more.
const SHAPES: [[usize; 4]; 5] = [[1, 1, 1, 1], [2, 7, 9, 5], [1, 8, 1, 3], [2, 32, 32, 8], [3, 5, 6, 33]];

/// The stem's, and others with and without overlap.
const WINDOWS: [Window; 3] = [
    Window { kernel: [3, 3], stride: 2, padding: 1 },
    Window { kernel: [1, 1], stride: 1, padding: 0 },
    Window { kernel: [3, 2], stride: 1, padding: 1 },
];

#[test]
fn max_pool_and_its_gradient() {
    let (device, cpu) = (device(), Cpu::<f64>::new());
    let (kernels, stream) = (&device.kernels, &device.stream);
    for (dims, window) in SHAPES.into_iter().flat_map(|dims| WINDOWS.map(|window| (dims, window))) {
        let shape = Shape::from(dims);
        // Few different values, so that there are ties; the first of them counts.
        let x: Vec<f32> = numbers(shape.elems(), 2.0).into_iter().map(f32::round).collect();
        let exact_x = cpu.upload(shape, &wide(&x)).unwrap();
        let (exact, exact_argmax) = cpu.max_pool_forward(&exact_x, window).unwrap();
        let exact_y = cpu.download(&exact).unwrap();
        let dy = numbers(exact_y.len(), 1.0);
        let pool = MaxPool::new(shape, window).unwrap();

        let (x, mut y) = (device.upload(&x), device.unwritten::<f32>(dy.len()));
        let (mut argmax, mut dx) = (device.unwritten::<u8>(dy.len()), device.unwritten::<f32>(shape.elems()));
        let forward = MaxPoolForward {
            x: Slice::of(&x, stream),
            y: SliceMut::of(&mut y, stream),
            argmax: SliceMut::of(&mut argmax, stream),
            count: dy.len() as u64,
            shape: pool,
        };
        forward.launch(kernels).unwrap();
        assert_eq!(wide(&device.download(&y)), exact_y, "{dims:?} {window:?}");

        let memory = device.upload(&dy);
        let backward = MaxPoolBackward {
            dy: Slice::of(&memory, stream),
            argmax: Slice::of(&argmax, stream),
            dx: SliceMut::of(&mut dx, stream),
            count: shape.elems() as u64,
            shape: pool,
        };
        backward.launch(kernels).unwrap();
        let [n, h, w, c] = dims;
        let pooled = Shape::from([n, window.output(0, h).unwrap(), window.output(1, w).unwrap(), c]);
        let exact_dy = cpu.upload(pooled, &wide(&dy)).unwrap();
        let exact_dx = cpu.max_pool_backward(&exact_dy, &exact_argmax, shape, window).unwrap();
        let error = distance(wide(&device.download(&dx)), &cpu.download(&exact_dx).unwrap());
        assert!(error <= 9.0 * 9.0 * 5.0 * UNIT, "{dims:?} {window:?}: off by {error}");
    }
}

#[test]
fn global_avg_pool_and_its_gradient() {
    let (device, cpu) = (device(), Cpu::<f64>::new());
    let (kernels, stream) = (&device.kernels, &device.stream);
    for dims @ [n, h, w, c] in SHAPES {
        let shape = Shape::from(dims);
        let (x, dy) = (numbers(shape.elems(), 1.0), numbers(n * c, 1.0));
        let (memory, mut y) = (device.upload(&x), device.unwritten::<f32>(n * c));
        let forward = GlobalAvgPoolForward {
            x: Slice::of(&memory, stream),
            y: SliceMut::of(&mut y, stream),
            pixels: (h * w) as u32,
            channels: c as u32,
        };
        forward.launch(kernels).unwrap();
        let exact = cpu.global_avg_pool_forward(&cpu.upload(shape, &wide(&x)).unwrap()).unwrap();
        let error = distance(wide(&device.download(&y)), &cpu.download(&exact).unwrap());
        assert!(error <= 5.0 * (h * w) as f64 * UNIT, "{dims:?}: off by {error}");

        let (memory, mut dx) = (device.upload(&dy), device.unwritten::<f32>(shape.elems()));
        let backward = GlobalAvgPoolBackward {
            dy: Slice::of(&memory, stream),
            dx: SliceMut::of(&mut dx, stream),
            count: shape.elems() as u64,
            pixels: (h * w) as u32,
            channels: c as u32,
        };
        backward.launch(kernels).unwrap();
        let exact_dy = cpu.upload(Shape::from([n, c]), &wide(&dy)).unwrap();
        let exact_dx = cpu.global_avg_pool_backward(&exact_dy, shape).unwrap();
        let error = distance(wide(&device.download(&dx)), &cpu.download(&exact_dx).unwrap());
        assert!(error <= 5.0 * 2.0 * UNIT, "{dims:?}: off by {error}");
    }
}
