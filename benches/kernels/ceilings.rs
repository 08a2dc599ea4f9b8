//! What the device reaches where nothing but memory, or nothing but arithmetic, is asked of it: the floors' denominators.
//!
//! Memory: a copy from device to device. Arithmetic: loops of the instructions that the kernels use (`fma`, and `mma.sync`
//! on tf32 and bf16), many independent ones in registers. An H100's tensor cores give about a third more to `wgmma`, which
//! text for sm_80 cannot name: a library's matrix product can therefore be above this ceiling.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::{LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

use disentangle::backend::cuda::cast::CastToF32;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use half::bf16;

use super::cases::{Device, Launch, Result, Scale, Unit};
use super::timing::{Timer, median};

/// Times each is measured.
const TIMES: u64 = 15;
const WARM_UP: Duration = Duration::from_millis(500);
const THREADS: u32 = 256;
const WARP: u32 = 32;
/// Independent sums of a thread (`fma`) or of a warp (`mma`), so that none waits for another.
const CHAINS: usize = 8;
/// Instructions of each chain in a round of the loop.
const UNROLL: usize = 4;

/// Measured on this device in this run.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Bytes read and written a second by a copy.
    pub copy: f64,
    /// Operations a second of fused multiply-add.
    pub fma: f64,
    /// Of `mma` on tf32.
    pub tf32: f64,
    /// Of `mma` on bf16.
    pub bf16: f64,
    /// Seconds between two events around the smallest launch.
    pub launch: f64,
}

impl Ceilings {
    /// Measures them.
    pub fn measure(device: &Device, timer: &mut Timer, scale: Scale) -> Result<Self> {
        Ok(Ceilings {
            copy: copy(device, timer, scale)?,
            fma: peak(device, timer, scale, Unit::Fma)?,
            tf32: peak(device, timer, scale, Unit::Tf32)?,
            bf16: peak(device, timer, scale, Unit::Bf16)?,
            launch: smallest(device, timer)?,
        })
    }

    /// Seconds below which a launch cannot be.
    pub fn floor(&self, launch: &Launch) -> f64 {
        let peak = match launch.unit {
            Unit::Fma => self.fma,
            Unit::Tf32 => self.tf32,
            Unit::Bf16 => self.bf16,
        };
        (launch.bytes as f64 / self.copy).max(launch.flops as f64 / peak)
    }
}

fn copy(device: &Device, timer: &mut Timer, scale: Scale) -> Result<f64> {
    let bytes: usize = if scale == Scale::Paper { 1 << 30 } else { 1 << 16 };
    let (from, mut to) = (device.repeated(&[7u8; 4096], bytes)?, device.unwritten::<u8>(bytes)?);
    let mut measure = || timer.measure(device, TIMES, || Ok(device.stream.memcpy_dtod(&from, &mut to)?));
    // An idle device takes a while to raise its clocks.
    let warm = Instant::now();
    while warm.elapsed() < WARM_UP && scale == Scale::Paper {
        measure()?;
    }
    let seconds = measure()?;
    Ok(2.0 * bytes as f64 / median(&seconds))
}

/// A cast of one element.
fn smallest(device: &Device, timer: &mut Timer) -> Result<f64> {
    let (from, mut to) = (device.upload(&[bf16::ONE])?, device.unwritten::<f32>(1)?);
    let seconds = timer.measure(device, TIMES, || {
        let (x, y) = (Slice::of(&from, &device.stream), SliceMut::of(&mut to, &device.stream));
        Ok(CastToF32 { x, y, count: 1 }.launch(&device.kernels)?)
    })?;
    Ok(median(&seconds))
}

fn peak(device: &Device, timer: &mut Timer, scale: Scale, unit: Unit) -> Result<f64> {
    let rounds: u32 = if scale == Scale::Paper { 4096 } else { 2 };
    let processors = device.stream.context().attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let blocks = 4 * processors.max(1) as u32;
    let threads = blocks * THREADS;
    let function = device.stream.context().load_module(Ptx::from_src(text(unit)))?.load_function("peak")?;
    let mut out = device.unwritten::<f32>(threads as usize)?;
    let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
    let seconds = timer.measure(device, TIMES, || {
        let mut launch = device.stream.launch_builder(&function);
        launch.arg(&mut out).arg(&rounds);
        // SAFETY: the kernel takes an address and a number and writes an f32 a thread, which is what `out` has.
        unsafe { launch.launch(config) }?;
        Ok(())
    })?;
    let per_instruction = match unit {
        Unit::Fma => 2 * u64::from(WARP),
        Unit::Tf32 => 2 * 16 * 8 * 8,
        Unit::Bf16 => 2 * 16 * 8 * 16,
    };
    let instructions = u64::from(threads / WARP) * u64::from(rounds) * (CHAINS * UNROLL) as u64;
    Ok((instructions * per_instruction) as f64 / median(&seconds))
}

/// A kernel `peak(out, rounds)`: rounds of the instruction, then the sum of what came out, so that nothing can be left out.
fn text(unit: Unit) -> String {
    let kind = match unit {
        Unit::Fma => "",
        Unit::Tf32 => "m16n8k8.row.col.f32.tf32.tf32.f32",
        Unit::Bf16 => "m16n8k16.row.col.f32.bf16.bf16.f32",
    };
    let sums = CHAINS * 4;
    let mut body = String::new();
    for f in 0..sums {
        // Different ones: equal chains could be computed once.
        let _ = writeln!(body, "mov.f32 %f{f}, 0f{:08X};", (f as f32).to_bits());
    }
    body.push_str("ROUND:\n");
    for _ in 0..UNROLL {
        for chain in 0..CHAINS {
            let c = (0..4).map(|i| format!("%f{}", 4 * chain + i)).collect::<Vec<_>>().join(", ");
            let line = match unit {
                Unit::Fma => format!("fma.rn.f32 %f{0}, %a, %f{0}, %b;", 4 * chain),
                _ => format!("mma.sync.aligned.{kind} {{{c}}}, {{%r1, %r2, %r1, %r2}}, {{%r2, %r1}}, {{{c}}};"),
            };
            let _ = writeln!(body, "{line}");
        }
    }
    for f in 1..sums {
        let line = format!("add.f32 %f0, %f0, %f{f};");
        if f == 1 {
            body.push_str("sub.u32 %n, %n, 1;\nsetp.ne.u32 %p, %n, 0;\n@%p bra ROUND;\n");
        }
        let _ = writeln!(body, "{line}");
    }
    // Operands near 1, different in each lane: as bf16 pairs and as f32.
    format!(
        ".version 7.2\n.target sm_80\n.address_size 64\n\
         .visible .entry peak(.param .u64 out, .param .u32 rounds)\n{{\n\
         .reg .pred %p;\n.reg .b32 %n, %r<8>;\n.reg .f32 %a, %b, %f<{sums}>;\n.reg .b64 %rd<4>;\n\
         ld.param.u64 %rd1, [out];\nld.param.u32 %n, [rounds];\n\
         mov.u32 %r3, %tid.x;\nmov.u32 %r4, %ctaid.x;\nmov.u32 %r5, %ntid.x;\nmad.lo.u32 %r6, %r4, %r5, %r3;\n\
         and.b32 %r7, %r3, 31;\nmad.lo.u32 %r1, %r7, 65537, 1064320896;\nxor.b32 %r2, %r1, 2147516416;\n\
         mov.f32 %a, 0f3F7FF000;\ncvt.rn.f32.u32 %b, %r7;\n\
         {body}\
         mul.wide.u32 %rd2, %r6, 4;\nadd.u64 %rd3, %rd1, %rd2;\nst.global.f32 [%rd3], %f0;\nret;\n}}\n"
    )
}
