//! Convolutions and linear layers: sums of products.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Backend, Window};
use disentangle::config::Precision;
use disentangle::tensor::Shape;

use crate::bounds::{Sums, input_rounding};
use crate::{Device, Layers, in_each_precision, numbers};

/// A convolution: x `[N, H, W, C]`, K filters.
#[derive(Clone, Copy, Debug)]
struct Convolution {
    x: [usize; 4],
    filters: usize,
    window: Window,
}

const fn convolution(x: [usize; 4], filters: usize, taps: usize, stride: usize, padding: usize) -> Convolution {
    Convolution { x, filters, window: Window { kernel: [taps; 2], stride, padding } }
}

/// ResNet's windows: 1, 3 and 7 taps, strides 1 and 2, odd sizes, 8 to 64 channels, and numbers of channels that tensor cores
/// do not take.
const CONVOLUTIONS: [Convolution; 9] = [
    convolution([2, 5, 7, 8], 16, 1, 1, 0),
    convolution([3, 7, 6, 16], 8, 1, 2, 0),
    convolution([2, 7, 5, 16], 16, 3, 1, 1),
    convolution([2, 9, 7, 8], 24, 3, 2, 1),
    convolution([1, 8, 8, 32], 32, 3, 2, 1),
    convolution([2, 12, 11, 8], 8, 7, 2, 3),
    convolution([1, 5, 6, 64], 64, 3, 1, 1),
    convolution([2, 7, 9, 4], 8, 3, 1, 1),
    convolution([2, 5, 5, 12], 20, 3, 2, 1),
];

/// First layers, of images: the paper's, CIFAR's, and one of odd sizes.
const STEMS: [Convolution; 3] = [
    convolution([2, 18, 16, 3], 16, 7, 2, 3),
    convolution([3, 9, 8, 3], 8, 3, 1, 1),
    convolution([1, 11, 13, 3], 24, 7, 2, 3),
];

/// Images of a convolution.
enum Images<'a> {
    Numbers(&'a [f64]),
    Bytes(&'a [u8]),
}

impl Convolution {
    fn w(&self) -> [usize; 4] {
        [self.filters, self.window.kernel[0], self.window.kernel[1], self.x[3]]
    }

    fn y(&self) -> [usize; 4] {
        let [n, h, w, _] = self.x;
        [n, self.window.output(0, h).unwrap(), self.window.output(1, w).unwrap(), self.filters]
    }

    /// Products in a sum: of y and dx by taps and channels, of dw by pixels.
    fn terms(&self) -> [usize; 3] {
        let [taps, y] = [self.window.kernel.iter().product::<usize>(), self.y()[..3].iter().product()];
        [taps * self.x[3], taps * self.filters, y]
    }

    /// w and dy, of size 1 both.
    fn others(&self, precision: Precision) -> [Vec<f64>; 2] {
        [self.w(), self.y()].map(|dims| numbers(precision, dims.iter().product(), 1.0))
    }

    /// y and dw.
    fn of_images<B: Layers>(&self, backend: &B, images: Images, [w, dy]: [&[f64]; 2]) -> [Vec<f64>; 2] {
        let x = match images {
            Images::Numbers(values) => backend.activations(self.x, values),
            Images::Bytes(bytes) => backend.upload_images(self.x.into(), bytes).unwrap(),
        };
        let (w, dy) = (backend.parameter(self.w(), w), backend.activations(self.y(), dy));
        let y = backend.conv2d_forward(&x, &w, self.window).unwrap();
        let dw = backend.conv2d_backward_filter(&x, &dy, self.w().into(), self.window).unwrap();
        assert_eq!([y.shape(), dw.shape()], [self.y().into(), Shape::from(self.w())]);
        [y, dw].map(|result| backend.read(&result))
    }

    /// dx, and dx added to `before`, where nothing and where something shares its memory.
    fn gradients<B: Layers>(&self, backend: &B, before: &[f64], [w, dy]: [&[f64]; 2]) -> [Vec<f64>; 3] {
        let (w, dy) = (backend.parameter(self.w(), w), backend.activations(self.y(), dy));
        let dx = backend.conv2d_backward_data(&w, &dy, self.x.into(), self.window).unwrap();
        let mut alone = backend.activations(self.x, before);
        backend.conv2d_backward_data_add(&w, &dy, &mut alone, self.window).unwrap();
        let other = backend.activations(self.x, before);
        let mut shared = other.clone();
        backend.conv2d_backward_data_add(&w, &dy, &mut shared, self.window).unwrap();
        assert_eq!(backend.read(&other), before, "{self:?}: another handle's values changed");
        [dx, alone, shared].map(|result| backend.read(&result))
    }
}

fn magnitudes(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| value.abs()).collect()
}

/// Compares results that are sums of products; a result is found, exact, plain, and of magnitudes.
fn check<const N: usize>(
    what: &str,
    precision: Precision,
    results: [[Vec<f64>; N]; 4],
    terms: [usize; N],
    inputs: f64,
) {
    let [found, exact, plain, magnitudes] = &results;
    for (i, terms) in terms.into_iter().enumerate() {
        let (found, exact, plain, magnitudes) = (&found[i], &exact[i], &plain[i], &magnitudes[i]);
        Sums { precision, found, exact, plain, magnitudes, terms, inputs }.check(&format!("{what} result {i}"));
    }
}

#[test]
fn convolutions_are_the_cpus() {
    in_each_precision(|cuda, precision| {
        for case in CONVOLUTIONS {
            let what = format!("{precision} {case:?}");
            let x = numbers(precision, case.x.iter().product(), 1.0);
            let [w, dy] = case.others(precision);
            let ([x_abs, w_abs, dy_abs], others) = ([&x, &w, &dy].map(|v| magnitudes(v)), [&w[..], &dy[..]]);
            let (f64s, f32s) = (Cpu::<f64>::new(), Cpu::<f32>::new());
            let [of_w, of_x, of_y] = case.terms();
            let results = [
                case.of_images(&**cuda, Images::Numbers(&x), others),
                case.of_images(&f64s, Images::Numbers(&x), others),
                case.of_images(&f32s, Images::Numbers(&x), others),
                case.of_images(&f64s, Images::Numbers(&x_abs), [&w_abs, &dy_abs]),
            ];
            check(&what, precision, results, [of_w, of_y], 0.0);
            // Where cuDNN does not add by itself, the gradient is rounded before it is added.
            let results = [
                case.gradients(&**cuda, &x, others),
                case.gradients(&f64s, &x, others),
                case.gradients(&f32s, &x, others),
                case.gradients(&f64s, &x_abs, [&w_abs, &dy_abs]),
            ];
            check(&what, precision, results, [of_x, of_x + 1, of_x + 1], crate::bounds::rounding(precision));
        }
    });
}

/// As bytes, which are 255 times as large, and as numbers.
#[test]
fn stems_are_the_cpus() {
    in_each_precision(|cuda, precision| {
        for case in STEMS {
            let bytes: Vec<u8> = (0..case.x.iter().product::<usize>()).map(|i| (i * 37 + i / 11 * 101) as u8).collect();
            let [w, dy] = case.others(precision);
            let (abs, others) = ([&w, &dy].map(|v| magnitudes(v)), [&w[..], &dy[..]]);
            let (f64s, f32s, [of_w, _, of_y]) = (Cpu::<f64>::new(), Cpu::<f32>::new(), case.terms());
            let results = [
                case.of_images(&**cuda, Images::Bytes(&bytes), others),
                case.of_images(&f64s, Images::Bytes(&bytes), others),
                case.of_images(&f32s, Images::Bytes(&bytes), others),
                case.of_images(&f64s, Images::Bytes(&bytes), [&abs[0], &abs[1]]),
            ];
            check(
                &format!("{precision} {case:?} of bytes"),
                precision,
                results,
                [of_w, of_y],
                input_rounding(precision),
            );
            let x = numbers(precision, bytes.len(), 1.0);
            let results = [
                case.of_images(&**cuda, Images::Numbers(&x), others),
                case.of_images(&f64s, Images::Numbers(&x), others),
                case.of_images(&f32s, Images::Numbers(&x), others),
                case.of_images(&f64s, Images::Numbers(&magnitudes(&x)), [&abs[0], &abs[1]]),
            ];
            check(&format!("{precision} {case:?} of numbers"), precision, results, [of_w, of_y], 0.0);
        }
    });
}

/// Rows, inputs, outputs: products whose leading dimensions divide by 8, and one where none does.
const LINEAR: [[usize; 3]; 4] = [[8, 16, 24], [7, 5, 3], [33, 64, 10], [2, 1, 1]];

/// y without and with a bias, dx, dw, db.
fn linear<B: Layers>(backend: &B, [m, i, o]: [usize; 3], [x, w, b, dy]: [&[f64]; 4]) -> [Vec<f64>; 5] {
    let (x, dy) = (backend.activations([m, i], x), backend.activations([m, o], dy));
    let (w, b) = (backend.parameter([o, i], w), backend.parameter([o], b));
    let results = [
        backend.linear_forward(&x, &w, None).unwrap(),
        backend.linear_forward(&x, &w, Some(&b)).unwrap(),
        backend.linear_backward_data(&w, &dy).unwrap(),
        backend.linear_backward_weight(&x, &dy).unwrap(),
        backend.linear_backward_bias(&dy).unwrap(),
    ];
    let shapes = [[m, o].into(), [m, o].into(), [m, i].into(), [o, i].into(), Shape::from([o])];
    assert_eq!(results.each_ref().map(|result| result.shape()), shapes);
    results.map(|result| backend.read(&result))
}

#[test]
fn linear_layers_are_the_cpus() {
    in_each_precision(|cuda, precision| {
        for case @ [m, i, o] in LINEAR {
            let values = [m * i, o * i, o, m * o].map(|count| numbers(precision, count, 1.0));
            let all = values.each_ref().map(|values| &values[..]);
            let abs = values.each_ref().map(|values| magnitudes(values));
            let results = [
                linear(&**cuda, case, all),
                linear(&Cpu::<f64>::new(), case, all),
                linear(&Cpu::<f32>::new(), case, all),
                linear(&Cpu::<f64>::new(), case, abs.each_ref().map(|values| &values[..])),
            ];
            check(&format!("{precision} linear {case:?}"), precision, results, [i, i + 1, o, m, m], 0.0);
        }
    });
}

/// Wrong types and sizes are errors, on the host, and leave the device usable.
#[test]
fn what_does_not_fit_is_an_error() {
    let cuda: &Device = &crate::cuda(Precision::Bf16);
    let (x, w) = (cuda.parameter([4, 8], &[1.0; 32]), cuda.parameter([8, 8], &[1.0; 64]));
    assert!(cuda.linear_forward(&x, &w, None).is_err(), "activations in f32 where bf16 is due");
    assert!(cuda.upload(Shape::from([3]), &[1.0]).is_err());
    assert!(cuda.upload_images(Shape::from([1, 2, 2, 3]), &[0; 11]).is_err());
    assert!(cuda.scalar(&x).is_err());
    let images = cuda.parameter([1, 2, 2, 8], &[1.0; 32]);
    let filter = cuda.parameter([8, 5, 5, 8], &[1.0; 1600]);
    let window = Window { kernel: [5, 5], stride: 1, padding: 0 };
    assert!(cuda.conv2d_forward(&images, &filter, window).is_err(), "a window that is larger than the image");
    let x = cuda.to_activations(&x).unwrap();
    assert_eq!(cuda.read(&cuda.linear_forward(&x, &w, None).unwrap()), [8.0; 32]);
}
