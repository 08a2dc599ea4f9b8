//! What nvcc writes is read; what is not covered is refused by name and line.

use vgpu::ptx::{Type, parse};

fn kernel(body: &str) -> String {
    format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n\
         .reg .pred %p<4>;\n.reg .b16 %h<4>;\n.reg .b32 %r<8>;\n.reg .f32 %f<8>;\n.reg .b64 %rd<8>;\n.reg .f64 %fd<4>;\n\
         {body}\nret;\n}}\n"
    )
}

#[test]
fn every_text_of_nvcc_here_is_read() {
    let mut read = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ptx")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "ptx") {
            let module = parse(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            assert!(!module.kernels.is_empty());
            assert!(
                module.kernels.iter().all(|k| k.code.iter().any(|i| i.loc.line > 0)),
                "{path:?} has no source lines"
            );
            read += 1;
        }
    }
    assert!(read >= 2, "two architectures are kept");
}

#[test]
fn what_is_not_covered_is_refused_by_name_and_line() {
    for (body, name) in [
        ("wmma.load.a.sync.aligned.row.m16n16k16.shared.f16 {%r1}, [%r2];", "wmma.load"),
        ("tex.1d.v4.f32.s32 {%f1,%f2,%f3,%f4}, [%rd1, {%r1}];", "tex.1d"),
        ("mbarrier.init.shared.b64 [%rd1], 32;", "mbarrier.init"),
        ("cp.async.bulk.commit_group;", "cp.async.bulk"),
        ("add.cc.u32 %r1, %r2, %r3;", "add.cc"),
        (
            "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%fd1,%fd2}, {%fd1}, {%fd2}, {%fd1,%fd2};",
            "mma.sync.aligned.m8n8k4",
        ),
        ("shfl.down.b32 %r1, %r2, 1, 31;", "shfl.down.b32"),
        ("frobnicate.u32 %r1, %r2;", "frobnicate.u32"),
        ("red.async.relaxed.cluster.add.u32 [%rd1], %r1;", "red.async"),
        ("ld.global.L9::strange.u32 %r1, [%rd1];", "L9::strange"),
    ] {
        let error = parse(&kernel(body)).expect_err(body);
        assert!(error.message.contains(name), "{body}: {error}");
        assert_eq!(error.line, 12, "{body}: {error}");
    }
}

#[test]
fn damaged_text_is_an_error() {
    for text in [
        "",
        "hello",
        ".version 7.0",
        ".version x",
        ".version 7.0\n.visible .entry k(",
        ".version 7.0\n.visible .entry k() {",
        ".version 7.0\n.visible .entry k() { ret }",
        ".version 7.0\n.global .b8 x[99999999999];",
        ".version 7.0\n.global .b8 x[2] = {1,2,3};",
        ".version 7.0\n.address_size 32\n",
        "\"",
        ".loc x",
    ] {
        let result = parse(text);
        assert!(result.is_err() || result.unwrap().kernels.is_empty(), "{text}");
    }
    for body in [
        "add.u32 %r1, %r2;",
        "add.u32 %r1, %r2, %rd1;",
        "add.u32 %q1, %r2, %r3;",
        "bra nowhere;",
        "@%r1 bra there; there:",
        "mov.u32 %r1, %nosuch;",
        "ld.global.u32 %r1, %rd1;",
        "ld.global.v2.u32 {%r1}, [%rd1];",
        "setp.lt.and.u32 %p1, %r1, %r2;",
        "a: a: ",
        "mov.b32 %r1, {%h1, %h2, %h3};",
        ".reg .b32 %r9; .reg .b32 %r9;",
        "call.uni f, (%r1);",
    ] {
        assert!(parse(&kernel(body)).is_err(), "{body}");
    }
}

/// Damage at random never stops the reader other than by an error.
#[test]
fn random_damage_is_survived() {
    let text = kernel(
        "ld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\n{ .reg .b32 t; add.u32 t, %r1, -4; }\nst.global.u32 [%rd1+4], %r1;",
    );
    let mut state = 7u64;
    for _ in 0..3000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..3 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = b" {}[];,.%@!-+\"09ax"[(state >> 20) as usize % 18];
        }
        let _ = parse(&String::from_utf8(bytes).unwrap());
    }
}

#[test]
fn declarations_get_their_places() {
    let module = parse(
        ".version 7.5\n.target sm_80\n.address_size 64\n.const .align 4 .b8 c[12] = {1,2,3};\n.global .u32 g = 7;\n\
         .extern .shared .align 16 .b8 dyn[];\n\
         .visible .entry k(.param .u32 a, .param .u64 .ptr .global .align 4 b, .param .align 8 .b8 s[20], .param .u16 t)\n\
         .maxntid 64, 2, 1\n{\n.shared .align 4 .b8 x[20];\n.shared .align 16 .b8 y[16];\n.local .align 8 .b8 d[24];\n\
         .reg .b32 %r<2>;\n.loc 1 42 7\nmov.u32 %r1, dyn;\nret;\n}\n.file 1 \"/a/b/k.cu\"\n",
    )
    .unwrap();
    let k = &module.kernels[0];
    let places: Vec<_> = k.params.iter().map(|p| (p.offset, p.size)).collect();
    assert_eq!(places, [(0, 4), (8, 8), (16, 20), (36, 2)]);
    assert_eq!((k.param_bytes, k.shared_bytes, k.local_bytes, k.max_threads), (38, 48, 24, 128));
    assert!(k.words.contains(&48), "dynamic shared memory starts behind the static");
    assert_eq!(module.place(k.code[0].loc), "k.cu:42");
    assert_eq!((module.variables[0].size, &module.variables[0].initial[..]), (12, &[1, 2, 3][..]));
    assert_eq!(module.variables[1].initial, [7, 0, 0, 0]);
    assert_eq!(Type::named("bf16x2").map(Type::size), Some(4));
}
