//! Steps under way: pixels to the device while the step before computes, the whole step as one graph, its report back.
//!
//! ```text
//!              pinned slot           lane's pixels             step                    lane's page
//!   loader --------------> copy stream ----------> compute stream --------------------------> host
//!                |  waits for `done`    |  waits for `copied`     |  records `done`      waits for `done`
//!                |  of this lane        |                         |                      (`finish`)
//! ```
//!
//! `copied`: the compute stream must not read pixels before they are there. `done`: the copy stream must not overwrite a lane's
//! pixels while its last step reads them, and the host must not read its page, or give the pinned slot back, before.
//!
//! The first step of a lane is launched kernel by kernel (engines are chosen, memory is allocated); the second is recorded as a
//! graph and from then on replayed. A step that cannot be recorded is launched kernel by kernel for good.

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, result};

use super::adam::State;
use super::device::{Cuda, failed};
use super::kernel::Dtype;
use super::memory::RecordedMemory;
use super::ops::adam::{self, AdamState};
use super::ops::transfer::copy_to_device;
use crate::backend::{LOSSES, StepReport};
use crate::log::say;
use crate::tensor::{Shape, Tensor};
use crate::{Error, Result};

/// Page-locked memory of the host: the device copies from and to it without a detour.
pub struct Pinned<T: 'static> {
    values: &'static mut [T],
    context: Arc<CudaContext>,
}

impl<T: Copy> Pinned<T> {
    /// # Safety
    /// All zeros is a `T`.
    unsafe fn zeroed(context: &Arc<CudaContext>, elems: usize) -> Result<Self> {
        context.bind_to_thread().map_err(failed("using the device"))?;
        let bytes = elems * size_of::<T>();
        // SAFETY: memory of that size, aligned to a page, zeroed before anything reads it, for as long as this lives.
        let values = unsafe {
            let memory = result::malloc_host(bytes.max(1), 0).map_err(failed("allocating page-locked memory"))?;
            std::ptr::write_bytes(memory.cast::<u8>(), 0, bytes);
            std::slice::from_raw_parts_mut(memory.cast::<T>(), elems)
        };
        Ok(Pinned { values, context: Arc::clone(context) })
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // A copy may be under way.
        let _ = self.context.synchronize();
        // SAFETY: allocated by `zeroed`, freed once.
        let _ = unsafe { result::free_host(self.values.as_mut_ptr().cast()) };
    }
}

impl AsRef<[u8]> for Pinned<u8> {
    fn as_ref(&self) -> &[u8] {
        self.values
    }
}

impl AsMut<[u8]> for Pinned<u8> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.values
    }
}

/// What a step brings to the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    losses: [f32; LOSSES],
    state: State,
}

/// Where a step's report goes.
pub struct Report {
    page: Pinned<Page>,
}

/// What one step under way holds on to.
pub struct Lane {
    /// Bytes, overwritten for every step.
    images: Tensor<Cuda>,
    copied: CudaEvent,
    done: CudaEvent,
    report: Report,
    progress: Progress,
}

/// How far a lane's recording is.
enum Progress {
    New,
    WarmedUp,
    Recorded(Recording),
    Unrecordable,
}

/// A step to repeat, and the memory it writes to; dropped in this order.
struct Recording {
    graph: CudaGraph,
    _memory: RecordedMemory,
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Its memory may be in use.
        let _ = self.done.synchronize();
    }
}

impl Cuda {
    pub(super) fn new_pixels(&self, bytes: usize) -> Result<Pinned<u8>> {
        // SAFETY: bytes.
        unsafe { Pinned::zeroed(self.device.compute.context(), bytes) }
    }

    pub(super) fn new_lane(&self, images: Shape) -> Result<Lane> {
        let context = self.device.compute.context();
        let event = || context.new_event(None).map_err(failed("making an event"));
        // SAFETY: numbers.
        let page = unsafe { Pinned::zeroed(context, 1)? };
        let lane = Lane {
            images: self.tensor(images, Dtype::U8)?,
            copied: event()?,
            done: event()?,
            report: Report { page },
            progress: Progress::New,
        };
        // The pixels' memory is the compute stream's: it may not have come to the allocation, or to the last work on what was
        // there before. The first copy, on the other stream, waits for that.
        lane.done.record(&self.device.compute).map_err(failed("marking the beginning of a lane"))?;
        Ok(lane)
    }

    pub(super) fn start_step(
        &self,
        lane: &mut Lane,
        pixels: &Pinned<u8>,
        mut work: impl FnMut(Tensor<Cuda>, &mut Report) -> Result<()>,
    ) -> Result<()> {
        self.copy_pixels(lane, pixels)?;
        if let Progress::WarmedUp = lane.progress {
            lane.progress = match self.record(lane, &mut work) {
                Ok(recording) => Progress::Recorded(recording),
                Err(problem) => {
                    say(&format!("steps are launched kernel by kernel, as recording one failed: {problem}"));
                    Progress::Unrecordable
                }
            };
        }
        match &lane.progress {
            Progress::Recorded(recording) => recording.graph.launch().map_err(failed("launching a step"))?,
            Progress::New | Progress::WarmedUp | Progress::Unrecordable => {
                work(lane.images.clone(), &mut lane.report)?;
            }
        }
        if let Progress::New = lane.progress {
            lane.progress = Progress::WarmedUp;
        }
        lane.done.record(&self.device.compute).map_err(failed("marking the end of a step"))
    }

    /// To the lane's memory, once its last step no longer reads it; the compute stream waits for that.
    fn copy_pixels(&self, lane: &Lane, pixels: &Pinned<u8>) -> Result<()> {
        let failed = failed("copying a batch to the device");
        let (copy, compute) = (&self.device.copy, &self.device.compute);
        let images = lane.images.shape();
        if pixels.values.len() != images.elems() {
            let bytes = pixels.values.len();
            return Err(Error::shape("step", format!("{bytes} bytes of views for images {images:?}")));
        }
        copy.wait(&lane.done).map_err(&failed)?;
        // SAFETY: as many bytes as there are; the caller keeps `pixels` until the step is finished.
        unsafe { result::memcpy_htod_async(lane.images.buffer().address().0, &*pixels.values, copy.cu_stream()) }
            .map_err(&failed)?;
        lane.copied.record(copy).map_err(&failed)?;
        compute.wait(&lane.copied).map_err(&failed)
    }

    /// Has `work` do its launches into a graph instead of onto the device.
    fn record(
        &self,
        lane: &mut Lane,
        work: &mut impl FnMut(Tensor<Cuda>, &mut Report) -> Result<()>,
    ) -> Result<Recording> {
        let (device, compute) = (&self.device, &self.device.compute);
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        compute.begin_capture(mode).map_err(failed("beginning to record"))?;
        device.recording.set(true);
        let memory = device.pool.begin_recording();
        let worked = work(lane.images.clone(), &mut lane.report);
        device.pool.end_recording();
        device.recording.set(false);
        let tables = device.deferred.take();
        let graph = compute.end_capture(CUgraphInstantiate_flags(0)).map_err(failed("recording a step"));
        worked?;
        let graph = graph?.ok_or_else(|| Error::Device("recording a step gave nothing".into()))?;
        for (address, chunks) in tables {
            copy_to_device(self, &chunks, address)?;
        }
        graph.upload().map_err(failed("preparing a recorded step"))?;
        Ok(Recording { graph, _memory: memory })
    }

    pub(super) fn report_step(
        &self,
        report: &mut Report,
        losses: [&Tensor<Cuda>; LOSSES],
        adam: &AdamState,
    ) -> Result<()> {
        let (failed, stream) = (failed("bringing a step's report"), self.device.compute.cu_stream());
        let page = report.page.values.first_mut().ok_or_else(|| Error::Device("no page".into()))?;
        for (value, loss) in page.losses.iter_mut().zip(losses) {
            let address = loss.buffer().slice::<f32>().map(|_| loss.buffer().address())?;
            // SAFETY: page-locked memory that the lane owns and the host reads after `done`; a scalar in f32.
            unsafe { result::memcpy_dtoh_async(std::slice::from_mut(value), address.0, stream) }.map_err(&failed)?;
        }
        // SAFETY: as above.
        unsafe { result::memcpy_dtoh_async(std::slice::from_mut(&mut page.state), adam.address().0, stream) }
            .map_err(&failed)
    }

    pub(super) fn finish_step(&self, lane: &Lane) -> Result<StepReport> {
        lane.done.synchronize().map_err(failed("computing a step"))?;
        let page = lane.report.page.values.first().ok_or_else(|| Error::Device("no page".into()))?;
        Ok(StepReport { losses: page.losses.map(f64::from), adam: adam::report(&page.state) })
    }
}
