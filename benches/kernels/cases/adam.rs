//! kernels/adam.cu: one step over all parameters of a network, with its real sizes.

use cudarc::driver::CudaSlice;
use disentangle::backend::cpu::Cpu;
use disentangle::backend::cuda::adam::{Chunk, Config, Keep, Norm, Prepare, State, Update};
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

/// Elements of each trained parameter, and of each running statistic.
fn sizes(architecture: &Architecture) -> Result<[Vec<usize>; 2]> {
    let mut params = Params::new(Cpu::<f32>::new(), 0);
    Model::new(&mut params, architecture)?;
    Ok([true, false].map(|trained| {
        let chosen = params.iter().filter(|(_, param)| param.role.trained() == trained);
        chosen.map(|(_, param)| param.tensor.shape().elems()).collect()
    }))
}

struct Adam {
    /// What the chunks point to.
    _memory: Vec<CudaSlice<f32>>,
    chunks: CudaSlice<Chunk>,
    /// Of running statistics.
    kept: CudaSlice<Chunk>,
    partial: CudaSlice<f64>,
    state: CudaSlice<State>,
    loss: CudaSlice<f32>,
    launches: [Launch; 4],
}

impl Adam {
    fn new(device: &Device, architecture: &Architecture) -> Result<Self> {
        let (stream, mut memory, mut chunks, mut elems) = (&device.stream, Vec::new(), Vec::new(), 0);
        let [trained, statistics] = sizes(architecture)?;
        for size in trained {
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
        let (mut kept, mut kept_elems) = (Vec::new(), 0);
        for size in statistics {
            let (mut value, mut before) = (device.normals::<f32>(size)?, stream.alloc_zeros::<f32>(size)?);
            kept.extend(Chunk::keep(&SliceMut::of(&mut value, stream), &SliceMut::of(&mut before, stream))?);
            memory.extend([value, before]);
            kept_elems += size;
        }
        chunks.extend(&kept);
        let mut state = State::default();
        state.learning_rate = 3e-4; // the rest is private
        Ok(Adam {
            _memory: memory,
            partial: device.unwritten(chunks.len())?,
            state: device.upload(&[state])?,
            loss: device.upload(&[0.5])?,
            launches: [
                Launch::plain(Keep::signature().0, 8 * kept_elems, 0),
                Launch::plain(Norm::signature().0, 4 * (elems + kept_elems), 2 * elems),
                Launch::plain(Prepare::signature().0, chunks.len() * size_of::<f64>(), chunks.len()),
                Launch::plain(Update::signature().0, 28 * elems, 14 * elems),
            ],
            chunks: device.upload(&chunks)?,
            kept: device.upload(&kept)?,
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
                let chunks = Slice::of(&self.kept, stream);
                // SAFETY: `_memory` is what the chunks were cut from; there is one stream.
                unsafe { Keep { chunks }.launch(kernels) }?;
            }
            1 => {
                let partial = SliceMut::of(&mut self.partial, stream);
                // SAFETY: `_memory` is what the chunks were cut from.
                unsafe { Norm { chunks, partial }.launch(kernels) }?;
            }
            2 => {
                let loss = Some(Slice::of(&self.loss, stream));
                let (partial, state) = (Slice::of(&self.partial, stream), SliceMut::of(&mut self.state, stream));
                Prepare { partial, loss, state, count, config: CONFIG }.launch(kernels)?;
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
