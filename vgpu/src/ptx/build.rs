//! Places of registers, constants and variables of a kernel under construction.

use super::parse::Operand;
use super::{Bank, Kernel, Loc, Param, PtxResult, Special, Variable, error};
use crate::exec::{Address, Inst, NONE, Op, Reg, Space};
use crate::window;
use std::collections::{HashMap, HashSet};

/// What a name stands for besides a register.
#[derive(Clone, Copy, Debug)]
enum Symbol {
    Shared(u64),
    DynamicShared,
    Local(u64),
    Param(u64),
    Variable(usize),
}

/// Poison of registers that nobody wrote: large, odd, not a number.
const POISON: u32 = 0xffa5_5a5f;
const POISON_WIDE: u64 = 0xfffa_5a5f_ffa5_5a5f;

/// The label at the end of a call: where `ret` leads in a function, and what a guarded call skips to.
pub(super) const RETURN: &str = "$return";

pub(super) struct Builder<'a> {
    pub kernel: Kernel,
    pub loc: Loc,
    /// Calls that are being expanded.
    depth: usize,
    /// Registers that some statement before wrote, and those that the present one writes.
    written: HashSet<(Bank, Reg)>,
    results: Vec<(Bank, Reg)>,
    variables: HashMap<String, usize>,
    module_shared: Vec<(&'a str, u64, u32)>,
    scopes: Vec<Scope<'a>>,
    symbols: HashMap<&'a str, Symbol>,
    words: HashMap<u32, Reg>,
    wides: HashMap<u64, Reg>,
    specials: HashMap<Special, Reg>,
    relocations: HashMap<(usize, i64), Reg>,
    /// Wide registers that take the address of dynamic shared memory, which starts where static shared memory ends.
    dynamic: Vec<(Bank, Reg, u64)>,
}

/// Names of variables, to come back to.
pub(super) struct Names<'a>(HashMap<&'a str, Symbol>);

#[derive(Default)]
struct Scope<'a> {
    registers: HashMap<&'a str, (Bank, Reg)>,
    /// `.reg .b32 %r<9>` declares `%r0` to `%r8`: prefix, bank, first place, count.
    ranges: Vec<(&'a str, Bank, Reg, u32)>,
    labels: HashMap<&'a str, u32>,
    /// Branches to labels of this scope or an outer one.
    branches: Vec<(usize, &'a str, u32)>,
}

impl<'a> Builder<'a> {
    pub fn new(name: &str, variables: &[Variable], module_shared: &[(&'a str, u64, u32)]) -> Self {
        let kernel = Kernel {
            name: name.into(),
            code: Vec::new(),
            words: Vec::new(),
            wides: Vec::new(),
            preds: 0,
            specials: Vec::new(),
            relocations: Vec::new(),
            params: Vec::new(),
            pointers: Vec::new(),
            param_bytes: 0,
            shared_bytes: 0,
            local_bytes: 0,
            max_threads: 1024,
            shared_granule: 4,
            global_atomics: false,
            resets: false,
        };
        Builder {
            kernel,
            loc: Loc::default(),
            depth: 0,
            written: HashSet::new(),
            results: Vec::new(),
            variables: variables.iter().enumerate().map(|(i, v)| (v.name.clone(), i)).collect(),
            module_shared: module_shared.to_vec(),
            scopes: vec![Scope::default()],
            symbols: HashMap::new(),
            words: HashMap::new(),
            wides: HashMap::new(),
            specials: HashMap::new(),
            relocations: HashMap::new(),
            dynamic: Vec::new(),
        }
    }

    pub fn param(&mut self, name: &'a str, mut param: Param, line: u32) -> PtxResult<()> {
        param.offset = self.kernel.param_bytes.next_multiple_of(param.align.max(1));
        self.kernel.param_bytes = param.offset + param.size;
        if self.kernel.param_bytes > 32764 {
            return error(line, "more than 32,764 bytes of parameters");
        }
        self.symbols.insert(name, Symbol::Param(param.offset as u64));
        self.kernel.params.push(param);
        Ok(())
    }

    pub fn shared(&mut self, name: &'a str, size: u64, align: u32, line: u32) -> PtxResult<()> {
        let symbol = if size == 0 {
            Symbol::DynamicShared
        } else {
            Symbol::Shared(place(&mut self.kernel.shared_bytes, size, align, line)?)
        };
        self.symbols.insert(name, symbol);
        Ok(())
    }

    pub fn local(&mut self, name: &'a str, size: u64, align: u32, line: u32) -> PtxResult<()> {
        let at = place(&mut self.kernel.local_bytes, size, align, line)?;
        self.symbols.insert(name, Symbol::Local(at));
        Ok(())
    }

    /// Where a variable lies in local memory: one that a call passes.
    pub fn local_symbol(&self, name: &str, line: u32) -> PtxResult<u32> {
        match self.symbols.get(name) {
            Some(&Symbol::Local(at)) => Ok(at as u32),
            _ => error(line, format!("`call` with `{name}`, which is no variable of `.param` space, is not covered")),
        }
    }

    /// Calls that are being expanded.
    pub fn depth(&self) -> usize {
        self.depth
    }
    /// Enters a function whose parameters lie in local memory; returns the names of the caller.
    pub fn enter(&mut self, bindings: &[(&'a str, u32)]) -> Names<'a> {
        let outer = Names(self.symbols.clone());
        self.symbols.extend(bindings.iter().map(|&(name, at)| (name, Symbol::Local(at as u64))));
        self.depth += 1;
        outer
    }
    /// Leaves it.
    pub fn leave(&mut self, outer: Names<'a>) {
        self.symbols = outer.0;
        self.depth -= 1;
    }

    pub fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    /// Ends a scope: its branches meet its labels, the others go on to the scope around it.
    pub fn close(&mut self, line: u32) -> PtxResult<()> {
        let Some(scope) = self.scopes.pop() else { return error(line, "`}` without `{`") };
        for (at, label, from) in scope.branches {
            match (scope.labels.get(label), self.scopes.last_mut()) {
                (Some(&target), _) => self.kernel.code[at].op = Op::Branch { target },
                (None, Some(outer)) => outer.branches.push((at, label, from)),
                (None, None) => return error(from, format!("there is no label `{label}`")),
            }
        }
        Ok(())
    }

    pub fn label(&mut self, name: &'a str, line: u32) -> PtxResult<()> {
        let here = self.kernel.code.len() as u32;
        match self.scope().labels.insert(name, here) {
            Some(_) => error(line, format!("label `{name}` occurs twice")),
            None => Ok(()),
        }
    }

    fn scope(&mut self) -> &mut Scope<'a> {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        self.scopes.last_mut().expect("there is one")
    }

    fn reserve(&mut self, bank: Bank, n: u32) -> Reg {
        let first = match bank {
            Bank::Pred => {
                self.kernel.preds += n as usize;
                self.kernel.preds - n as usize
            }
            Bank::Word => {
                self.kernel.words.resize(self.kernel.words.len() + n as usize, POISON);
                self.kernel.words.len() - n as usize
            }
            Bank::Wide => {
                self.kernel.wides.resize(self.kernel.wides.len() + n as usize, POISON_WIDE);
                self.kernel.wides.len() - n as usize
            }
        };
        first as Reg // `finish` refuses kernels with more
    }

    pub fn register_range(&mut self, prefix: &'a str, bank: Bank, n: u32) {
        let n = n.min(NONE as u32 + 1);
        let first = self.reserve(bank, n);
        self.scope().ranges.push((prefix, bank, first, n));
    }

    pub fn register(&mut self, name: &'a str, bank: Bank, line: u32) -> PtxResult<()> {
        let r = self.reserve(bank, 1);
        match self.scope().registers.insert(name, (bank, r)) {
            Some(_) => error(line, format!("register `{name}` is declared twice")),
            None => Ok(()),
        }
    }

    /// A fresh register of the decoder's own.
    pub fn scratch(&mut self, bank: Bank) -> Reg {
        self.reserve(bank, 1)
    }

    /// The register of an input.
    pub fn input(&mut self, name: &str) -> Option<(Bank, Reg)> {
        let found = self.find_register(name)?;
        self.kernel.resets |= !self.written.contains(&found);
        Some(found)
    }

    /// The register of a result, which counts as written once the statement is done.
    pub fn output(&mut self, name: &str) -> Option<(Bank, Reg)> {
        let found = self.find_register(name)?;
        self.results.push(found);
        Some(found)
    }

    /// A statement is done.
    pub fn next_statement(&mut self) {
        self.written.extend(self.results.drain(..));
    }

    pub fn find_register(&self, name: &str) -> Option<(Bank, Reg)> {
        self.scopes.iter().rev().find_map(|scope| {
            scope.registers.get(name).copied().or_else(|| {
                scope.ranges.iter().find_map(|&(prefix, bank, first, n)| {
                    let index: u32 = name.strip_prefix(prefix)?.parse().ok()?;
                    (index < n).then(|| (bank, first + index as Reg))
                })
            })
        })
    }

    pub fn word_constant(&mut self, value: u32) -> Reg {
        if let Some(&r) = self.words.get(&value) {
            return r;
        }
        let r = self.reserve(Bank::Word, 1);
        self.kernel.words[r as usize] = value;
        self.words.insert(value, r);
        r
    }

    pub fn wide_constant(&mut self, value: u64) -> Reg {
        if let Some(&r) = self.wides.get(&value) {
            return r;
        }
        let r = self.reserve(Bank::Wide, 1);
        self.kernel.wides[r as usize] = value;
        self.wides.insert(value, r);
        r
    }

    /// The word register that holds a special register.
    pub fn special(&mut self, special: Special) -> Reg {
        if let Some(&r) = self.specials.get(&special) {
            return r;
        }
        let r = self.reserve(Bank::Word, 1);
        self.kernel.specials.push((r, special));
        self.specials.insert(special, r);
        r
    }

    fn variable_address(&mut self, variable: usize, offset: i64) -> Reg {
        if let Some(&r) = self.relocations.get(&(variable, offset)) {
            return r;
        }
        let r = self.reserve(Bank::Wide, 1);
        self.kernel.relocations.push((r, variable, offset as u64));
        self.relocations.insert((variable, offset), r);
        r
    }

    fn symbol(&mut self, name: &str, line: u32) -> PtxResult<Option<Symbol>> {
        if let Some(&s) = self.symbols.get(name) {
            return Ok(Some(s));
        }
        if let Some(&(name, size, align)) = self.module_shared.iter().find(|s| s.0 == name) {
            self.shared(name, size, align, line)?;
            return Ok(self.symbols.get(name).copied());
        }
        Ok(self.variables.get(name).map(|&v| Symbol::Variable(v)))
    }

    /// A register that holds the address of a variable: its offset within its space.
    pub fn symbol_address(&mut self, name: &str, bank: Bank, line: u32) -> PtxResult<Reg> {
        let at = match self.symbol(name, line)? {
            None => return error(line, format!("`{name}` is not declared")),
            Some(Symbol::Variable(v)) if bank == Bank::Wide => return Ok(self.variable_address(v, 0)),
            Some(Symbol::Variable(_)) => return error(line, format!("the address of `{name}` needs 64 bits")),
            Some(Symbol::DynamicShared) => {
                let r = self.reserve(bank, 1);
                self.dynamic.push((bank, r, 0));
                return Ok(r);
            }
            Some(Symbol::Param(at)) => at + window::PARAM,
            Some(Symbol::Shared(at) | Symbol::Local(at)) => at,
        };
        Ok(if bank == Bank::Wide { self.wide_constant(at) } else { self.word_constant(at as u32) })
    }

    /// An address operand in a space.
    pub fn address(&mut self, operand: &Operand<'a>, space: Space, line: u32) -> PtxResult<Address> {
        let &Operand::Address(base, offset) = operand else { return error(line, "an address in brackets expected") };
        let plain = |base, wide, offset| Ok(Address { space, base, wide, offset });
        let Some(name) = base else { return plain(NONE, true, offset) };
        if let Some((bank, r)) = self.input(name) {
            return match bank {
                _ if space == Space::Param && self.depth > 0 => {
                    error(line, "the address of a function's parameter in a register is not covered")
                }
                Bank::Pred => error(line, format!("predicate `{name}` is no address")),
                bank => plain(r, bank == Bank::Wide, offset),
            };
        }
        match (self.symbol(name, line)?, space) {
            (Some(Symbol::Shared(at)), Space::Shared) => plain(NONE, true, at as i64 + offset),
            (Some(Symbol::Local(at)), Space::Local) => plain(NONE, true, at as i64 + offset),
            // What a call passes.
            (Some(Symbol::Local(at)), Space::Param) => {
                Ok(Address { space: Space::Local, base: NONE, wide: true, offset: at as i64 + offset })
            }
            (Some(Symbol::Param(at)), Space::Param) => plain(NONE, true, (at + window::PARAM) as i64 + offset),
            (Some(Symbol::Variable(v)), Space::Global | Space::Generic) => {
                plain(self.variable_address(v, 0), true, offset)
            }
            (Some(Symbol::DynamicShared), Space::Shared) => {
                let r = self.symbol_address(name, Bank::Wide, line)?;
                plain(r, true, offset)
            }
            (Some(_), _) => error(line, format!("`{name}` lies in another space than the instruction's")),
            (None, _) => error(line, format!("`{name}` is not declared")),
        }
    }

    /// Notes that the parameter which was loaded into a register is an address, if that is where its value is from.
    pub fn note_pointer(&mut self, register: Reg) {
        let loaded = self.kernel.code.iter().rev().find_map(|inst| match inst.op {
            Op::Load(a) if a.wide && a.count == 1 && a.regs[0] == register => Some(a.address),
            _ => None,
        });
        let Some(Address { space: Space::Param, base: NONE, offset, .. }) = loaded else { return };
        let at = offset - window::PARAM as i64;
        let param = self.kernel.params.iter().position(|p| p.offset as i64 == at && p.size == 8);
        if let Some(param) = param.filter(|p| !self.kernel.pointers.contains(p)) {
            self.kernel.pointers.push(param);
        }
    }

    pub fn push(&mut self, op: Op, guard: Option<(Reg, bool)>) {
        let (guard, guard_negated) = guard.unwrap_or((NONE, false));
        self.kernel.code.push(Inst { op, guard, guard_negated, loc: self.loc });
    }

    pub fn push_branch(&mut self, label: &'a str, guard: Option<(Reg, bool)>, line: u32) {
        let at = self.kernel.code.len();
        self.push(Op::Branch { target: u32::MAX }, guard);
        self.scope().branches.push((at, label, line));
    }

    /// Skips the rest of a call, unless the guard holds.
    pub fn push_skip(&mut self, guard: &str, negated: bool, line: u32) -> PtxResult<()> {
        match self.input(guard) {
            Some((Bank::Pred, r)) => {
                self.push_branch(RETURN, Some((r, !negated)), line);
                Ok(())
            }
            _ => error(line, format!("guard `{guard}` is no predicate")),
        }
    }

    pub fn finish(mut self) -> PtxResult<Kernel> {
        self.push(Op::Exit, None); // a body that runs off its end
        let start = self.kernel.shared_bytes.next_multiple_of(16) as u64;
        for (bank, r, offset) in std::mem::take(&mut self.dynamic) {
            match bank {
                Bank::Wide => self.kernel.wides[r as usize] = start + offset,
                _ => self.kernel.words[r as usize] = (start + offset) as u32,
            }
        }
        let k = self.kernel;
        if k.words.len().max(k.wides.len()).max(k.preds) >= NONE as usize {
            return error(1, format!("kernel `{}` has more than 65,534 registers", k.name));
        }
        Ok(k)
    }
}

fn place(used: &mut u32, size: u64, align: u32, line: u32) -> PtxResult<u64> {
    let at = used.next_multiple_of(align.clamp(1, 4096));
    match u32::try_from(at as u64 + size) {
        Ok(end) if end <= 1 << 20 => {
            *used = end;
            Ok(at as u64)
        }
        _ => error(line, "a shared or local variable is too large"),
    }
}
