//! Words of PTX, each with its line.

use super::{Loc, PtxResult, error};

/// A word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A directive, instruction with modifiers, register, label, symbol or number.
    Word(&'a str),
    /// A string without its quotes.
    Text(&'a str),
    /// Any other sign.
    Sign(char),
    /// A `.loc` line: where the following instructions come from.
    Loc(Loc),
}

/// Cuts `source` into words. Debugging sections (`.section ... { ... }`) are left out.
pub(super) fn lex(source: &str) -> PtxResult<Vec<(Token<'_>, u32)>> {
    let mut tokens = Vec::new();
    let (mut in_comment, mut in_section) = (false, false);
    for (index, full) in source.lines().enumerate() {
        let number = index as u32 + 1;
        let trimmed = full.trim_start();
        if !in_comment && trimmed.starts_with(".section") {
            in_section = true;
        }
        if in_section {
            in_section = !trimmed.contains('}');
            continue;
        }
        if !in_comment && trimmed.strip_prefix(".loc").is_some_and(|rest| rest.starts_with(char::is_whitespace)) {
            tokens.push((Token::Loc(location(trimmed, number)?), number));
            continue;
        }
        line(full, number, &mut in_comment, &mut tokens)?;
    }
    Ok(tokens)
}

/// `.loc FILE LINE COLUMN [, function_name ..., inlined_at FILE LINE COLUMN]`: code that was inlined belongs to the line
/// that called for it, not to a header of the toolkit.
fn location(text: &str, number: u32) -> PtxResult<Loc> {
    let place = text.rsplit_once("inlined_at").map_or_else(|| text.trim_start_matches(".loc"), |(_, caller)| caller);
    let mut numbers = place.split_whitespace().map(|w| w.trim_end_matches(',').parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(file)), Some(Ok(line))) => Ok(Loc { file, line }),
        _ => error(number, format!("`{}` is no source location", text.trim_end())),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

fn line<'a>(full: &'a str, number: u32, in_comment: &mut bool, out: &mut Vec<(Token<'a>, u32)>) -> PtxResult<()> {
    let mut rest = full;
    loop {
        if *in_comment {
            let Some((_, after)) = rest.split_once("*/") else { return Ok(()) };
            *in_comment = false;
            rest = after;
        }
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Ok(()) };
        if rest.starts_with("//") {
            return Ok(());
        }
        if let Some(after) = rest.strip_prefix("/*") {
            *in_comment = true;
            rest = after;
        } else if first == '"' {
            let Some((text, after)) = rest[1..].split_once('"') else {
                return error(number, "a string without its end");
            };
            out.push((Token::Text(text), number));
            rest = after;
        } else if is_word(first) {
            let mut end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            while rest[end..].starts_with("::") {
                let tail = &rest[end + 2..];
                end += 2 + tail.find(|c| !is_word(c)).unwrap_or(tail.len()); // `.shared::cta`, `.L2::128B`
            }
            out.push((Token::Word(&rest[..end]), number));
            rest = &rest[end..];
        } else {
            out.push((Token::Sign(first), number));
            rest = &rest[first.len_utf8()..];
        }
    }
}
