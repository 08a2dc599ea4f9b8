//! A run on the terminal.

use super::{StepRecord, say};
use indicatif::{FormattedDuration, HumanCount, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// What a run intends to do, for its progress display.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Epochs in the whole run.
    pub epochs: u64,
    /// Steps in the whole run.
    pub steps: u64,
    /// Steps taken before this process (a resumed run), else 0.
    pub steps_before: u64,
    /// Steps between plain lines, at least 1.
    pub log_every: u64,
}

/// The run on the terminal: a bar with loss, views/s and time left, or plain lines where stderr is no terminal.
#[derive(Debug)]
pub struct Progress {
    plan: Plan,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts the clock, and the bar if stderr is a terminal.
    pub fn new(plan: Plan) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] step {human_pos}/{human_len}  {msg}");
            let style = style.expect("the template is constant").progress_chars("=> ");
            ProgressBar::new(plan.steps).with_position(plan.steps_before).with_style(style)
        });
        Progress { plan, started: Instant::now(), bar }
    }

    /// Shows a step: moves the bar, or prints a line every `log_every` steps and at the last one.
    pub fn step(&self, record: &StepRecord) {
        let epoch = format!("epoch {}/{}", record.epoch, self.plan.epochs);
        let left = time_left(self.started.elapsed(), record.step, &self.plan);
        if let Some(bar) = &self.bar {
            bar.set_prefix(epoch);
            bar.set_message(figures(record, left));
            bar.set_position(record.step);
        } else if record.step.is_multiple_of(self.plan.log_every.max(1)) || record.step == self.plan.steps {
            say(&format!("{epoch}  step {}/{}  {}", record.step, self.plan.steps, figures(record, left)));
        }
    }

    /// Prints a line of its own, above the bar if there is one.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Leaves the display as it is and ends it.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// Loss, speed and time left.
fn figures(record: &StepRecord, left: Option<Duration>) -> String {
    let speed = HumanCount(record.views_per_s.round() as u64);
    let left = left.map_or_else(|| "?".to_owned(), |left| FormattedDuration(left).to_string());
    format!("loss {:.4}  {speed} views/s  ETA {left}", record.loss)
}

/// Time left if the rest goes at this process's mean speed; `None` before its first step.
fn time_left(elapsed: Duration, step: u64, plan: &Plan) -> Option<Duration> {
    let done = step.checked_sub(plan.steps_before).filter(|&done| done > 0)?;
    let seconds = elapsed.as_secs_f64() * plan.steps.saturating_sub(step) as f64 / done as f64;
    Duration::try_from_secs_f64(seconds.round()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::step;
    use super::*;

    #[test]
    fn time_left_counts_only_the_steps_of_this_process() {
        let plan = Plan { epochs: 2, steps: 100, steps_before: 50, log_every: 10 };
        let after = |step| time_left(Duration::from_secs(10), step, &plan);
        assert_eq!(
            [after(50), after(40), after(60), after(100)].map(|t| t.map(|t| t.as_secs())),
            [None, None, Some(40), Some(0)]
        );
        let record = step(60);
        assert_eq!(figures(&record, after(60)), "loss 15.0000  1,234 views/s  ETA 00:00:40");
        assert_eq!(figures(&StepRecord { loss: f64::NAN, ..record }, None), "loss NaN  1,234 views/s  ETA ?");
    }
}
