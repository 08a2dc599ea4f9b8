//! What the checks found.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Classes of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An address outside of every allocation, or past the end of one.
    OutOfBounds,
    /// An address that does not divide by the size of the access.
    Misaligned,
    /// An allocation that was freed before.
    UseAfterFree,
    /// A kernel wrote `.const` memory.
    WriteToConstant,
    /// A read of memory that nobody wrote.
    Uninitialised,
    /// Two threads, one of them writing, without a barrier between.
    Race,
    /// A barrier that some thread never reaches.
    DivergentBarrier,
    /// A warp-wide instruction whose mask, or source lane, is not taking part.
    InactiveLane,
    /// A launch whose configuration or arguments do not fit the kernel.
    BadLaunch,
    /// A call of a library that it refuses.
    BadCall,
    /// `assert` of what does not hold.
    Assertion,
    /// `trap`, or a kernel that does not end.
    Trap,
    /// Memory, streams, events or modules that are left when the context ends.
    Leak,
}

impl Kind {
    /// The name that reports begin with.
    pub fn name(self) -> &'static str {
        match self {
            Kind::OutOfBounds => "out of bounds",
            Kind::Misaligned => "misaligned",
            Kind::UseAfterFree => "use after free",
            Kind::WriteToConstant => "write to constant",
            Kind::Uninitialised => "uninitialised read",
            Kind::Race => "race",
            Kind::DivergentBarrier => "divergent barrier",
            Kind::InactiveLane => "inactive lane",
            Kind::BadLaunch => "bad launch",
            Kind::BadCall => "bad call",
            Kind::Assertion => "assertion",
            Kind::Trap => "trap",
            Kind::Leak => "leak",
        }
    }

    /// The CUDA error that the context is left with; 0 for none.
    pub fn cuda_error(self) -> u32 {
        match self {
            Kind::OutOfBounds | Kind::UseAfterFree | Kind::WriteToConstant => 700, // illegal address
            Kind::Assertion => 710,
            Kind::Misaligned => 716,
            Kind::BadLaunch | Kind::BadCall | Kind::Leak => 0, // the call that is wrong says so itself; the context stays usable
            _ => 719,                                          // launch failed
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Class.
    pub kind: Kind,
    /// Kernel, or the driver function.
    pub by: String,
    /// `file:line` from `.loc`.
    pub place: String,
    /// Block and thread, where there is one.
    pub thread: Option<([u32; 3], [u32; 3])>,
    /// What happened.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at {}", self.kind.name(), self.by, self.place)?;
        if let Some(([bx, by, bz], [tx, ty, tz])) = self.thread {
            write!(f, ", block ({bx},{by},{bz}), thread ({tx},{ty},{tz})")?;
        }
        write!(f, ": {}", self.detail)
    }
}

struct Log {
    findings: Vec<Finding>,
    error: u32,
}

static LOG: Mutex<Log> = Mutex::new(Log { findings: Vec::new(), error: 0 });

fn log() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a finding to standard error, keeps it, and leaves the context with its error.
pub fn add(finding: Finding) {
    eprintln!("vgpu: {finding}");
    let mut log = log();
    if log.error == 0 {
        log.error = finding.kind.cuda_error();
    }
    log.findings.push(finding);
}

/// The error that the context is left with; 0 is none.
pub fn error() -> u32 {
    log().error
}

/// Takes all findings and clears the error: the context works again.
pub fn take() -> Vec<Finding> {
    let mut log = log();
    log.error = 0;
    std::mem::take(&mut log.findings)
}

/// What kernels printed and nobody has taken; the oldest goes first where it becomes long.
static OUTPUT: Mutex<String> = Mutex::new(String::new());
const OUTPUT_KEPT: usize = 1 << 20;

/// Prints what kernels print, to standard output, and keeps it.
pub fn print(text: &str) {
    print!("{text}");
    let mut output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    output.push_str(text);
    if output.len() > OUTPUT_KEPT {
        let cut = (output.len() - OUTPUT_KEPT..output.len()).find(|&i| output.is_char_boundary(i));
        output.drain(..cut.unwrap_or(0));
    }
}

/// Takes what kernels printed.
pub fn take_output() -> String {
    std::mem::take(&mut *OUTPUT.lock().unwrap_or_else(PoisonError::into_inner))
}
