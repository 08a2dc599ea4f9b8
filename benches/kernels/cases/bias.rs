//! kernels/bias.cu: the projector's bias, and its gradient.

use cudarc::driver::CudaSlice;
use disentangle::backend::cuda::bias::{BiasAdd, BiasBackward, BiasBackwardFinish};
use disentangle::backend::cuda::columns::Columns;
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use half::bf16;

use super::device::Number;
use super::{Case, Device, Launch, Plan, Result, Scale, type_name};

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    match scale {
        Scale::Paper => [plan::<bf16>(256, 128), plan::<bf16>(512, 256), plan::<f32>(512, 256)].into(),
        Scale::Tiny => [plan::<bf16>(150, 33), plan::<bf16>(300, 64), plan::<f32>(300, 64)].into(),
    }
}

fn plan<T: Number>(rows: usize, columns: usize) -> Plan {
    let shape = format!("[{rows}, {columns}] {}", type_name::<T>());
    Plan::new("bias", shape, move |device| Bias::<T>::new(device, rows, columns))
}

struct Bias<T> {
    x: CudaSlice<T>,
    b: CudaSlice<f32>,
    y: CudaSlice<T>,
    partial: CudaSlice<f32>,
    db: CudaSlice<f32>,
    shape: Columns,
    launches: [Launch; 3],
}

impl<T: Number> Bias<T> {
    fn new(device: &Device, rows: usize, columns: usize) -> Result<Self> {
        let shape = Columns::new(rows, columns, 1)?;
        let (bytes, elems, partial) = (shape.elems() * size_of::<T>(), shape.elems(), shape.partial_elems(1));
        Ok(Bias {
            x: device.normals(elems)?,
            b: device.normals(columns)?,
            y: device.unwritten(elems)?,
            partial: device.unwritten(partial)?,
            db: device.unwritten(columns)?,
            shape,
            launches: [
                Launch::plain(BiasAdd::<T>::signature().0, 2 * bytes, elems),
                Launch::plain(BiasBackward::<T>::signature().0, bytes, elems),
                Launch::plain(BiasBackwardFinish::signature().0, partial * size_of::<f32>(), partial),
            ],
        })
    }
}

impl<T: Number> Case for Bias<T> {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream, shape) = (&device.kernels, &device.stream, self.shape);
        let x = Slice::of(&self.x, stream);
        match index {
            0 => {
                let (b, y) = (Slice::of(&self.b, stream), SliceMut::of(&mut self.y, stream));
                BiasAdd { x, b, y, shape }.launch(kernels)?;
            }
            1 => BiasBackward { dy: x, partial: SliceMut::of(&mut self.partial, stream), shape }.launch(kernels)?,
            _ => {
                let (partial, db) = (Slice::of(&self.partial, stream), SliceMut::of(&mut self.db, stream));
                BiasBackwardFinish { partial, db, shape }.launch(kernels)?;
            }
        }
        Ok(())
    }
}
