//! Device functions. A call is expanded where it stands: the body is decoded once more, with registers and labels of its own, and
//! its parameters are pieces of local memory. So functions that call themselves, and calls through pointers, are not covered.

use super::build::{Builder, RETURN};
use super::cursor::Parser;
use super::lex::Token;
use super::parse::Operand;
use super::{PtxResult, error};
use crate::exec::Op;

/// A device function.
pub(super) struct Function<'a> {
    name: &'a str,
    /// Names of what it returns and of what it takes.
    results: Vec<&'a str>,
    parameters: Vec<&'a str>,
    /// The token behind the `{` of its body; `None` for a declaration.
    body: Option<usize>,
}

/// Calls within calls. More is a recursion.
const DEEPEST: usize = 32;

impl<'a> Parser<'_, 'a> {
    /// Finds all functions of the module before anything is decoded: a call may come before the body.
    pub(super) fn find_functions(&mut self) -> PtxResult<()> {
        let mut depth = 0u32;
        while let Some(token) = self.peek() {
            self.at += 1;
            match token {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') => depth = depth.saturating_sub(1),
                Token::Word(".func") if depth == 0 => {
                    let function = self.function()?;
                    depth += function.body.is_some() as u32;
                    match self.functions.iter_mut().find(|f| f.name == function.name) {
                        Some(known) if known.body.is_none() => *known = function,
                        Some(_) => {}
                        None => self.functions.push(function),
                    }
                }
                _ => {}
            }
        }
        self.at = 0;
        Ok(())
    }

    /// After `.func`, up to the `{` of its body or the `;` of a declaration.
    fn function(&mut self) -> PtxResult<Function<'a>> {
        let results = if self.accept('(') { self.formals()? } else { Vec::new() };
        let name = self.word()?;
        let parameters = if self.accept('(') { self.formals()? } else { Vec::new() };
        loop {
            match self.next()? {
                Token::Sign('{') => return Ok(Function { name, results, parameters, body: Some(self.at) }),
                Token::Sign(';') => return Ok(Function { name, results, parameters, body: None }),
                _ => {} // attributes such as `.noreturn`
            }
        }
    }

    fn formals(&mut self) -> PtxResult<Vec<&'a str>> {
        let mut names = Vec::new();
        while !self.accept(')') {
            let line = self.line();
            match self.word()? {
                ".param" => names.push(self.variable()?.name),
                other => return error(line, format!("a function's parameter in `{other}` is not covered")),
            }
            self.accept(',');
        }
        Ok(names)
    }

    /// `call (results), name, (arguments);` with variables of `.param` space for both.
    pub(super) fn call(
        &mut self,
        b: &mut Builder<'a>,
        guard: Option<(&'a str, bool)>,
        operands: &[Operand<'a>],
        line: u32,
    ) -> PtxResult<()> {
        let nothing = Vec::new();
        let (results, name, arguments) = match operands {
            [Operand::List(results), Operand::Name(name), Operand::List(arguments)] => (results, *name, arguments),
            [Operand::List(results), Operand::Name(name)] => (results, *name, &nothing),
            [Operand::Name(name), Operand::List(arguments)] => (&nothing, *name, arguments),
            [Operand::Name(name)] => (&nothing, *name, &nothing),
            _ => return error(line, "`call` through a pointer or with a prototype is not covered by the virtual GPU"),
        };
        let Some(function) = self.functions.iter().find(|f| f.name == name) else {
            return error(
                line,
                format!("`call` of `{name}`, which is not declared: calls through pointers are not covered"),
            );
        };
        if (function.results.len(), function.parameters.len()) != (results.len(), arguments.len()) {
            return error(line, format!("`call` of `{name}` with another number of arguments than it takes"));
        }
        let mut bindings = Vec::new();
        let formals = function.results.iter().zip(results).chain(function.parameters.iter().zip(arguments));
        for (formal, actual) in formals {
            bindings.push((*formal, b.local_symbol(actual, line)?));
        }
        let body = function.body;
        b.open();
        if let Some((p, negated)) = guard {
            b.push_skip(p, negated, line)?;
        }
        match (name, body) {
            (_, Some(body)) => self.expand(b, name, &bindings, body, line)?,
            ("vprintf", _) => {
                let [result, format, arguments] = [0, 1, 2].map(|i| bindings[i].1);
                b.push(Op::Print { format, arguments, result }, None);
            }
            ("__assertfail", _) => {
                let [message, file, line, function] = [0, 1, 2, 3].map(|i| bindings[i].1);
                b.push(Op::AssertFail { message, file, line, function }, None);
            }
            _ => {
                return error(
                    line,
                    format!("`call` of `{name}`, which has no body, is not covered by the virtual GPU"),
                );
            }
        }
        b.label(RETURN, line)?;
        b.close(line)
    }

    fn expand(
        &mut self,
        b: &mut Builder<'a>,
        name: &str,
        bindings: &[(&'a str, u32)],
        body: usize,
        line: u32,
    ) -> PtxResult<()> {
        if b.depth() == DEEPEST {
            return error(line, format!("`call` of `{name}`: functions that call themselves are not covered"));
        }
        let (back, loc) = (std::mem::replace(&mut self.at, body), b.loc);
        let outer = b.enter(bindings);
        b.open();
        self.body(b)?;
        b.leave(outer);
        (self.at, b.loc) = (back, loc);
        Ok(())
    }
}
