//! `printf` and `assert` of kernels.

use super::block::Block;
use super::lanes::Lanes;
use super::launch::Step;
use super::memory::Target;
use super::op::Space;
use super::warp::Warp;
use crate::report::Kind;
use std::ffi::{CString, c_int};

/// Longest string that is followed.
const LONGEST: u64 = 4096;

/// A conversion of a format: what C's `snprintf` takes, and what it converts.
enum Conversion {
    Integer { wide: bool },
    Real,
    Text,
}

impl Block<'_> {
    /// A parameter of the call, from the thread's local memory.
    fn passed(&mut self, w: &Warp, at: u32, n: u32, pc: u32, lane: usize) -> u64 {
        self.fetch(w, Target::Local(at as u64), n, pc, lane)[0]
    }

    fn text(&mut self, w: &Warp, address: u64, pc: u32, lane: usize) -> Step<String> {
        let mut bytes = Vec::new();
        for at in address..address.saturating_add(LONGEST) {
            let target = self.target(w, Space::Generic, at, 1, pc, lane)?;
            match self.fetch(w, target, 1, pc, lane)[0] as u8 {
                0 => break,
                byte => bytes.push(byte),
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `vprintf`: one lane after the other.
    pub fn print(&mut self, w: &mut Warp, [format, arguments, result]: [u32; 3], pc: u32, mask: u32) -> Step<()> {
        for lane in Lanes(mask) {
            let (format, mut at) = (self.passed(w, format, 8, pc, lane), self.passed(w, arguments, 8, pc, lane));
            let format = self.text(w, format, pc, lane)?;
            let (mut out, mut rest, mut count) = (String::new(), format.as_str(), 0u64);
            while let Some(percent) = rest.find('%') {
                out.push_str(&rest[..percent]);
                let (spec, conversion, used) = conversion(&rest[percent..]);
                rest = &rest[percent + used..];
                let Some(conversion) = conversion else {
                    out.push_str(&spec);
                    continue;
                };
                let n = if matches!(conversion, Conversion::Integer { wide: false }) { 4 } else { 8 };
                at = at.next_multiple_of(n);
                let target = self.target(w, Space::Generic, at, n as u32, pc, lane)?;
                let value = self.fetch(w, target, n as u32, pc, lane)[0];
                (at, count) = (at + n, count + 1);
                out.push_str(&match conversion {
                    Conversion::Text => {
                        let text = self.text(w, value, pc, lane)?;
                        formatted(&spec, |spec, buffer, n| {
                            let text = CString::new(text.as_str()).unwrap_or_default();
                            // SAFETY: the format has one conversion, of a string.
                            unsafe { libc::snprintf(buffer, n, spec, text.as_ptr()) }
                        })
                    }
                    Conversion::Integer { wide: true } => formatted(&spec, |spec, buffer, n| {
                        // SAFETY: the format has one conversion, of a 64-bit number.
                        unsafe { libc::snprintf(buffer, n, spec, value) }
                    }),
                    Conversion::Integer { wide: false } => formatted(&spec, |spec, buffer, n| {
                        // SAFETY: the format has one conversion, of a 32-bit number.
                        unsafe { libc::snprintf(buffer, n, spec, value as u32) }
                    }),
                    Conversion::Real => formatted(&spec, |spec, buffer, n| {
                        // SAFETY: the format has one conversion, of a double.
                        unsafe { libc::snprintf(buffer, n, spec, f64::from_bits(value)) }
                    }),
                });
            }
            out.push_str(rest);
            self.printed.push_str(&out);
            self.put(w, Target::Local(result as u64), 4, &[count, 0, 0, 0], pc, lane)?;
        }
        Ok(())
    }

    /// `__assertfail`: ends the launch.
    pub fn assert_fail(&mut self, w: &Warp, [message, file, line, function]: [u32; 4], pc: u32, mask: u32) -> Step<()> {
        let lane = Warp::first(mask) as usize;
        let [message, file, function] = [message, file, function].map(|at| self.passed(w, at, 8, pc, lane));
        let line = self.passed(w, line, 4, pc, lane);
        let (message, file) = (self.text(w, message, pc, lane)?, self.text(w, file, pc, lane)?);
        let function = self.text(w, function, pc, lane)?;
        let detail = format!("`{message}` does not hold, {file}:{line}, {function}");
        Err(w.fault(Kind::Assertion, pc, lane as u32, detail))
    }
}

/// Takes a conversion apart that begins with `%`: its text for C, what it converts (nothing for `%%` and what is none), and its
/// length. Widths and precisions from arguments (`*`) are not covered and printed as they stand.
fn conversion(text: &str) -> (String, Option<Conversion>, usize) {
    let end = 1 + text[1..].find(|c: char| !"-+ #0123456789.hlLqjzt".contains(c)).unwrap_or(text.len() - 1);
    let letter = text[end..].chars().next().unwrap_or(' ');
    let used = (end + letter.len_utf8()).min(text.len());
    let wide = text[..end].contains(['l', 'q', 'j', 'z', 't']) || letter == 'p';
    let conversion = match letter {
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'c' | 'p' => Conversion::Integer { wide },
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'a' | 'A' => Conversion::Real,
        's' => Conversion::Text,
        '%' => return ("%".into(), None, used),
        _ => return (text[..used].into(), None, used),
    };
    let flags: String = text[..end].chars().filter(|c| !"hlLqjzt".contains(*c)).collect();
    let length = if wide && letter != 'p' { "ll" } else { "" };
    (format!("{flags}{length}{letter}"), Some(conversion), used)
}

fn formatted(spec: &str, print: impl FnOnce(*const libc::c_char, *mut libc::c_char, usize) -> c_int) -> String {
    let (spec, mut buffer) = (CString::new(spec).unwrap_or_default(), vec![0u8; LONGEST as usize + 64]);
    let n = print(spec.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len());
    buffer.truncate((n.max(0) as usize).min(buffer.len() - 1));
    String::from_utf8_lossy(&buffer).into_owned()
}
