//! The weights of Pillow's triangle filter along one axis, in fixed point.

/// Fraction bits of a weight. A sum of 8-bit pixels under weights of sum 1 then fits in 31 bits.
pub(super) const FRACTION_BITS: u32 = 22;
/// Where sums start: rounds half up.
pub(super) const HALF: u32 = 1 << (FRACTION_BITS - 1);

/// The filter along one axis: for each target position the first source position and `count` weights.
///
/// Every position has the same count: shorter filters are padded with zeros, and a window that would reach past the
/// end starts earlier. That changes no sum and gives the inner loops a constant length (2 when enlarging).
#[derive(Default)]
pub(super) struct Filter {
    /// Weights per position.
    pub(super) count: usize,
    starts: Vec<usize>,
    weights: Vec<u32>,
    /// Weights of one position before normalisation.
    raw: Vec<f64>,
}

impl Filter {
    /// The triangle filter from `source` to `target` positions, both at least 1. The order of the floating-point
    /// operations is Pillow's (`precompute_coeffs`, `normalize_coeffs_8bpc`).
    #[inline(always)]
    pub(super) fn compute(&mut self, source: usize, target: usize) {
        let scale = source as f64 / target as f64;
        let support = scale.max(1.0);
        let inverse = 1.0 / support;
        let widest = (2 * support.ceil() as usize + 1).min(source);
        self.starts.clear();
        self.weights.clear();
        self.count = 1;
        for position in 0..target {
            let center = (position as f64 + 0.5) * scale;
            let first = (center - support + 0.5) as usize; // negative becomes 0
            let end = ((center + support + 0.5) as usize).min(source);
            self.raw.clear();
            self.raw.extend((first..end).map(|x| (1.0 - ((x as f64 - center + 0.5) * inverse).abs()).max(0.0)));
            let sum: f64 = self.raw.iter().sum();
            let fixed = |w: &f64| (0.5 + w / sum * f64::from(1 << FRACTION_BITS)) as u32;
            let zeros = self.raw.iter().take_while(|w| fixed(w) == 0).count();
            let filled = self.weights.len();
            self.weights.extend(self.raw[zeros..].iter().map(fixed));
            while self.weights.len() > filled && self.weights.last() == Some(&0) {
                self.weights.pop();
            }
            self.count = self.count.max(self.weights.len() - filled);
            self.weights.resize(filled + widest, 0);
            self.starts.push(first + zeros);
        }
        self.compact(source, widest);
    }

    /// Brings the weights from `stride` to `count` per position and the windows inside the source.
    #[inline(always)]
    fn compact(&mut self, source: usize, stride: usize) {
        let count = self.count;
        for (position, start) in self.starts.iter_mut().enumerate() {
            self.weights.copy_within(position * stride..position * stride + count, position * count);
            let last = source - count;
            if *start > last {
                self.weights[position * count..(position + 1) * count].rotate_right(*start - last);
                *start = last;
            }
        }
        self.weights.truncate(self.starts.len() * count);
    }

    /// The first source position and the weights of a target position.
    #[inline(always)]
    pub(super) fn window(&self, position: usize) -> (usize, &[u32]) {
        (self.starts[position], &self.weights[position * self.count..(position + 1) * self.count])
    }
}
