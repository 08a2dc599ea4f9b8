//! The system calls that change files, each as one of a few operations.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::path::Absolute;
use super::system_call;
use crate::{Kind, Operation, Outcome};

/// Calls that [`Call::of`] knows.
pub const TRAPPED: &[i64] = &[
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
];

/// Ways to write that go round the calls above; programs do without.
pub const REFUSED: &[i64] = &[libc::SYS_io_uring_setup, libc::SYS_io_submit];

const HERE: i32 = libc::AT_FDCWD;

/// A system call on something below the folder.
pub struct Call {
    number: i64,
    arguments: [u64; 6],
    kind: Kind,
    /// Bytes that a write was given, else 0.
    bytes: usize,
    path: PathBuf,
    target: Option<PathBuf>,
}

/// What a call is about: a descriptor, or names.
enum About {
    Open(i32),
    Name((i32, u64)),
    Names((i32, u64), (i32, u64)),
}

impl Call {
    /// The call if it changes something below `root`.
    pub fn of(number: i64, arguments: [u64; 6], root: &[u8]) -> Option<Call> {
        let (kind, about, bytes) = read(number, arguments)?;
        let own = |path: Option<Absolute>| Some(PathBuf::from(OsStr::from_bytes(path?.below(root)?)));
        let named = |(from, name): (i32, u64)| own(Absolute::named(from, name));
        let (path, target) = match about {
            About::Open(descriptor) => (own(Absolute::open(descriptor))?, None),
            About::Name(name) => (named(name)?, None),
            // One that leads out of the folder or into it counts as well.
            About::Names(old, new) => match (named(old), named(new)) {
                (None, None) => return None,
                (old, new) => (old.unwrap_or_default(), Some(new.unwrap_or_default())),
            },
        };
        Some(Call { number, arguments, kind, bytes, path, target })
    }

    pub fn operation(&self, number: u64) -> Operation {
        let Call { kind, bytes, .. } = *self;
        Operation {
            number,
            kind,
            bytes,
            outcome: Outcome::Done(0),
            path: self.path.clone(),
            target: self.target.clone(),
        }
    }

    pub fn is_write(&self) -> bool {
        self.kind == Kind::Write
    }

    /// Carries it out as it is.
    pub fn whole(&self) -> i64 {
        system_call(self.number, self.arguments)
    }

    /// Carries out a write of at most `bytes`; anything else is left undone.
    pub fn shortened(&self, bytes: usize) -> i64 {
        let mut arguments = self.arguments;
        let bytes = bytes.min(self.bytes);
        match self.number {
            _ if !self.is_write() => 0,
            libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
                let gathered = gather(arguments[1], arguments[2], bytes);
                let plain = if self.number == libc::SYS_writev { libc::SYS_write } else { libc::SYS_pwrite64 };
                let [descriptor, _, _, offset, ..] = arguments;
                system_call(plain, [descriptor, gathered.as_ptr() as u64, bytes as u64, offset, 0, 0])
            }
            libc::SYS_sendfile => {
                arguments[3] = bytes as u64;
                system_call(self.number, arguments)
            }
            libc::SYS_copy_file_range | libc::SYS_splice => {
                arguments[4] = bytes as u64;
                system_call(self.number, arguments)
            }
            _ => {
                arguments[2] = bytes as u64;
                system_call(self.number, arguments)
            }
        }
    }

    /// Bytes of the file that this call removes, or replaces by another.
    pub fn bytes_removed(&self) -> u64 {
        let name = match (self.kind, self.number) {
            (Kind::Remove, libc::SYS_unlinkat) => (self.arguments[0] as i32, self.arguments[1]),
            (Kind::Remove, _) => (HERE, self.arguments[0]),
            (Kind::Rename, libc::SYS_rename) => (HERE, self.arguments[1]),
            (Kind::Rename, _) => (self.arguments[2] as i32, self.arguments[3]),
            _ => return 0,
        };
        // SAFETY: an all-zero stat is one, and the kernel fills it.
        let mut found: libc::stat = unsafe { std::mem::zeroed() };
        let into = &raw mut found as u64;
        let arguments = [name.0 as u64, name.1, into, libc::AT_SYMLINK_NOFOLLOW as u64, 0, 0];
        let there = system_call(libc::SYS_newfstatat, arguments) == 0 && found.st_mode & libc::S_IFMT == libc::S_IFREG;
        if there { found.st_size as u64 } else { 0 }
    }
}

/// What a call does, to what, and with how many bytes; `None` for opening what is there to read or write.
fn read(number: i64, arguments: [u64; 6]) -> Option<(Kind, About, usize)> {
    let [a, b, c, d, e, _] = arguments;
    let open = |argument: u64| About::Open(argument as i32);
    let name = |from: u64, name: u64| About::Name((from as i32, name));
    let here = |name: u64| About::Name((HERE, name));
    let makes = |flags: u64| flags & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0;
    let write = |descriptor: u64, bytes: u64| Some((Kind::Write, open(descriptor), bytes as usize));
    let plain = |kind: Kind, about: About| Some((kind, about, 0));
    match number {
        libc::SYS_open if makes(b) => plain(Kind::Create, here(a)),
        libc::SYS_openat if makes(c) => plain(Kind::Create, name(a, b)),
        // SAFETY: struct open_how begins with its flags.
        libc::SYS_openat2 if c != 0 && makes(unsafe { *(c as *const u64) }) => plain(Kind::Create, name(a, b)),
        libc::SYS_creat => plain(Kind::Create, here(a)),
        libc::SYS_write | libc::SYS_pwrite64 => write(a, c),
        libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
            write(a, vectors(b, c).map(|v| v.iov_len as u64).sum())
        }
        libc::SYS_copy_file_range | libc::SYS_splice => write(c, e),
        libc::SYS_sendfile => write(a, d),
        libc::SYS_truncate => plain(Kind::Truncate, here(a)),
        libc::SYS_ftruncate | libc::SYS_fallocate => plain(Kind::Truncate, open(a)),
        libc::SYS_fsync | libc::SYS_fdatasync => plain(Kind::Sync, open(a)),
        libc::SYS_rename => plain(Kind::Rename, About::Names((HERE, a), (HERE, b))),
        libc::SYS_renameat | libc::SYS_renameat2 => plain(Kind::Rename, About::Names((a as i32, b), (c as i32, d))),
        libc::SYS_link => plain(Kind::Link, About::Names((HERE, a), (HERE, b))),
        libc::SYS_linkat => plain(Kind::Link, About::Names((a as i32, b), (c as i32, d))),
        libc::SYS_symlink => plain(Kind::Link, here(b)),
        libc::SYS_symlinkat => plain(Kind::Link, name(b, c)),
        libc::SYS_unlink | libc::SYS_rmdir => plain(Kind::Remove, here(a)),
        libc::SYS_unlinkat => plain(Kind::Remove, name(a, b)),
        libc::SYS_mkdir => plain(Kind::Mkdir, here(a)),
        libc::SYS_mkdirat => plain(Kind::Mkdir, name(a, b)),
        _ => None,
    }
}

/// The pieces of a gathered write.
fn vectors(first: u64, count: u64) -> impl Iterator<Item = libc::iovec> {
    let first = first as *const libc::iovec;
    let count = if first.is_null() { 0 } else { count.min(libc::UIO_MAXIOV as u64) as usize };
    // SAFETY: so many pieces the program gives the kernel.
    (0..count).map(move |i| unsafe { *first.add(i) })
}

/// The first bytes of all pieces together.
fn gather(first: u64, count: u64, bytes: usize) -> Vec<u8> {
    let mut gathered = Vec::with_capacity(bytes);
    for piece in vectors(first, count) {
        let len = piece.iov_len.min(bytes - gathered.len());
        // SAFETY: a piece that the program gives the kernel to read.
        gathered.extend_from_slice(unsafe { std::slice::from_raw_parts(piece.iov_base.cast(), len) });
    }
    gathered
}
