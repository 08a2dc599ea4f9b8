//! Does to files what it is told, in the working folder, and says what came of each step: a program for the library's tests.
//!
//! Steps are words of the command line: `create:F`, `append:F:BYTES`, `gather:F:BYTES` (written in two pieces), `sync:F`, `cut:F`,
//! `rename:F:G` (by a system call of its own), `remove:F`, `mkdir:F`, `threads:F:N` (each makes a file and writes 3 times).

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, IoSlice, Result, Write};

fn main() {
    for step in std::env::args().skip(1) {
        match carry_out(&step) {
            Ok(result) => println!("{step} {result}"),
            Err(error) => println!("{step} error {}", error.raw_os_error().unwrap_or(0)),
        }
    }
}

fn carry_out(step: &str) -> Result<usize> {
    let words: Vec<&str> = step.split(':').collect();
    let number = |text: &str| text.parse::<usize>().map_err(Error::other);
    match words[..] {
        ["create", file] => File::create(file).map(|_| 0),
        ["append", file, bytes] => append(file)?.write(&vec![b'x'; number(bytes)?]),
        ["gather", file, bytes] => {
            let bytes = vec![b'y'; number(bytes)?];
            let (one, two) = bytes.split_at(bytes.len() / 3);
            append(file)?.write_vectored(&[IoSlice::new(one), IoSlice::new(two)])
        }
        ["sync", file] => File::open(file)?.sync_all().map(|()| 0),
        ["cut", file] => append(file)?.set_len(1).map(|()| 0),
        ["rename", from, to] => rename(from, to),
        ["remove", file] => std::fs::remove_file(file).map(|()| 0),
        ["mkdir", folder] => std::fs::create_dir(folder).map(|()| 0),
        ["threads", file, count] => {
            let threads: Vec<_> = (0..number(count)?)
                .map(|i| format!("{file}{i}"))
                .map(|f| std::thread::spawn(move || busy(&f)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(0))).sum()
        }
        _ => Err(Error::other(format!("{step}?"))),
    }
}

fn append(file: &str) -> Result<File> {
    File::options().append(true).open(file)
}

fn busy(file: &str) -> Result<usize> {
    let mut file = File::create(file)?;
    (0..3).map(|_| file.write(b"abc")).sum()
}

/// Not through the C library's function, which is how some crates do it.
fn rename(from: &str, to: &str) -> Result<usize> {
    let [from, to] = [CString::new(from)?, CString::new(to)?];
    // SAFETY: two strings that live until the call is over.
    let result =
        unsafe { libc::syscall(libc::SYS_renameat, libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr()) };
    if result == 0 { Ok(0) } else { Err(Error::last_os_error()) }
}
