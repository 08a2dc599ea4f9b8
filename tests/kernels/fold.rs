//! Folding: a convolution of folded images with folded filters is the convolution. All numbers here are small multiples of
//! 1/8, so that every sum is exact and nothing needs a bound.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::fold::{Fold, FoldFilter, FoldFilterBack, FoldImages, Pixel};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::{Backend, Window};
use disentangle::tensor::Shape;
use half::bf16;

use crate::{Device, Number, device, numbers, wide};

/// x `[N, H, W, C]` and a window: the stems, odd sides, strides that leave pixels over, more channels than four.
const CASES: [([usize; 4], usize, usize, usize); 7] = [
    ([2, 16, 16, 3], 7, 2, 3),
    ([1, 15, 11, 3], 7, 2, 3),
    ([2, 9, 8, 3], 3, 1, 1),
    ([1, 7, 7, 5], 3, 2, 1),
    ([1, 5, 6, 1], 1, 1, 0),
    ([1, 13, 10, 2], 5, 3, 2),
    ([3, 8, 8, 4], 2, 2, 0),
];
const FILTERS: usize = 3;

/// Multiples of 1/8 of both signs, at most 2.
fn eighths(count: usize) -> Vec<f32> {
    numbers(count, 1.0).into_iter().map(|x| (x * 8.0).round().clamp(-16.0, 16.0) / 8.0).collect()
}

fn fold_images<S: Pixel + Default, T: Number>(device: &Device, x: &[S], images: usize, fold: Fold) -> Vec<f64> {
    let elems = fold.image_shape(images).iter().product::<usize>();
    let (x, mut y) = (device.upload(x), device.unwritten::<T>(elems));
    let (x, out) = (Slice::of(&x, &device.stream), SliceMut::of(&mut y, &device.stream));
    FoldImages::<S, T> { x, y: out, count: elems as u64 / 4, shape: fold }.launch(&device.kernels).unwrap();
    device.read(&y)
}

fn check<T: Number + Pixel>(device: &Device, dims: [usize; 4], window: Window, multiple: usize) {
    let name = format!("{dims:?} {window:?}");
    let (cpu, fold) = (Cpu::<f64>::new(), Fold::new(dims, window, multiple).unwrap());
    let filters = [FILTERS, window.kernel[0], window.kernel[1], dims[3]];
    let (x, w) = (eighths(dims.iter().product()), eighths(filters.iter().product()));
    let upload = |shape: [usize; 4], values: &[f64]| cpu.upload(Shape::from(shape), values).unwrap();
    let exact = cpu.conv2d_forward(&upload(dims, &wide(&x)), &upload(filters, &wide(&w)), window).unwrap();

    let folded_x = fold_images::<T, T>(device, &x.iter().map(|&x| T::rounded(x)).collect::<Vec<_>>(), dims[0], fold);
    let elems = fold.filter_shape(FILTERS).iter().product::<usize>();
    let (w_memory, mut v) = (device.upload(&w), device.unwritten::<T>(elems));
    let (from, to) = (Slice::of(&w_memory, &device.stream), SliceMut::of(&mut v, &device.stream));
    FoldFilter::<T> { w: from, v: to, count: elems as u64, shape: fold }.launch(&device.kernels).unwrap();
    let (x, v_tensor) =
        (upload(fold.image_shape(dims[0]), &folded_x), upload(fold.filter_shape(FILTERS), &device.read(&v)));
    let y = cpu.conv2d_forward(&x, &v_tensor, fold.window()).unwrap();
    assert_eq!(y.shape(), exact.shape(), "{name}");
    assert_eq!(cpu.download(&y).unwrap(), cpu.download(&exact).unwrap(), "{name}");

    // Each weight has one place among the folded ones, so the gradient comes back as the weights do.
    let mut dw = device.unwritten::<f32>(w.len());
    let (from, to) = (Slice::of(&v, &device.stream), SliceMut::of(&mut dw, &device.stream));
    FoldFilterBack::<T> { dv: from, dw: to, count: w.len() as u64, shape: fold }.launch(&device.kernels).unwrap();
    assert_eq!(device.download(&dw), w, "{name}");
}

#[test]
fn a_folded_convolution_is_the_convolution() {
    let device = device();
    for (dims, kernel, stride, padding) in CASES {
        let window = Window { kernel: [kernel; 2], stride, padding };
        check::<f32>(&device, dims, window, 4);
        check::<bf16>(&device, dims, window, 8);
    }
}

#[test]
fn bytes_are_divided_by_255() {
    let device = device();
    let dims = [2, 16, 16, 3];
    let fold = Fold::new(dims, Window { kernel: [3; 2], stride: 1, padding: 1 }, 4).unwrap();
    let pixels: Vec<u8> = (0..dims.iter().product::<usize>()).map(|i| (i % 256) as u8).collect();
    let levels: Vec<f32> = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
    let exact = fold_images::<f32, f32>(&device, &levels, dims[0], fold);
    assert_eq!(fold_images::<u8, f32>(&device, &pixels, dims[0], fold), exact);
    let rounded: Vec<f64> = exact.iter().map(|&x| bf16::from_f64(x).to_f64()).collect();
    assert_eq!(fold_images::<u8, bf16>(&device, &pixels, dims[0], fold), rounded);
}
