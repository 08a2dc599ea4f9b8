//! Loads and stores of a warp whose lanes go different ways: of each size, in each space, for whole and for partial warps, against
//! the same in Rust.

mod common;
use common::*;
use vgpu::report::Kind;

/// Type, registers, bytes. Each loads `[%rd6]` (or `[%r6]`), or stores what was loaded.
const SIZES: [(&str, &str, u64); 7] = [
    ("u8", "%h1", 1),
    ("u16", "%h1", 2),
    ("u32", "%r10", 4),
    ("u64", "%rd10", 8),
    ("v2.u32", "{%r10, %r11}", 8),
    ("v4.u16", "{%h1, %h2, %h3, %h4}", 8),
    ("v4.u32", "{%r10, %r11, %r12, %r13}", 16),
];

/// Which element each lane of a warp takes; all of them name each element at most once, but for the last two.
const PLACES: [fn(u64) -> u64; 8] = [
    |lane| lane,
    |lane| 31 - lane,
    |lane| lane + 1,
    |lane| lane * 7 % 32,
    |lane| lane * 3,
    |lane| lane ^ 1,
    |lane| lane / 2,
    |_| 5,
];
/// What sets `%p1`, and the lanes for which it holds.
type Mask = (&'static str, fn(u64) -> bool);

const MASKS: [Mask; 3] = [
    ("setp.lt.u32 %p1, %r1, 32;", |_| true),
    ("setp.lt.u32 %p1, %r1, 19;", |lane| lane < 19),
    ("rem.u32 %r2, %r1, 3;\nsetp.eq.u32 %p1, %r2, 1;", |lane| lane % 3 == 1),
];

/// A kernel `k(from, to, places)`: `%rd6` is `from` plus the lane's place, `%rd7` is `to` plus the lane's own.
fn program(bytes: u64, mask: &str, body: &str) -> String {
    format!(
        ".version 7.5\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 from, .param .u64 to, .param .u64 places)\n{{\n\
         .reg .pred %p<4>;\n.reg .b16 %h<8>;\n.reg .b32 %r<16>;\n.reg .b64 %rd<16>;\n.shared .align 16 .b8 sh[2048];\n\
         ld.param.u64 %rd1, [from];\nld.param.u64 %rd2, [to];\nld.param.u64 %rd3, [places];\nmov.u32 %r1, %tid.x;\n\
         mul.wide.u32 %rd4, %r1, 8;\nadd.s64 %rd4, %rd3, %rd4;\nld.global.u64 %rd5, [%rd4];\nadd.s64 %rd6, %rd1, %rd5;\n\
         mul.wide.u32 %rd7, %r1, {bytes};\nadd.s64 %rd7, %rd2, %rd7;\nmov.u32 %r3, sh;\ncvt.u32.u64 %r4, %rd5;\nadd.u32 %r6, %r3, %r4;\n\
         mul.lo.u32 %r5, %r1, {bytes};\nadd.u32 %r5, %r3, %r5;\n{mask}\n{body}\nret;\n}}\n"
    )
}

fn bytes(n: u64) -> Vec<u8> {
    (0..n).map(|i| (i * 89 % 251 + 1) as u8).collect()
}

/// Runs for every size, place and mask, and compares `to` with what `model` makes of zeros.
fn check(
    places: &[fn(u64) -> u64],
    body: impl Fn(&str, &str) -> String,
    model: impl Fn(&mut [u8], &[u8], u64, usize, usize),
) {
    for (ty, regs, n) in SIZES {
        for (i, place) in places.iter().enumerate() {
            for (mask, active) in MASKS {
                let (data, offsets) = (bytes(100 * n), (0..32).map(|l| place(l) * n).collect::<Vec<u64>>());
                let (from, to, at) =
                    (Buffer::of(&data), Buffer::of(&vec![0u8; 100 * n as usize]), Buffer::of(&offsets));
                let module = load(&program(n, mask, &body(ty, regs)));
                clean(&module, "k", config(1, 32), &[Arg::Ptr(&from), Arg::Ptr(&to), Arg::Ptr(&at)]);
                let mut want = vec![0; 100 * n as usize];
                for lane in (0..32).filter(|&lane| active(lane)) {
                    model(&mut want, &data, n, offsets[lane as usize] as usize, (lane * n) as usize);
                }
                assert_eq!(to.read::<u8>(), want, "{ty}, places {i}, {mask}");
            }
        }
    }
}

fn gathered(want: &mut [u8], data: &[u8], n: u64, place: usize, own: usize) {
    want[own..][..n as usize].copy_from_slice(&data[place..][..n as usize]);
}

fn scattered(want: &mut [u8], data: &[u8], n: u64, place: usize, own: usize) {
    want[place..][..n as usize].copy_from_slice(&data[own..][..n as usize]);
}

#[test]
fn loads_from_anywhere() {
    for space in [".global", ""] {
        let body = |ty: &str, r: &str| format!("@%p1 ld{space}.{ty} {r}, [%rd6];\n@%p1 st.global.{ty} [%rd7], {r};");
        check(&PLACES, body, gathered);
    }
}

#[test]
fn stores_to_anywhere() {
    for space in [".global", ""] {
        let to_place = "sub.s64 %rd8, %rd6, %rd1;\nadd.s64 %rd8, %rd8, %rd2;\nsub.s64 %rd9, %rd7, %rd2;\nadd.s64 %rd9, %rd9, %rd1;";
        let body =
            |ty: &str, r: &str| format!("{to_place}\n@%p1 ld.{ty} {r}, [%rd9];\n@%p1 st{space}.{ty} [%rd8], {r};");
        check(&PLACES[..6], body, scattered);
    }
}

#[test]
fn shared_memory_from_and_to_anywhere() {
    // Stored side by side and loaded from anywhere; stored anywhere and loaded from there.
    let body = |ty: &str, r: &str| {
        format!(
            "@%p1 ld.global.{ty} {r}, [%rd6];\n@%p1 st.shared.{ty} [%r6], {r};\nbar.sync 0;\n@%p1 ld.shared.{ty} {r}, [%r6];\n@%p1 st.global.{ty} [%rd7], {r};"
        )
    };
    check(&PLACES, body, gathered);
    let body = |ty: &str, r: &str| {
        format!(
            "sub.s64 %rd9, %rd7, %rd2;\nadd.s64 %rd9, %rd9, %rd1;\nld.global.{ty} {r}, [%rd9];\nst.shared.{ty} [%r5], {r};\nbar.sync 0;\n\
             setp.lt.u64 %p2, %rd5, {};\nand.pred %p1, %p1, %p2;\n@%p1 ld.shared.{ty} {r}, [%r6];\n@%p1 st.global.{ty} [%rd7], {r};",
            32 * SIZES.iter().find(|s| s.0 == ty).expect("a size").2
        )
    };
    let within = |want: &mut [u8], data: &[u8], n: u64, place: usize, own: usize| {
        if place < 32 * n as usize {
            gathered(want, data, n, place, own);
        }
    };
    check(&PLACES, body, within);
}

#[test]
fn lanes_in_different_allocations() {
    // Even lanes in one allocation, odd ones in another; then one lane past the end of its own.
    let (a, b) = (Buffer::of(&(0..32u32).collect::<Vec<_>>()), Buffer::of(&(100..132u32).collect::<Vec<_>>()));
    let mut places: Vec<u64> = (0..32).map(|l| if l % 2 == 0 { l * 4 } else { b.0.base - a.0.base + l * 4 }).collect();
    let module = load(&program(4, "", "ld.global.u32 %r10, [%rd6];\nst.global.u32 [%rd7], %r10;"));
    let run = |places: &[u64]| {
        let (to, at) = (Buffer::of(&[0u32; 32]), Buffer::of(places));
        let found = launch(&module, "k", config(1, 32), &[Arg::Ptr(&a), Arg::Ptr(&to), Arg::Ptr(&at)]).1;
        (to.read::<u32>(), found)
    };
    let want: Vec<u32> = (0..32).map(|l| if l % 2 == 0 { l } else { 100 + l }).collect();
    assert_eq!(run(&places), (want, vec![]));
    places[21] = b.0.base - a.0.base + 128;
    let (_, all) = run(&places);
    assert_eq!(found(Kind::OutOfBounds, &all).thread, Some(([0; 3], [21, 0, 0])));
    places[21] = 2;
    let (_, all) = run(&places);
    assert_eq!(found(Kind::Misaligned, &all).thread, Some(([0; 3], [21, 0, 0])));
}

#[test]
fn the_one_lane_that_reads_what_nobody_wrote_is_named() {
    for (ty, regs, n) in SIZES {
        let module = load(&program(n, "", &format!("ld.global.{ty} {regs}, [%rd6];\nst.global.{ty} [%rd7], {regs};")));
        for lane in [0, 1, 13, 31] {
            let (from, to) = (Buffer::new(32 * n), Buffer::new(32 * n));
            from.0.mark_host(0, lane * n);
            from.0.mark_host(lane * n + 1, 32 * n - lane * n - 1); // one byte is missing
            let at = Buffer::of(&(0..32).map(|l| l * n).collect::<Vec<u64>>());
            let (_, all) = launch(&module, "k", config(1, 32), &[Arg::Ptr(&from), Arg::Ptr(&to), Arg::Ptr(&at)]);
            let f = found(Kind::Uninitialised, &all);
            assert_eq!((all.len(), f.thread), (1, Some(([0; 3], [lane as u32, 0, 0]))), "{ty}: {f}");
        }
    }
}
