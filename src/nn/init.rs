//! First values of parameters: torchvision's for the backbone, PyTorch's defaults for the heads.

use super::Role;
use crate::rng::{Purpose, stream};
use crate::tensor::Shape;

/// Values for the parameter at `position` of a network drawn from `seed`.
pub(super) fn values(seed: u64, position: u64, shape: Shape, role: Role) -> Vec<f64> {
    let mut stream = stream(seed, Purpose::Init, 0, position, 0);
    let mut draw = |next: &mut dyn FnMut(&mut crate::rng::Stream) -> f64| -> Vec<f64> {
        (0..shape.elems()).map(|_| next(&mut stream)).collect()
    };
    match role {
        Role::ConvWeight => {
            // He et al. 2015: variance 2 / fan-out, fan-out = output channels x taps.
            let dims = shape.dims();
            let std = (2.0 / (dims[0] * dims[1] * dims[2]) as f64).sqrt();
            draw(&mut |s| std * s.normal())
        }
        Role::LinearWeight => uniform(shape.last(), &mut draw),
        Role::LinearBias { fan_in } => uniform(fan_in, &mut draw),
        Role::NormWeight | Role::RunningVar => vec![1.0; shape.elems()],
        Role::NormBias | Role::RunningMean => vec![0.0; shape.elems()],
    }
}

type Draw<'a> = dyn FnMut(&mut dyn FnMut(&mut crate::rng::Stream) -> f64) -> Vec<f64> + 'a;

/// Kaiming uniform with a = sqrt 5, which is U(-1/sqrt(fan-in), 1/sqrt(fan-in)).
fn uniform(fan_in: usize, draw: &mut Draw) -> Vec<f64> {
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    draw(&mut |s| s.uniform_in(-bound, bound))
}
