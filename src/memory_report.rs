//! Where the memory of a training step goes, node by node: `train --memory-report`.

use std::fmt::{self, Write as _};

use crate::Result;
use crate::autograd::profile::{Entry, Pass};
use crate::backend::{Backend, Memory};
use crate::config::Config;
use crate::data::loader::Batch;
use crate::nn::ParamId;
use crate::trainer::{Trainer, VIEWS};

/// A step's memory. All bytes are those of the pool, whose blocks are a little larger than what is in them.
pub struct MemoryReport {
    /// Nodes as they were passed: forward, then backward.
    pub entries: Vec<Entry>,
    /// Name of each parameter.
    names: Vec<String>,
    /// What was trained, and on what.
    title: String,
    /// Bytes of parameters and running statistics.
    pub weights: usize,
    /// Bytes of the optimiser's moments.
    pub optimiser: usize,
    /// Bytes that lived throughout and are none of these: libraries' workspaces, the optimiser's tables, pages of reports.
    pub other: usize,
    /// The pool behind the whole step, the optimiser's part included.
    pub after: Memory,
}

impl MemoryReport {
    /// Of a step of `trainer` on `batch`, after one that warms up: what a device chooses or allocates once is done by then.
    pub fn measure<B: Backend>(mut trainer: Trainer<B>, batch: &Batch<B::Pixels>) -> Result<Self> {
        let lane = trainer.lane()?;
        drop(trainer.step(lane, batch)?);
        // A new lane: its first step is launched op by op.
        let lane = trainer.lane()?;
        let (entries, lane) = trainer.profiled_step(lane, batch)?;
        let backend = trainer.params.backend();
        let after = backend.memory();
        drop(lane);
        let bytes = |x| backend.footprint(x).bytes;
        let weights = trainer.params.iter().map(|(_, param)| bytes(&param.tensor)).sum();
        let optimiser = trainer.adam.moments().map(|(_, first, second)| bytes(first) + bytes(second)).sum();
        let Config { backbone, batch_size, image_size, .. } = trainer.config;
        let first = entries.first();
        let other = first.map_or(0, |e| e.memory.live_bytes.saturating_sub(e.activations + weights + optimiser));
        Ok(MemoryReport {
            names: trainer.params.iter().map(|(_, param)| param.name.clone()).collect(),
            title: format!("{backbone}, {VIEWS} x {batch_size} views of {image_size} px"),
            entries,
            weights,
            optimiser,
            other,
            after,
        })
    }

    /// The node during which most lived.
    pub fn peak(&self) -> Option<&Entry> {
        // The first of equals.
        self.entries.iter().rev().max_by_key(|entry| entry.memory.peak_bytes)
    }

    /// Most of a figure over all nodes.
    fn most(&self, of: impl Fn(&Entry) -> usize) -> usize {
        self.entries.iter().map(of).max().unwrap_or(0)
    }

    /// Values and what is kept for the backward pass, at the end of the forward pass.
    pub fn activations(&self) -> usize {
        self.most(|entry| entry.activations)
    }

    /// Gradients, where they take most.
    pub fn gradients(&self) -> usize {
        self.most(|entry| entry.gradients)
    }

    /// The largest workspace of a library.
    pub fn workspace(&self) -> usize {
        self.most(|entry| entry.memory.workspace_bytes)
    }

    fn name(&self, param: Option<ParamId>) -> &str {
        param.map_or("", |id| self.names.get(id.index()).map_or("", String::as_str))
    }

    fn table(&self, f: &mut fmt::Formatter<'_>, pass: Pass) -> fmt::Result {
        let own = match pass {
            Pass::Forward => ["value", "saved"],
            Pass::Backward => ["activations", "gradients"],
        };
        let head = format!("{:>5}  {:<15}{:<42}{:<22}{:<6}", "node", "op", "parameter", "shape", "type");
        write!(f, "{head}{:>15}{:>15}", own[0], own[1])?;
        writeln!(f, "{:>16}{:>16}{:>16}{:>15}", "live", "peak", "cached", "workspace")?;
        for e in self.entries.iter().filter(|entry| entry.pass == pass) {
            let [first, second] = match pass {
                Pass::Forward => [e.value, e.saved],
                Pass::Backward => [e.activations, e.gradients],
            };
            let (name, shape) = (self.name(e.param), format!("{:?}", e.shape));
            write!(f, "{:>5}  {:<15}{name:<42}{shape:<22}{:<6}", e.node, e.op, e.dtype)?;
            write!(f, "{:>15}{:>15}", grouped(first), grouped(second))?;
            let Memory { live_bytes, peak_bytes, cached_bytes, workspace_bytes, .. } = e.memory;
            let [live, peak, cached] = [live_bytes, peak_bytes, cached_bytes].map(grouped);
            writeln!(f, "{live:>16}{peak:>16}{cached:>16}{:>15}", grouped(workspace_bytes))?;
        }
        Ok(())
    }
}

impl fmt::Display for MemoryReport {
    /// Two tables and the totals; bytes throughout.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Memory of a training step, in bytes: {}\n", self.title)?;
        writeln!(f, "Forward: what each node's value takes and what it saves for its backward (0: a parameter or an")?;
        writeln!(f, "earlier node has it); the pool behind it, and the most that lived during it")?;
        self.table(f, Pass::Forward)?;
        writeln!(
            f,
            "\nBackward: what is left of values and saved tensors behind each node, and all gradients by then"
        )?;
        self.table(f, Pass::Backward)?;
        writeln!(f, "\nTotals")?;
        let mut line = |what: &str, bytes: usize, note: &str| {
            writeln!(f, "  {:<46}{}", format!("{what:<14}{:>18}", grouped(bytes)), note)
        };
        line("weights", self.weights, "with running statistics")?;
        line("optimiser", self.optimiser, "two moments of each weight")?;
        line("activations", self.activations(), "at the end of the forward pass")?;
        line("gradients", self.gradients(), "where they take most")?;
        line("workspaces", self.workspace(), "the largest that a library was lent for a call")?;
        line("other", self.other, "there throughout: libraries' own workspaces, tables, reports")?;
        if let Some(peak) = self.peak() {
            let name = self.name(peak.param);
            let pass = if peak.pass == Pass::Forward { "forward" } else { "backward" };
            let of = format!("{pass} of node {} ({} {name})", peak.node, peak.op);
            line("peak", peak.memory.peak_bytes, &of)?;
            let standing = self.weights + self.optimiser + self.other;
            line("  standing", standing, "weights, optimiser, other")?;
            line("  activations", peak.activations, "behind the node")?;
            line("  gradients", peak.gradients, "behind the node")?;
            let rest = peak.memory.peak_bytes.saturating_sub(standing + peak.activations + peak.gradients);
            line("  temporary", rest, "the node's workspace, and what it gave back")?;
        }
        line("after the step", self.after.live_bytes, "")?;
        line("kept for reuse", self.after.cached_bytes, "")
    }
}

/// With commas between thousands.
fn grouped(bytes: usize) -> String {
    let digits = bytes.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        let _ = text.write_char(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (bytes, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(bytes), text);
        }
    }
}
