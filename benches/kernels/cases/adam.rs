//! kernels/adam.cu: one step over all parameters of a network, with its real sizes.

use cudarc::driver::CudaSlice;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::adam::{Chunk, Config, Norm, Prepare, State, Update};
use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::model::{Architecture, Model};
use disentangle::nn::{Backbone, Params, Stem};

use super::{Case, Device, Launch, Plan, Result, Scale};

const CONFIG: Config = Config { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip_norm: 1.0 };

pub(super) fn plans(scale: Scale) -> Vec<Plan> {
    let (name, base_width, heads) = match scale {
        Scale::Paper => ("ResNet-34, 128 heads", 64, 128),
        Scale::Tiny => ("ResNet-34 of width 2, 5 heads", 2, 5),
    };
    let architecture = Architecture {
        backbone: Backbone::ResNet34,
        stem: Stem::Imagenet,
        base_width,
        projection_dim: heads,
        feature_num: heads,
    };
    vec![Plan::new("adam", name.to_string(), move |device| Adam::new(device, &architecture))]
}

/// Elements of each trained parameter.
fn sizes(architecture: &Architecture) -> Result<Vec<usize>> {
    let mut params = Params::new(Cpu::<f32>::new(), 0);
    Model::new(&mut params, architecture)?;
    let trained = params.iter().filter(|(_, param)| param.role.trained());
    Ok(trained.map(|(_, param)| param.tensor.shape().elems()).collect())
}

struct Adam {
    /// What the chunks point to.
    _memory: Vec<CudaSlice<f32>>,
    chunks: CudaSlice<Chunk>,
    partial: CudaSlice<f64>,
    state: CudaSlice<State>,
    launches: [Launch; 3],
}

impl Adam {
    fn new(device: &Device, architecture: &Architecture) -> Result<Self> {
        let (stream, mut memory, mut chunks, mut elems) = (&device.stream, Vec::new(), Vec::new(), 0);
        for size in sizes(architecture)? {
            let (mut param, grad) = (device.normals::<f32>(size)?, device.normals::<f32>(size)?);
            let (mut exp_avg, mut exp_avg_sq) = (stream.alloc_zeros::<f32>(size)?, stream.alloc_zeros::<f32>(size)?);
            let (p, m, v) = (
                SliceMut::of(&mut param, stream),
                SliceMut::of(&mut exp_avg, stream),
                SliceMut::of(&mut exp_avg_sq, stream),
            );
            chunks.extend(Chunk::cut(&p, &Slice::of(&grad, stream), &m, &v)?);
            memory.extend([param, grad, exp_avg, exp_avg_sq]);
            elems += size;
        }
        let mut state = State::default();
        state.learning_rate = 3e-4; // the rest is private
        Ok(Adam {
            _memory: memory,
            partial: device.unwritten(chunks.len())?,
            state: device.upload(&[state])?,
            launches: [
                Launch::plain(Norm::signature().0, 4 * elems, 2 * elems),
                Launch::plain(Prepare::signature().0, chunks.len() * size_of::<f64>(), chunks.len()),
                Launch::plain(Update::signature().0, 28 * elems, 14 * elems),
            ],
            chunks: device.upload(&chunks)?,
        })
    }
}

impl Case for Adam {
    fn launches(&self) -> &[Launch] {
        &self.launches
    }

    fn launch(&mut self, device: &Device, index: usize) -> Result<()> {
        let (kernels, stream) = (&device.kernels, &device.stream);
        let (chunks, count) = (Slice::of(&self.chunks, stream), self.chunks.len() as u32);
        match index {
            0 => {
                let partial = SliceMut::of(&mut self.partial, stream);
                // SAFETY: `_memory` is what the chunks were cut from.
                unsafe { Norm { chunks, partial }.launch(kernels) }?;
            }
            1 => {
                let (partial, state) = (Slice::of(&self.partial, stream), SliceMut::of(&mut self.state, stream));
                Prepare { partial, state, count, config: CONFIG }.launch(kernels)?;
            }
            _ => {
                let state = Slice::of(&self.state, stream);
                // SAFETY: as above; there is one stream.
                unsafe { Update { chunks, state }.launch(kernels) }?;
            }
        }
        Ok(())
    }
}
