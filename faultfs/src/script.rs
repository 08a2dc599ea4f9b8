//! The script: parsed in full before it is followed, and followed an operation at a time. Pure; the crate's essay has the
//! grammar.

use crate::Operation;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens a file that need not exist, or empties it.
    Create,
    /// Stores bytes.
    Write,
    /// Sets a file's length, or takes room for it.
    Truncate,
    /// Waits until a file or folder is on the disk.
    Sync,
    /// Gives a file another name.
    Rename,
    /// Gives a file one more name.
    Link,
    /// Removes a file or an empty folder.
    Remove,
    /// Makes a folder.
    Mkdir,
}

const WORDS: [(Kind, &str); 8] = [
    (Kind::Create, "create"),
    (Kind::Write, "write"),
    (Kind::Truncate, "truncate"),
    (Kind::Sync, "sync"),
    (Kind::Rename, "rename"),
    (Kind::Link, "link"),
    (Kind::Remove, "remove"),
    (Kind::Mkdir, "mkdir"),
];

impl Kind {
    /// The word for it in scripts and records.
    pub fn word(self) -> &'static str {
        WORDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }

    pub(crate) fn of_word(word: &str) -> Option<Kind> {
        WORDS.iter().find(|(_, name)| *name == word).map(|(kind, _)| *kind)
    }
}

const ERRORS: [(&str, i32); 6] = [
    ("ENOSPC", libc::ENOSPC),
    ("EIO", libc::EIO),
    ("EROFS", libc::EROFS),
    ("EDQUOT", libc::EDQUOT),
    ("EACCES", libc::EACCES),
    ("EINTR", libc::EINTR),
];

/// What is to become of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It returns this error.
    Fail(i32),
    /// At most so many bytes of it are stored.
    Short(usize),
    /// It is the last, or the one before it was.
    End(Moment, Power),
}

/// What ends together with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Nothing: what it did stays done.
    Stays,
    /// The machine: what no fsync has put on the disk is gone.
    Fails,
}

/// Where a process ends in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before it.
    Before,
    /// Half of it done, if it is a write.
    Within,
    /// It is done, but nobody was told.
    After,
}

#[derive(Debug)]
enum Which {
    At(u64),
    Each { kind: Option<Kind>, name: String, from: u64, times: u64, seen: u64 },
}

#[derive(Debug)]
struct Rule {
    verdict: Verdict,
    which: Which,
}

/// Rules, and how far they have come.
#[derive(Debug, Default)]
pub struct Script {
    rules: Vec<Rule>,
    /// Bytes that still fit.
    space: Option<u64>,
}

impl Script {
    /// The rules of a text, or what is wrong with it.
    pub fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script::default();
        for rule in text.split(';').map(str::trim).filter(|rule| !rule.is_empty()) {
            script.add(rule).map_err(|problem| format!("'{rule}': {problem}"))?;
        }
        Ok(script)
    }

    fn add(&mut self, rule: &str) -> Result<(), String> {
        let words: Vec<&str> = rule.split_whitespace().collect();
        let (verdict, which) = match words[..] {
            [word @ ("kill" | "cut"), moment, number] => {
                let power = if word == "kill" { Power::Stays } else { Power::Fails };
                (Verdict::End(parse_moment(moment)?, power), Which::At(parse_number(number)?))
            }
            ["fail", error, ref which @ ..] => {
                let known = ERRORS.iter().find(|(name, _)| *name == error);
                (Verdict::Fail(known.ok_or("no error that is known here")?.1), parse_which(which)?)
            }
            ["short", bytes, ref which @ ..] => {
                (Verdict::Short(usize::try_from(parse_number(bytes)?).map_err(|e| e.to_string())?), parse_which(which)?)
            }
            ["space", bytes] if self.space.is_none() => {
                self.space = Some(bytes.parse().map_err(|_| "no number of bytes")?);
                return Ok(());
            }
            _ => return Err("not a rule".to_owned()),
        };
        self.rules.push(Rule { verdict, which });
        Ok(())
    }

    /// What is to become of the next operation. Every rule counts it.
    pub fn judge(&mut self, operation: &Operation) -> Verdict {
        let mut verdict = Verdict::Pass;
        for rule in &mut self.rules {
            if rule.which.fits(operation) && verdict == Verdict::Pass {
                verdict = rule.verdict;
            }
        }
        match (verdict, self.space) {
            (Verdict::Short(_), _) if operation.kind != Kind::Write => Verdict::Pass,
            (Verdict::Pass | Verdict::Short(_), Some(space)) if operation.kind == Kind::Write => {
                let asked =
                    if let Verdict::Short(bytes) = verdict { bytes.min(operation.bytes) } else { operation.bytes };
                match usize::try_from(space).unwrap_or(usize::MAX) {
                    0 if asked > 0 => Verdict::Fail(libc::ENOSPC),
                    space if space < asked => Verdict::Short(space),
                    _ => verdict,
                }
            }
            _ => verdict,
        }
    }

    /// Whether room is counted.
    pub fn counts_space(&self) -> bool {
        self.space.is_some()
    }

    /// Whether the power may fail.
    pub fn cuts_power(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.verdict, Verdict::End(_, Power::Fails)))
    }

    /// Takes room for bytes that were stored, after making some by what was removed.
    pub fn occupy(&mut self, stored: u64, removed: u64) {
        self.space = self.space.map(|space| space.saturating_add(removed).saturating_sub(stored));
    }
}

impl Which {
    /// Whether this operation is meant; counts it.
    fn fits(&mut self, operation: &Operation) -> bool {
        match self {
            Which::At(number) => *number == operation.number,
            Which::Each { kind, name, from, times, seen } => {
                let named = matches(name, operation.name())
                    || operation.target.is_some() && matches(name, operation.new_name());
                if !named || kind.is_some_and(|kind| kind != operation.kind) {
                    return false;
                }
                *seen += 1;
                *seen >= *from && *seen - *from < *times
            }
        }
    }
}

fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| format!("'{text}' is no number from 1"))
}

fn parse_moment(text: &str) -> Result<Moment, String> {
    match text {
        "before" => Ok(Moment::Before),
        "within" => Ok(Moment::Within),
        "after" => Ok(Moment::After),
        _ => Err(format!("'{text}' is not before, within or after")),
    }
}

fn parse_which(words: &[&str]) -> Result<Which, String> {
    let (kind, name, mut rest) = match *words {
        ["at", number] => return Ok(Which::At(parse_number(number)?)),
        ["each", kind, name, ref rest @ ..] => (kind, name.to_owned(), rest),
        _ => return Err("which operations?".to_owned()),
    };
    let kind = match kind {
        "any" => None,
        word => Some(Kind::of_word(word).ok_or_else(|| format!("'{word}' is no kind"))?),
    };
    let (mut from, mut times) = (1, u64::MAX);
    if let ["from", number, ref behind @ ..] = *rest {
        (from, rest) = (parse_number(number)?, behind);
    }
    if let ["times", number, ref behind @ ..] = *rest {
        (times, rest) = (parse_number(number)?, behind);
    }
    if rest.is_empty() { Ok(Which::Each { kind, name, from, times, seen: 0 }) } else { Err(format!("'{}'?", rest[0])) }
}

/// Whether a name fits a pattern in which `*` stands for any number of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    fn operation(number: u64, kind: Kind, path: &str, bytes: usize) -> Operation {
        Operation { number, kind, bytes, outcome: Outcome::Done(0), path: path.into(), target: None }
    }

    #[test]
    fn patterns() {
        for (pattern, yes, no) in [
            ("a.b", &["a.b"][..], &["a.bc", "", "xa.b"][..]),
            ("*", &["", "a"], &[]),
            ("a*", &["a", "abc"], &["ba", ""]),
            ("*.x", &[".x", "a.x", ".x.x"], &["x", ".xa"]),
            ("a*b*c", &["abc", "axxbyyc", "abbc"], &["acb", "ab", "abcd"]),
            ("aa*aa", &["aaaa", "aabaa"], &["aaa"]),
        ] {
            yes.iter().for_each(|name| assert!(matches(pattern, name), "{pattern} {name}"));
            no.iter().for_each(|name| assert!(!matches(pattern, name), "{pattern} {name}"));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "kill",
            "kill 3",
            "kill during 3",
            "cut",
            "kill before 0",
            "kill before 3 4",
            "fail EWHAT at 1",
            "fail EIO",
            "fail EIO at",
            "fail EIO each read *",
            "fail EIO each write * from",
            "fail EIO each write * times 2 from 3",
            "short 0 at 1",
            "short at 1",
            "space",
            "space 1; space 2",
            "space -1",
        ] {
            assert!(Script::parse(text).is_err(), "{text}");
        }
        for text in ["", ";", " kill before 1 ; space 0;", "fail EIO each any * from 2 times 3"] {
            Script::parse(text).unwrap();
        }
    }

    #[test]
    fn rules_count_and_the_first_that_fits_holds() {
        let mut script = Script::parse(
            "fail EIO each write log* from 2 times 2; kill within 4; short 3 each any *; fail EROFS at 9",
        )
        .unwrap();
        let mut judge = |number, kind, path| script.judge(&operation(number, kind, path, 10));
        assert_eq!(judge(1, Kind::Write, "run/log.x"), Verdict::Short(3));
        assert_eq!(judge(2, Kind::Write, "run/log.x"), Verdict::Fail(libc::EIO));
        assert_eq!(judge(3, Kind::Sync, "run/log.x"), Verdict::Pass, "only writes can be short");
        assert_eq!(judge(4, Kind::Write, "log"), Verdict::Fail(libc::EIO), "the third, and the first rule");
        assert_eq!(judge(5, Kind::Write, "log"), Verdict::Short(3), "twice were enough");
        let mut script = Script::parse("kill within 4; cut after 5").unwrap();
        assert_eq!(script.judge(&operation(4, Kind::Write, "x", 1)), Verdict::End(Moment::Within, Power::Stays));
        assert_eq!(script.judge(&operation(5, Kind::Write, "x", 1)), Verdict::End(Moment::After, Power::Fails));
        let mut renamed = operation(1, Kind::Rename, "a", 0);
        renamed.target = Some("b/new".into());
        let mut script = Script::parse("fail EIO each rename new").unwrap();
        assert_eq!(script.judge(&renamed), Verdict::Fail(libc::EIO));
    }

    #[test]
    fn space_runs_out_and_comes_back() {
        let mut script = Script::parse("space 15").unwrap();
        let write = operation(1, Kind::Write, "x", 10);
        assert_eq!(script.judge(&write), Verdict::Pass);
        script.occupy(10, 0);
        assert_eq!(script.judge(&write), Verdict::Short(5));
        script.occupy(5, 0);
        assert_eq!(script.judge(&write), Verdict::Fail(libc::ENOSPC));
        assert_eq!(script.judge(&operation(4, Kind::Create, "y", 0)), Verdict::Pass);
        script.occupy(0, 12);
        assert_eq!(script.judge(&write), Verdict::Pass);
        assert!(script.counts_space() && !Script::default().counts_space());
    }
}
