//! Streams as queues. Nothing runs until something must: a synchronisation, a copy to the host, an event that is waited for.
//!
//! A task names the points of other streams that come before it. What is forced runs; what is not, runs now or later as
//! the seed says, so an order that a program only hoped for is sooner or later another one.

use super::work::Work;
use super::{CAPTURE_INVALIDATED, Driver, INVALID_HANDLE, Outcome, Status};
use crate::report;
use std::collections::VecDeque;
use std::time::Instant;

/// A place in a stream: the stream, and how many tasks have gone through it.
pub type Point = (u64, u64);

/// The stream of handle 0, which waits for all blocking streams, and they for it.
pub const LEGACY: u64 = 0;
/// The default stream of a thread; here one for all of them.
pub const PER_THREAD: u64 = 2;

pub struct Task {
    pub work: Work,
    pub after: Vec<Point>,
}

#[derive(Default)]
pub struct Stream {
    pub non_blocking: bool,
    pub queue: VecDeque<Task>,
    /// Tasks that were ever added.
    pub issued: u64,
    /// Tasks that have run.
    pub done: u64,
    /// Points that the next task comes after.
    pub waits: Vec<Point>,
    /// The capture it records into.
    pub capture: Option<u64>,
    pub priority: i32,
}

#[derive(Default)]
pub struct Event {
    /// Where it was recorded last.
    pub point: Option<Point>,
    /// Where it was recorded in a capture: the capture and the nodes before it.
    pub captured: Option<(u64, Vec<usize>)>,
    pub time: Option<Instant>,
    pub no_timing: bool,
}

impl Driver {
    /// The stream of a handle; the two special handles always exist.
    pub fn stream(&mut self, handle: u64) -> Result<&mut Stream, Status> {
        let handle = if handle == 1 { LEGACY } else { handle };
        if handle == LEGACY || handle == PER_THREAD {
            return Ok(self.streams.entry(handle).or_default());
        }
        self.streams.get_mut(&handle).ok_or(INVALID_HANDLE)
    }

    /// The error that earlier work left the context with.
    pub fn healthy(&self) -> Outcome {
        match report::error() {
            0 => Ok(()),
            error => Err(error),
        }
    }

    /// Adds work to a stream, or to the graph that it captures.
    pub fn enqueue(&mut self, handle: u64, work: Work) -> Result<Point, Status> {
        let handle = if handle == 1 { LEGACY } else { handle };
        self.healthy()?;
        if let Some(capture) = self.stream(handle)?.capture {
            self.capture_work(handle, capture, work)?;
            return Ok((handle, 0));
        }
        let mut after = std::mem::take(&mut self.stream(handle)?.waits);
        let blocking = |s: &Stream| !s.non_blocking;
        if handle == LEGACY {
            self.refuse_implicit()?;
            after
                .extend(self.streams.iter().filter(|(h, s)| **h != LEGACY && blocking(s)).map(|(h, s)| (*h, s.issued)));
        } else if blocking(self.stream(handle)?) {
            after.push((LEGACY, self.stream(LEGACY)?.issued));
        }
        let stream = self.stream(handle)?;
        stream.queue.push_back(Task { work, after });
        stream.issued += 1;
        Ok((handle, stream.issued))
    }

    /// The legacy stream would wait for blocking streams: not while one of them captures.
    fn refuse_implicit(&mut self) -> Outcome {
        match self.streams.values().any(|s| s.capture.is_some() && !s.non_blocking) {
            true => Err(super::CAPTURE_IMPLICIT),
            false => Ok(()),
        }
    }

    /// Runs a stream up to a point, with everything that comes before it.
    pub fn reach(&mut self, (handle, count): Point) {
        loop {
            match self.streams.get(&handle) {
                Some(s) if s.done < count && !s.queue.is_empty() => {}
                _ => return,
            }
            self.stray();
            self.step(handle);
        }
    }

    /// Perhaps runs a task that nobody asked for yet.
    fn stray(&mut self) {
        while self.draw(2) == 0 {
            let busy: Vec<u64> = self.streams.iter().filter(|(_, s)| !s.queue.is_empty()).map(|(h, _)| *h).collect();
            if busy.is_empty() {
                return;
            }
            let chosen = busy[self.draw(busy.len() as u64) as usize];
            self.step(chosen);
        }
    }

    /// Runs the next task of a stream, after those it waits for.
    fn step(&mut self, handle: u64) {
        let Some(task) = self.streams.get_mut(&handle).and_then(|s| s.queue.pop_front()) else { return };
        for point in task.after {
            self.reach_exactly(point);
        }
        if report::error() == 0 {
            self.perform(task.work);
        }
        if let Some(s) = self.streams.get_mut(&handle) {
            s.done += 1;
        }
    }

    fn reach_exactly(&mut self, (handle, count): Point) {
        while self.streams.get(&handle).is_some_and(|s| s.done < count && !s.queue.is_empty()) {
            self.step(handle);
        }
    }

    /// `cuStreamSynchronize`
    pub fn synchronize(&mut self, handle: u64) -> Outcome {
        let handle = if handle == 1 { LEGACY } else { handle };
        let stream = self.stream(handle)?;
        if let Some(capture) = stream.capture {
            self.invalidate(capture);
            return Err(super::CAPTURE_UNSUPPORTED);
        }
        let (count, waits) = (stream.issued, stream.waits.clone());
        self.calls.synchronisations += 1;
        for point in waits {
            self.reach(point);
        }
        self.reach((handle, count));
        if handle == LEGACY {
            let others: Vec<Point> =
                self.streams.iter().filter(|(_, s)| !s.non_blocking).map(|(h, s)| (*h, s.issued)).collect();
            others.into_iter().for_each(|p| self.reach(p));
        }
        self.healthy()
    }

    /// `cuCtxSynchronize`
    pub fn synchronize_all(&mut self) -> Outcome {
        self.unsafe_in_capture()?;
        if self.streams.values().any(|s| s.capture.is_some()) {
            return Err(super::CAPTURE_UNSUPPORTED);
        }
        self.drain()
    }

    /// Waits for all that is in the streams, as a release of memory does.
    pub fn drain(&mut self) -> Outcome {
        self.calls.synchronisations += 1;
        let all: Vec<Point> = self.streams.iter().map(|(h, s)| (*h, s.issued)).collect();
        all.into_iter().for_each(|p| self.reach(p));
        self.healthy()
    }

    /// `cuEventRecord`
    pub fn record(&mut self, event: u64, handle: u64) -> Outcome {
        let handle = if handle == 1 { LEGACY } else { handle };
        if !self.events.contains_key(&event) {
            return Err(INVALID_HANDLE);
        }
        if let Some(capture) = self.stream(handle)?.capture {
            let tail = self.captures.get(&capture).ok_or(CAPTURE_INVALIDATED)?.tail(handle);
            let e = self.events.get_mut(&event).ok_or(INVALID_HANDLE)?;
            (e.captured, e.point) = (Some((capture, tail)), None);
            return Ok(());
        }
        let point = self.enqueue(handle, Work::Record(event))?;
        let e = self.events.get_mut(&event).ok_or(INVALID_HANDLE)?;
        (e.captured, e.point, e.time) = (None, Some(point), None);
        Ok(())
    }

    /// `cuStreamWaitEvent`
    pub fn wait(&mut self, handle: u64, event: u64) -> Outcome {
        let handle = if handle == 1 { LEGACY } else { handle };
        let e = self.events.get(&event).ok_or(INVALID_HANDLE)?;
        if let Some((capture, nodes)) = e.captured.clone() {
            return self.join(handle, capture, &nodes);
        }
        let Some(point) = e.point else { return Ok(()) }; // never recorded: nothing to wait for
        let stream = self.stream(handle)?;
        if let Some(capture) = stream.capture {
            self.invalidate(capture); // an event from outside of the capture
            return Err(super::CAPTURE_ISOLATION);
        }
        stream.waits.push(point);
        Ok(())
    }

    /// Whether everything before the event has run.
    pub fn event_done(&mut self, event: u64) -> Result<bool, Status> {
        let e = self.events.get(&event).ok_or(INVALID_HANDLE)?;
        if let Some((capture, _)) = e.captured {
            self.invalidate(capture);
            return Err(super::CAPTURED_EVENT);
        }
        Ok(e.point.is_none_or(|(h, count)| self.streams.get(&h).is_none_or(|s| s.done >= count)))
    }
}
