//! Instruction sets: one body of plain Rust, compiled once for each.
//!
//! Nothing here or in the kernels is written for one machine: a kernel is a loop over bytes or f32, inlined into a function
//! that a set's features are switched on for, and the compiler makes vectors as wide as the set has. The arithmetic is the
//! same everywhere (integers, and single IEEE roundings that Rust never contracts), so the bytes are as well.

use pulp::NullaryFnOnce;

/// A set of instructions that this processor has. A value of it is the proof that it does.
#[derive(Clone, Copy)]
pub struct InstructionSet(Set);

#[derive(Clone, Copy)]
enum Set {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
}

impl InstructionSet {
    /// Plain Rust for whatever the target always has (SSE2 on x86-64): the twin that every other set is tested against.
    pub const SCALAR: InstructionSet = InstructionSet(Set::Scalar);

    /// Every set that this processor has, from the plainest to the widest.
    pub fn available() -> Vec<InstructionSet> {
        #[cfg(target_arch = "x86_64")]
        let wide = [pulp::x86::V3::try_new().map(Set::Avx2), pulp::x86::V4::try_new().map(Set::Avx512)];
        #[cfg(target_arch = "aarch64")]
        let wide = [pulp::aarch64::Neon::try_new().map(Set::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let wide: [Option<Set>; 0] = [];
        std::iter::once(Set::Scalar).chain(wide.into_iter().flatten()).map(InstructionSet).collect()
    }

    /// The widest set that this processor has.
    pub fn best() -> InstructionSet {
        *Self::available().last().expect("plain Rust is always there")
    }

    /// `scalar`, `avx2`, `avx512` or `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Set::Neon(_) => "neon",
        }
    }

    /// Runs `task`, compiled for this set.
    pub(super) fn run(self, task: impl Task) {
        match self.0 {
            Set::Scalar => task.run(Steps),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(set) => set.vectorize(Bound(task, Instruction)),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(set) => set.vectorize(Bound(task, Instruction)),
            #[cfg(target_arch = "aarch64")]
            Set::Neon(set) => set.vectorize(Bound(task, Instruction)),
        }
    }
}

impl std::fmt::Debug for InstructionSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Work that is compiled for every set: `run` and all it calls must be `#[inline(always)]`, or they are compiled for none.
pub(super) trait Task {
    fn run(self, floor: impl Floor);
}

/// The integer part of a number in [0, 2^22): the one operation whose fastest form depends on the set.
pub(super) trait Floor: Copy {
    fn floor(self, x: f32) -> f32;
}

/// Adding this to an f32 in [0, 2^22) rounds it to an integer and leaves that integer in the low bits.
pub(super) const ROUNDER: f32 = 8_388_608.0;

/// Rounds and steps back: without an instruction for it, `f32::floor` is a call.
#[derive(Clone, Copy)]
pub(super) struct Steps;

impl Floor for Steps {
    #[inline(always)]
    fn floor(self, x: f32) -> f32 {
        let rounded = x + ROUNDER - ROUNDER;
        if rounded > x { rounded - 1.0 } else { rounded }
    }
}

/// One instruction.
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
#[derive(Clone, Copy)]
pub(super) struct Instruction;

impl Floor for Instruction {
    #[inline(always)]
    fn floor(self, x: f32) -> f32 {
        x.floor()
    }
}

/// A task with its floor, in the form that `pulp` takes.
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
struct Bound<T, F>(T, F);

impl<T: Task, F: Floor> NullaryFnOnce for Bound<T, F> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.run(self.1);
    }
}
