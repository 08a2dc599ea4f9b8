//! `run.json`: which version of the program began a run, on which data.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::folder::json;
use crate::atomic_file::write_atomically;
use crate::checkpoint::DataStamp;
use crate::log::say;
use crate::{Error, Result};

/// The file's name.
pub(super) const STAMP: &str = "run.json";
/// What `format` says.
const FORMAT: &str = "disentangle.run";
/// The layout of the run folder: raised when a reader of the previous one would misunderstand.
const FORMAT_VERSION: u32 = 1;

/// What a run was when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStamp {
    format: String,
    format_version: u32,
    /// Version of the program that began it.
    pub program: String,
    /// The data it trains on.
    pub data: DataStamp,
}

impl RunStamp {
    /// Of a run that this program begins.
    pub fn new(data: DataStamp) -> RunStamp {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        RunStamp { format: FORMAT.to_owned(), format_version: FORMAT_VERSION, program, data }
    }

    /// Writes it into the run's folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_atomically(&folder.join(STAMP), |file| writeln!(file, "{}", json(self)))
    }

    /// The stamp of the run in `folder`; `None` if it has none (it was begun by an earlier version, or never got so far) or none
    /// that can be read, which is said.
    ///
    /// # Errors
    /// [`Error::Usage`] if a later version wrote the folder; [`Error::Io`] if the file is there and cannot be read.
    pub fn read(folder: &Path) -> Result<Option<RunStamp>> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
            program: String,
        }
        let path = folder.join(STAMP);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(Error::io("read", &path))?,
        };
        // The version first: what comes after it may have another form.
        let read = serde_json::from_slice::<Version>(&bytes).and_then(|version| {
            if version.format_version > FORMAT_VERSION {
                Ok(Err(version))
            } else {
                serde_json::from_slice(&bytes).map(Ok)
            }
        });
        match read {
            Ok(Ok(stamp)) => Ok(Some(stamp)),
            Ok(Err(Version { format_version, program })) => Err(Error::Usage(format!(
                "{}: run folder format {format_version}, written by disentangle {program}; this is {}, which reads format \
                 {FORMAT_VERSION}",
                path.display(),
                env!("CARGO_PKG_VERSION")
            ))),
            Err(problem) => {
                say(&format!("{} is damaged ({problem}): going by the checkpoints alone", path.display()));
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_and_a_later_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(RunStamp::read(folder.path()).unwrap(), None);
        let data = DataStamp { description: "shapes".into(), images: 64, fingerprint: u64::MAX };
        let stamp = RunStamp::new(data);
        stamp.write(folder.path()).unwrap();
        assert_eq!(RunStamp::read(folder.path()).unwrap(), Some(stamp));
        let write = |text: &str| std::fs::write(folder.path().join(STAMP), text).unwrap();
        for damaged in ["", "{", "[]", r#"{"format_version":1,"program":"0.1.0"}"#, r#"{"format_version":-1}"#] {
            write(damaged);
            assert_eq!(RunStamp::read(folder.path()).unwrap(), None, "{damaged}");
        }
        write(r#"{"format_version":2,"program":"9.9","data":"elsewhere"}"#);
        let refused = RunStamp::read(folder.path()).unwrap_err();
        assert!(refused.exit_code() == 2 && refused.to_string().contains("run folder format 2"), "{refused}");
        assert!(refused.to_string().contains("disentangle 9.9"), "{refused}");
    }
}
