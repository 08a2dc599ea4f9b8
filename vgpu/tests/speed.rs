//! How fast the interpreter is. Ignored: a measurement, not a check (`cargo test --release -p vgpu --test speed -- --ignored --nocapture`).

mod common;
use common::*;
use half::bf16;
use std::sync::Arc;
use vgpu::ptx::Module;

/// Seconds of all cores, which other programs on the machine disturb less than the time that passes.
fn core_seconds() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a variable of this function.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// The best of five runs, after one that warms up, for each second of a core.
fn measure(name: &str, module: &Arc<Module>, kernel: &str, shape: impl Fn() -> Config, args: &[Arg]) {
    clean(module, kernel, shape(), args);
    let run = || {
        let start = core_seconds();
        let counts = clean(module, kernel, shape(), args);
        (core_seconds() - start, counts)
    };
    let (seconds, counts) = (0..5).map(|_| run()).min_by(|a, b| a.0.total_cmp(&b.0)).expect("five runs");
    println!(
        "{name:14} {:6.0} M thread instructions/s, {:6.2} GB/s of global memory, {:5.2} GFLOP/s, {:.3} s",
        counts.thread_instructions as f64 / seconds / 1e6,
        (counts.global_read + counts.global_written) as f64 / seconds / 1e9,
        counts.flops as f64 / seconds / 1e9,
        seconds
    );
}

#[test]
#[ignore = "a measurement"]
fn kernels_of_nvcc() {
    let m = load(include_str!("ptx/kernels.sm_80.ptx"));
    let n = 1u32 << 20;
    let (x, y) = (Buffer::of(&vec![1f32; n as usize]), Buffer::of(&vec![2f32; n as usize]));
    let numbers = Buffer::of(&(1..=n / 8).collect::<Vec<u32>>());
    let steps = Buffer::new(n as u64 / 2);
    let k = 8192u32;
    let matrix = vec![bf16::from_f32(1.0); 64 * k as usize];
    let (a, b, c) = (Buffer::of(&matrix), Buffer::of(&matrix), Buffer::new(4 * 64 * 64));
    let axpy = [Arg::U32(n), Arg::F32(0.5), Arg::Ptr(&x), Arg::Ptr(&y)];
    let collatz = [Arg::Ptr(&numbers), Arg::Ptr(&steps), Arg::U32(n / 8)];
    let row_sum = [Arg::Ptr(&x), Arg::Ptr(&y), Arg::U32(1 << 14)];
    let tile = [Arg::Ptr(&a), Arg::Ptr(&b), Arg::Ptr(&c), Arg::U32(k)];
    measure("axpy", &m, "axpy", || config(n / 256, 256), &axpy);
    measure("row_sum", &m, "row_sum", || config(64, 256), &row_sum);
    measure("collatz", &m, "collatz", || config(n / 8 / 256, 256), &collatz);
    measure("tile (1 block)", &m, "tile", || config(1, 128), &tile);
}

/// A kernel that repeats `body` 64 times a thread; `%rd4` is a thread's own 16 bytes of global memory, `%r3` of shared.
fn repeated(body: &str) -> Arc<Module> {
    load(&format!(
        ".version 7.5\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n\
         .reg .pred %p<4>;\n.reg .b32 %r<16>;\n.reg .f32 %f<16>;\n.reg .b64 %rd<16>;\n.shared .align 16 .b8 sh[4096];\n\
         ld.param.u64 %rd1, [p];\ncvta.to.global.u64 %rd2, %rd1;\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\n\
         mad.lo.u32 %r4, %r2, 256, %r1;\nmul.wide.u32 %rd3, %r4, 16;\nadd.s64 %rd4, %rd2, %rd3;\nshl.b32 %r5, %r1, 4;\n\
         mov.u32 %r3, sh;\nadd.u32 %r3, %r3, %r5;\nmov.u32 %r6, 0;\nmov.b64 %rd5, {{%r1, %r2}};\n\
         mov.f32 %f1, 0f3f800000;\nmov.f32 %f2, 0f3f000000;\n\
         st.shared.v4.u32 [%r3], {{%r1, %r1, %r1, %r1}};\nbar.sync 0;\n\
         again:\n{}\nadd.u32 %r6, %r6, 1;\nsetp.lt.u32 %p1, %r6, 8;\n@%p1 bra again;\nret;\n}}\n",
        format!("{body}\n").repeat(8)
    ))
}

#[test]
#[ignore = "a measurement"]
fn one_instruction_each() {
    let blocks = 256;
    let memory = Buffer::of(&vec![0u32; blocks as usize * 1024]);
    for (name, body) in [
        ("global load 2", "ld.global.u16 %r7, [%rd4];"),
        ("global load 4", "ld.global.u32 %r7, [%rd4];"),
        ("global load 8", "ld.global.v2.u32 {%r7, %r8}, [%rd4];"),
        ("global load 16", "ld.global.nc.v4.f32 {%f3, %f4, %f5, %f6}, [%rd4];"),
        ("global store 2", "st.global.u16 [%rd4], %r1;"),
        ("global store 4", "st.global.u32 [%rd4], %r1;"),
        ("global store 8", "st.global.u64 [%rd4], %rd5;"),
        ("global store 16", "st.global.v4.u32 [%rd4], {%r1, %r1, %r1, %r1};"),
        ("shared load 4", "ld.shared.u32 %r7, [%r3];"),
        ("shared load 16", "ld.shared.v4.u32 {%r7, %r8, %r9, %r10}, [%r3];"),
        ("shared one word", "ld.shared.u32 %r7, [sh];"),
        ("shared store 4", "st.shared.u32 [%r3], %r1;"),
        ("shared store 16", "st.shared.v4.u32 [%r3], {%r1, %r1, %r1, %r1};"),
        ("integer mad", "mad.lo.u32 %r7, %r6, %r5, %r4;"),
        ("wide add", "add.s64 %rd6, %rd4, %rd3;"),
        ("fma", "fma.rn.f32 %f3, %f1, %f2, %f1;"),
        ("shuffle", "shfl.sync.bfly.b32 %r7, %r1, 1, 31, -1;"),
    ] {
        measure(name, &repeated(body), "k", || config(blocks, 256), &[Arg::Ptr(&memory)]);
    }
}
