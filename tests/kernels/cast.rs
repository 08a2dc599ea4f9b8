//! Casts, which are exact or rounded once.

use disentangle::backend::cuda::cast::{CastImages, CastToBf16, CastToF32};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use half::bf16;

use crate::{Device, Number, device, numbers};

#[test]
fn f32_to_bf16_rounds_to_even_and_back_is_exact() {
    let device = device();
    let (kernels, stream) = (&device.kernels, &device.stream);
    for count in [1, 2, 3, 4, 5, 1023, 1024, 1025, 5000] {
        let mut x = numbers(count, 1000.0);
        // Halves between two neighbours, the largest number, what overflows by rounding, and what is no number.
        let hard = [257.0 / 256.0, 259.0 / 256.0, f32::MAX, -f32::MAX, f32::INFINITY, f32::NAN, -0.0, 1e-40];
        x.iter_mut().zip(hard).for_each(|(x, hard)| *x = hard);
        let (memory, mut y) = (device.upload(&x), device.unwritten::<bf16>(count));
        let cast = CastToBf16 { x: Slice::of(&memory, stream), y: SliceMut::of(&mut y, stream), count: count as u64 };
        cast.launch(kernels).unwrap();
        let found = device.download(&y);
        for (x, y) in x.iter().zip(&found) {
            let expected = bf16::from_f32(*x);
            assert!(y.to_bits() == expected.to_bits() || y.is_nan() && x.is_nan(), "{x} became {y}, not {expected}");
        }
        let mut back = device.unwritten::<f32>(count);
        let cast = CastToF32 { x: Slice::of(&y, stream), y: SliceMut::of(&mut back, stream), count: count as u64 };
        cast.launch(kernels).unwrap();
        let back = device.download(&back);
        assert!(back.iter().zip(&found).all(|(back, y)| *back == y.to_f32() || back.is_nan() && y.is_nan()));
    }
}

#[test]
fn images_become_shares_of_255_with_padded_channels() {
    fn check<T: Number>(device: &Device, [count, channels, padded]: [usize; 3]) {
        let (kernels, stream) = (&device.kernels, &device.stream);
        let pixels: Vec<u8> = (0..count * channels).map(|i| (i * 37 % 256) as u8).collect();
        let (memory, mut y) = (device.upload(&pixels), device.unwritten::<T>(count * padded));
        let cast = CastImages {
            pixels: Slice::of(&memory, stream),
            y: SliceMut::of(&mut y, stream),
            count: count as u64,
            channels: channels as u32,
            padded: padded as u32,
        };
        cast.launch(kernels).unwrap();
        for (pixel, y) in pixels.chunks(channels).zip(device.read(&y).chunks(padded)) {
            // As the CPU has it, to the bit: a division that is rounded once, then the type.
            assert!(
                pixel.iter().zip(y).all(|(&v, y)| *y == T::rounded(f32::from(v) / 255.0).wide()),
                "{pixel:?} {y:?}"
            );
            assert!(y[channels..].iter().all(|&padding| padding == 0.0), "{y:?}");
        }
    }
    let device = device();
    for shape in [[1, 3, 3], [1, 3, 4], [255, 3, 8], [257, 3, 4], [1000, 1, 1], [300, 3, 5]] {
        check::<f32>(&device, shape);
        check::<bf16>(&device, shape);
    }
}
