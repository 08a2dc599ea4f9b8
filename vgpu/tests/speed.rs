//! How fast the interpreter is. Ignored: a measurement, not a check (`cargo test --release -p vgpu --test speed -- --ignored --nocapture`).

mod common;
use common::*;
use half::bf16;
use std::time::Instant;

#[test]
#[ignore = "a measurement"]
fn instructions_and_products_a_second() {
    let m = load(include_str!("ptx/kernels.sm_80.ptx"));
    let n = 1u32 << 20;
    let (x, y) = (Buffer::of(&vec![1f32; n as usize]), Buffer::of(&vec![2f32; n as usize]));
    let numbers = Buffer::of(&(1..=n / 8).collect::<Vec<u32>>());
    let steps = Buffer::new(n as u64 / 2);
    let k = 8192u32;
    let tile = vec![bf16::from_f32(1.0); 64 * k as usize];
    let (a, b, c) = (Buffer::of(&tile), Buffer::of(&tile), Buffer::new(4 * 64 * 64));
    let axpy = [Arg::U32(n), Arg::F32(0.5), Arg::Ptr(&x), Arg::Ptr(&y)];
    let collatz = [Arg::Ptr(&numbers), Arg::Ptr(&steps), Arg::U32(n / 8)];
    let product = [Arg::Ptr(&a), Arg::Ptr(&b), Arg::Ptr(&c), Arg::U32(k)];
    let cases: [(&str, Config, &[Arg]); 3] = [
        ("axpy", config(n / 256, 256), &axpy),
        ("collatz", config(n / 8 / 256, 256), &collatz),
        ("tile", config(1, 128), &product),
    ];
    for (name, shape, args) in cases {
        let start = Instant::now();
        let counts = clean(&m, name, shape, args);
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{name}: {:.0} M thread instructions/s, {:.1} M warp instructions/s, {:.2} GFLOP/s of mma, {:.3} s",
            counts.thread_instructions as f64 / seconds / 1e6,
            counts.warp_instructions as f64 / seconds / 1e6,
            counts.flops as f64 / seconds / 1e9,
            seconds
        );
    }
}
