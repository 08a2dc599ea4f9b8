//! Paths as system calls have them, made absolute. On the stack: most of them are none of our business, and may be the
//! allocator's.

use std::ffi::CStr;

use super::system_call;

const ROOM: usize = libc::PATH_MAX as usize;

/// An absolute path without `.`, `..` and doubled slashes. Links in it are not followed.
pub struct Absolute {
    bytes: [u8; 2 * ROOM],
    len: usize,
}

impl Absolute {
    /// The path at `name` (a string of C's), seen from the folder that the descriptor `from` has open. `None` where the kernel
    /// would not take it either.
    pub fn named(from: i32, name: u64) -> Option<Absolute> {
        if name == 0 {
            return None;
        }
        // SAFETY: the program gives the kernel a string that ends; if it did not, the kernel would fault as well.
        let name = unsafe { CStr::from_ptr(name as *const _) }.to_bytes();
        if name.is_empty() || name.len() >= ROOM {
            return None;
        }
        let mut path = match name[0] {
            b'/' => Absolute { bytes: [0; 2 * ROOM], len: 0 },
            _ if from == libc::AT_FDCWD => Absolute::link(c"/proc/self/cwd")?,
            _ => Absolute::open(from)?,
        };
        for part in name.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => path.len = path.bytes[..path.len].iter().rposition(|&byte| byte == b'/').unwrap_or(0),
                part => {
                    let behind = path.bytes.get_mut(path.len..path.len + 1 + part.len())?;
                    behind[0] = b'/';
                    behind[1..].copy_from_slice(part);
                    path.len += 1 + part.len();
                }
            }
        }
        Some(path)
    }

    /// What the descriptor has open. `None` if that has no path, as pipes have none.
    pub fn open(descriptor: i32) -> Option<Absolute> {
        let mut link = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
        let mut at = 14 + descriptor.checked_ilog10().unwrap_or(0) as usize;
        let mut rest = u32::try_from(descriptor).ok()?;
        loop {
            link[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
            at -= 1;
        }
        Absolute::link(CStr::from_bytes_until_nul(&link).ok()?)
    }

    /// Where a link leads.
    fn link(link: &CStr) -> Option<Absolute> {
        let mut path = Absolute { bytes: [0; 2 * ROOM], len: 0 };
        let into = path.bytes.as_mut_ptr() as u64;
        let from = link.as_ptr() as u64;
        let len = system_call(libc::SYS_readlink, [from, into, ROOM as u64, 0, 0, 0]);
        path.len = usize::try_from(len).ok()?;
        // Of the root folder nothing is left, as of its name when it is put together.
        path.len -= usize::from(path.as_bytes() == b"/");
        (path.len == 0 || path.bytes[0] == b'/').then_some(path)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The part below `root`, empty for `root` itself; `None` elsewhere.
    pub fn below(&self, root: &[u8]) -> Option<&[u8]> {
        match self.as_bytes().strip_prefix(root)? {
            b"" => Some(b""),
            [b'/', rest @ ..] => Some(rest),
            _ => None,
        }
    }
}
