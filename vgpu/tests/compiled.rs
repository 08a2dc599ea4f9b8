//! nvcc's PTX against the same computation in Rust.

mod common;
use common::*;
use half::{bf16, f16};
use std::sync::Arc;
use vgpu::ptx::Module;

fn modules() -> [Arc<Module>; 2] {
    [load(include_str!("ptx/kernels.sm_80.ptx")), load(include_str!("ptx/kernels.sm_90.ptx"))]
}

#[test]
fn axpy_of_any_length() {
    for m in modules() {
        for n in [1u32, 31, 32, 33, 127, 1000] {
            let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.3 - 7.0).collect();
            let y: Vec<f32> = (0..n).map(|i| 1.0 / (i + 1) as f32).collect();
            let (dx, dy) = (Buffer::of(&x), Buffer::of(&y));
            let args = [Arg::U32(n), Arg::F32(1.7), Arg::Ptr(&dx), Arg::Ptr(&dy)];
            let counts = clean(&m, "axpy", config(n.div_ceil(64), 64), &args);
            let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 1.7f32.mul_add(*x, *y)).collect();
            assert_eq!(dy.read::<f32>(), want);
            assert_eq!((counts.global_read, counts.global_written), (8 * n as u64, 4 * n as u64));
        }
    }
}

#[test]
fn a_sum_by_shuffles_and_a_barrier() {
    for m in modules() {
        for (rows, columns, threads) in [(3u32, 1000u32, 96u32), (1, 7, 32), (2, 513, 256)] {
            let x: Vec<f32> = (0..rows * columns).map(|i| (i % 17) as f32).collect();
            let (dx, out) = (Buffer::of(&x), Buffer::new(4 * rows as u64));
            clean(&m, "row_sum", config(rows, threads), &[Arg::Ptr(&dx), Arg::Ptr(&out), Arg::U32(columns)]);
            let want: Vec<f32> = x.chunks(columns as usize).map(|r| r.iter().sum()).collect();
            assert_eq!(out.read::<f32>(), want, "whole numbers are exact in any order");
        }
    }
}

#[test]
fn lanes_that_part_and_meet() {
    let model = |mut v: u32| {
        let mut steps = 0;
        while v != 1 {
            if v & 1 == 1 {
                v = 3 * v + 1;
            } else {
                loop {
                    v >>= 1;
                    steps += 1;
                    if v & 1 == 1 {
                        break;
                    }
                }
            }
            steps += 1;
            if steps > 500 {
                break;
            }
        }
        steps
    };
    for m in modules() {
        let x: Vec<u32> = (1..=200).collect();
        let (dx, out) = (Buffer::of(&x), Buffer::new(800));
        clean(&m, "collatz", config(4, 64), &[Arg::Ptr(&dx), Arg::Ptr(&out), Arg::U32(200)]);
        assert_eq!(out.read::<u32>(), x.iter().map(|&v| model(v)).collect::<Vec<u32>>());
    }
}

#[test]
fn structures_constants_and_local_arrays() {
    for m in modules() {
        let mut bytes = vec![];
        for v in [2.5f32.to_bits(), 20, 1f32.to_bits(), 2f32.to_bits(), 3f32.to_bits(), 4f32.to_bits()] {
            bytes.extend(v.to_le_bytes());
        }
        let out = Buffer::new(80);
        clean(&m, "options", config(1, 32), &[Arg::Bytes(&bytes), Arg::Ptr(&out), Arg::U32(3)]);
        let want: Vec<f32> = (0..20).map(|i| 2.5 * ((i + 3) % 8 % 4 + 1) as f32 * ((i + 3) % 8) as f32).collect();
        assert_eq!(out.read::<f32>(), want);
    }
}

#[test]
fn sixteen_bit_arithmetic_of_the_headers() {
    for m in modules() {
        let mut random = Random(5);
        let x: Vec<f32> = (0..64).map(|_| random.unit() * 4.0).collect();
        let (dx, b, h) = (Buffer::of(&x), Buffer::new(128), Buffer::new(128));
        clean(&m, "narrow", config(1, 32), &[Arg::Ptr(&dx), Arg::Ptr(&b), Arg::Ptr(&h), Arg::U32(32)]);
        let fused = |v: f32| {
            let v = bf16::from_f32(v).to_f64();
            bf16::from_f64(v * v + v.abs()) // few enough bits for f64 to hold it
        };
        assert_eq!(b.read::<u16>(), x.iter().map(|&v| fused(v).to_bits()).collect::<Vec<_>>());
        let twice = |v: f32| {
            let v = f16::from_f32(v);
            f16::from_f32(f16::from_f32(v.to_f32() * v.to_f32()).to_f32() + v.to_f32())
        };
        assert_eq!(h.read::<u16>(), x.iter().map(|&v| twice(v).to_bits()).collect::<Vec<_>>());
    }
}

#[test]
fn the_mathematical_library() {
    for m in modules() {
        let mut random = Random(9);
        let x: Vec<f32> = (0..32).map(|_| random.unit() * 3.0).collect();
        let (dx, out) = (Buffer::of(&x), Buffer::new(128));
        clean(&m, "math", config(1, 32), &[Arg::Ptr(&dx), Arg::Ptr(&out), Arg::U32(32)]);
        for (&x, got) in x.iter().zip(out.read::<f32>()) {
            let (v, a) = (x as f64, (x as f64).abs());
            let erf = {
                // Maclaurin series; 80 terms are enough below 3.
                let mut term = v;
                let mut sum = v;
                for n in 1..80 {
                    term *= -v * v / n as f64;
                    sum += term / (2 * n + 1) as f64;
                }
                sum * 2.0 / std::f64::consts::PI.sqrt()
            };
            let want = v.exp()
                + (a + 1.0).ln()
                + v.sin()
                + v.tanh()
                + a.ln_1p()
                + 1.0 / (a + 0.5).sqrt()
                + erf
                + ((x * 1e5) as f64).cos()
                + a.powf(1.5)
                + v.exp()
                + v / (a + 3.0)
                + v.min(0.25);
            // Twelve terms of at most 2 ulp (CUDA's table of errors) of a sum below 64.
            assert!((got as f64 - want).abs() < 24.0 * 64.0 * f32::EPSILON as f64, "{x}: {got} for {want}");
        }
    }
}

#[test]
fn a_tile_through_cp_async_ldmatrix_and_mma() {
    for m in modules() {
        for k in [32usize, 96] {
            let mut random = Random(k as u64);
            let mut matrix =
                || -> Vec<bf16> { (0..64 * k).map(|_| bf16::from_f32((random.bits() % 17) as f32 - 8.0)).collect() };
            let (a, b) = (matrix(), matrix());
            let (da, db, c) = (Buffer::of(&a), Buffer::of(&b), Buffer::new(4 * 64 * 64));
            let args = [Arg::Ptr(&da), Arg::Ptr(&db), Arg::Ptr(&c), Arg::U32(k as u32)];
            let counts = clean(&m, "tile", config(1, 128), &args);
            assert_eq!(counts.flops, 2 * 64 * 64 * k as u64);
            let got = c.read::<f32>();
            for i in 0..64 {
                for j in 0..64 {
                    let want: f32 = (0..k).map(|l| a[i * k + l].to_f32() * b[j * k + l].to_f32()).sum();
                    assert_eq!(got[i * 64 + j], want, "element {i}, {j}: whole numbers are exact");
                }
            }
        }
    }
}
