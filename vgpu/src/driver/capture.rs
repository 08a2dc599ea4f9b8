//! Stream capture, and graphs: tasks with the tasks that come before them.

use super::queue::Point;
use super::work::Work;
use super::{
    CAPTURE_INVALIDATED, CAPTURE_UNJOINED, CAPTURE_UNMATCHED, CAPTURE_UNSUPPORTED, Driver, INVALID_VALUE, Outcome,
    Status,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::thread::ThreadId;

/// Tasks in an order that respects what comes before what.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<(Work, Vec<usize>)>,
}

/// Whom a capture keeps from calls that could run into work that it only records (`CUstreamCaptureMode`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Every thread.
    Global,
    /// The thread that began it.
    ThreadLocal,
    /// None.
    Relaxed,
}

/// A graph under construction.
pub struct Capture {
    graph: Graph,
    origin: u64,
    mode: Mode,
    /// The thread that began it.
    thread: ThreadId,
    valid: bool,
    /// Nodes that the next task of each stream comes after.
    tails: HashMap<u64, Vec<usize>>,
}

impl Capture {
    pub fn tail(&self, stream: u64) -> Vec<usize> {
        self.tails.get(&stream).cloned().unwrap_or_default()
    }
}

impl Driver {
    /// `cuStreamBeginCapture`
    pub fn begin_capture(&mut self, handle: u64, mode: u32) -> Outcome {
        let mode = match mode {
            0 => Mode::Global,
            1 => Mode::ThreadLocal,
            2 => Mode::Relaxed,
            _ => return Err(INVALID_VALUE),
        };
        if handle <= 1 {
            return Err(CAPTURE_UNSUPPORTED);
        }
        if self.stream(handle)?.capture.is_some() {
            return Err(INVALID_VALUE);
        }
        let id = self.handle();
        let tails = HashMap::from([(handle, Vec::new())]);
        let thread = std::thread::current().id();
        self.captures.insert(id, Capture { graph: Graph::default(), origin: handle, mode, thread, valid: true, tails });
        self.stream(handle)?.capture = Some(id);
        Ok(())
    }

    /// A call that could run into work which a capture only records, such as an allocation: it is refused, and spoils the
    /// captures that do not allow it.
    pub fn unsafe_in_capture(&mut self) -> Outcome {
        let here = std::thread::current().id();
        let mut result = Ok(());
        for c in self.captures.values_mut() {
            if c.mode == Mode::Global || (c.mode == Mode::ThreadLocal && c.thread == here) {
                (c.valid, result) = (false, Err(CAPTURE_UNSUPPORTED));
            }
        }
        result
    }

    /// A call that a capture does not allow spoils it.
    pub fn invalidate(&mut self, capture: u64) {
        if let Some(c) = self.captures.get_mut(&capture) {
            c.valid = false;
        }
    }

    /// Whether a capture can still become a graph.
    pub fn is_valid(&self, capture: u64) -> bool {
        self.captures.get(&capture).is_some_and(|c| c.valid)
    }

    /// Work of a stream that captures becomes a node.
    pub fn capture_work(&mut self, stream: u64, capture: u64, work: Work) -> Outcome {
        let c = self.captures.get_mut(&capture).ok_or(CAPTURE_INVALIDATED)?;
        if !c.valid {
            return Err(CAPTURE_INVALIDATED);
        }
        if matches!(work, Work::Allocate(_) | Work::Free(_)) {
            eprintln!("vgpu: stream-ordered allocation inside of a capture is not covered");
            c.valid = false;
            return Err(CAPTURE_UNSUPPORTED);
        }
        let before = c.tail(stream);
        c.graph.nodes.push((work, before));
        c.tails.insert(stream, vec![c.graph.nodes.len() - 1]);
        Ok(())
    }

    /// A stream waits for an event of a capture: it takes part from now on.
    pub fn join(&mut self, handle: u64, capture: u64, nodes: &[usize]) -> Outcome {
        let c = self.captures.get_mut(&capture).ok_or(super::CAPTURED_EVENT)?;
        let tail = c.tails.entry(handle).or_default();
        tail.extend_from_slice(nodes);
        tail.sort_unstable();
        tail.dedup();
        let stream = self.stream(handle)?;
        if stream.capture.is_some_and(|other| other != capture) {
            return Err(INVALID_VALUE); // would merge two captures
        }
        stream.capture = Some(capture);
        Ok(())
    }

    /// `cuStreamEndCapture`
    pub fn end_capture(&mut self, handle: u64) -> Result<u64, Status> {
        let Some(id) = self.stream(handle)?.capture else { return Err(INVALID_VALUE) };
        let c = self.captures.get(&id).ok_or(CAPTURE_INVALIDATED)?;
        if c.origin != handle {
            return Err(CAPTURE_UNMATCHED);
        }
        let c = self.captures.remove(&id).ok_or(CAPTURE_INVALIDATED)?;
        self.streams.values_mut().filter(|s| s.capture == Some(id)).for_each(|s| s.capture = None);
        if !c.valid {
            return Err(CAPTURE_INVALIDATED);
        }
        // Everything other streams did must come before the end of the stream that began.
        let mut reached = vec![false; c.graph.nodes.len()];
        let mut todo = c.tail(handle);
        while let Some(i) = todo.pop() {
            if !std::mem::replace(&mut reached[i], true) {
                todo.extend(&c.graph.nodes[i].1);
            }
        }
        if reached.contains(&false) {
            return Err(CAPTURE_UNJOINED);
        }
        let graph = self.handle();
        self.graphs.insert(graph, Arc::new(c.graph));
        Ok(graph)
    }

    /// Runs a graph in an order drawn from those it allows.
    pub fn perform_graph(&mut self, graph: &Graph) {
        let mut done = vec![false; graph.nodes.len()];
        loop {
            let ready: Vec<usize> =
                (0..done.len()).filter(|&i| !done[i] && graph.nodes[i].1.iter().all(|&b| done[b])).collect();
            if ready.is_empty() || crate::report::error() != 0 {
                return;
            }
            let i = ready[self.draw(ready.len() as u64) as usize];
            self.perform(graph.nodes[i].0.clone());
            done[i] = true;
        }
    }

    /// `cuGraphLaunch`
    pub fn launch_graph(&mut self, executable: u64, stream: u64) -> Result<Point, Status> {
        let graph = self.executables.get(&executable).ok_or(INVALID_VALUE)?.clone();
        self.enqueue(stream, Work::Graph(graph))
    }
}
