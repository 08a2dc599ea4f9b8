//! kernels/binary_entropy.cu: heads with their entropy, and the sigmoid alone.

use cudarc::driver::CudaSlice;
use disentangle::backend::cuda::binary_entropy::{
    BinaryEntropyBackward, BinaryEntropyFinish, BinaryEntropyForward, SigmoidBackward, SigmoidForward, partial_elems,
};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use half::bf16;

use super::device::Number;
use super::{Case, Device, Launch, Plan, Result, Scale, type_name};

/// Of an element, about (exp, log, divisions as one each).
const FLOPS: usize = 30;

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    match scale {
        Scale::Paper => {
            let large = [4096, 4096];
            [entropy::<bf16>([256, 128]), entropy::<bf16>([512, 256]), entropy::<f32>([512, 256])]
                .into_iter()
                .chain([entropy::<bf16>(large), sigmoid::<bf16>([512, 256]), sigmoid::<f32>([512, 256])])
                .collect()
        }
        Scale::Tiny => {
            let heads = [50, 33];
            [entropy::<bf16>(heads), entropy::<f32>(heads), sigmoid::<bf16>(heads), sigmoid::<f32>(heads)].into()
        }
    }
}

fn entropy<T: Number>([rows, heads]: [usize; 2]) -> Plan {
    let shape = format!("[{rows}, {heads}] {}", type_name::<T>());
    Plan::new("binary_entropy", shape, move |device| Entropy::<T>::new(device, rows * heads))
}

fn sigmoid<T: Number>([rows, heads]: [usize; 2]) -> Plan {
    let shape = format!("[{rows}, {heads}] {}", type_name::<T>());
    Plan::new("sigmoid", shape, move |device| Sigmoid::<T>::new(device, rows * heads))
}

struct Entropy<T> {
    logits: CudaSlice<T>,
    dy: CudaSlice<T>,
    dloss: CudaSlice<f32>,
    y: CudaSlice<T>,
    partial: CudaSlice<f64>,
    loss: CudaSlice<f32>,
    da: CudaSlice<T>,
    launches: [Launch; 3],
}

impl<T: Number> Entropy<T> {
    fn new(device: &Device, count: usize) -> Result<Self> {
        let (bytes, partial) = (count * size_of::<T>(), partial_elems(count));
        Ok(Entropy {
            logits: device.normals(count)?,
            dy: device.normals(count)?,
            dloss: device.upload(&[-1.0])?,
            y: device.unwritten(count)?,
            partial: device.unwritten(partial)?,
            loss: device.unwritten(1)?,
            da: device.unwritten(count)?,
            launches: [
                Launch::plain(BinaryEntropyForward::<T>::signature().0, 2 * bytes, FLOPS * count),
                Launch::plain(BinaryEntropyFinish::signature().0, partial * size_of::<f64>(), partial),
                Launch::plain(BinaryEntropyBackward::<T>::signature().0, 3 * bytes, FLOPS * count),
            ],
        })
    }
}

impl<T: Number> Case for Entropy<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, count) = (&device.kernels, &device.stream, self.logits.len() as u64);
        let logits = Slice::of(&self.logits, stream);
        match index {
            0 => {
                let (y, partial) = (SliceMut::of(&mut self.y, stream), SliceMut::of(&mut self.partial, stream));
                BinaryEntropyForward { logits, y: Some(y), partial, count }.launch(kernels)?;
            }
            1 => {
                let blocks = self.partial.len() as u32;
                let (partial, loss) = (Slice::of(&self.partial, stream), SliceMut::of(&mut self.loss, stream));
                BinaryEntropyFinish { partial, loss, count, blocks }.launch(kernels)?;
            }
            _ => {
                let (dy, dloss) = (Some(Slice::of(&self.dy, stream)), Slice::of(&self.dloss, stream));
                let da = SliceMut::of(&mut self.da, stream);
                BinaryEntropyBackward { logits, dy, dloss, da, count }.launch(kernels)?;
            }
        }
        Ok(())
    }
}

struct Sigmoid<T> {
    x: CudaSlice<T>,
    y: CudaSlice<T>,
    dx: CudaSlice<T>,
    launches: [Launch; 2],
}

impl<T: Number> Sigmoid<T> {
    fn new(device: &Device, count: usize) -> Result<Self> {
        let bytes = count * size_of::<T>();
        Ok(Sigmoid {
            x: device.normals(count)?,
            y: device.unwritten(count)?,
            dx: device.unwritten(count)?,
            launches: [
                Launch::plain(SigmoidForward::<T>::signature().0, 2 * bytes, 4 * count),
                Launch::plain(SigmoidBackward::<T>::signature().0, 3 * bytes, 3 * count),
            ],
        })
    }
}

impl<T: Number> Case for Sigmoid<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, count) = (&device.kernels, &device.stream, self.x.len() as u64);
        let x = Slice::of(&self.x, stream);
        if index == 0 {
            return Ok(SigmoidForward { x, y: SliceMut::of(&mut self.y, stream), count }.launch(kernels)?);
        }
        let (y, dx) = (Slice::of(&self.y, stream), SliceMut::of(&mut self.dx, stream));
        Ok(SigmoidBackward { y, dy: x, dx, count }.launch(kernels)?)
    }
}
