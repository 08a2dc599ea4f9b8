//! What the backend's methods do: shapes to launches, a file for each stem.

pub mod adam;
pub mod batch_norm;
pub mod binary_entropy;
pub mod conv2d;
pub mod kmeans;
pub mod linear;
pub mod nt_xent;
pub mod pool2d;
pub mod transfer;

/// Runs the body with `$T` standing for the element type of a tensor.
macro_rules! by_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::backend::cuda::kernel::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::backend::cuda::kernel::Dtype::Bf16 => {
                type $T = half::bf16;
                $body
            }
            $crate::backend::cuda::kernel::Dtype::U8 => {
                return Err($crate::Error::shape("dtype", "bytes of images are input of a convolution alone"));
            }
        }
    };
}
use by_dtype;

use super::device::Cuda;

/// A tensor of this backend.
type CudaTensor = crate::tensor::Tensor<Cuda>;
