//! A log of JSON lines that a disk fault cannot end, and that goes back to where a checkpoint stands.

use super::{CollapseRecord, EvalRecord};
use crate::atomic_file::write_atomically;
use crate::eval::collapse::Collapse;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Bytes of lines that wait in memory while they cannot be written, at most; the oldest give way.
const WAITING_BYTES: usize = 8 << 20;

/// A file of JSON lines that grows. A line that cannot be written waits in memory, and is written in its place as soon as the
/// disk takes it again.
#[derive(Debug)]
pub struct JsonLines<F = File> {
    path: PathBuf,
    file: F,
    /// Bytes of whole lines in the file.
    whole: u64,
    /// Whether there may be a part of a line behind them.
    torn: bool,
    waiting: VecDeque<String>,
    waiting_bytes: usize,
    dropped: u64,
    /// Why the last write failed, until one succeeds.
    fault: Option<String>,
    /// Whether it was said that it cannot be synced.
    unsynced: bool,
}

/// What a log needs of a file, so that tests can have one that fails.
pub trait LogFile: Write {
    /// Cuts the file off after so many bytes; what is written next follows there.
    fn cut(&mut self, bytes: u64) -> std::io::Result<()>;
    /// Waits until the disk has it all.
    fn sync(&mut self) -> std::io::Result<()>;
}

impl LogFile for File {
    fn cut(&mut self, bytes: u64) -> std::io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.sync_data()
    }
}

/// What going back to a step did, in lines, and where it left the clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewound {
    /// Lines kept.
    pub kept: usize,
    /// Lines of later steps, which the resumed run will write again.
    pub later: usize,
    /// Lines that are no records, such as the last one of a run that was killed.
    pub broken: usize,
    /// The last step that was kept.
    pub step: u64,
    /// Seconds from the start of training to the last step that was kept; only `timing.jsonl` has them.
    pub seconds: f64,
    /// Whether an evaluation at the very step gone back to was kept.
    pub evaluated: bool,
    /// What had collapsed when it was last measured.
    pub collapsed: Vec<Collapse>,
    /// That evaluation, if its numbers are all finite: JSON lacks the others.
    pub evaluation: Option<EvalRecord>,
}

impl JsonLines {
    /// Goes on with the log at `path` (empty if there is none) as it stood after `step`: lines of later steps, which will be
    /// written again, and broken lines are removed. [`Error::Io`] if the file cannot be read or written.
    pub fn resume(path: &Path, step: u64) -> Result<(JsonLines, Rewound)> {
        let rewound = if path.exists() { rewind(path, step)? } else { Rewound::default() };
        let file = File::options().append(true).create(true).open(path).map_err(Error::io("open", path))?;
        let whole = file.metadata().map_err(Error::io("read", path))?.len();
        Ok((JsonLines::new(path, file, whole), rewound))
    }
}

impl<F: LogFile> JsonLines<F> {
    fn new(path: &Path, file: F, whole: u64) -> Self {
        let waiting = VecDeque::new();
        let (torn, unsynced) = (false, false);
        JsonLines { path: path.into(), file, whole, torn, waiting, waiting_bytes: 0, dropped: 0, fault: None, unsynced }
    }

    /// Appends a line (given without its newline), after those that wait. Gives what there is to say: that it cannot be
    /// written, once, that lines are lost, once, and that it can be written again.
    pub fn write(&mut self, line: String) -> Option<String> {
        let dropped = self.dropped;
        self.waiting_bytes += line.len() + 1;
        self.waiting.push_back(line + "\n");
        while self.waiting_bytes > WAITING_BYTES {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= oldest.len();
            self.dropped += 1;
        }
        let said = self.flush();
        if said.is_none() && dropped == 0 && self.dropped > 0 {
            let path = self.path.display();
            return Some(format!("{path}: too many lines wait in memory, the oldest are lost from here on"));
        }
        said
    }

    /// Tries to write what waits. Gives what there is to say, as [`JsonLines::write`].
    pub fn flush(&mut self) -> Option<String> {
        let waiting = self.waiting.len();
        let written = (self.write_waiting(), self.fault.take());
        let path = self.path.display();
        match written {
            (Ok(()), None) => None,
            (Ok(()), Some(_)) => Some(match self.dropped {
                0 => format!("{path} can be written again: the {waiting} lines that waited are in it"),
                lost => format!("{path} can be written again; {lost} lines are lost"),
            }),
            (Err(fault), before) => {
                let first = before.is_none();
                let said = format!("cannot write {path}: {fault}; the run goes on, its lines wait in memory");
                self.fault = Some(fault.to_string());
                first.then_some(said)
            }
        }
    }

    fn write_waiting(&mut self) -> std::io::Result<()> {
        while let Some(line) = self.waiting.front() {
            if self.torn {
                self.file.cut(self.whole)?;
                self.torn = false;
            }
            // One write a line, so that a killed run leaves at most one broken line.
            self.torn = true;
            self.file.write_all(line.as_bytes())?;
            self.torn = false;
            self.whole += line.len() as u64;
            self.waiting_bytes -= line.len();
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Waits until the disk has the lines: a checkpoint must not outlive the lines before it. Gives what there is to say.
    pub fn sync(&mut self) -> Option<String> {
        let said = self.flush();
        match self.file.sync() {
            Err(fault) if self.fault.is_none() && !self.unsynced => {
                self.unsynced = true;
                Some(format!("cannot sync {}: {fault}; the run goes on", self.path.display()))
            }
            _ => said,
        }
    }

    /// What is missing in the file, in words; `None` if every line is in it.
    pub fn missing(&self) -> Option<String> {
        let missing = self.waiting.len() as u64 + self.dropped;
        let fault = self.fault.as_ref().map_or(String::new(), |fault| format!(" ({fault})"));
        (missing > 0).then(|| format!("{} lacks {missing} lines{fault}", self.path.display()))
    }
}

/// What every line has.
#[derive(Deserialize)]
struct Stamp {
    kind: String,
    step: u64,
    seconds: Option<f64>,
}

/// Whether a line stays when the log at hand goes back to `step`, noted in `rewound`.
fn stays(line: &[u8], step: u64, rewound: &mut Rewound) -> bool {
    let stamp = serde_json::from_slice::<Stamp>(line).ok().filter(|_| line.ends_with(b"\n"));
    match stamp {
        Some(stamp) if stamp.step > step => rewound.later += 1,
        Some(stamp) => {
            if stamp.kind == "eval" && stamp.step == step {
                rewound.evaluated = true;
                rewound.evaluation = serde_json::from_slice(line).ok();
            }
            if stamp.kind == "collapse" {
                let record = serde_json::from_slice::<CollapseRecord>(line);
                rewound.collapsed = record.map(|record| record.health.collapsed).unwrap_or_default();
            }
            if ["step", "nonfinite"].contains(&stamp.kind.as_str()) {
                rewound.step = stamp.step;
                rewound.seconds = stamp.seconds.unwrap_or(rewound.seconds);
            }
            rewound.kept += 1;
            return true;
        }
        None => rewound.broken += 1,
    }
    false
}

/// Calls `each` with every line of the file, its newline included.
fn each_line(path: &Path, mut each: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        each(&line);
        line.clear();
    }
    Ok(())
}

/// Takes the log at `path` back to where it stood after `step`. What goes is nearly always its end, which is cut off; a file
/// with broken lines in its middle is replaced as a whole.
fn rewind(path: &Path, step: u64) -> Result<Rewound> {
    let mut rewound = Rewound::default();
    // Bytes of the file, of lines that stay, and of those among them that nothing that goes stands before.
    let (mut bytes, mut kept, mut beginning) = (0, 0, 0);
    let read = each_line(path, |line| {
        let whole_so_far = bytes == kept;
        bytes += line.len() as u64;
        if stays(line, step, &mut rewound) {
            kept += line.len() as u64;
            beginning = if whole_so_far { kept } else { beginning };
        }
    });
    read.map_err(Error::io("read", path))?;
    if kept > beginning {
        write_atomically(path, |file| {
            let mut result = Ok(());
            let read = each_line(path, |line| {
                if result.is_ok() && stays(line, step, &mut Rewound::default()) {
                    result = file.write_all(line);
                }
            });
            result.and(read)
        })?;
    } else if kept < bytes {
        let file = File::options().write(true).open(path).map_err(Error::io("open", path))?;
        file.set_len(kept).map_err(Error::io("cut", path))?;
    }
    Ok(rewound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A line of a step, as either log may have it.
    fn line(step: u64) -> String {
        format!(r#"{{"kind":"step","step":{step},"seconds":{:.1}}}"#, 1.5 * step as f64)
    }

    fn text(steps: std::ops::RangeInclusive<u64>) -> String {
        steps.map(|n| line(n) + "\n").collect()
    }

    #[test]
    fn a_resumed_log_holds_every_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let counts = |r: &Rewound| (r.kept, r.later, r.broken, r.step, r.seconds);
        let uninterrupted = text(1..=20);
        // Killed in the middle of line 16, checkpoint at step 12.
        let torn: usize = text(1..=15).len() + 20;
        std::fs::write(&path, &uninterrupted[..torn]).unwrap();
        let (mut log, rewound) = JsonLines::resume(&path, 12).unwrap();
        assert_eq!(counts(&rewound), (12, 3, 1, 12, 18.0));
        (13..=20).for_each(|n| assert_eq!(log.write(line(n)), None));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), uninterrupted);
        assert_eq!((log.sync(), log.missing()), (None, None));
        assert_eq!(counts(&JsonLines::resume(&path, 20).unwrap().1), (20, 0, 0, 20, 30.0));
        // A whole line without its newline would swallow the next one.
        std::fs::write(&path, uninterrupted.trim_end()).unwrap();
        assert_eq!(counts(&JsonLines::resume(&path, 20).unwrap().1), (19, 0, 1, 19, 28.5));
        // Damage in the middle.
        std::fs::write(&path, format!("{}\n{{\"kind\"}}\n{}", text(1..=5), text(6..=9))).unwrap();
        assert_eq!(counts(&JsonLines::resume(&path, 7).unwrap().1), (7, 2, 2, 7, 10.5));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text(1..=7));
        assert_eq!(JsonLines::resume(&folder.path().join("new"), 20).unwrap().1, Rewound::default());
        assert!(JsonLines::resume(&folder.path().join("missing/x"), 0).is_err());
    }

    /// A disk that takes so many bytes and no more, and then cuts lines in two.
    struct Full {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            let taken = from.len().min(self.room - self.bytes.len());
            self.bytes.extend(&from[..taken]);
            if taken == 0 { Err(io::Error::other("disk full")) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl LogFile for Full {
        fn cut(&mut self, bytes: u64) -> io::Result<()> {
            self.bytes.truncate(bytes as usize);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_wait_for_the_disk_and_come_in_order() {
        let room = text(1..=4).len() + 10;
        let mut log = JsonLines::new(Path::new("log"), Full { bytes: Vec::new(), room }, 0);
        let said: Vec<String> = (1..=9).filter_map(|n| log.write(line(n))).collect();
        assert_eq!(said, ["cannot write log: disk full; the run goes on, its lines wait in memory"]);
        assert_eq!(log.missing().unwrap(), "log lacks 5 lines (disk full)");
        log.file.room = usize::MAX;
        assert_eq!(log.write(line(10)).unwrap(), "log can be written again: the 6 lines that waited are in it");
        assert_eq!((String::from_utf8(log.file.bytes.clone()).unwrap(), log.missing()), (text(1..=10), None));
        assert_eq!(log.write(line(11)), None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut log = JsonLines::new(Path::new("log"), Full { bytes: Vec::new(), room: 0 }, 0);
        let long = |n: u64| format!("{n}{}", "x".repeat(WAITING_BYTES / 4));
        let said: Vec<String> = (1..=9).filter_map(|n| log.write(long(n))).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].contains("the oldest are lost"), "{said:?}");
        assert!(log.waiting_bytes <= WAITING_BYTES && log.waiting.len() == 3);
        log.file.room = usize::MAX;
        assert_eq!(log.flush().unwrap(), "log can be written again; 6 lines are lost");
        assert_eq!(log.missing().unwrap(), "log lacks 6 lines");
    }
}
