//! Malformed inputs of every kind that is read, made by a generator: each must end in an error that names the file, or in
//! lines that name what was left out; never in a panic, in more memory than its size explains, in a wait, or in a pixel
//! from outside.
//!
//! [`Case`] is one input; a module a kind of input gives a table of them. To add a kind: a module with `cases()`, and its
//! name in [`all_cases`].

mod archives;
mod arrays;
mod folders;
mod heap;
mod inputs;
mod lists;
mod mutations;
mod pictures;
mod records;
mod usage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use disentangle::Error;
use disentangle::data::{Dataset, ExclusionKind, GatherOptions, SourceOptions, source};

/// One malformed input.
pub struct Case {
    /// Unique, for messages.
    name: String,
    /// Puts it into an empty folder and says what to open there.
    make: Box<dyn Fn(&Path) -> Input + Send + Sync>,
    /// How it must end.
    ends: Ends,
    /// Heap it may take: this many bytes ...
    heap_base: usize,
    /// ... and this many for each byte of its files.
    heap_per_byte: usize,
}

/// What to open.
pub struct Input {
    /// As after `--data`; relative to the folder of the case, unless absolute.
    locations: Vec<String>,
    options: SourceOptions,
}

/// How a case must end.
#[derive(Clone, Debug)]
pub enum Ends {
    /// With an error that has all of this in its text.
    Refused(&'static [&'static str]),
    /// With this many lost images, each with a reason; the others are read.
    Quarantined(usize),
    /// With at least one line about something ignored.
    Noted,
    /// With nothing lost and nothing to say: odd, but harmless within its heap. (Does not count as malformed.)
    Harmless,
}

impl Case {
    /// A case that opens `open` among `files` (name, content).
    fn files(name: impl Into<String>, files: Vec<(String, Vec<u8>)>, open: &str, ends: Ends) -> Case {
        let open = open.to_owned();
        Case::made(name, ends, move |root| {
            for (name, bytes) in &files {
                inputs::write(root, name, bytes);
            }
            Input::of(&open)
        })
    }

    /// A case that opens a single file.
    fn file(name: impl Into<String>, file: &str, bytes: Vec<u8>, ends: Ends) -> Case {
        Case::files(name, vec![(file.into(), bytes)], file, ends)
    }

    /// A case made by code.
    fn made(name: impl Into<String>, ends: Ends, make: impl Fn(&Path) -> Input + Send + Sync + 'static) -> Case {
        // Listing, names, one thread's scratch; and a file read whole, a copy of it, what hash tables round up to.
        Case { name: name.into(), make: Box::new(make), ends, heap_base: 4 << 20, heap_per_byte: 64 }
    }

    /// With another bound on the heap.
    fn heap(self, base: usize, per_byte: usize) -> Case {
        Case { heap_base: base, heap_per_byte: per_byte, ..self }
    }

    /// With other options.
    fn with(self, options: SourceOptions) -> Case {
        let make = self.make;
        let make = move |root: &Path| Input { options: options.clone(), ..make(root) };
        Case { make: Box::new(make), ..self }
    }
}

impl Input {
    /// One location, usual options.
    fn of(location: &str) -> Input {
        Input { locations: vec![location.to_owned()], options: SourceOptions::default() }
    }
}

/// Every kind of input.
fn all_cases() -> Vec<Case> {
    [
        pictures::cases(),
        archives::cases(),
        records::cases(),
        arrays::cases(),
        lists::cases(),
        folders::cases(),
        usage::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    UsageError,
    FormatError,
    IoError,
    Quarantine,
    Note,
    Whole,
}

/// Runs one case; the error says what it did that it must not.
fn check(case: &Case) -> Result<Ended, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    // Beside the case's folder, where nothing may be read.
    std::fs::write(dir.path().join("secret.png"), inputs::secret()).map_err(|e| e.to_string())?;
    let root = dir.path().join("case");
    std::fs::create_dir(&root).map_err(|e| e.to_string())?;
    let input = (case.make)(&root);
    let inside = |location: &String| match &location[..] {
        "" => root.to_str().expect("a path in UTF-8").to_owned(),
        _ if location.starts_with("shapes") => location.clone(),
        _ => root.join(location).to_str().expect("a path in UTF-8").to_owned(),
    };
    let locations: Vec<String> = input.locations.iter().map(inside).collect();
    let size = inputs::size_of(&root);
    let start = heap::mark();
    let loaded = catch_unwind(AssertUnwindSafe(|| load(&locations, &input.options)));
    let taken = heap::peak_since(start);
    let bound = case.heap_base + case.heap_per_byte * size;
    if taken > bound {
        return Err(format!("{taken} bytes of heap for {size} bytes of files; at most {bound}"));
    }
    let loaded = loaded.map_err(|_| "a panic".to_string())?;
    match loaded {
        Err(error) => refused(case, &error, &inputs::names_in(&root), &locations, &input.options),
        Ok(data) => {
            if (0..data.len())
                .any(|i| data.image(i, &mut Vec::new()).is_ok_and(|image| inputs::is_secret(image.pixels())))
            {
                return Err("read a file outside".into());
            }
            kept(case, &data)
        }
    }
}

fn load(locations: &[String], options: &SourceOptions) -> Result<Dataset, Error> {
    Dataset::load(source::open_all(locations, options)?, &GatherOptions::default(), &|_, _| ())
}

/// Judges an error.
fn refused(
    case: &Case,
    error: &Error,
    files: &[String],
    locations: &[String],
    options: &SourceOptions,
) -> Result<Ended, String> {
    let text = error.to_string();
    let ended = match error {
        Error::Usage(_) => Ended::UsageError,
        Error::Format { .. } => Ended::FormatError,
        Error::Io { .. } => Ended::IoError,
        _ => return Err(format!("an error of another kind: {text}")),
    };
    let says: &[&str] = match case.ends {
        Ends::Refused(says) => says,
        ref ends => return Err(format!("{ends:?}, but: {text}")),
    };
    if let Some(missing) = says.iter().find(|part| !text.contains(**part)) {
        return Err(format!("no `{missing}` in: {text}"));
    }
    if text.contains('\n') || text.contains("panicked") || text.len() > 2000 {
        return Err(format!("not one readable line: {text}"));
    }
    let names_it = locations.iter().any(|location| text.contains(location.as_str()))
        || files.iter().any(|name| text.contains(name.as_str()))
        || options.classes.iter().any(|class| text.contains(class.trim_start_matches('@')))
        || ended == Ended::UsageError && !locations.iter().any(|l| l.starts_with('/'));
    if !names_it { Err(format!("does not name the file: {text}")) } else { Ok(ended) }
}

/// Judges what was left out of a data set.
fn kept(case: &Case, data: &Dataset) -> Result<Ended, String> {
    let lines = data.excluded();
    if let Some(bad) =
        lines.iter().find(|e| e.reason.is_empty() || e.reason.contains('\n') || e.reason.contains("panicked"))
    {
        return Err(format!("a line that does not help: {bad:?}"));
    }
    let lost = lines.iter().filter(|e| e.kind == ExclusionKind::Bad).count();
    match case.ends {
        Ends::Quarantined(expected) if lost == expected => Ok(Ended::Quarantine),
        Ends::Harmless if lines.is_empty() => Ok(Ended::Whole),
        Ends::Noted if lost == 0 && !lines.is_empty() => Ok(Ended::Note),
        ref ends => Err(format!("{ends:?}, but {} images, {lost} lost: {lines:?}", data.len())),
    }
}

/// For as long as it is held, no other test of this program runs: they would count on each other's heap.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A case that takes longer waits for something. (Each takes milliseconds.)
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_malformed_input_ends_in_words() {
    let _alone = alone();
    let cases = all_cases();
    let malformed = cases.iter().filter(|case| !matches!(case.ends, Ends::Harmless)).count();
    assert!(malformed >= 200, "{malformed} cases");
    let names: std::collections::HashSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name");
    let total = cases.len();
    let (sender, results) = mpsc::channel();
    // In a thread, so that a wait shows as one; in a pool of one, so that the heap is that of one picture at a time.
    std::thread::spawn(move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        pool.install(|| {
            for case in &cases {
                if sender.send((case.name.clone(), None)).is_err()
                    || sender.send((String::new(), Some(check(case)))).is_err()
                {
                    return;
                }
            }
        });
    });
    let mut wrong = Vec::new();
    let mut ended = std::collections::BTreeMap::<Ended, usize>::new();
    let mut running = String::new();
    for _ in 0..2 * total {
        match results.recv_timeout(PATIENCE) {
            Ok((name, None)) => running = name,
            Ok((_, Some(Ok(how)))) => *ended.entry(how).or_default() += 1,
            Ok((_, Some(Err(problem)))) => wrong.push(format!("{running}: {problem}")),
            Err(_) => panic!("`{running}` does not end"),
        }
    }
    println!("{malformed} malformed inputs and {} odd ones: {ended:?}", total - malformed);
    assert!(wrong.is_empty(), "{} of {total} cases:\n{}", wrong.len(), wrong.join("\n"));
}
