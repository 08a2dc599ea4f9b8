//! What the shadow of device memory says about accesses of several blocks and launches.

use std::sync::{Mutex, PoisonError};
use vgpu::shadow::{Accessor, Flaw, Shadow};

/// Tags are the process's: no launch of one test while the other uses them up.
static TAGS: Mutex<()> = Mutex::new(());

/// One access: block, byte, bytes.
#[derive(Clone, Copy)]
enum Access {
    Read(u64, u64, u64),
    Write(u64, u64, u64),
}
use Access::{Read, Write};

/// What the last of these accesses meets, after all 16 bytes were written before the launch.
fn last(accesses: &[Access]) -> Result<(), Flaw> {
    let shadow = Shadow::new(16);
    shadow.write_host(0, 16);
    let launch = Accessor::of_launch(4, || ());
    let step = |access: &Access| match *access {
        Read(block, at, n) => shadow.read(at, n, launch.block(block)),
        Write(block, at, n) => shadow.write(at, n, launch.block(block)),
    };
    let (end, before) = accesses.split_last().expect("an access");
    before.iter().for_each(|access| assert_eq!(step(access), Ok(())));
    step(end)
}

#[test]
fn accesses_of_two_blocks() {
    let _one = TAGS.lock().unwrap_or_else(PoisonError::into_inner);
    let (written, read) = (|b| Err(Flaw::Written(Some(b))), |b| Err(Flaw::Read(Some(b))));
    let cases: [(&[Access], Result<(), Flaw>); 16] = [
        (&[Write(1, 0, 4), Write(1, 0, 4), Read(1, 0, 4)], Ok(())),
        (&[Read(1, 0, 4), Read(2, 0, 4), Read(1, 0, 4)], Ok(())),
        (&[Write(1, 0, 4), Write(2, 4, 4), Read(1, 0, 4), Read(2, 4, 4)], Ok(())),
        (&[Write(1, 0, 4), Read(2, 0, 4)], written(1)),
        (&[Write(1, 0, 4), Write(0, 0, 4)], written(1)),
        (&[Read(3, 0, 4), Write(0, 0, 4)], read(3)),
        (&[Read(3, 0, 4), Read(0, 0, 4), Write(0, 0, 4)], Err(Flaw::Read(None))),
        (&[Read(1, 0, 16), Write(2, 12, 4)], read(1)),
        (&[Write(1, 8, 8), Read(2, 0, 16)], written(1)),
        // Parts of a word may belong to two blocks.
        (&[Write(1, 0, 2), Write(2, 2, 2), Read(1, 0, 2), Read(2, 2, 2)], Ok(())),
        (&[Read(1, 0, 1), Write(2, 1, 1)], Ok(())),
        (&[Write(1, 0, 2), Read(2, 0, 4)], written(1)),
        (&[Write(1, 0, 4), Read(2, 0, 2)], written(1)),
        (&[Write(1, 0, 4), Write(1, 0, 2), Read(2, 2, 2)], written(1)),
        (&[Write(1, 0, 4), Write(2, 0, 1)], written(1)),
        (&[Read(1, 0, 2), Read(1, 0, 4), Write(2, 0, 1)], read(1)),
    ];
    for (i, (accesses, want)) in cases.into_iter().enumerate() {
        assert_eq!(last(accesses), want, "case {i}");
    }
}

#[test]
fn bytes_that_nobody_wrote() {
    let shadow = Shadow::new(11);
    let who = Accessor::UNWATCHED;
    assert_eq!(shadow.first_unwritten(0, 11), Some(0));
    shadow.write_host(1, 6);
    assert_eq!((shadow.first_unwritten(1, 6), shadow.first_unwritten(1, 7)), (None, Some(7)));
    assert_eq!(shadow.read(4, 2, who), Ok(()));
    assert_eq!(shadow.read(4, 4, who), Err(Flaw::Uninitialised));
    assert_eq!(shadow.write(7, 1, who), Ok(()));
    assert_eq!(shadow.read(4, 4, who), Ok(()));
    shadow.write_atomic(8, 2);
    assert_eq!((shadow.first_unwritten(1, 9), shadow.first_unwritten(1, 10)), (None, Some(10)));
    let copy = Shadow::new(11);
    copy.copy_from(2, &shadow, 0, 9);
    assert_eq!((copy.first_unwritten(2, 1), copy.first_unwritten(3, 8)), (Some(2), None));
}

#[test]
fn tags_run_out_and_are_given_out_again() {
    let _one = TAGS.lock().unwrap_or_else(PoisonError::into_inner);
    let shadow = Shadow::new(4);
    // Nearly half of all tags a launch: the third needs them again.
    let mut renewals = 0;
    for _ in 0..7 {
        let launch = Accessor::of_launch((1 << 26) - 2, || {
            renewals += 1;
            shadow.renew();
        });
        // What an earlier launch wrote with the same tag is none of this one's business.
        assert_eq!(shadow.write(0, 4, launch.block(5)), Ok(()));
        assert_eq!(shadow.read(0, 4, launch.block(6)), Err(Flaw::Written(Some(5))));
    }
    assert!(renewals >= 2, "{renewals}");
    // More blocks than can be told apart are not watched.
    let launch = Accessor::of_launch(1 << 40, || panic!("no tags are needed"));
    assert_eq!(shadow.write(0, 4, launch.block(7)), Ok(()));
    assert_eq!(shadow.read(0, 4, launch.block(8)), Ok(()));
}
