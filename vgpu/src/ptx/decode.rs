//! Statements to instructions: control flow, arithmetic and moves. Memory and warp-wide instructions are in
//! `decode_memory` and `decode_warp`.

use super::build::{Builder, RETURN};
use super::cursor::Number;
use super::parse::{Operand, Statement};
use super::{Bank, PtxResult, Special, Type, decode_memory, decode_warp, error};
use crate::exec::alu::{self, Form};
use crate::exec::{NONE, Op, Operands, Reg, convert, float};
use crate::float::Rounding;

/// A statement with its name taken apart and its guard resolved.
pub(super) struct Decoding<'s, 'a> {
    pub statement: &'s Statement<'a>,
    /// The name up to the first dot.
    pub base: &'a str,
    /// The modifiers, without dots.
    pub mods: Vec<&'a str>,
    /// The types among the modifiers, in order.
    pub types: Vec<Type>,
    pub guard: Option<(Reg, bool)>,
}

/// Appends what `statement` does to the kernel.
pub(super) fn decode<'a>(b: &mut Builder<'a>, statement: &Statement<'a>) -> PtxResult<()> {
    b.next_statement();
    let mut words = statement.name.split('.');
    let base = words.next().unwrap_or_default();
    let mods: Vec<&str> = words.collect();
    let types = mods.iter().filter_map(|m| Type::named(m)).collect();
    let guard = match statement.guard {
        None => None,
        Some((name, negated)) => match b.input(name) {
            Some((Bank::Pred, r)) => Some((r, negated)),
            _ => return error(statement.line, format!("guard `{name}` is no predicate")),
        },
    };
    let s = Decoding { statement, base, mods, types, guard };
    match base {
        "bra" => {
            let &[Operand::Name(label)] = &statement.operands[..] else { return s.refuse() };
            b.push_branch(label, guard, statement.line);
            Ok(())
        }
        "ret" if b.depth() > 0 => {
            b.push_branch(RETURN, guard, statement.line);
            Ok(())
        }
        "ret" | "exit" => s.push(b, Op::Exit),
        "trap" => s.push(b, Op::Trap),
        "mov" => s.mov(b),
        "setp" => s.setp(b),
        _ => {
            if decode_memory::decode(b, &s)? || decode_warp::decode(b, &s)? {
                return Ok(());
            }
            match s.form() {
                Some(form) => s.arithmetic(b, form),
                None => s.refuse(),
            }
        }
    }
}

impl<'a> Decoding<'_, 'a> {
    pub fn line(&self) -> u32 {
        self.statement.line
    }
    pub fn has(&self, modifier: &str) -> bool {
        self.mods.contains(&modifier)
    }
    pub fn operand(&self, index: usize) -> PtxResult<&Operand<'a>> {
        match self.statement.operands.get(index) {
            Some(operand) => Ok(operand),
            None => self.fail("has too few operands"),
        }
    }
    pub fn last_type(&self) -> PtxResult<Type> {
        self.types.last().copied().map_or_else(|| self.fail("has no type"), Ok)
    }
    pub fn fail<T>(&self, what: &str) -> PtxResult<T> {
        error(self.line(), format!("`{}` {what}", self.statement.name))
    }
    /// The refusal of an instruction that is not covered.
    pub fn refuse<T>(&self) -> PtxResult<T> {
        self.fail("is not covered by the virtual GPU")
    }
    pub fn push(&self, b: &mut Builder<'a>, op: Op) -> PtxResult<()> {
        b.push(op, self.guard);
        Ok(())
    }

    /// The register of an input operand; numbers, special registers and addresses get one of their own.
    pub fn source(&self, b: &mut Builder<'a>, operand: &Operand<'a>, bank: Bank, ty: Type) -> PtxResult<Reg> {
        match *operand {
            Operand::Name(name) => {
                if let Some((found, r)) = b.input(name) {
                    return if found == bank { Ok(r) } else { self.fail(&format!("takes `{name}` of another size")) };
                }
                if let Some(special) = special(name) {
                    return match bank {
                        Bank::Word => Ok(b.special(special)),
                        _ => self.fail(&format!("takes `{name}` as other than 32 bits, which is not covered")),
                    };
                }
                if name.starts_with('%') {
                    return self.fail(&format!("names `{name}`, which is neither declared nor covered"));
                }
                match name {
                    "WARP_SZ" => Ok(b.word_constant(32)),
                    _ if bank == Bank::Pred => self.fail(&format!("takes `{name}` as a predicate")),
                    _ => b.symbol_address(name, bank, self.line()),
                }
            }
            Operand::Number(n) => match bank {
                Bank::Word => Ok(b.word_constant(word(n, ty))),
                Bank::Wide => Ok(b.wide_constant(wide(n, ty))),
                Bank::Pred => match n {
                    Number::Int(v) => self.pred_constant(b, v != 0),
                    _ => self.fail("takes a number as a predicate"),
                },
            },
            _ => self.fail("has an operand of a form that is not covered"),
        }
    }

    /// A predicate that is always true or false: computed where it is used, since the file starts with zeros.
    fn pred_constant(&self, b: &mut Builder<'a>, value: bool) -> PtxResult<Reg> {
        let r = b.scratch(Bank::Pred);
        if value {
            let zero = b.word_constant(0);
            let equal = convert::compare("eq", Type::U32, false).expect("there is such a comparison");
            b.push(Op::Alu(equal.run, Operands { d: r, e: NONE, a: zero, b: zero, c: NONE, imm: 0 }), None);
        }
        Ok(r)
    }

    /// The register of a result; `_` is none.
    pub fn result(&self, b: &mut Builder<'a>, operand: &Operand<'a>, bank: Bank) -> PtxResult<Reg> {
        match operand {
            Operand::Name("_") => Ok(NONE),
            Operand::Name(name) => match b.output(name) {
                Some((found, r)) if found == bank => Ok(r),
                Some(_) => self.fail(&format!("writes `{name}` of another size")),
                None => self.fail(&format!("writes `{name}`, which is not declared")),
            },
            _ => self.fail("writes an operand of a form that is not covered"),
        }
    }

    /// A predicate input, perhaps negated.
    pub fn pred(&self, b: &mut Builder<'a>, operand: &Operand<'a>) -> PtxResult<(Reg, bool)> {
        match operand {
            Operand::Not(name) => Ok((self.source(b, &Operand::Name(name), Bank::Pred, Type::Pred)?, true)),
            other => Ok((self.source(b, other, Bank::Pred, Type::Pred)?, false)),
        }
    }

    fn mov(&self, b: &mut Builder<'a>) -> PtxResult<()> {
        let ty = self.last_type()?;
        let (d, a) = (self.operand(0)?.clone(), self.operand(1)?.clone());
        let step = |b: &mut Builder<'a>, name: &str, d: Reg, a: Reg, second: Reg| {
            let form = alu::moves(name).expect("a known move");
            if d == NONE {
                return; // `_`: nobody wants it
            }
            b.push(Op::Alu(form.run, Operands { d, e: NONE, a, b: second, c: NONE, imm: 0 }), self.guard);
        };
        match (&d, &a) {
            (Operand::Vector(parts), _) => {
                let [low, high] = &parts[..] else { return self.refuse() };
                let (bank, names) = match ty.size() {
                    8 => (Bank::Word, ["low 32", "high 32"]),
                    4 => (Bank::Word, ["low 16", "high 16"]),
                    _ => return self.refuse(),
                };
                let a = self.source(b, &a, ty.bank(), ty)?;
                let (low, high) = (self.result(b, low, bank)?, self.result(b, high, bank)?);
                if low == a {
                    // Only possible for 32 bits: the upper half goes first, or its source would be gone.
                    step(b, names[1], high, a, NONE);
                    step(b, names[0], low, a, NONE);
                } else {
                    step(b, names[0], low, a, NONE);
                    step(b, names[1], high, a, NONE);
                }
            }
            (_, Operand::Vector(parts)) => {
                let [low, high] = &parts[..] else { return self.refuse() };
                let (name, part) = match ty.size() {
                    8 => ("pack 32+32", Type::B32),
                    4 => ("pack 16+16", Type::B16),
                    _ => return self.refuse(),
                };
                let low = self.source(b, low, Bank::Word, part)?;
                let high = self.source(b, high, Bank::Word, part)?;
                let d = self.result(b, &d, ty.bank())?;
                step(b, name, d, low, high);
            }
            _ => {
                let a = self.source(b, &a, ty.bank(), ty)?;
                let d = self.result(b, &d, ty.bank())?;
                let name = match ty.bank() {
                    Bank::Pred => "pred",
                    Bank::Word => "word",
                    Bank::Wide => "wide",
                };
                step(b, name, d, a, NONE);
            }
        }
        Ok(())
    }

    fn setp(&self, b: &mut Builder<'a>) -> PtxResult<()> {
        let (Some(cmp), ty) = (self.mods.first(), self.last_type()?) else { return self.refuse() };
        let Some(form) = convert::compare(cmp, ty, self.has("ftz")) else { return self.refuse() };
        let middle = self.mods.get(1..self.mods.len() - 1).unwrap_or_default();
        let mode = match middle.iter().copied().find(|m| *m != "ftz") {
            None => 0,
            Some("and") => convert::COMBINE_AND,
            Some("or") => convert::COMBINE_OR,
            Some("xor") => convert::COMBINE_XOR,
            Some(_) => return self.refuse(),
        };
        let (d, e) = match self.operand(0)? {
            Operand::Pair(p, q) => {
                (self.result(b, &Operand::Name(p), Bank::Pred)?, self.result(b, &Operand::Name(q), Bank::Pred)?)
            }
            other => (self.result(b, other, Bank::Pred)?, NONE),
        };
        let a = self.source(b, self.operand(1)?, ty.bank(), ty)?;
        let second = self.source(b, self.operand(2)?, ty.bank(), ty)?;
        let (c, imm) = match (mode, self.statement.operands.len()) {
            (0, 3) => (NONE, 0),
            (mode, 4) if mode != 0 => {
                let (c, negated) = self.pred(b, self.operand(3)?)?;
                (c, mode | if negated { convert::COMBINE_NOT } else { 0 })
            }
            _ => return self.refuse(),
        };
        self.push(b, Op::Alu(form.run, Operands { d, e, a, b: second, c, imm }))
    }

    /// The function of an arithmetic instruction.
    fn form(&self) -> Option<Form> {
        let &ty = self.types.last()?;
        let rest: Vec<&str> = self.mods.iter().copied().filter(|m| Type::named(m).is_none()).collect();
        let plain = if rest.is_empty() { self.base.to_string() } else { format!("{}.{}", self.base, rest.join(".")) };
        match self.base {
            "cvt" => return self.conversion(&rest),
            "selp" if rest.is_empty() => return convert::select(ty),
            "slct" if self.types.len() == 2 => return convert::select_by_sign(self.types[0], ty),
            "testp" => return float::test_property(rest.first()?, ty),
            "cvta" | "isspacep" => return alu::spaces(&plain),
            _ => {}
        }
        if let Some(form) =
            alu::integer(&plain, ty).or_else(|| alu::logic(&plain, ty)).or_else(|| alu::bits(&plain, ty))
        {
            return Some(form);
        }
        let mut m = float::Modifiers { rounding: Rounding::Nearest, flush: false, keep_nan: false };
        let mut name = self.base.to_string();
        for word in rest {
            match word {
                "rn" => {}
                "rz" => m.rounding = Rounding::Zero,
                "rm" => m.rounding = Rounding::Down,
                "rp" => m.rounding = Rounding::Up,
                "ftz" => m.flush = true,
                "NaN" => m.keep_nan = true,
                "approx" | "full" => name = format!("{name}.{word}"),
                "sat" | "relu" => {}
                _ => return None,
            }
        }
        float::arithmetic(&name, ty, m)
    }

    fn conversion(&self, rest: &[&str]) -> Option<Form> {
        let &[dst, src] = &self.types[..] else { return None };
        let mut m = convert::Modifiers { rounding: None, integral: false, away: false, flush: false, saturate: false };
        for &word in rest {
            let rounding = match word {
                "rn" | "rni" => Rounding::Nearest,
                "rz" | "rzi" => Rounding::Zero,
                "rm" | "rmi" => Rounding::Down,
                "rp" | "rpi" => Rounding::Up,
                other => {
                    match other {
                        "rna" => m.away = true,
                        "ftz" => m.flush = true,
                        "sat" => m.saturate = true,
                        "relu" => {}
                        _ => return None,
                    }
                    continue;
                }
            };
            m.rounding = Some(rounding);
            m.integral = word.ends_with('i');
        }
        match (self.statement.operands.len(), src) {
            (2, _) => convert::convert(dst, src, m),
            (3, Type::F32) => convert::convert_pair(dst, m),
            _ => None,
        }
    }

    /// Appends an arithmetic instruction, and one more for `.sat` or `.relu` of its result.
    fn arithmetic(&self, b: &mut Builder<'a>, form: Form) -> PtxResult<()> {
        let ty = self.last_type()?;
        let inputs = form.src.iter().flatten().count();
        let extra = match self.base {
            "bfi" | "lop3" => 1,
            _ => 0,
        };
        if self.statement.operands.len() != 1 + inputs + extra {
            return self.fail("has a number of operands that is not covered");
        }
        let d = self.result(b, self.operand(0)?, form.d)?;
        if d == NONE {
            return Ok(()); // `_`: nobody wants it
        }
        let mut regs = [NONE; 3];
        for (i, bank) in form.src.iter().enumerate() {
            if let Some(bank) = *bank {
                // A shift amount or bit position is 32 bits, whatever the instruction's type.
                let ty = if bank == ty.bank() { ty } else { Type::U32 };
                regs[i] = self.source(b, self.operand(1 + i)?, bank, ty)?;
            }
        }
        if self.base == "cvta" && self.has("to") && self.has("global") {
            b.note_pointer(regs[0]);
        }
        let mut o = Operands { d, e: NONE, a: regs[0], b: regs[1], c: regs[2], imm: 0 };
        match (self.base, self.statement.operands.get(4)) {
            ("bfi", Some(len)) => o.e = self.source(b, len, Bank::Word, Type::U32)?,
            ("lop3", Some(&Operand::Number(Number::Int(table)))) => o.imm = table as u32 & 0xff,
            ("bfi" | "lop3", _) => return self.refuse(),
            _ => {}
        }
        self.push(b, Op::Alu(form.run, o))?;
        let of = self.types.first().copied().unwrap_or(ty);
        let after = match (self.has("sat"), self.has("relu"), of) {
            (false, false, _) => None,
            (true, false, Type::F32) => Some(float::saturate()),
            (true, false, Type::F64) => Some(float::saturate_f64()),
            (true, false, _) if self.base == "cvt" && !matches!(of, Type::F16 | Type::Bf16) => None,
            (false, true, _) => match float::relu(of) {
                Some(form) => Some(form),
                None => return self.refuse(),
            },
            _ => return self.refuse(),
        };
        match after {
            Some(form) => self.push(b, Op::Alu(form.run, Operands { d, e: NONE, a: d, b: NONE, c: NONE, imm: 0 })),
            None => Ok(()),
        }
    }
}

fn word(n: Number, ty: Type) -> u32 {
    match n {
        Number::Int(v) => v as u32,
        Number::Single(bits) => bits,
        Number::Double(bits) if ty == Type::F32 => (f64::from_bits(bits) as f32).to_bits(),
        Number::Double(bits) => bits as u32,
    }
}

fn wide(n: Number, ty: Type) -> u64 {
    match n {
        Number::Int(v) => v as u64,
        Number::Double(bits) => bits,
        Number::Single(bits) if ty == Type::F64 => (f32::from_bits(bits) as f64).to_bits(),
        Number::Single(bits) => bits as u64,
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |name: &str| match name {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let (base, of) = name.split_once('.').unwrap_or((name, ""));
    Some(match (base, of) {
        ("%tid", _) => Special::Tid(axis(of)?),
        ("%ntid", _) => Special::NTid(axis(of)?),
        ("%ctaid", _) => Special::CtaId(axis(of)?),
        ("%nctaid", _) => Special::NCtaId(axis(of)?),
        ("%laneid", "") => Special::LaneId,
        ("%warpid", "") => Special::WarpId,
        ("%lanemask_eq", "") => Special::LaneMaskEq,
        ("%lanemask_lt", "") => Special::LaneMaskLt,
        ("%lanemask_le", "") => Special::LaneMaskLe,
        ("%lanemask_gt", "") => Special::LaneMaskGt,
        ("%lanemask_ge", "") => Special::LaneMaskGe,
        ("%clock", "") => Special::Clock,
        ("%dynamic_smem_size", "") => Special::DynamicSharedBytes,
        _ => return None,
    })
}
