//! Gaussian blur, bit for bit OpenCV's `GaussianBlur` on uint8 with `BORDER_REFLECT_101`.
//!
//! OpenCV rounds the kernel to 8 fraction bits so that its weights sum to exactly 256. A row pass over 8-bit pixels is then
//! exact in 16 bits, a column pass over those exact in 32, and only the last shift rounds. The column pass here never
//! leaves 16 bits: high and low bytes are summed apart, each at most 255 x 256.

/// A Gaussian blur.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Blur {
    /// Side of the kernel in pixels, odd, at most [`Blur::MAX_KERNEL`].
    pub kernel: usize,
    /// Standard deviation in pixels, positive.
    pub sigma: f64,
}

impl Blur {
    /// Largest side of the kernel.
    pub const MAX_KERNEL: usize = 255;

    /// True if the kernel is odd and not too large and sigma is positive.
    pub(super) fn is_valid(&self) -> bool {
        self.kernel % 2 == 1 && self.kernel <= Self::MAX_KERNEL && self.sigma > 0.0 && self.sigma.is_finite()
    }
}

/// Columns whose sums are kept in registers.
const BLOCK: usize = 32;

/// Kernel, row ring and padded row, reused from view to view.
#[derive(Default)]
pub(super) struct Blurrer {
    /// Weight at distance 0, 1, ... from the centre, of 256; trailing zeros removed.
    weights: Vec<u16>,
    exact: Vec<f64>,
    padded: Vec<u8>,
    ring: Vec<u16>,
    /// Where in the ring each row of the plane starts.
    starts: Vec<usize>,
    /// The starts of the rows at distance 0, 1, ... above and below the current one.
    slots: Vec<[usize; 2]>,
}

impl Blurrer {
    /// Blurs three planes of `width` columns in place.
    #[inline(always)]
    pub(super) fn run(&mut self, blur: Blur, planes: [&mut [u8]; 3], width: usize) {
        self.prepare(blur);
        for plane in planes {
            self.blur_plane(plane, width);
        }
    }

    /// OpenCV's kernel: f64 weights, then each rounded with the error carried on from the rim inwards, and the centre
    /// what is missing to 256.
    #[inline(always)]
    fn prepare(&mut self, Blur { kernel, sigma }: Blur) {
        let radius = kernel / 2;
        let scale = -0.125 / (sigma * sigma);
        self.exact.clear();
        // Distances in half pixels, from the rim inwards.
        self.exact.extend((1..=radius).rev().map(|d| (((2 * d) * (2 * d)) as f64 * scale).exp()));
        let norm = 1.0 / (2.0 * self.exact.iter().sum::<f64>() + 1.0);
        let (mut error, mut total) = (0.0, 0);
        self.weights.clear();
        for weight in &self.exact {
            let wanted = weight * norm * 256.0 + error;
            let rounded = wanted.round_ties_even();
            error = wanted - rounded;
            total += rounded as u16;
            self.weights.push(rounded as u16);
        }
        self.weights.push(256 - 2 * total);
        self.weights.reverse();
        while self.weights.len() > 1 && self.weights.last() == Some(&0) {
            self.weights.pop();
        }
    }

    /// Rows pass through a ring just ahead of the row that is written, so the plane needs no copy.
    #[inline(always)]
    fn blur_plane(&mut self, plane: &mut [u8], width: usize) {
        let radius = self.weights.len() - 1;
        if radius == 0 {
            return; // one weight of 256: the identity
        }
        let height = plane.len() / width;
        // Reflection stays within `radius` of the row unless the plane is lower than the kernel; then all rows are kept.
        let depth = height.min(2 * radius + 1);
        let stride = width.next_multiple_of(BLOCK);
        self.padded.resize(stride + 2 * radius, 0);
        self.ring.resize(depth * stride, 0);
        // Divisions are as dear as a block of sums: one for each row, not one for each row and weight.
        self.starts.clear();
        self.starts.extend((0..height).map(|row| row % depth * stride));
        let mut passed = 0;
        for y in 0..height {
            while passed < height.min(y + radius + 1) {
                pad(&plane[passed * width..(passed + 1) * width], radius, &mut self.padded);
                let start = self.starts[passed];
                row_pass(&self.padded, &self.weights, &mut self.ring[start..start + stride]);
                passed += 1;
            }
            self.slots.clear();
            for distance in 0..=radius as isize {
                let (above, below) = (y as isize - distance, y as isize + distance);
                self.slots.push([self.starts[reflect(above, height)], self.starts[reflect(below, height)]]);
            }
            column_pass(&self.ring, &self.slots, &self.weights, &mut plane[y * width..(y + 1) * width]);
        }
    }
}

/// `BORDER_REFLECT_101`: position -1 is 1, -2 is 2, ..., and likewise at the end; a single pixel repeats.
#[inline(always)]
fn reflect(position: isize, len: usize) -> usize {
    if (0..len as isize).contains(&position) {
        return position as usize;
    }
    if len == 1 {
        return 0;
    }
    let period = 2 * (len - 1);
    let phase = position.rem_euclid(period as isize) as usize;
    phase.min(period - phase)
}

/// Copies a row between `radius` reflected pixels on either side.
#[inline(always)]
fn pad(row: &[u8], radius: usize, padded: &mut [u8]) {
    padded[radius..radius + row.len()].copy_from_slice(row);
    for i in 1..=radius {
        padded[radius - i] = row[reflect(-(i as isize), row.len())];
        padded[radius + row.len() - 1 + i] = row[reflect((row.len() - 1 + i) as isize, row.len())];
    }
}

/// Row pass: sums of 256 x pixel, in 16 bits; `out` is a whole number of blocks.
#[inline(always)]
fn row_pass(padded: &[u8], weights: &[u16], out: &mut [u16]) {
    let radius = weights.len() - 1;
    for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let mut sums = [0u16; BLOCK];
        for (sum, &value) in sums.iter_mut().zip(&padded[block * BLOCK + radius..][..BLOCK]) {
            *sum = weights[0] * u16::from(value);
        }
        for (distance, &weight) in (1..).zip(&weights[1..]) {
            let left = &padded[block * BLOCK + radius - distance..][..BLOCK];
            let right = &padded[block * BLOCK + radius + distance..][..BLOCK];
            for ((sum, &left), &right) in sums.iter_mut().zip(left).zip(right) {
                *sum = sum.wrapping_add(weight.wrapping_mul(u16::from(left) + u16::from(right)));
            }
        }
        *out = sums;
    }
}

/// Column pass: the weighted sum of the ring's rows at `slots`, rounded half up to 8 bits.
#[inline(always)]
fn column_pass(ring: &[u16], slots: &[[usize; 2]], weights: &[u16], out: &mut [u8]) {
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let (mut high, mut low) = ([0u16; BLOCK], [0u16; BLOCK]);
        let centre = &ring[slots[0][0] + block * BLOCK..][..BLOCK];
        for ((high, low), &value) in high.iter_mut().zip(&mut low).zip(centre) {
            (*high, *low) = (weights[0].wrapping_mul(value >> 8), weights[0].wrapping_mul(value & 255));
        }
        for (&[above, below], &weight) in slots[1..].iter().zip(&weights[1..]) {
            let above = &ring[above + block * BLOCK..][..BLOCK];
            let below = &ring[below + block * BLOCK..][..BLOCK];
            for (((high, low), &above), &below) in high.iter_mut().zip(&mut low).zip(above).zip(below) {
                *high = high.wrapping_add(weight.wrapping_mul((above >> 8) + (below >> 8)));
                *low = low.wrapping_add(weight.wrapping_mul((above & 255) + (below & 255)));
            }
        }
        let mut bytes = [0u8; BLOCK];
        for ((byte, high), low) in bytes.iter_mut().zip(high).zip(low) {
            *byte = ((high + (low >> 8) + 128) >> 8) as u8;
        }
        match out.first_chunk_mut() {
            Some(whole) => *whole = bytes,
            None => out.copy_from_slice(&bytes[..out.len()]),
        }
    }
}
