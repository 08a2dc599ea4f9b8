//! Launches of small PTX texts, without the driver.
#![allow(dead_code)] // each test file takes what it needs

use std::sync::Arc;
use vgpu::device::{self, Allocation, Life};
use vgpu::exec::{Counts, Launch, run};
use vgpu::ptx::{Module, parse};
use vgpu::report::{Finding, Kind};

/// Device memory that is freed with it.
pub struct Buffer(pub Arc<Allocation>);

impl Buffer {
    pub fn new(bytes: u64) -> Buffer {
        Buffer(device::allocate(bytes, Life::Live, None).expect("memory"))
    }
    pub fn of<T: Copy>(values: &[T]) -> Buffer {
        let buffer = Buffer::new(size_of_val(values) as u64);
        buffer.write(values);
        buffer
    }
    pub fn write<T: Copy>(&self, values: &[T]) {
        let n = size_of_val(values) as u64;
        // SAFETY: `n` bytes on both sides, and no launch is under way.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr().cast(), self.0.host(0, n), n as usize) };
        self.0.mark_host(0, n);
    }
    pub fn read<T: Copy + Default>(&self) -> Vec<T> {
        let mut out = vec![T::default(); self.0.len as usize / size_of::<T>()];
        // SAFETY: as in `write`.
        unsafe {
            std::ptr::copy_nonoverlapping(self.0.host(0, self.0.len), out.as_mut_ptr().cast(), size_of_val(&out[..]))
        };
        out
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        device::remove(self.0.base);
    }
}

/// An argument.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    U32(u32),
    F32(f32),
    U64(u64),
    Ptr(&'a Buffer),
    Bytes(&'a [u8]),
}

pub fn load(ptx: &str) -> Arc<Module> {
    Arc::new(parse(ptx).unwrap_or_else(|e| panic!("{e}\n{ptx}")))
}

pub struct Config {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
}

pub fn config(grid: u32, block: u32) -> Config {
    Config { grid: [grid, 1, 1], block: [block, 1, 1], shared: 0 }
}

/// Launches a kernel of a module; module variables get memory of their own for the launch.
pub fn launch(module: &Arc<Module>, name: &str, config: Config, args: &[Arg]) -> (Counts, Vec<Finding>) {
    let kernel = module.kernels.iter().position(|k| k.name == name).unwrap_or_else(|| panic!("no kernel {name}"));
    let k = &module.kernels[kernel];
    assert_eq!(k.params.len(), args.len(), "arguments of {name}");
    let mut params = vec![0; k.param_bytes as usize];
    for (p, arg) in k.params.iter().zip(args) {
        let bytes = match arg {
            Arg::U32(v) => v.to_le_bytes().to_vec(),
            Arg::F32(v) => v.to_le_bytes().to_vec(),
            Arg::U64(v) => v.to_le_bytes().to_vec(),
            Arg::Ptr(b) => b.0.base.to_le_bytes().to_vec(),
            Arg::Bytes(b) => b.to_vec(),
        };
        assert_eq!(bytes.len(), p.size as usize, "size of an argument of {name}");
        params[p.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    let variables: Vec<Buffer> = module
        .variables
        .iter()
        .map(|v| {
            let mut bytes = v.initial.clone();
            bytes.resize(v.size as usize, 0);
            let buffer = Buffer(device::allocate(v.size, Life::Live, Some(v.constant)).expect("memory"));
            buffer.write(&bytes);
            buffer
        })
        .collect();
    run(&Launch {
        module: module.clone(),
        kernel,
        variables: Arc::new(variables.iter().map(|b| b.0.base).collect()),
        grid: config.grid,
        block: config.block,
        dynamic_shared: config.shared,
        params,
    })
}

/// Launches and wants no finding.
pub fn clean(module: &Arc<Module>, name: &str, config: Config, args: &[Arg]) -> Counts {
    let (counts, findings) = launch(module, name, config, args);
    assert!(findings.is_empty(), "{}", findings[0]);
    counts
}

/// The one finding of a launch.
pub fn found(kind: Kind, findings: &[Finding]) -> &Finding {
    findings.iter().find(|f| f.kind == kind).unwrap_or_else(|| panic!("no {kind:?} among {findings:?}"))
}

/// Numbers at random, the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e3779b97f4a7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        z ^ (z >> 31)
    }
    /// Between -1 and 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 8_388_608.0 - 1.0
    }
}
