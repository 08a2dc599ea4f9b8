//! One instruction over 32 lanes against a model in Rust.
#![allow(dead_code)] // each test file takes what it needs

use super::common::*;

/// Size of an operand: its register, and how a lane's 64 bits of input become it.
#[derive(Clone, Copy, PartialEq)]
pub enum Bits {
    /// 16 bits.
    H,
    /// 32 bits.
    W,
    /// 64 bits.
    D,
}

impl Bits {
    fn decl(self) -> (&'static str, &'static str, usize) {
        match self {
            Bits::H => (".b16", "u16", 2),
            Bits::W => (".b32", "u32", 4),
            Bits::D => (".b64", "u64", 8),
        }
    }
    pub fn cut(self, v: u64) -> u64 {
        match self {
            Bits::H => v & 0xffff,
            Bits::W => v & 0xffff_ffff,
            Bits::D => v,
        }
    }
}

/// Runs `text` (with `%d`, `%a`, `%b`, `%c` as operands) on lanes of inputs and returns each lane's result.
pub fn run_lanes(text: &str, d: Bits, inputs: &[Bits], values: &[[u64; 3]; 32]) -> Vec<u64> {
    let mut body = format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n{{\n\
         .reg .b32 %t, %r<4>;\n.reg .pred %p, %q;\n.reg .b64 %i, %o, %x;\n.reg {} %d;\n",
        d.decl().0
    );
    for (name, kind) in ["a", "b", "c"].iter().zip(inputs) {
        body += &format!(".reg {} %{name};\n", kind.decl().0);
    }
    body += "ld.param.u64 %i, [in];\nld.param.u64 %o, [out];\nmov.u32 %t, %tid.x;\nmad.wide.u32 %i, %t, 24, %i;\nmad.wide.u32 %o, %t, 8, %o;\n";
    for (j, (name, kind)) in ["a", "b", "c"].iter().zip(inputs).enumerate() {
        body += &format!("ld.global.{} %{name}, [%i+{}];\n", kind.decl().1, 8 * j);
    }
    body += &format!("{text}\nst.global.{} [%o], %d;\nret;\n}}\n", d.decl().1);
    let module = load(&body);
    let input = Buffer::of(&values[..]);
    let out = Buffer::of(&[0u64; 32]);
    clean(&module, "k", config(1, 32), &[Arg::Ptr(&input), Arg::Ptr(&out)]);
    out.read::<u64>().into_iter().map(|v| d.cut(v)).collect()
}

/// Inputs: numbers at random, small ones, and the edges of the formats.
pub fn mixed(seed: u64) -> [[u64; 3]; 32] {
    const EDGES: [u64; 20] = [
        0,
        1,
        2,
        31,
        32,
        33,
        63,
        64,
        0x7f,
        0x80,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        u64::MAX,
        i64::MIN as u64,
        0x3f80_0000,
        0x7f80_0000,
        0x3c00,
        0x0001_0001,
    ];
    let mut random = Random(seed);
    std::array::from_fn(|_| {
        std::array::from_fn(|_| match random.bits() % 3 {
            0 => EDGES[(random.bits() % 20) as usize],
            1 => random.bits() % 70,
            _ => random.bits(),
        })
    })
}

/// Checks an instruction for several draws of inputs; the model sees the lane's bits.
pub fn check(text: &str, d: Bits, inputs: &[Bits], model: impl Fn(u64, u64, u64) -> u64) {
    check_with(text, d, inputs, mixed, model);
}

/// The same with inputs of one's own.
pub fn check_with(
    text: &str,
    d: Bits,
    inputs: &[Bits],
    draw: impl Fn(u64) -> [[u64; 3]; 32],
    model: impl Fn(u64, u64, u64) -> u64,
) {
    for seed in 0..8 {
        let values = draw(seed);
        let got = run_lanes(text, d, inputs, &values);
        for (lane, (v, got)) in values.iter().zip(got).enumerate() {
            let at = |i: usize| inputs.get(i).map_or(0, |k| k.cut(v[i]));
            let want = d.cut(model(at(0), at(1), at(2)));
            assert_eq!(
                got,
                want,
                "{text} of {:#x}, {:#x}, {:#x} (lane {lane}): {got:#x} for {want:#x}",
                at(0),
                at(1),
                at(2)
            );
        }
    }
}
