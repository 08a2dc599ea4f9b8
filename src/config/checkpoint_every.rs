//! When checkpoints are due.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// When checkpoints are written besides the one at the end: by epochs, steps and time, whichever come first. In text
/// `1epoch,10m`: a list of `Nepochs`, `Nsteps`, `Ns`, `Nm` and `Nh`, each kind once. `end` is none of them; a bare number
/// counts epochs, 0 being `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckpointEvery {
    /// Complete epochs between checkpoints; 0: not by epochs.
    pub epochs: u64,
    /// Steps since the beginning of the run between checkpoints; 0: not by steps.
    pub steps: u64,
    /// Seconds between checkpoints; 0: not by time.
    pub seconds: u64,
}

/// What a text must be.
const EXPECTED: &str = "expected a list such as 1epoch,500steps,10m (epochs, steps, and s, m or h for time), or end";

/// The units, the seconds of a time beside them.
const UNITS: [(&str, Kind, u64); 7] = [
    ("epoch", Kind::Epochs, 1),
    ("epochs", Kind::Epochs, 1),
    ("step", Kind::Steps, 1),
    ("steps", Kind::Steps, 1),
    ("s", Kind::Seconds, 1),
    ("m", Kind::Seconds, 60),
    ("h", Kind::Seconds, 3600),
];

/// What is counted.
#[derive(Clone, Copy)]
enum Kind {
    Epochs,
    Steps,
    Seconds,
}

impl FromStr for CheckpointEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut every = CheckpointEvery::default();
        if text.trim() == "end" {
            return Ok(every);
        }
        if let Ok(epochs) = text.trim().parse() {
            return Ok(CheckpointEvery { epochs, ..every });
        }
        for part in text.split(',').map(str::trim) {
            let (number, unit) = part.split_at(part.bytes().take_while(u8::is_ascii_digit).count());
            let unit = UNITS.iter().find(|(name, ..)| *name == unit.trim_start());
            let number = number.parse::<u64>().ok().filter(|&number| number > 0);
            let (Some(number), Some(&(_, kind, scale))) = (number, unit) else {
                return Err(format!("'{part}': {EXPECTED}"));
            };
            let slot = match kind {
                Kind::Epochs => &mut every.epochs,
                Kind::Steps => &mut every.steps,
                Kind::Seconds => &mut every.seconds,
            };
            if *slot > 0 {
                return Err(format!("'{part}' says again what stands before it: {EXPECTED}"));
            }
            *slot = number.checked_mul(scale).ok_or_else(|| format!("'{part}' is too long"))?;
        }
        Ok(every)
    }
}

impl TryFrom<String> for CheckpointEvery {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CheckpointEvery> for String {
    fn from(every: CheckpointEvery) -> String {
        every.to_string()
    }
}

impl fmt::Display for CheckpointEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |n: u64, unit: &str| (n > 0).then(|| format!("{n}{unit}{}", if n == 1 { "" } else { "s" }));
        let time = match self.seconds {
            0 => None,
            s if s.is_multiple_of(3600) => Some(format!("{}h", s / 3600)),
            s if s.is_multiple_of(60) => Some(format!("{}m", s / 60)),
            s => Some(format!("{s}s")),
        };
        let parts: Vec<String> =
            [counted(self.epochs, "epoch"), counted(self.steps, "step"), time].into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "end".to_owned() } else { parts.join(",") }.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        let every = |epochs, steps, seconds| CheckpointEvery { epochs, steps, seconds };
        for (text, value, written) in [
            ("1epoch,10m", every(1, 0, 600), "1epoch,10m"),
            ("10m, 2 epochs ,500steps", every(2, 500, 600), "2epochs,500steps,10m"),
            ("500step", every(0, 500, 0), "500steps"),
            ("90s", every(0, 0, 90), "90s"),
            ("7200s", every(0, 0, 7200), "2h"),
            ("end", every(0, 0, 0), "end"),
            ("0", every(0, 0, 0), "end"),
            ("3", every(3, 0, 0), "3epochs"),
        ] {
            assert_eq!((text.parse(), value.to_string().as_str()), (Ok(value), written), "{text}");
            assert_eq!(written.parse(), Ok(value));
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for text in ["", "never", "10", "-1", "1.5h", "0steps", "0m", "10minutes", "1epoch,", "1epoch,2epochs", "1m,1h"]
        {
            let read = text.parse::<CheckpointEvery>();
            match text {
                "10" => assert!(read.is_ok()),
                _ => assert!(read.unwrap_err().starts_with('\''), "{text}"),
            }
        }
        assert!("99999999999999999h".parse::<CheckpointEvery>().unwrap_err().contains("too long"));
        assert!("99999999999999999999steps".parse::<CheckpointEvery>().is_err());
    }
}
