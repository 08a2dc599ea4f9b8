//! Device functions, `printf` and `assert`, from nvcc for both devices.

mod common;
use common::*;
use std::sync::{Arc, Mutex, PoisonError};
use vgpu::ptx::{Module, parse};
use vgpu::report::{self, Kind};

/// What is printed belongs to the process.
static PRINTED: Mutex<()> = Mutex::new(());

fn modules() -> [Arc<Module>; 2] {
    [load(include_str!("ptx/calls.sm_80.ptx")), load(include_str!("ptx/calls.sm_90.ptx"))]
}

#[test]
fn functions_within_functions_return_what_they_should() {
    let grow = |mut x: f32| {
        if x < 3.0 {
            return -1.0;
        }
        for _ in 0..3 {
            if x > 20.0 {
                return x;
            }
            x *= 2.0;
        }
        x
    };
    let x: Vec<f32> = (0..64).map(|i| i as f32 * 0.75).collect();
    for m in modules() {
        let (dx, out) = (Buffer::of(&x), Buffer::new(4 * 64));
        clean(&m, "calls", config(1, 64), &[Arg::Ptr(&dx), Arg::Ptr(&out), Arg::U32(64)]);
        let want = |&x: &f32| 4.0 * x + 2.0 + grow(x) + 1.0 + 2.0 * x + 10.0 + 30.0 + x.trunc();
        assert_eq!(out.read::<f32>(), x.iter().map(want).collect::<Vec<_>>());
    }
}

#[test]
fn printf_prints_block_after_block() {
    let _one = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
    for m in modules() {
        report::take_output();
        clean(&m, "prints", config(20, 2), &[Arg::U32(39)]);
        let line = |i: u64| {
            let half = i as f64 * 0.5;
            format!("{i} of 39: {half:.2} text c|{:4}|{i:<4}|{:x} 100%\n", -(i as i64), 0x1234_5678_9abc_u64 + i)
        };
        assert_eq!(report::take_output(), (0..39).map(line).collect::<String>());
    }
}

#[test]
fn an_assertion_that_does_not_hold_is_named() {
    for m in modules() {
        let mut x = vec![1i32; 100];
        let buffer = Buffer::of(&x);
        clean(&m, "asserts", config(4, 32), &[Arg::Ptr(&buffer), Arg::U32(100)]);
        x[70] = -1;
        buffer.write(&x);
        let (_, all) = launch(&m, "asserts", config(4, 32), &[Arg::Ptr(&buffer), Arg::U32(100)]);
        let f = found(Kind::Assertion, &all);
        assert_eq!((all.len(), f.thread), (1, Some(([2, 0, 0], [6, 0, 0]))));
        assert!(f.place.starts_with("calls.cu:") && f.detail.contains("`x[i] >= 0` does not hold, "), "{f}");
        assert!(f.detail.contains("calls.cu:") && f.detail.contains("asserts"), "{f}");
    }
}

#[test]
fn calls_that_are_not_covered_are_refused_by_name() {
    let kernel = |functions: &str, body: &str| {
        format!(
            ".version 7.5\n.target sm_80\n.address_size 64\n{functions}\n.visible .entry k()\n{{\n\
             .reg .b64 %rd<4>;\n.reg .b32 %r<4>;\n{body}\nret;\n}}\n"
        )
    };
    let cases = [
        (".extern .func nowhere;", "call.uni nowhere;", "`nowhere`, which has no body"),
        ("", "call.uni unknown;", "`unknown`, which is not declared"),
        (".func again { call.uni again; ret; }", "call.uni again;", "`again`: functions that call themselves"),
        (".func one(.param .b32 a) { ret; }", "call.uni one;", "another number of arguments"),
        (".func one(.param .b32 a) { ret; }", "call.uni one, (%r1);", "`%r1`, which is no variable"),
    ];
    for (functions, body, want) in cases {
        let error = parse(&kernel(functions, body)).unwrap_err();
        assert!(error.message.contains(want), "{error} for {body}");
    }
}
