//! A run that is killed is the run that was not: the real program, killed at chosen operations on its folder and at random
//! times, also again and again, resumed to its end on another number of threads, compared byte for byte.
//!
//! `CRASH_KILLS=1000 cargo test --release --test crash -- --nocapture` tries more instants than the 40 of every day, and prints
//! how many there were.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod compare;
mod lives;
mod order;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use disentangle::rng::{Purpose, Stream, stream};

use compare::differences;
use lives::{End, Kill, Lives};
use order::{Instants, instants};

/// Kills of an ordinary test run.
const KILLS: usize = 40;

/// Random kills of one run, one after the other.
const CHAIN: usize = 4;

/// One run, and how its lives end before the last.
struct Plan {
    kills: Vec<Kill>,
    /// Whether the first kill is known to lie inside the writing of a checkpoint.
    inside: bool,
    random: Stream,
}

/// What came of all plans.
#[derive(Default)]
struct Tally {
    tried: usize,
    inside: usize,
    equal: usize,
    problems: Vec<String>,
}

/// The run that nobody kills.
struct Reference {
    lives: Lives,
    instants: Instants,
    seconds: f64,
}

impl Reference {
    fn new() -> Reference {
        let lives = Lives::new();
        let clock = std::time::Instant::now();
        let end = lives.live(1, None).unwrap();
        assert_eq!(end, End::Finished);
        Reference { instants: instants(&lives.record()), lives, seconds: clock.elapsed().as_secs_f64() }
    }

    /// 3 in 5 kills inside the writing of a checkpoint, spread over all such instants, 1 in 5 at other operations. Where there
    /// are more kills than instants, what follows a kill is killed as well, at a random operation.
    fn chosen(&self, kills: usize) -> Vec<Plan> {
        let spread = |instants: &[Kill], wanted: usize| -> Vec<Vec<Kill>> {
            let at = |i: usize| if wanted < instants.len() { i * instants.len() / wanted } else { i % instants.len() };
            (0..wanted).map(|i| vec![instants[at(i)]; 1 + usize::from(i >= instants.len())]).collect()
        };
        let inside = spread(&self.instants.inside, kills * 3 / 5);
        let other = spread(&self.instants.other, kills / 5);
        let known = inside.len();
        let plan = |(index, kills)| Plan {
            kills,
            inside: index < known,
            random: stream(1, Purpose::Order, index as u64, 0, 0),
        };
        let mut plans: Vec<Plan> = inside.into_iter().chain(other).enumerate().map(plan).collect();
        for Plan { kills, random, .. } in &mut plans {
            let operations = self.instants.operations;
            kills.iter_mut().skip(1).for_each(|kill| {
                *kill = Kill::At(
                    1 + u64::from(random.below(operations)),
                    ["before", "within", "after"][random.below(3) as usize],
                );
            });
        }
        plans
    }

    /// Kills at any time.
    fn random(&self, index: u64) -> Plan {
        let mut random = stream(2, Purpose::Order, index, 0, 0);
        let kills = (0..CHAIN).map(|_| Kill::Time(Duration::from_secs_f64(self.seconds * random.uniform()))).collect();
        Plan { kills, inside: false, random }
    }
}

impl Plan {
    /// Lives through it and on to the end of the run. Gives the kills that struck, how many of them inside the writing of a
    /// checkpoint, and what is not as it should be.
    fn carry_out(mut self, reference: &Path) -> (usize, usize, Option<String>) {
        let lives = Lives::new();
        let (mut tried, mut inside) = (0, 0);
        let mut problem = None;
        for kill in self.kills.iter().map(Some).chain([None]) {
            match lives.live(1 + self.random.below(2) as usize, kill) {
                Ok(End::Killed { inside_checkpoint }) => {
                    inside += usize::from(inside_checkpoint || tried == 0 && self.inside);
                    tried += 1;
                }
                Ok(End::Finished) => break,
                Err(died) => {
                    problem = Some(died);
                    break;
                }
            }
        }
        let found = || differences(reference, &lives.folder()).first().cloned();
        (tried, inside, problem.or_else(found).map(|problem| format!("{:?}: {problem}", self.kills)))
    }
}

/// As many as asked for.
fn wanted() -> usize {
    std::env::var("CRASH_KILLS").map_or(KILLS, |text| text.parse().expect("CRASH_KILLS is a number"))
}

/// Carries out all plans, on all cores.
fn carry_out(reference: &Reference, next: impl Fn(usize) -> Option<Plan> + Sync) -> Tally {
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let tried = tally.lock().unwrap().tried;
                    let Some(plan) = next(tried) else { break };
                    let (tried, inside, problem) = plan.carry_out(&reference.lives.folder());
                    let mut tally = tally.lock().unwrap();
                    tally.tried += tried;
                    tally.inside += inside;
                    tally.equal += if problem.is_none() { tried } else { 0 };
                    tally.problems.extend(problem);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    let Tally { tried, equal, problems, .. } = &tally;
    assert!(
        problems.is_empty() && equal == tried,
        "{} of {tried} differ, such as\n{}",
        tried - equal,
        problems.join("\n")
    );
    tally
}

#[test]
fn killed_at_any_instant_a_run_resumes_to_the_same_bytes() {
    let (wanted, reference) = (wanted(), Reference::new());
    let queue = Mutex::new((reference.chosen(wanted), 0));
    // The chosen ones first, then random ones until there are enough.
    let tally = carry_out(&reference, |tried| {
        let (plans, index) = &mut *queue.lock().unwrap();
        *index += 1;
        let enough = tried + plans.len() >= wanted;
        plans.pop().or_else(|| (!enough).then(|| reference.random(*index)))
    });
    let Tally { tried, inside, equal, .. } = tally;
    println!(
        "{tried} instants tried, {inside} inside the writing of a checkpoint; {equal} equal to the run never killed"
    );
    assert!(tried >= wanted && inside >= wanted / 5);
}

#[test]
fn a_power_cut_takes_nothing_that_a_checkpoint_counts_on() {
    let (cuts, reference) = (wanted() / 4, Reference::new());
    let all: Vec<Kill> = reference.instants.inside.iter().chain(&reference.instants.other).copied().collect();
    let next = AtomicUsize::new(0);
    let tally = carry_out(&reference, |_| {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Kill::At(number, moment) = all[(index * all.len() / cuts + index / all.len()) % all.len()] else {
            return None;
        };
        let random = stream(3, Purpose::Order, index as u64, 0, 0);
        (index < cuts).then(|| Plan { kills: vec![Kill::Cut(number, moment)], inside: false, random })
    });
    println!("{} power cuts, {} equal to the run without any", tally.tried, tally.equal);
    assert_eq!(tally.tried, cuts);
}
