//! Sums of products in f32, in a stated order.
//!
//! Every product and every sum is rounded once (no fused multiply-add), so the result is the same on every processor. Of bf16
//! numbers the product is exact.

use std::ops::Range;

/// Rows that share a load of `b`.
const HEIGHT: usize = 4;

/// A matrix: rows of `pitch` numbers, of which the first columns count.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Its numbers.
    pub values: &'a [f32],
    /// From a row to the next.
    pub pitch: usize,
}

/// `out[i][j] += sum over k of a[i][k] * b[k][j]`, k ascending, for rows `i` of `a` and columns `j < columns`. Row `i` of the
/// result begins at `out[i * pitch]`.
pub fn accumulate(out: &mut [f32], pitch: usize, columns: usize, a: &[&[f32]], b: Rows<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn with_avx2(out: &mut [f32], pitch: usize, columns: usize, a: &[&[f32]], b: Rows<'_>) {
            body(out, pitch, columns, a, b);
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it, as just seen.
            return unsafe { with_avx2(out, pitch, columns, a, b) };
        }
    }
    body(out, pitch, columns, a, b);
}

#[inline(always)]
fn body(out: &mut [f32], pitch: usize, columns: usize, a: &[&[f32]], b: Rows<'_>) {
    for (group, rows) in a.chunks(HEIGHT).enumerate() {
        let out = &mut out[group * HEIGHT * pitch..];
        let wide = strip::<16>(out, pitch, 0..columns, rows, b);
        let narrow = strip::<4>(out, pitch, wide..columns, rows, b);
        strip::<1>(out, pitch, narrow..columns, rows, b);
    }
}

/// Sums `W` columns at a time as far as they go; where it stopped.
#[inline(always)]
fn strip<const W: usize>(out: &mut [f32], pitch: usize, columns: Range<usize>, rows: &[&[f32]], b: Rows<'_>) -> usize {
    let mut column = columns.start;
    while column + W <= columns.end {
        match rows {
            [r0, r1, r2, r3] => tile::<4, W>([r0, r1, r2, r3], &mut out[column..], pitch, b, column),
            _ => {
                for (i, row) in rows.iter().enumerate() {
                    tile::<1, W>([row], &mut out[i * pitch + column..], pitch, b, column);
                }
            }
        }
        column += W;
    }
    column
}

#[inline(always)]
fn tile<const N: usize, const W: usize>(a: [&[f32]; N], out: &mut [f32], pitch: usize, b: Rows<'_>, column: usize) {
    let mut sums = [[0f32; W]; N];
    for (i, sum) in sums.iter_mut().enumerate() {
        sum.copy_from_slice(&out[i * pitch..][..W]);
    }
    let depth = a[0].len();
    let a = a.map(|row| &row[..depth]);
    for k in 0..depth {
        let line: &[f32; W] = b.values[k * b.pitch + column..].first_chunk().expect("a row of b");
        for (sum, row) in sums.iter_mut().zip(&a) {
            let x = row[k];
            for (s, y) in sum.iter_mut().zip(line) {
                *s += x * y;
            }
        }
    }
    for (i, sum) in sums.iter().enumerate() {
        out[i * pitch..][..W].copy_from_slice(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_shape_sums_in_order() {
        let value = |i: usize| ((i * 2654435761) % 1000) as f32 / 997.0 - 0.5;
        for (m, n, k) in [(1, 1, 1), (3, 17, 5), (4, 16, 9), (6, 35, 33), (9, 7, 2), (2, 16, 0), (5, 23, 6)] {
            let a: Vec<f32> = (0..m * k).map(value).collect();
            let b: Vec<f32> = (0..k * (n + 2)).map(|i| value(i + 7)).collect();
            let mut out: Vec<f32> = (0..m * (n + 3)).map(|i| value(i + 3)).collect();
            let mut want = out.clone();
            for i in 0..m {
                for j in 0..n {
                    for l in 0..k {
                        want[i * (n + 3) + j] += a[i * k + l] * b[l * (n + 2) + j];
                    }
                }
            }
            let rows: Vec<&[f32]> = (0..m).map(|i| &a[i * k..][..k]).collect();
            accumulate(&mut out, n + 3, n, &rows, Rows { values: &b, pitch: n + 2 });
            assert_eq!(out, want, "{m} {n} {k}");
        }
    }
}
