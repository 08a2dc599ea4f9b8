//! Convolution against seven loops.

use disentangle::backend::cpu::{Cpu, Real};
use disentangle::backend::{Backend, Window};
use disentangle::rng::Stream;

use super::{normal, random, upload};

/// One convolution to check.
struct Conv {
    /// N, H, W, C
    x: [usize; 4],
    filters: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
}

impl Conv {
    fn window(&self) -> Window {
        Window { kernel: self.kernel, stride: self.stride, padding: self.padding }
    }

    /// P, Q
    fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.window().output(axis, self.x[axis + 1]).unwrap())
    }

    /// Calls `f` with the flat positions in y, x and w of every product of the convolution.
    fn products(&self, mut f: impl FnMut(usize, usize, usize)) {
        let ([n, h, w, c], [p, q], [kernel_rows, kernel_columns]) = (self.x, self.output(), self.kernel);
        for n in 0..n {
            for p_at in 0..p {
                for q_at in 0..q {
                    for k in 0..self.filters {
                        let y = ((n * p + p_at) * q + q_at) * self.filters + k;
                        for r in 0..kernel_rows {
                            let row = (p_at * self.stride + r).wrapping_sub(self.padding);
                            for s in 0..kernel_columns {
                                let column = (q_at * self.stride + s).wrapping_sub(self.padding);
                                for c_at in 0..c {
                                    if row < h && column < w {
                                        let x = ((n * h + row) * w + column) * c + c_at;
                                        f(y, x, ((k * kernel_rows + r) * kernel_columns + s) * c + c_at);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// y, dx, dw of x, w, dy by plain loops.
    fn loops<T: Real>(&self, x: &[T], w: &[T], dy: &[T]) -> [Vec<T>; 3] {
        let (mut y, mut dx, mut dw) = (vec![T::ZERO; dy.len()], vec![T::ZERO; x.len()], vec![T::ZERO; w.len()]);
        self.products(|y_at, x_at, w_at| {
            y[y_at] += x[x_at] * w[w_at];
            dx[x_at] += dy[y_at] * w[w_at];
            dw[w_at] += dy[y_at] * x[x_at];
        });
        [y, dx, dw]
    }

    fn engine<T: Real>(&self, x: &[f64], w: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
        let (cpu, window, [p, q]) = (Cpu::<T>::new(), self.window(), self.output());
        let [kernel_rows, kernel_columns] = self.kernel;
        let x = upload(&cpu, self.x, x);
        let w = upload(&cpu, [self.filters, kernel_rows, kernel_columns, self.x[3]], w);
        let dy = upload(&cpu, [self.x[0], p, q, self.filters], dy);
        let y = cpu.conv2d_forward(&x, &w, window).unwrap();
        let dx = cpu.conv2d_backward_data(&w, &dy, x.shape(), window).unwrap();
        let dw = cpu.conv2d_backward_filter(&x, &dy, w.shape(), window).unwrap();
        [y, dx, dw].map(|tensor| cpu.download(&tensor).unwrap())
    }

    /// Compares f32 with the error of plain f32 loops, and f64 with plain loops.
    fn check(&self, r: &mut Stream) {
        let single = |values: Vec<f64>| -> Vec<f64> { values.into_iter().map(|x| f64::from(x as f32)).collect() };
        let [p, q] = self.output();
        let [x_len, w_len, y_len] = [
            self.x.iter().product(),
            self.filters * self.kernel[0] * self.kernel[1] * self.x[3],
            self.x[0] * p * q * self.filters,
        ];
        let [x, w, dy] = [x_len, w_len, y_len].map(|len| single(normal(r, len)));
        let exact = self.loops(&x, &w, &dy);
        let [x32, w32, dy32] = [&x, &w, &dy].map(|v| v.iter().map(|&x| x as f32).collect::<Vec<f32>>());
        let plain = self.loops(&x32, &w32, &dy32);
        let magnitudes = [&x, &w, &dy].map(|v| v.iter().map(|x| x.abs()).collect::<Vec<f64>>());
        let magnitudes = self.loops(&magnitudes[0], &magnitudes[1], &magnitudes[2]);
        let engines = [self.engine::<f32>(&x, &w, &dy), self.engine::<f64>(&x, &w, &dy)];
        for (i, what) in ["y", "dx", "dw"].into_iter().enumerate() {
            let worst = |got: &mut dyn Iterator<Item = f64>| {
                got.zip(&exact[i]).map(|(got, exact)| (got - exact).abs()).fold(0.0, f64::max)
            };
            let plain = worst(&mut plain[i].iter().map(|&v| f64::from(v)));
            let ours = worst(&mut engines[0][i].iter().copied());
            // The largest of few errors is a matter of luck: two roundings of the largest sum of magnitudes are free.
            let largest = magnitudes[i].iter().copied().fold(0.0, f64::max);
            let floor = f64::from(f32::EPSILON) * largest;
            let place = format!("{what} of {:?}, {} filters, {:?}", self.x, self.filters, self.window());
            assert!(ours <= 2.0 * plain + floor, "{place}: error {ours:.2e}, plain loops {plain:.2e}");
            let double = worst(&mut engines[1][i].iter().copied());
            let terms = magnitudes[i].len() as f64 + 1e4;
            assert!(double <= terms * f64::EPSILON * largest, "{place}, f64: error {double:.2e}");
        }
    }
}

#[test]
fn conv2d_is_seven_loops() {
    let mut r = random(4, 0);
    let size = |r: &mut Stream, low: u32, high: u32| (low + r.below(high - low + 1)) as usize;
    for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 2, 0), (7, 2, 3), (1, 1, 0), (2, 3, 1), (5, 1, 0)] {
        // Channels below and above those that are lowered.
        for channels in [[1, 9], [16, 40]] {
            for _ in 0..3 {
                let side = |r: &mut Stream| size(r, kernel as u32, kernel as u32 + 9);
                let x = [size(&mut r, 1, 12), side(&mut r), side(&mut r), size(&mut r, channels[0], channels[1])];
                let filters = size(&mut r, 1, 80);
                Conv { x, filters, kernel: [kernel; 2], stride, padding }.check(&mut r);
            }
        }
    }
    // Kernels that are not square.
    Conv { x: [3, 9, 8, 17], filters: 5, kernel: [3, 1], stride: 1, padding: 0 }.check(&mut r);
    Conv { x: [2, 7, 9, 4], filters: 6, kernel: [2, 5], stride: 2, padding: 1 }.check(&mut r);
}

#[test]
fn conv2d_of_more_images_than_a_block() {
    let mut r = random(5, 0);
    for (x, filters, kernel, stride, padding) in [
        ([261, 3, 2, 16], 5, 3, 1, 1),
        ([300, 2, 3, 17], 7, 3, 2, 1),
        ([257, 4, 4, 3], 6, 3, 1, 1),
        ([513, 1, 1, 18], 3, 3, 1, 1),
        ([270, 2, 2, 20], 9, 1, 1, 0),
    ] {
        Conv { x, filters, kernel: [kernel; 2], stride, padding }.check(&mut r);
    }
}

// -- Batch norm ---------------------------------------------------------------------------------------------------------
