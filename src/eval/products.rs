//! Products of all rows of one matrix with all rows of another, in f64.

use rayon::prelude::*;

/// Rows of the first matrix a task multiplies.
const BLOCK: usize = 64;

/// `out[i * m + j] = a_i . b_j` for the n rows of `a` and the m rows of `b`, both of `dim` numbers, row-major; `out` is
/// n x m. On one thread; cost: 2 n m dim flops.
///
/// # Panics
/// If the lengths do not fit together.
pub(crate) fn dots(a: &[f64], b: &[f64], dim: usize, out: &mut [f64]) {
    let (n, m) = (a.len() / dim, b.len() / dim);
    assert!(a.len() == n * dim && b.len() == m * dim && out.len() == n * m, "rows of {dim}");
    // SAFETY: `a` is n x dim, `b` m x dim (read transposed), `out` n x m, all dense and row-major of exactly these lengths
    // (asserted); `out` is uniquely borrowed.
    unsafe {
        gemm::gemm(
            n,
            m,
            dim,
            out.as_mut_ptr(),
            1,
            m as isize,
            false,
            a.as_ptr(),
            1,
            dim as isize,
            b.as_ptr(),
            dim as isize,
            1,
            0.0f64,
            1.0f64,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// [`dots`] on all threads. Blocks of rows are fixed, so that bits do not depend on the number of threads.
pub(crate) fn dots_parallel(a: &[f64], b: &[f64], dim: usize, out: &mut [f64]) {
    let m = b.len() / dim;
    out.par_chunks_mut(BLOCK * m).zip(a.par_chunks(BLOCK * dim)).for_each(|(out, a)| dots(a, b, dim, out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_products() {
        // Small integers: exact in any order.
        let (n, m, dim) = (2 * BLOCK + 3, 7, 5);
        let number = |i: usize| ((i * 37) % 11) as f64 - 5.0;
        let a: Vec<f64> = (0..n * dim).map(number).collect();
        let b: Vec<f64> = (0..m * dim).map(|i| number(i + 3)).collect();
        let mut out = vec![f64::NAN; n * m];
        dots_parallel(&a, &b, dim, &mut out);
        for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
            let expected: f64 = (0..dim).map(|d| a[i * dim + d] * b[j * dim + d]).sum();
            assert_eq!(out[i * m + j], expected, "{i} {j}");
        }
    }
}
