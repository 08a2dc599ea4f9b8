//! Files read in place through a memory map, safe against other processes: a file that is cut short or written to while it
//! is mapped gives an error, not a crash.
//!
//! Touching a mapped page that lies past the end of its file raises SIGBUS. A handler, installed with the first map, puts
//! a page of zeros where the fault was and marks the map as broken; the reader goes on with zeros and learns of it from
//! [`MappedFile::check`] before it lets the result out. Faults outside our maps go to whoever handled them before.

use std::fs::{File, Metadata};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use crate::{Error, Result};

/// A regular file, mapped for reading.
pub struct MappedFile {
    map: memmap2::Mmap,
    path: PathBuf,
    file: File,
    /// What the file looked like when its content was last known to be right.
    seen: Mutex<Stamp>,
    guard: fault::Guard,
}

/// What a write to a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

/// What happened to a file since it was mapped or last [accepted](MappedFile::accept).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It may have been written to; its size is the same.
    Touched,
    /// It has another size, or a part of it could not be read.
    Broken,
}

impl MappedFile {
    /// Maps the file at `path`. Errors with [`Error::Io`] if it cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<MappedFile> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        // Before the map, so that whatever is written after it shows.
        let seen = Stamp::of(&file.metadata().map_err(Error::io("read", path))?);
        // SAFETY: the map is only ever read, and only as bytes, of which every value is valid. Another process may write to
        // the file or cut it short at any time: all readers take any bytes, faults are caught (see the module), and
        // `check` tells of both.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let guard = fault::Guard::over(&map).map_err(Error::io("guard the map of", path))?;
        Ok(MappedFile { map, path: path.to_path_buf(), file, seen: Mutex::new(seen), guard })
    }

    /// Where the file is, or was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What happened to the file; costs a system call.
    pub fn change(&self) -> Change {
        let seen = *self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match self.file.metadata().map(|metadata| Stamp::of(&metadata)) {
            _ if self.guard.has_faulted() => Change::Broken,
            Ok(now) if now == seen => Change::None,
            Ok(now) if now.bytes == seen.bytes => Change::Touched,
            _ => Change::Broken,
        }
    }

    /// `Ok` if everything read so far was the file's content when it was mapped.
    ///
    /// # Errors
    /// [`Error::Format`] if the file was cut short, written to, or could not be read.
    pub fn check(&self) -> Result<()> {
        match self.change() {
            Change::None => Ok(()),
            Change::Touched => Err(Error::format(&self.path, "changed while it was being read")),
            Change::Broken => Err(Error::format(&self.path, "cut short or unreadable while it was being read")),
        }
    }

    /// Takes a touched file as it is now, because its content was found to be right.
    pub fn accept(&self) {
        if let Ok(metadata) = self.file.metadata() {
            *self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Stamp::of(&metadata);
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(unix)]
mod fault {
    //! The handler. It may interrupt any instruction of any thread, so it takes no lock and allocates nothing: it walks a list
    //! that only ever grows.

    use std::ffi::{c_int, c_void};
    use std::io;
    use std::mem::MaybeUninit;
    use std::ptr::null_mut;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

    /// A guarded range of addresses; free while `end` is 0.
    struct Range {
        taken: AtomicBool,
        start: AtomicUsize,
        end: AtomicUsize,
        faulted: AtomicBool,
        next: AtomicPtr<Range>,
    }

    /// The first of all ranges ever guarded. They are never freed but used again.
    static FIRST: AtomicPtr<Range> = AtomicPtr::new(null_mut());
    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
    static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

    /// Keeps faults in one map from ending the process.
    pub struct Guard(&'static Range);

    impl Guard {
        /// Guards the pages of `map`, which must stay mapped as long as the guard lives.
        pub fn over(map: &[u8]) -> io::Result<Guard> {
            install()?;
            let range = free_range();
            let start = map.as_ptr() as usize;
            range.faulted.store(false, Ordering::Relaxed);
            range.start.store(start, Ordering::Relaxed);
            // Whole pages belong to the map, also after its last byte.
            range.end.store(start + map.len().next_multiple_of(PAGE_BYTES.load(Ordering::Relaxed)), Ordering::Release);
            Ok(Guard(range))
        }

        pub fn has_faulted(&self) -> bool {
            self.0.faulted.load(Ordering::Acquire)
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.end.store(0, Ordering::Release);
            self.0.taken.store(false, Ordering::Release);
        }
    }

    /// All ranges.
    fn ranges() -> impl Iterator<Item = &'static Range> {
        let get = |pointer: &AtomicPtr<Range>| {
            // SAFETY: the pointer is null or came from `Box::leak`, so what it points to lives for ever, and all of it is atomic.
            unsafe { pointer.load(Ordering::Acquire).as_ref() }
        };
        std::iter::successors(get(&FIRST), move |range| get(&range.next))
    }

    /// A range for the caller alone.
    fn free_range() -> &'static Range {
        if let Some(range) = ranges().find(|range| !range.taken.swap(true, Ordering::AcqRel)) {
            return range;
        }
        let range: &'static mut Range = Box::leak(Box::new(Range {
            taken: AtomicBool::new(true),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            faulted: AtomicBool::new(false),
            next: AtomicPtr::new(FIRST.load(Ordering::Acquire)),
        }));
        let new: *mut Range = range;
        while let Err(first) = FIRST.compare_exchange(*range.next.get_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            *range.next.get_mut() = first;
        }
        range
    }

    /// Installs the handler, once a process.
    fn install() -> io::Result<()> {
        static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| {
            // SAFETY: `sysconf` and `sigaction` are called with valid arguments; zeros are a valid `sigaction`. The handler is
            // safe in a signal context, see the module. SA_ONSTACK: the standard library may have given threads such a
            // stack, and the previous handler may need it.
            unsafe {
                PAGE_BYTES.store(usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096), Ordering::Relaxed);
                let mut previous = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                // First ask, so that the previous handler is known before ours can run.
                if libc::sigaction(libc::SIGBUS, null_mut(), &mut previous) != 0 {
                    return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
                }
                let _ = PREVIOUS.set(previous);
                let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                action.sa_sigaction = on_fault as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                if libc::sigaction(libc::SIGBUS, &action, null_mut()) != 0 {
                    return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
                }
            }
            Ok(())
        });
        installed.map_err(io::Error::from_raw_os_error)
    }

    extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
        // SAFETY: the system passes a valid `info` to a handler with SA_SIGINFO. `mmap` replaces one page of a map of ours, which
        // nothing else occupies, by zeros, and is a plain system call. Errno is put back for the interrupted code.
        unsafe {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            let address = (*info).si_addr() as usize;
            let within = |range: &&Range| {
                let end = range.end.load(Ordering::Acquire);
                (range.start.load(Ordering::Relaxed)..end).contains(&address)
            };
            if let Some(range) = ranges().find(within) {
                let page_bytes = PAGE_BYTES.load(Ordering::Relaxed);
                let page = (address & !(page_bytes - 1)) as *mut c_void;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                range.faulted.store(true, Ordering::Release);
                if libc::mmap(page, page_bytes, libc::PROT_READ, flags, -1, 0) == page {
                    set_errno(errno);
                    return;
                }
            }
            // Not ours: the instruction faults again, in the hands of whoever had the signal before.
            let default = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            libc::sigaction(signal, PREVIOUS.get().unwrap_or(&default), null_mut());
        }
    }

    /// Sets the calling thread's errno.
    fn set_errno(errno: c_int) {
        // SAFETY: each function returns the address of the calling thread's errno.
        unsafe {
            #[cfg(any(target_os = "linux", target_os = "emscripten"))]
            let location = libc::__errno_location();
            #[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
            let location = libc::__error();
            *location = errno;
        }
    }
}

#[cfg(not(unix))]
mod fault {
    //! Other systems do not let a mapped file be cut short.

    pub struct Guard;

    impl Guard {
        pub fn over(_map: &[u8]) -> std::io::Result<Guard> {
            Ok(Guard)
        }

        pub fn has_faulted(&self) -> bool {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `bytes` times 7.
    fn sevens(bytes: usize) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sevens");
        std::fs::write(&path, vec![7; bytes]).unwrap();
        (folder, path)
    }

    fn sum(bytes: &[u8]) -> usize {
        bytes.iter().map(|&byte| usize::from(byte)).sum()
    }

    #[cfg(unix)]
    #[test]
    fn a_file_cut_short_while_mapped_is_an_error() {
        let (_folder, path) = sevens(1 << 20);
        let other = MappedFile::open(&path).unwrap();
        drop(other); // its range is used again
        let map = MappedFile::open(&path).unwrap();
        assert_eq!((sum(&map), map.change()), (7 << 20, Change::None));
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000).unwrap();
        // The rest of the last page and everything after it read as zeros.
        assert_eq!(sum(&map), 700_000);
        assert_eq!(map.change(), Change::Broken);
        assert!(map.check().unwrap_err().to_string().contains("cut short"));
        // It stays broken even if the file grows again.
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        assert_eq!(map.change(), Change::Broken);
        assert_eq!(MappedFile::open(&path).unwrap().change(), Change::None);
    }

    #[test]
    fn a_write_shows() {
        let (_folder, path) = sevens(10);
        let map = MappedFile::open(&path).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(map.change(), Change::Touched);
        assert!(map.check().unwrap_err().to_string().contains("changed"));
        map.accept();
        assert_eq!(map.change(), Change::None);
        assert!(matches!(MappedFile::open(&path.join("absent")), Err(Error::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn maps_come_and_go_on_many_threads() {
        let (_folder, path) = sevens(10_000);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert_eq!(sum(&MappedFile::open(&path).unwrap()), 70_000);
                    }
                });
            }
        });
    }
}
