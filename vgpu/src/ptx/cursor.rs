//! A cursor over the words, and numbers.

use super::call::Function;
use super::lex::Token;
use super::{Module, PtxResult, error};

/// A number in the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    /// Decimal or hexadecimal, as two's complement.
    Int(i64),
    /// `0f...`.
    Single(u32),
    /// `0d...`.
    Double(u64),
}

/// Reads a number word (without sign).
pub(super) fn number(word: &str) -> Option<Number> {
    if let Some(hex) = word.strip_prefix("0f").or(word.strip_prefix("0F")) {
        return u32::from_str_radix(hex, 16).ok().map(Number::Single);
    }
    if let Some(hex) = word.strip_prefix("0d").or(word.strip_prefix("0D")) {
        return u64::from_str_radix(hex, 16).ok().map(Number::Double);
    }
    let digits = word.strip_suffix('U').unwrap_or(word);
    let value = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(&digits[1..], 8).ok()?
    } else {
        digits.parse::<u64>().ok()?
    };
    Some(Number::Int(value as i64))
}

/// Walks over the words of a module.
pub(super) struct Parser<'t, 'a> {
    pub tokens: &'t [(Token<'a>, u32)],
    pub at: usize,
    pub module: Module,
    /// Shared variables of module scope, which belong to every kernel that names them: name, bytes, alignment.
    pub shared: Vec<(&'a str, u64, u32)>,
    /// Device functions.
    pub functions: Vec<Function<'a>>,
}

impl<'a> Parser<'_, 'a> {
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|t| t.0)
    }
    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.1)
    }
    pub(super) fn next(&mut self) -> PtxResult<Token<'a>> {
        let Some(token) = self.peek() else { return error(self.line(), "the text ends too early") };
        self.at += 1;
        Ok(token)
    }
    pub(super) fn accept(&mut self, sign: char) -> bool {
        let there = self.peek() == Some(Token::Sign(sign));
        self.at += there as usize;
        there
    }
    pub(super) fn expect(&mut self, sign: char) -> PtxResult<()> {
        let line = self.line();
        if self.accept(sign) { Ok(()) } else { error(line, format!("`{sign}` expected, found {:?}", self.peek())) }
    }
    pub(super) fn word(&mut self) -> PtxResult<&'a str> {
        let line = self.line();
        match self.next()? {
            Token::Word(word) => Ok(word),
            other => error(line, format!("a name expected, found {other:?}")),
        }
    }
    pub(super) fn number(&mut self) -> PtxResult<Number> {
        let (line, negative) = (self.line(), self.accept('-'));
        match (number(self.word()?), negative) {
            (Some(Number::Int(v)), true) => Ok(Number::Int(v.wrapping_neg())),
            (Some(n), false) => Ok(n),
            _ => error(line, "a number expected"),
        }
    }
    pub(super) fn int(&mut self) -> PtxResult<i64> {
        let line = self.line();
        match self.number()? {
            Number::Int(v) => Ok(v),
            _ => error(line, "an integer expected"),
        }
    }
    pub(super) fn count(&mut self) -> PtxResult<u32> {
        let line = self.line();
        self.int()?.try_into().or_else(|_| error(line, "a small positive number expected"))
    }
}
