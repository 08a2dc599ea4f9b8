//! Products against plain loops in double precision.

mod common;

use common::*;
use cudarc::cublaslt::sys::{cublasComputeType_t, cublasLtEpilogue_t, cudaDataType, cudaDataType_t};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

const F32: cudaDataType = cudaDataType_t::CUDA_R_32F;
const BF16: cudaDataType = cudaDataType_t::CUDA_R_16BF;

/// Half the distance between neighbours, of a number of size 1.
fn half_ulp(number: cudaDataType) -> f64 {
    if number == BF16 { 0.5f64.powi(8) } else { 0.5f64.powi(24) }
}

/// What is added to a product, and the vector at the bias pointer.
struct Vector {
    values: Vec<f32>,
    buffer: cudarc::driver::CudaSlice<u8>,
}

fn vector(lt: &Lt, spec: &mut Spec, n: u64) -> Vector {
    let lay = Lay::columns(spec.d.number, n, 1, 0);
    let (buffer, values) = upload(lt, &lay, &numbers(n as usize, 9));
    spec.bias = address(&buffer);
    Vector { values, buffer }
}

/// The index of an element of op(X) in X.
fn turned(transposed: bool, i: u64, j: u64) -> (u64, u64) {
    if transposed { (j, i) } else { (i, j) }
}

/// Runs a product with each algorithm that the heuristic lists, and checks every element of D, and the gaps.
fn check(lt: &Lt, spec: &Spec, [alpha, beta]: [f32; 2], bias: Option<&[f32]>) {
    let product = Product::new(lt, spec);
    assert!(!product.algorithms.is_empty(), "{spec:?}");
    let (a, va) = upload(lt, &spec.a, &numbers(spec.a.len(), 1));
    let (b, vb) = upload(lt, &spec.b, &numbers(spec.b.len(), 2));
    let (c, vc) = upload(lt, &spec.c, &numbers(spec.c.len(), 3));
    let workspace = lt.stream.alloc_zeros::<u8>(spec.workspace as usize).unwrap();
    let (m, n) = (spec.d.rows, spec.d.cols);
    let k = if spec.transposed[0] { spec.a.rows } else { spec.a.cols };
    for algo in 0..product.algorithms.len() {
        let (d, before) = upload(lt, &spec.d, &numbers(spec.d.len(), 4));
        let at = [address(&a), address(&b), address(&c), address(&d)];
        let size = product.algorithms[algo].workspaceSize;
        let status = product.run(lt, at, [alpha, beta], Some(algo), (address(&workspace), size));
        assert_eq!(status, CUBLAS_STATUS_SUCCESS, "{}", lt.gpu.last_report());
        let got = download(lt, spec.d.number, &d);
        let mut inside = vec![false; got.len()];
        for i in 0..m {
            for j in 0..n {
                let (mut sum, mut size) = (0f64, 0f64);
                for l in 0..k {
                    let (p, q) = (turned(spec.transposed[0], i, l), turned(spec.transposed[1], l, j));
                    let term = va[spec.a.place(p.0, p.1)] as f64 * vb[spec.b.place(q.0, q.1)] as f64;
                    (sum, size) = (sum + term, size + term.abs());
                }
                let more = beta as f64 * vc[spec.c.place(i, j)] as f64 + bias.map_or(0.0, |v| v[i as usize] as f64);
                let want = alpha as f64 * sum + more;
                // A rounding for each product and sum in f32, then one to the type of D.
                let steps = (2 * k + 6) as f64 * 0.5f64.powi(24);
                let tolerance = steps * (alpha.abs() as f64 * size + more.abs()) + want.abs() * half_ulp(spec.d.number);
                let place = spec.d.place(i, j);
                inside[place] = true;
                assert!(
                    (got[place] as f64 - want).abs() <= tolerance,
                    "({i},{j}): {} for {want}, {spec:?}",
                    got[place]
                );
            }
        }
        let kept = got.iter().zip(&before).zip(&inside).all(|((g, b), inside)| *inside || g == b);
        assert!(kept, "what lies between D's columns was written");
    }
    assert_eq!(lt.gpu.last_report(), "");
}

#[test]
fn every_transposition_order_type_and_gap() {
    let lt = lt();
    for (m, n, k) in [(1, 1, 1), (3, 5, 7), (16, 24, 33), (40, 17, 8), (64, 48, 40)] {
        for (i, (number, result)) in [(F32, F32), (BF16, BF16), (BF16, F32)].into_iter().enumerate() {
            for flags in 0..16u64 {
                let [ta, tb, ra, rb] = [0, 1, 2, 3].map(|bit| flags >> bit & 1 == 1);
                let gap = (flags + i as u64) % 3 * 8;
                let lay = |by_rows, (rows, cols)| match by_rows {
                    true => Lay::rows(number, rows, cols, gap),
                    false => Lay::columns(number, rows, cols, gap),
                };
                let mut spec = Spec::plain(result, m, n, k);
                spec.a = lay(ra, turned(ta, m, k));
                spec.b = lay(rb, turned(tb, k, n));
                spec.d = if flags % 5 == 1 { Lay::rows(result, m, n, gap) } else { Lay::columns(result, m, n, gap) };
                spec.c = Lay { ld: spec.d.ld + 8, ..spec.d };
                spec.transposed = [ta, tb];
                check(&lt, &spec, [1.0, 0.0], None);
            }
        }
    }
}

#[test]
fn scalars_and_c() {
    let lt = lt();
    for number in [F32, BF16] {
        let spec = Spec::plain(number, 24, 8, 16);
        check(&lt, &spec, [0.5, 0.0], None);
        check(&lt, &spec, [-1.5, 1.0], None);
        check(&lt, &spec, [1.0, 0.25], None);
    }
}

#[test]
fn in_place_and_without_c() {
    let lt = lt();
    let spec = Spec::plain(F32, 8, 4, 2);
    let product = Product::new(&lt, &spec);
    let (a, va) = upload(&lt, &spec.a, &numbers(16, 1));
    let (b, vb) = upload(&lt, &spec.b, &numbers(8, 2));
    let (d, before) = upload(&lt, &spec.d, &numbers(32, 3));
    let [pa, pb, pd] = [&a, &b, &d].map(address);
    assert_eq!(product.run(&lt, [pa, pb, pd, pd], [1.0, 1.0], None, (0, 0)), CUBLAS_STATUS_SUCCESS);
    let got = download(&lt, F32, &d);
    let want = before[9] + (va[1] * vb[2] + va[9] * vb[3]);
    assert!((got[9] - want).abs() < 1e-6, "{} for {want}", got[9]);
    assert_eq!(product.run(&lt, [pa, pb, 0, pd], [1.0, 0.0], None, (0, 0)), CUBLAS_STATUS_SUCCESS);
    assert!((download(&lt, F32, &d)[9] - (want - before[9])).abs() < 1e-6);
    assert_eq!(lt.gpu.last_report(), "");
}

#[test]
fn a_bias_is_added_to_rows() {
    let lt = lt();
    for number in [F32, BF16] {
        let mut spec = Spec::plain(number, 24, 10, 32);
        spec.epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        let bias = vector(&lt, &mut spec, 24);
        check(&lt, &spec, [1.0, 0.0], Some(&bias.values));
        check(&lt, &spec, [2.0, 1.0], Some(&bias.values));
    }
}

#[test]
fn gradients_of_the_bias_sum_over_k() {
    let lt = lt();
    let (m, n, k) = (8, 16, 40);
    use cublasLtEpilogue_t::{CUBLASLT_EPILOGUE_BGRADA, CUBLASLT_EPILOGUE_BGRADB};
    for (epilogue, length) in [(CUBLASLT_EPILOGUE_BGRADA, m), (CUBLASLT_EPILOGUE_BGRADB, n)] {
        for number in [F32, BF16] {
            let mut spec = Spec::plain(number, m, n, k);
            spec.b = Lay::columns(number, n, k, 0);
            spec.transposed = [false, true];
            spec.epilogue = epilogue;
            let gradient = vector(&lt, &mut spec, length);
            check(&lt, &spec, [1.0, 0.0], None);
            let got = download(&lt, number, &gradient.buffer);
            let (seed, lay) = if epilogue == CUBLASLT_EPILOGUE_BGRADA { (1, spec.a) } else { (2, spec.b) };
            let (_, values) = upload(&lt, &lay, &numbers(lay.len(), seed));
            for (i, got) in got.iter().enumerate() {
                let terms: Vec<f64> = (0..k).map(|l| values[lay.place(i as u64, l)] as f64).collect();
                let (sum, size) = (terms.iter().sum::<f64>(), terms.iter().map(|t| t.abs()).sum::<f64>());
                let tolerance = k as f64 * 0.5f64.powi(24) * size + sum.abs() * half_ulp(number);
                assert!((*got as f64 - sum).abs() <= tolerance, "{got} for {sum}");
            }
        }
    }
}

#[test]
fn tf32_rounds_the_inputs() {
    let lt = lt();
    let mut spec = Spec::plain(F32, 4, 4, 4);
    let near_one = 1.0 + 0.5f32.powi(12); // TF32 has 10 bits behind the point
    let (a, _) = upload(&lt, &spec.a, &[near_one; 16]);
    let (b, _) = upload(&lt, &spec.b, &[1.0; 16]);
    let (d, _) = upload(&lt, &spec.d, &[0.0; 16]);
    let at = [address(&a), address(&b), 0, address(&d)];
    for (compute, want) in [
        (cublasComputeType_t::CUBLAS_COMPUTE_32F, 4.0 * near_one),
        (cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32, 4.0),
    ] {
        spec.compute = compute;
        let product = Product::new(&lt, &spec);
        assert_eq!(product.run(&lt, at, [1.0, 0.0], None, (0, 0)), CUBLAS_STATUS_SUCCESS);
        assert_eq!(download(&lt, F32, &d), [want; 16]);
    }
}

#[test]
fn the_heuristic_honours_count_workspace_and_alignment() {
    let lt = lt();
    let mut spec = Spec::plain(F32, 16, 16, 16);
    let product = Product::new(&lt, &spec);
    assert_eq!(product.algorithms.len(), 3);
    assert!(product.algorithms[0].workspaceSize >= 2 * 16 * 16 * 4 && product.algorithms[1].workspaceSize == 0);
    assert_eq!(product.heuristic(&lt, 1).unwrap().len(), 1);
    spec.workspace = 0;
    assert!(Product::new(&lt, &spec).algorithms.iter().all(|a| a.workspaceSize == 0));
    spec.alignment = 4;
    assert_eq!(Product::new(&lt, &spec).algorithms.len(), 1);
    let odd = Spec::plain(BF16, 5, 3, 7);
    assert_eq!(Product::new(&lt, &odd).algorithms.len(), 1, "leading dimensions of 10 bytes");
    assert_eq!(lt.gpu.last_report(), "");
}

#[test]
fn a_capture_records_and_a_graph_replays() {
    let lt = lt();
    let spec = Spec::plain(F32, 16, 16, 16);
    let product = Product::new(&lt, &spec);
    let (a, _) = upload(&lt, &spec.a, &numbers(256, 1));
    let identity: Vec<f32> = (0..256).map(|i| (i % 17 == 0) as u8 as f32).collect();
    let (b, _) = upload(&lt, &spec.b, &identity);
    let (d, _) = upload(&lt, &spec.d, &[0.0; 256]);
    let workspace = lt.stream.alloc_zeros::<u8>(product.algorithms[0].workspaceSize).unwrap();
    let at = [address(&a), address(&b), address(&d), address(&d)];
    lt.stream.synchronize().unwrap();
    lt.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    for algo in [0, 1] {
        let size = product.algorithms[algo].workspaceSize;
        let status = product.run(&lt, at, [1.0, 1.0], Some(algo), (address(&workspace), size));
        assert_eq!(status, CUBLAS_STATUS_SUCCESS);
    }
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = lt.stream.end_capture(flags).unwrap().unwrap();
    drop(product); // a graph does not need the descriptors any more
    assert_eq!(download(&lt, F32, &d), [0.0; 256], "capturing runs nothing");
    let unit = download(&lt, F32, &a);
    for round in 1..=3 {
        graph.launch().unwrap();
        let got = download(&lt, F32, &d);
        let near = |(g, u): (&f32, &f32)| (g - 2.0 * round as f32 * u).abs() <= 1e-5;
        assert!(got.iter().zip(&unit).all(near), "round {round}");
    }
    assert_eq!(lt.gpu.last_report(), "");
}
