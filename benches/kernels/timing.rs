//! Device time of launches between two events, each behind a flush of the L2 cache.

use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags};
use cudarc::driver::{CudaEvent, CudaSlice};
use disentangle::backend::cuda::bias::BiasBackward;
use disentangle::backend::cuda::columns::Columns;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};

use super::cases::{Device, Result, Scale};

/// Launches in flight at most: the host stays ahead of the device, so that no launch waits for it.
const IN_FLIGHT: usize = 32;
/// Columns of the memory that is read to flush.
const COLUMNS: usize = 1024;

/// What a measurement needs: events, and memory several times as large as the L2 cache.
pub struct Timer {
    events: Vec<(CudaEvent, CudaEvent)>,
    flushed: CudaSlice<f32>,
    partial: CudaSlice<f32>,
    shape: Columns,
    /// Size of the L2 cache in bytes.
    pub l2_bytes: usize,
}

impl Timer {
    /// For this device.
    pub fn new(device: &Device, scale: Scale) -> Result<Self> {
        let context = device.stream.context();
        let event = || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        let events = (0..IN_FLIGHT).map(|_| Ok((event()?, event()?))).collect::<Result<Vec<_>>>()?;
        let l2_bytes = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.max(0) as usize;
        // Flushing a cache that is not there is only rehearsed.
        let bytes = if scale == Scale::Paper { 4 * l2_bytes } else { 0 };
        let shape = Columns::new((bytes / (COLUMNS * size_of::<f32>())).max(1), COLUMNS, 1)?;
        Ok(Timer {
            events,
            flushed: device.unwritten(shape.elems())?,
            partial: device.unwritten(shape.partial_elems(1))?,
            shape,
            l2_bytes,
        })
    }

    /// Writes more than the L2 cache holds, then reads it: what lies in the cache afterwards is none of the case's, and
    /// nothing that the measured launch would have to write back first.
    fn flush(&mut self, device: &Device) -> Result<()> {
        device.stream.memset_zeros(&mut self.flushed)?;
        let (dy, partial) = (Slice::of(&self.flushed, &device.stream), SliceMut::of(&mut self.partial, &device.stream));
        Ok(BiasBackward { dy, partial, shape: self.shape }.launch(&device.kernels)?)
    }

    /// Seconds that `work` takes on the device, each of `times` times.
    pub fn measure(&mut self, device: &Device, times: u64, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
        let (mut seconds, mut left) = (Vec::new(), times);
        while left > 0 {
            let count = left.min(IN_FLIGHT as u64) as usize;
            for i in 0..count {
                self.flush(device)?;
                self.events[i].0.record(&device.stream)?;
                work()?;
                self.events[i].1.record(&device.stream)?;
            }
            for (from, to) in &self.events[..count] {
                seconds.push(f64::from(from.elapsed_ms(to)?) * 1e-3);
            }
            left -= count as u64;
        }
        Ok(seconds)
    }
}

/// The middle one, or the mean of both.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}
