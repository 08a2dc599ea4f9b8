//! Convolutions by plain loops in double precision.

/// Which of a convolution's tensors is the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Direction {
    Forward,
    Data,
    Filter,
}

pub const DIRECTIONS: [Direction; 3] = [Direction::Forward, Direction::Data, Direction::Filter];

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub images: usize,
    pub channels: usize,
    pub size: [usize; 2],
    pub filters: usize,
    pub taps: [usize; 2],
    pub stride: usize,
    pub before: [usize; 2],
    pub after: [usize; 2],
}

impl Shape {
    /// A square filter with the same padding on all sides.
    pub fn new(
        images: usize,
        channels: usize,
        size: [usize; 2],
        filters: usize,
        taps: usize,
        stride: usize,
        pad: usize,
    ) -> Shape {
        Shape { images, channels, size, filters, taps: [taps; 2], stride, before: [pad; 2], after: [pad; 2] }
    }
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|i| (self.size[i] + self.before[i] + self.after[i] - self.taps[i]) / self.stride + 1)
    }
    pub fn x(&self) -> [i64; 4] {
        [self.images, self.channels, self.size[0], self.size[1]].map(|v| v as i64)
    }
    pub fn w(&self) -> [i64; 4] {
        [self.filters, self.channels, self.taps[0], self.taps[1]].map(|v| v as i64)
    }
    pub fn y(&self) -> [i64; 4] {
        let [p, q] = self.output();
        [self.images, self.filters, p, q].map(|v| v as i64)
    }
    pub fn dims(&self, direction: Direction) -> [i64; 4] {
        match direction {
            Direction::Forward => self.y(),
            Direction::Data => self.x(),
            Direction::Filter => self.w(),
        }
    }
}

/// The place of an element.
pub fn place(index: [usize; 4], strides: [i64; 4]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s as usize).sum()
}

/// The result and, for each of its elements, the sum of its summands' sizes and how many they are. `of` are the two inputs
/// in the order x, w, y (without the result), each with its strides.
pub fn convolve(direction: Direction, s: &Shape, of: [(&[f32], [i64; 4]); 2], to: [i64; 4]) -> Vec<(f64, f64, u32)> {
    let dims = s.dims(direction);
    let len = 1 + dims.iter().zip(to).map(|(d, s)| (d - 1) * s).sum::<i64>();
    let mut out = vec![(0.0, 0.0, 0); len as usize];
    let [p, q] = s.output();
    let at = |(values, strides): (&[f32], [i64; 4]), index| values[place(index, strides)] as f64;
    for n in 0..s.images {
        for (k, c) in (0..s.filters).flat_map(|k| (0..s.channels).map(move |c| (k, c))) {
            for (i, j) in (0..p).flat_map(|i| (0..q).map(move |j| (i, j))) {
                for (r, t) in (0..s.taps[0]).flat_map(|r| (0..s.taps[1]).map(move |t| (r, t))) {
                    let (h, v) =
                        ((i * s.stride + r).wrapping_sub(s.before[0]), (j * s.stride + t).wrapping_sub(s.before[1]));
                    if h >= s.size[0] || v >= s.size[1] {
                        continue;
                    }
                    let (x, w, y) = ([n, c, h, v], [k, c, r, t], [n, k, i, j]);
                    let (term, result) = match direction {
                        Direction::Forward => (at(of[0], x) * at(of[1], w), y),
                        Direction::Data => (at(of[0], w) * at(of[1], y), x),
                        Direction::Filter => (at(of[0], x) * at(of[1], y), w),
                    };
                    let sum = &mut out[place(result, to)];
                    *sum = (sum.0 + term, sum.1 + term.abs(), sum.2 + 1);
                }
            }
        }
    }
    out
}
