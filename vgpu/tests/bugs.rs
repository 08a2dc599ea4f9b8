//! Planted bugs: each class is found, and named with kernel, source line, block and thread. Beside each the right program.

mod common;
use common::*;
use vgpu::report::{Finding, Kind};

/// A kernel `k(p, n)` of a body; line 100 of `bug.cu` is where the bug is.
fn program(body: &str) -> String {
    program_for("7.5", "sm_80", body)
}

fn program_for(version: &str, target: &str, body: &str) -> String {
    format!(
        ".version {version}\n.target {target}\n.address_size 64\n.const .align 4 .u32 fixed = 5;\n.visible .entry k(.param .u64 p, .param .u32 n)\n{{\n\
         .reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<16>;\n.reg .f32 %f<8>;\n.reg .b64 %rd<16>;\n\
         .shared .align 16 .b8 sh[1024];\n.local .align 16 .b8 lo[64];\n\
         .loc 1 7 0\nld.param.u64 %rd1, [p];\ncvta.to.global.u64 %rd2, %rd1;\nld.param.u32 %r9, [n];\n\
         mov.u32 %r1, %tid.x;\nmov.u32 %r7, %ctaid.x;\nmul.wide.u32 %rd3, %r1, 4;\nadd.s64 %rd4, %rd2, %rd3;\nshl.b32 %r2, %r1, 2;\n\
         mov.u32 %r3, sh;\nadd.u32 %r3, %r3, %r2;\n{body}\nret;\n}}\n.file 1 \"/src/bug.cu\"\n"
    )
}

/// What is found: the same for both devices. Blocks run in order, so that of two that race the second is named.
fn findings(body: &str, grid: u32, block: u32) -> Vec<Finding> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let run = |text: &str| {
        let buffer = Buffer::of(&[0u32; 256]);
        pool.install(|| launch(&load(text), "k", config(grid, block), &[Arg::Ptr(&buffer), Arg::U32(256)]).1)
    };
    let (ours, theirs) = (run(&program(body)), run(&program_for("9.0", "sm_90", body)));
    let known = |all: &[Finding]| all.iter().map(|f| (f.kind, f.place.clone(), f.thread)).collect::<Vec<_>>();
    assert_eq!(known(&ours), known(&theirs));
    ours
}

/// The bug is found on line 100, by this kernel; returns the finding.
fn caught(kind: Kind, body: &str, grid: u32, block: u32) -> Finding {
    let all = findings(body, grid, block);
    let one = found(kind, &all).clone();
    assert_eq!((one.by.as_str(), one.place.as_str()), ("kernel `k`", "bug.cu:100"), "{one}");
    assert!(all.iter().all(|f| f.kind == kind), "something else as well: {all:?}");
    one
}

fn fine(body: &str, grid: u32, block: u32) {
    let all = findings(body, grid, block);
    assert!(all.is_empty(), "{all:?}");
}

#[test]
fn out_of_bounds() {
    let f = caught(Kind::OutOfBounds, ".loc 1 100 0\nst.global.u32 [%rd4+1020], %r1;", 1, 32);
    assert_eq!(f.thread, Some(([0; 3], [1, 0, 0])), "thread 0 writes the last element, thread 1 the one behind it");
    assert!(f.detail.contains("1024"), "{f}");
    caught(Kind::OutOfBounds, ".loc 1 100 0\nld.global.u32 %r4, [%rd4+-4];", 1, 32);
    caught(Kind::OutOfBounds, ".loc 1 100 0\natom.global.add.u32 %r4, [%rd4+4096], 1;", 1, 32);
    caught(Kind::OutOfBounds, ".loc 1 100 0\nst.shared.u32 [%r3+1024], %r1;", 1, 32);
    caught(Kind::OutOfBounds, "mov.u64 %rd5, 64;\n.loc 1 100 0\nst.local.u32 [%rd5], %r1;", 1, 32);
    caught(Kind::OutOfBounds, "mov.u64 %rd5, 12345680;\n.loc 1 100 0\nld.u32 %r4, [%rd5];", 1, 32);
    caught(
        Kind::OutOfBounds,
        ".loc 1 100 0\ncp.async.ca.shared.global [%r3], [%rd4+1024], 4;\ncp.async.wait_all;",
        1,
        32,
    );
    fine("st.global.u32 [%rd4+896], %r1;", 1, 32);
}

#[test]
fn the_first_block_is_named_whatever_runs_first() {
    for _ in 0..20 {
        let body = "setp.ge.u32 %p1, %r7, 5;\n.loc 1 100 0\n@%p1 st.global.u32 [%rd4+2048], %r1;";
        assert_eq!(caught(Kind::OutOfBounds, body, 64, 64).thread, Some(([5, 0, 0], [0; 3])));
    }
}

#[test]
fn misaligned() {
    let f = caught(Kind::Misaligned, ".loc 1 100 0\nld.global.v2.u32 {%r4, %r5}, [%rd4];", 1, 32);
    assert_eq!(f.thread, Some(([0; 3], [1, 0, 0])));
    caught(Kind::Misaligned, ".loc 1 100 0\nst.shared.u32 [%r3+2], %r1;", 1, 32);
    caught(Kind::Misaligned, ".loc 1 100 0\ncp.async.cg.shared.global [%r3], [%rd4], 16;", 1, 32);
}

#[test]
fn use_after_free() {
    let module = load(&program(".loc 1 100 0\nld.global.u32 %r4, [%rd4];"));
    let address = Buffer::of(&[0u32; 64]).0.base; // dropped here
    let (_, all) = launch(&module, "k", config(1, 32), &[Arg::U64(address), Arg::U32(0)]);
    let f = found(Kind::UseAfterFree, &all);
    assert_eq!((f.by.as_str(), f.place.as_str(), f.thread), ("kernel `k`", "bug.cu:100", Some(([0; 3], [0; 3]))));
    assert!(f.detail.contains("byte 0 of 256"), "{f}");
}

#[test]
fn writing_what_is_constant() {
    caught(Kind::WriteToConstant, "mov.u64 %rd5, fixed;\n.loc 1 100 0\nst.global.u32 [%rd5], %r1;", 1, 32);
}

#[test]
fn uninitialised_global_memory() {
    let module = load(&program(".loc 1 100 0\nld.global.u32 %r4, [%rd4];"));
    let buffer = Buffer::new(128);
    buffer.0.mark_host(0, 68);
    let (_, all) = launch(&module, "k", config(1, 32), &[Arg::Ptr(&buffer), Arg::U32(0)]);
    let f = found(Kind::Uninitialised, &all);
    assert_eq!((f.place.as_str(), f.thread), ("bug.cu:100", Some(([0; 3], [17, 0, 0]))));
    // Half of a word is not a word.
    let buffer = Buffer::new(128);
    let halves = load(&program("st.global.u16 [%rd4], %h1;\n.loc 1 100 0\nld.global.u32 %r4, [%rd4];"));
    let (_, all) = launch(&halves, "k", config(1, 32), &[Arg::Ptr(&buffer), Arg::U32(0)]);
    found(Kind::Uninitialised, &all);
}

#[test]
fn uninitialised_shared_and_local_memory() {
    let half = "setp.lt.u32 %p1, %r1, 16;\n@%p1 st.shared.u32 [%r3], %r1;\nbar.sync 0;\n.loc 1 100 0\nld.shared.u32 %r4, [%r3];";
    assert_eq!(caught(Kind::Uninitialised, half, 1, 32).thread, Some(([0; 3], [16, 0, 0])));
    caught(Kind::Uninitialised, ".loc 1 100 0\natom.shared.add.u32 %r4, [%r3], 1;", 1, 32);
    caught(Kind::Uninitialised, "mov.u64 %rd5, lo;\n.loc 1 100 0\nld.local.u32 %r4, [%rd5+8];", 1, 32);
    fine("mov.u64 %rd5, lo;\nst.local.u32 [%rd5+8], %r1;\nld.local.u32 %r4, [%rd5+8];", 1, 32);
    // What the block before left in shared memory is not this block's.
    let first = "setp.eq.u32 %p1, %r7, 0;\n@%p1 st.shared.u32 [%r3], %r1;\n.loc 1 100 0\nld.shared.u32 %r4, [%r3];";
    assert_eq!(caught(Kind::Uninitialised, first, 2, 32).thread, Some(([1, 0, 0], [0; 3])));
}

#[test]
fn races_in_shared_memory_between_warps() {
    let exchange = |barrier: &str| {
        format!(
            ".loc 1 100 0\nst.shared.u32 [%r3], %r1;\n{barrier}\nxor.b32 %r5, %r2, 128;\nmov.u32 %r6, sh;\nadd.u32 %r6, %r6, %r5;\n\
                 .loc 1 100 0\nld.shared.u32 %r4, [%r6];"
        )
    };
    let all = findings(&exchange(""), 1, 64);
    // The warp that runs first reads what nobody wrote yet, the second races with it.
    assert_eq!(found(Kind::Race, &all).place, "bug.cu:100");
    fine(&exchange("bar.sync 0;"), 1, 64);
    let overwrite = |barrier: &str| {
        format!(
            "st.shared.u32 [%r3], %r1;\nbar.sync 0;\nld.shared.u32 %r4, [sh];\n{barrier}\nsetp.eq.u32 %p1, %r1, 0;\nmov.u32 %r4, 77;\n\
                 .loc 1 100 0\n@%p1 st.shared.u32 [sh], %r4;"
        )
    };
    assert!(!findings(&overwrite(""), 1, 64).is_empty(), "write after read");
    fine(&overwrite("bar.sync 0;"), 1, 64);
}

#[test]
fn races_in_shared_memory_within_a_warp() {
    let exchange = |sync: &str| {
        format!(
            "st.shared.u32 [%r3], %r1;\n{sync}\nxor.b32 %r5, %r2, 4;\nmov.u32 %r6, sh;\nadd.u32 %r6, %r6, %r5;\n\
                 .loc 1 100 0\nld.shared.u32 %r4, [%r6];"
        )
    };
    caught(Kind::Race, &exchange(""), 1, 32);
    caught(Kind::Race, &exchange("shfl.sync.bfly.b32 %r8, %r1, 1, 31, -1;"), 1, 32);
    fine(&exchange("bar.warp.sync -1;"), 1, 32);
    let same_place = |value: &str| format!(".loc 1 100 0\nst.shared.u32 [sh], {value};");
    caught(Kind::Race, &same_place("%r1"), 1, 32);
    fine(&same_place("%r7"), 1, 64); // all write the same number
    let bytes = "cvt.u16.u32 %h1, %r1;\nmov.u32 %r6, sh;\nadd.u32 %r6, %r6, %r1;\nst.shared.u8 [%r6], %h1;";
    fine(bytes, 1, 64); // neighbours in one word
}

#[test]
fn races_between_blocks() {
    let f = caught(Kind::Race, ".loc 1 100 0\nst.global.u32 [%rd4], %r7;", 2, 32);
    assert_eq!(f.thread, Some(([1, 0, 0], [0; 3])));
    assert!(f.detail.contains("which block 0 writes"), "{f}");
    fine("st.global.u32 [%rd4], %r1;", 8, 32); // the same numbers
    let halves = "shl.b32 %r4, %r1, 2;\nadd.u32 %r4, %r4, %r7;\nmul.wide.u32 %rd5, %r4, 2;\nadd.s64 %rd5, %rd2, %rd5;\ncvt.u16.u32 %h1, %r7;\nst.global.u16 [%rd5], %h1;";
    fine(halves, 2, 32); // halves of words that belong to two blocks
    fine(&format!("{halves}\nld.global.u16 %h2, [%rd5];\nst.global.u16 [%rd5], %h1;"), 2, 32);
    fine("atom.global.add.u32 %r4, [%rd2], 1;\nred.global.max.u32 [%rd2], %r1;", 8, 64);
}

#[test]
fn races_between_a_block_that_reads_and_one_that_writes() {
    // Block 3 writes what the others read, whichever comes first. All lanes, a few, one word or several.
    for (load, store) in [
        ("ld.global.u32 %r4, [%rd4]", "st.global.u32 [%rd4], %r7"),
        ("ld.global.u32 %r4, [%rd2+8]", "st.global.u32 [%rd2+8], %r7"),
        ("ld.global.v4.u32 {%r4, %r5, %r6, %r8}, [%rd2]", "st.global.u32 [%rd2+12], %r7"),
        ("ld.global.u32 %r4, [%rd2]", "st.global.u16 [%rd2+2], %h1"),
        ("ld.global.u8 %h2, [%rd2+3]", "st.global.u64 [%rd2], %rd6"),
    ] {
        let setup = "setp.eq.u32 %p1, %r7, 3;\ncvt.u16.u32 %h1, %r7;\ncvt.u64.u32 %rd6, %r7;\nmul.lo.u64 %rd6, %rd6, 0x101010101010101;";
        let before = format!("{setup}\n@!%p1 {load};\n.loc 1 100 0\n@%p1 {store};");
        let f = caught(Kind::Race, &before, 4, 32);
        assert_eq!(f.thread.map(|t| t.0), Some([3, 0, 0]), "{store}");
        assert!(f.detail.contains("which another block reads"), "{f}");
        let two = format!("{setup}\n@!%p1 {load};\n.loc 1 100 0\n@%p1 {store};").replace("%r7, 3", "%r7, 1");
        assert!(caught(Kind::Race, &two, 2, 32).detail.contains("which block 0 reads"));
        let after = format!("{setup}\n@%p1 {store};\n.loc 1 100 0\n@!%p1 {load};").replace("%r7, 3", "%r7, 0");
        let f = caught(Kind::Race, &after, 2, 32);
        assert_eq!(f.thread.map(|t| t.0), Some([1, 0, 0]), "{load}");
        assert!(f.detail.contains("which block 0 writes"), "{f}");
    }
    fine("ld.global.u32 %r4, [%rd4];", 16, 32);
    let own = "mul.lo.u32 %r4, %r7, 32;\nadd.u32 %r4, %r4, %r1;\nmul.wide.u32 %rd5, %r4, 4;\nadd.s64 %rd5, %rd2, %rd5;\n\
               ld.global.u32 %r5, [%rd5];\nadd.u32 %r5, %r5, %r7;\nst.global.u32 [%rd5], %r5;\nld.global.u32 %r6, [%rd5];";
    fine(own, 8, 32); // each block what is its own
}

#[test]
fn a_race_between_blocks_is_found_by_any_number_of_threads() {
    let module =
        load(&program(".loc 1 100 0\nld.global.u32 %r4, [%rd4];\nadd.u32 %r4, %r4, 1;\nst.global.u32 [%rd4], %r4;"));
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let buffer = Buffer::of(&[0u32; 256]);
        let run = || launch(&module, "k", config(64, 256), &[Arg::Ptr(&buffer), Arg::U32(256)]).1;
        assert_eq!(found(Kind::Race, &pool.install(run)).place, "bug.cu:100");
    }
}

#[test]
fn a_copy_into_memory_that_is_in_use() {
    // Every lane reads the first words; then lane 0's copy may overwrite them at any time from where it begins.
    let copy = |barrier: &str| {
        format!(
            "st.shared.u32 [%r3], %r1;\nbar.sync 0;\nld.shared.u32 %r4, [sh+124];\n{barrier}\nxor.b32 %r5, %r2, 4;\nmov.u32 %r6, sh;\nadd.u32 %r6, %r6, %r5;\n\
             .loc 1 100 0\ncp.async.ca.shared.global [%r6], [%rd4], 4;\n.loc 1 101 0\ncp.async.wait_all;\nbar.sync 0;\nld.shared.u32 %r8, [%r3];"
        )
    };
    caught(Kind::Race, &copy(""), 1, 32);
    fine(&copy("bar.sync 0;"), 1, 32);
    let overwrite =
        "cp.async.ca.shared.global [%r3], [%rd4], 4;\n.loc 1 100 0\nst.shared.u32 [%r3], %r1;\ncp.async.wait_all;";
    let f = caught(Kind::Race, overwrite, 1, 32);
    assert!(f.detail.contains("cp.async of thread 0"), "{f}");
}

#[test]
fn asynchronous_copies_that_nobody_waits_for() {
    let copy = |wait: &str| {
        format!(
            "cp.async.ca.shared.global [%r3], [%rd4], 4;\ncp.async.commit_group;\n{wait}\n.loc 1 100 0\nld.shared.u32 %r4, [%r3];"
        )
    };
    let f = caught(Kind::Uninitialised, &copy(""), 1, 32);
    assert!(f.detail.contains("cp.async"), "{f}");
    caught(Kind::Uninitialised, &copy("cp.async.wait_group 1;"), 1, 32);
    fine(&copy("cp.async.wait_group 0;"), 1, 32);
    fine(&copy("cp.async.wait_all;"), 1, 32);
}

#[test]
fn barriers_that_some_threads_never_reach() {
    let f = caught(Kind::DivergentBarrier, "setp.lt.u32 %p1, %r1, 8;\n.loc 1 100 0\n@%p1 bar.sync 0;", 1, 32);
    assert_eq!(f.thread, Some(([0; 3], [8, 0, 0])));
    let ended = "setp.ge.u32 %p1, %r1, 40;\n@%p1 ret;\n.loc 1 100 0\nbar.sync 0;";
    assert_eq!(caught(Kind::DivergentBarrier, ended, 1, 64).thread, Some(([0; 3], [40, 0, 0])));
    let whole_warp = "setp.ge.u32 %p1, %r1, 32;\n@%p1 ret;\n.loc 1 100 0\nbar.sync 0;";
    caught(Kind::DivergentBarrier, whole_warp, 1, 64);
    let two_places =
        "setp.lt.u32 %p1, %r1, 8;\n@%p1 bra other;\n.loc 1 100 0\nbar.sync 0;\nbra end;\nother:\nbar.sync 0;\nend:";
    caught(Kind::DivergentBarrier, two_places, 1, 32);
    let two_barriers =
        "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra other;\nbar.sync 1;\nbra end;\nother:\n.loc 1 100 0\nbar.sync 2;\nend:";
    caught(Kind::DivergentBarrier, two_barriers, 1, 64);
    fine("setp.lt.u32 %p1, %r1, 8;\n@%p1 bra on;\nadd.u32 %r4, %r1, 1;\non:\nbar.sync 0;", 3, 96);
}

#[test]
fn lanes_that_do_not_take_part() {
    let half =
        "setp.lt.u32 %p1, %r1, 16;\n@!%p1 bra end;\n.loc 1 100 0\nshfl.sync.idx.b32 %r4, %r1, 20, 31, 65535;\nend:";
    caught(Kind::InactiveLane, half, 1, 32);
    let ended = "setp.ge.u32 %p1, %r1, 16;\n@%p1 ret;\n.loc 1 100 0\nshfl.sync.bfly.b32 %r4, %r1, 16, 31, -1;";
    caught(Kind::InactiveLane, ended, 1, 32);
    caught(Kind::InactiveLane, ".loc 1 100 0\nvote.sync.ballot.b32 %r4, %p1, 1;", 1, 32);
    fine("shfl.sync.bfly.b32 %r4, %r1, 16, 31, -1;", 1, 64);
}

#[test]
fn a_shuffle_waits_for_lanes_that_come_by_another_way() {
    let module = load(&program(
        "and.b32 %r4, %r1, 3;\nsetp.eq.u32 %p1, %r4, 0;\nmov.u32 %r5, %r1;\n@%p1 bra away;\nback:\n\
         shfl.sync.bfly.b32 %r6, %r5, 1, 31, -1;\nst.global.u32 [%rd4], %r6;\nbra end;\naway:\nadd.u32 %r5, %r5, 100;\nbra back;\nend:",
    ));
    let buffer = Buffer::of(&[0u32; 32]);
    clean(&module, "k", config(1, 32), &[Arg::Ptr(&buffer), Arg::U32(0)]);
    let value = |l: u32| if l & 3 == 0 { l + 100 } else { l };
    assert_eq!(buffer.read::<u32>(), (0..32).map(|l| value(l ^ 1)).collect::<Vec<_>>());
}

#[test]
fn registers_that_nobody_wrote_hold_the_same_in_every_block() {
    let module = load(&program(
        "mul.lo.u32 %r4, %r7, 32;\nadd.u32 %r4, %r4, %r1;\nmul.wide.u32 %rd5, %r4, 4;\nadd.s64 %rd5, %rd2, %rd5;\n\
         st.global.u32 [%rd5], %r8;\nmov.u32 %r8, %r7;",
    ));
    let buffer = Buffer::of(&[0u32; 256]);
    clean(&module, "k", config(8, 32), &[Arg::Ptr(&buffer), Arg::U32(0)]);
    let seen = buffer.read::<u32>();
    assert!(seen.iter().all(|v| *v == seen[0]), "{seen:?}");
}

#[test]
fn traps() {
    let f = caught(Kind::Trap, "setp.eq.u32 %p1, %r1, 9;\n.loc 1 100 0\n@%p1 trap;", 1, 32);
    assert_eq!(f.thread, Some(([0; 3], [9, 0, 0])));
}

#[test]
fn a_report_is_one_line_with_everything_in_it() {
    let f = caught(Kind::OutOfBounds, ".loc 1 100 0\nst.global.u32 [%rd4+1020], %r1;", 1, 32);
    let text = f.to_string();
    assert!(
        text.starts_with("out of bounds: kernel `k` at bug.cu:100, block (0,0,0), thread (1,0,0): 4 bytes at 0x"),
        "{text}"
    );
    assert!(!text.contains('\n'));
}
