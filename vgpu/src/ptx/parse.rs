//! Directives, variables, kernels and statements.

use super::build::Builder;
use super::cursor::{Number, Parser, number};
use super::lex::{Token, lex};
use super::{Kernel, Module, Param, PtxResult, Type, Variable, error};

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand<'a> {
    Name(&'a str),
    /// `!p`
    Not(&'a str),
    /// `-x` in front of a name does not exist; numbers carry their sign.
    Number(Number),
    /// `[base + offset]`; without base an absolute address.
    Address(Option<&'a str>, i64),
    /// `{a, b}`
    Vector(Vec<Operand<'a>>),
    /// `p|q`
    Pair(&'a str, &'a str),
    /// `(a, b)` of a call
    List(Vec<&'a str>),
}

/// A statement as written.
#[derive(Clone, Debug)]
pub(super) struct Statement<'a> {
    pub line: u32,
    pub guard: Option<(&'a str, bool)>,
    pub name: &'a str,
    pub operands: Vec<Operand<'a>>,
}

/// Reads a module.
///
/// # Errors
/// With the line, if the text is no PTX or uses what is not covered here.
pub fn parse(source: &str) -> PtxResult<Module> {
    let tokens = lex(source)?;
    let mut parser =
        Parser { tokens: &tokens, at: 0, module: Module::default(), shared: Vec::new(), functions: Vec::new() };
    parser.find_functions()?;
    parser.module()
}

/// What a variable directive says.
pub(super) struct Declared<'a> {
    pub name: &'a str,
    align: u32,
    ty: Type,
    size: u64,
    initial: Vec<u8>,
}

impl<'a> Parser<'_, 'a> {
    fn module(mut self) -> PtxResult<Module> {
        while self.peek().is_some() {
            let line = self.line();
            let word = match self.next()? {
                Token::Word(word) => word,
                Token::Loc(_) | Token::Sign(';') => continue,
                other => return error(line, format!("a directive expected, found {other:?}")),
            };
            match word {
                ".version" => self.module.version = version(self.word()?, line)?,
                ".target" => {
                    self.module.target = self.word()?.into();
                    while self.accept(',') {
                        self.word()?;
                    }
                }
                ".address_size" => {
                    if self.int()? != 64 {
                        return error(line, "only 64-bit addresses are covered");
                    }
                }
                ".file" => self.file()?,
                ".visible" | ".weak" | ".extern" | ".common" => {}
                ".func" => self.skip_function()?,
                ".entry" => self.entry()?,
                ".global" | ".const" => {
                    let v = self.variable()?;
                    let constant = word == ".const";
                    let name = v.name.into();
                    self.module.variables.push(Variable { name, size: v.size, initial: v.initial, constant });
                }
                ".shared" => {
                    let v = self.variable()?;
                    self.shared.push((v.name, v.size, v.align));
                }
                other => return error(line, format!("directive `{other}` is not covered")),
            }
        }
        if self.module.version == 0 {
            return error(1, "no `.version`: this is no PTX");
        }
        for kernel in &self.module.kernels {
            if kernel.code.is_empty() {
                return error(1, format!("kernel `{}` has no instructions", kernel.name));
            }
        }
        Ok(self.module)
    }

    fn file(&mut self) -> PtxResult<()> {
        let number = self.count()?;
        let line = self.line();
        match self.next()? {
            Token::Text(path) => self.module.files.push((number, path.into())),
            other => return error(line, format!("a file name expected, found {other:?}")),
        }
        while self.accept(',') {
            self.number()?; // time stamp and length
        }
        Ok(())
    }

    /// A device function is read where it is called (see `call`).
    fn skip_function(&mut self) -> PtxResult<()> {
        let mut depth = 0;
        loop {
            match self.next()? {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') if depth == 1 => return Ok(()),
                Token::Sign('}') => depth -= 1,
                Token::Sign(';') if depth == 0 => return Ok(()),
                _ => {}
            }
        }
    }

    /// After the state space: `.align N .type name[n][m] = {...};`
    pub(super) fn variable(&mut self) -> PtxResult<Declared<'a>> {
        let line = self.line();
        let mut align = 0;
        let ty = loop {
            match self.word()? {
                ".align" => align = self.count()?,
                ".ptr" | ".global" | ".const" | ".shared" | ".local" => {}
                word => match word.strip_prefix('.').and_then(Type::named) {
                    Some(ty) => break ty,
                    None => return error(line, format!("`{word}` is not covered in a variable's declaration")),
                },
            }
        };
        while matches!(self.peek(), Some(Token::Word(".ptr" | ".global" | ".const" | ".shared" | ".local" | ".align")))
        {
            if self.word()? == ".align" {
                self.count()?; // of what a pointer points to
            }
        }
        let name = self.word()?;
        let mut size = ty.size() as u64;
        while self.accept('[') {
            let n = if self.peek() == Some(Token::Sign(']')) { 0 } else { self.count()? };
            self.expect(']')?;
            size = match size.checked_mul(n as u64) {
                Some(size) if size < 1 << 40 => size,
                _ => return error(line, format!("`{name}` is too large")),
            };
        }
        let mut initial = Vec::new();
        if self.accept('=') {
            self.initial(ty, &mut initial)?;
        }
        if initial.len() as u64 > size {
            return error(line, format!("`{name}` has more initial values than room"));
        }
        self.accept(';');
        Ok(Declared { name, align: align.max(ty.size()), ty, size, initial })
    }

    fn initial(&mut self, ty: Type, out: &mut Vec<u8>) -> PtxResult<()> {
        if self.accept('{') {
            while !self.accept('}') {
                self.initial(ty, out)?;
                self.accept(',');
            }
            return Ok(());
        }
        let bits = match self.number()? {
            Number::Int(v) => v as u64,
            Number::Single(v) => v as u64,
            Number::Double(v) => v,
        };
        out.extend_from_slice(&bits.to_le_bytes()[..ty.size() as usize]);
        Ok(())
    }

    fn entry(&mut self) -> PtxResult<()> {
        let name = self.word()?;
        let mut b = Builder::new(name, &self.module.variables, &self.shared);
        if self.accept('(') {
            while !self.accept(')') {
                let line = self.line();
                if self.word()? != ".param" {
                    return error(line, "`.param` expected");
                }
                let p = self.variable()?;
                let size = p.size.try_into().or_else(|_| error(line, "a parameter is too large"))?;
                b.param(p.name, Param { offset: 0, size, align: p.align.max(p.ty.size()) }, line)?;
                self.accept(',');
            }
        }
        loop {
            let line = self.line();
            match self.next()? {
                Token::Sign('{') => break,
                Token::Sign(';') => return Ok(()), // a declaration
                Token::Word(".maxntid" | ".reqntid") => {
                    let mut threads = self.count()?;
                    while self.accept(',') {
                        threads = threads.saturating_mul(self.count()?);
                    }
                    b.kernel.max_threads = threads;
                }
                Token::Word(".minnctapersm" | ".maxnreg" | ".maxnctapersm") => {
                    self.count()?;
                }
                Token::Word(".pragma") => self.pragma()?,
                other => return error(line, format!("{other:?} is not covered before a kernel's body")),
            }
        }
        self.body(&mut b)?;
        let kernel: Kernel = b.finish()?;
        self.module.kernels.push(kernel);
        Ok(())
    }

    fn pragma(&mut self) -> PtxResult<()> {
        while !self.accept(';') {
            self.next()?;
        }
        Ok(())
    }

    /// Statements up to the `}` that ends the kernel or function; inner scopes come from inline assembly.
    pub(super) fn body(&mut self, b: &mut Builder<'a>) -> PtxResult<()> {
        let mut depth = 1;
        loop {
            let line = self.line();
            match self.next()? {
                Token::Loc(loc) => b.loc = loc,
                Token::Sign(';') => {}
                Token::Sign('{') => {
                    depth += 1;
                    b.open();
                }
                Token::Sign('}') => {
                    depth -= 1;
                    b.close(line)?;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                Token::Sign('@') => {
                    let negated = self.accept('!');
                    let guard = self.word()?;
                    let name = self.word()?;
                    self.statement(b, Some((guard, negated)), name, line)?;
                }
                Token::Word(".reg") => self.registers(b)?,
                Token::Word(".pragma") => self.pragma()?,
                Token::Word(".shared") => {
                    let v = self.variable()?;
                    b.shared(v.name, v.size, v.align, line)?;
                }
                Token::Word(".local" | ".param") => {
                    let v = self.variable()?;
                    b.local(v.name, v.size, v.align, line)?;
                }
                Token::Word(".extern") => {}
                Token::Word(word) if self.accept(':') => b.label(word, line)?,
                Token::Word(word) if word.starts_with('.') => {
                    return error(line, format!("directive `{word}` is not covered in a kernel"));
                }
                Token::Word(word) => self.statement(b, None, word, line)?,
                other => return error(line, format!("a statement expected, found {other:?}")),
            }
        }
    }

    /// `.reg .type a, b<n>;`
    fn registers(&mut self, b: &mut Builder<'a>) -> PtxResult<()> {
        let line = self.line();
        let word = self.word()?;
        let Some(ty) = word.strip_prefix('.').and_then(Type::named) else {
            return error(line, format!("registers of type `{word}` are not covered"));
        };
        loop {
            let name = self.word()?;
            if self.accept('<') {
                let n = self.count()?;
                self.expect('>')?;
                b.register_range(name, ty.bank(), n);
            } else {
                b.register(name, ty.bank(), line)?;
            }
            if self.accept(';') {
                return Ok(());
            }
            self.expect(',')?;
        }
    }

    fn statement(
        &mut self,
        b: &mut Builder<'a>,
        guard: Option<(&'a str, bool)>,
        name: &'a str,
        line: u32,
    ) -> PtxResult<()> {
        let mut operands = Vec::new();
        while !self.accept(';') {
            let operand = self.operand().map_err(|mut e| {
                e.message = format!("`{name}` is not covered by the virtual GPU in this form: {}", e.message);
                e
            })?;
            operands.push(operand);
            if !self.accept(',') {
                self.expect(';')?;
                break;
            }
        }
        if name == "call" || name == "call.uni" {
            return self.call(b, guard, &operands, line);
        }
        super::decode::decode(b, &Statement { line, guard, name, operands })
    }

    fn operand(&mut self) -> PtxResult<Operand<'a>> {
        if self.accept('{') {
            let mut parts = Vec::new();
            while !self.accept('}') {
                parts.push(self.operand()?);
                self.accept(',');
            }
            return Ok(Operand::Vector(parts));
        }
        if self.accept('[') {
            return self.address();
        }
        if self.accept('!') {
            return Ok(Operand::Not(self.word()?));
        }
        if self.peek() == Some(Token::Sign('-')) {
            return self.number().map(Operand::Number);
        }
        if self.accept('(') {
            let mut names = Vec::new();
            while !self.accept(')') {
                names.push(self.word()?);
                self.accept(',');
            }
            return Ok(Operand::List(names));
        }
        let word = self.word()?;
        if let Some(n) = word.starts_with(|c: char| c.is_ascii_digit()).then(|| number(word)).flatten() {
            return Ok(Operand::Number(n));
        }
        Ok(if self.accept('|') { Operand::Pair(word, self.word()?) } else { Operand::Name(word) })
    }

    fn address(&mut self) -> PtxResult<Operand<'a>> {
        let line = self.line();
        let (mut base, mut offset) = (None, 0i64);
        while !self.accept(']') {
            let negative = self.accept('-');
            if !negative {
                self.accept('+');
            }
            let negative = negative | self.accept('-');
            match (number_or_name(self.word()?), negative) {
                (Ok(n), _) => offset = offset.wrapping_add(if negative { n.wrapping_neg() } else { n }),
                (Err(name), false) if base.is_none() => base = Some(name),
                (Err(name), _) => return error(line, format!("address with `{name}` is not covered")),
            }
        }
        Ok(Operand::Address(base, offset))
    }
}

fn number_or_name(word: &str) -> Result<i64, &str> {
    match number(word) {
        Some(Number::Int(v)) if word.starts_with(|c: char| c.is_ascii_digit()) => Ok(v),
        _ => Err(word),
    }
}

fn version(word: &str, line: u32) -> PtxResult<u32> {
    let parts = word.split_once('.').and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?)));
    match parts {
        Some((major, minor)) if major < 100 && minor < 10 => Ok(major * 10 + minor),
        _ => error(line, format!("`{word}` is no PTX version")),
    }
}
