//! Under the program: a filter has the kernel raise SIGSYS instead of carrying out the calls that change files, and the signal's
//! handler carries them out, or does not.
//!
//! The handler runs in the middle of a system call and nowhere else, so it may do what a system call may: take its own lock,
//! allocate. (The allocator itself makes a few of the trapped calls, on files in /proc and /sys; calls on paths that do not
//! count are passed on before anything is allocated.) Its own calls come from one instruction, [`system_call`]'s, whose
//! address the filter lets pass.

mod calls;
mod path;
mod power;

use std::ffi::{CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::script::{Moment, Power, Script, Verdict};
use crate::{BAD_SCRIPT, Outcome, RECORD, ROOT, SCRIPT};
use calls::Call;
use power::Unsynced;

std::arch::global_asm!(
    ".hidden faultfs_system_call",
    ".hidden faultfs_system_call_return",
    ".globl faultfs_system_call",
    ".globl faultfs_system_call_return",
    "faultfs_system_call:",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "mov r8, r9",
    "mov r9, [rsp + 8]",
    "syscall",
    "faultfs_system_call_return:",
    "ret",
);

unsafe extern "C" {
    fn faultfs_system_call(number: i64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64;
    fn faultfs_system_call_return();
}

/// The kernel's answer: a negative one is an error's number.
fn system_call(number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    // SAFETY: every caller's arguments are the program's own, or point to memory that is alive and long enough.
    unsafe { faultfs_system_call(number, a, b, c, d, e, f) }
}

/// What the handler needs to know.
struct State {
    root: Vec<u8>,
    /// -1: none.
    record: i32,
    progress: Mutex<Progress>,
}

struct Progress {
    operations: u64,
    script: Script,
    /// Kept only if the power may fail.
    unsynced: Option<Unsynced>,
}

static STATE: OnceLock<State> = OnceLock::new();

/// Runs when the library is loaded, before the program.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = {
    extern "C" fn start() {
        if std::env::var_os(ROOT).is_some()
            && let Err(problem) = begin()
        {
            eprintln!("faultfs: {problem}");
            std::process::exit(BAD_SCRIPT);
        }
    }
    start
};

fn begin() -> Result<(), String> {
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    let root = text(ROOT);
    if Path::new(&root).canonicalize().map_err(|error| format!("{ROOT}={root}: {error}"))? != Path::new(&root) {
        return Err(format!("{ROOT}={root}: not an absolute path without symbolic links"));
    }
    let script = Script::parse(&text(SCRIPT)).map_err(|problem| format!("{SCRIPT}: {problem}"))?;
    let record = match text(RECORD) {
        none if none.is_empty() => -1,
        path => open_record(Path::new(&path)).map_err(|error| format!("{RECORD}={path}: {error}"))?,
    };
    let unsynced = script.cuts_power().then(|| Unsynced::below(Path::new(&root)));
    let progress = Mutex::new(Progress { operations: 0, script, unsynced });
    let _ = STATE.set(State { root: root.into_bytes(), record, progress });
    install().map_err(|error| format!("this system does not let calls be trapped: {error}"))
}

/// A descriptor out of the way of the program's.
fn open_record(path: &Path) -> std::io::Result<i32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a string, and a descriptor that was just opened.
    let record = unsafe {
        let opened =
            libc::open(path.as_ptr(), libc::O_CREAT | libc::O_APPEND | libc::O_WRONLY | libc::O_CLOEXEC, 0o666);
        let record = if opened < 0 { opened } else { libc::fcntl(opened, libc::F_DUPFD_CLOEXEC, 900) };
        libc::close(opened);
        record
    };
    if record < 0 { Err(std::io::Error::last_os_error()) } else { Ok(record) }
}

/// Handler first, then the filter, for this thread and all that it starts.
fn install() -> std::io::Result<()> {
    let mut filter = filter();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the structures are as the kernel wants them, and the handler is of the kind that SA_SIGINFO asks for.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigfillset(&mut action.sa_mask); // a handler of the program's that writes would wait for itself
        libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Lets everything pass that comes from [`system_call`], traps [`calls::TRAPPED`], refuses [`calls::REFUSED`].
fn filter() -> Vec<libc::sock_filter> {
    const ARCH: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
    // Offsets in struct seccomp_data.
    const NUMBER: u32 = 0;
    const ARCH_AT: u32 = 4;
    const ADDRESS: u32 = 8;
    let own = faultfs_system_call_return as *const () as u64;
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |k: u32, jt: u8, jf: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, k);
    let end = |action: u32| step(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let mut program = vec![load(ARCH_AT), equal(ARCH, 1, 0), end(libc::SECCOMP_RET_ALLOW)];
    program.extend([load(ADDRESS), equal(own as u32, 0, 3), load(ADDRESS + 4), equal((own >> 32) as u32, 0, 1)]);
    program.extend([end(libc::SECCOMP_RET_ALLOW), load(NUMBER)]);
    for &number in calls::TRAPPED {
        program.extend([equal(number as u32, 0, 1), end(libc::SECCOMP_RET_TRAP)]);
    }
    for &number in calls::REFUSED {
        program.extend([equal(number as u32, 0, 1), end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)]);
    }
    program.push(end(libc::SECCOMP_RET_ALLOW));
    program
}

extern "C" fn on_trap(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands over this thread's registers, which it takes back afterwards.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |index: c_int| registers[index as usize] as u64;
    let arguments =
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9].map(register);
    let number = registers[libc::REG_RAX as usize];
    registers[libc::REG_RAX as usize] =
        match STATE.get().and_then(|state| Some((state, Call::of(number, arguments, &state.root)?))) {
            Some((state, call)) => carry_out(state, &call),
            None => system_call(number, arguments),
        };
}

/// Numbers an operation and does with it what the script says. One at a time: the numbers are the order in which it happened.
fn carry_out(state: &State, call: &Call) -> i64 {
    let mut progress = state.progress.lock().unwrap_or_else(PoisonError::into_inner);
    let Progress { operations, script, unsynced } = &mut *progress;
    *operations += 1;
    let mut operation = call.operation(*operations);
    let verdict = script.judge(&operation);
    let before = unsynced.as_mut().map(|unsynced| unsynced.before(&operation));
    let result = match verdict {
        Verdict::Fail(error) => -i64::from(error),
        Verdict::End(Moment::Before, _) => 0,
        Verdict::End(Moment::Within, _) => call.shortened(operation.bytes / 2),
        Verdict::End(Moment::After, _) => call.whole(),
        Verdict::Pass if !script.counts_space() => call.whole(),
        Verdict::Pass => with_space(script, call, usize::MAX),
        Verdict::Short(bytes) => with_space(script, call, bytes),
    };
    let undone = match verdict {
        Verdict::End(Moment::Before, _) => true,
        Verdict::End(Moment::Within, _) => !call.is_write(),
        _ => false,
    };
    if let Some((unsynced, before)) = unsynced.as_mut().zip(before).filter(|_| result >= 0 && !undone) {
        unsynced.after(&operation, before);
    }
    if let Verdict::End(_, power) = verdict {
        if power == Power::Fails {
            unsynced.iter_mut().for_each(Unsynced::cut);
        }
        kill(state, operation);
    }
    operation.outcome = match usize::try_from(result) {
        Ok(bytes) => Outcome::Done(if call.is_write() { bytes } else { 0 }),
        Err(_) => Outcome::Failed(-result as i32),
    };
    note(state, &operation.to_line());
    result
}

/// Carries the call out, a write of at most `bytes`, and keeps account of the room.
fn with_space(script: &mut Script, call: &Call, bytes: usize) -> i64 {
    let removed = call.bytes_removed();
    let result = if bytes == usize::MAX { call.whole() } else { call.shortened(bytes) };
    if let Ok(stored) = u64::try_from(result) {
        script.occupy(if call.is_write() { stored } else { 0 }, removed);
    }
    result
}

/// Writes the operation down as the last, and ends the process.
fn kill(state: &State, mut operation: crate::Operation) -> ! {
    operation.outcome = Outcome::Killed;
    note(state, &operation.to_line());
    let own = system_call(libc::SYS_getpid, [0; 6]) as u64;
    loop {
        system_call(libc::SYS_kill, [own, libc::SIGKILL as u64, 0, 0, 0, 0]);
    }
}

fn note(state: &State, line: &str) {
    if state.record >= 0 {
        system_call(libc::SYS_write, [state.record as u64, line.as_ptr() as u64, line.len() as u64, 0, 0, 0]);
    }
}
