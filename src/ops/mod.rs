//! Operations on the tape, a file each: formula, shape check, recording, backward.
//!
//! A backward adds one contribution to each input whose gradient is wanted; `dy` is the gradient of the op's output.

pub mod batch_norm;
pub mod binary_entropy;
pub mod conv2d;
pub mod global_avg_pool;
pub mod linear;
pub mod max_pool;
pub mod nt_xent;
pub mod sigmoid;
pub mod weighted_sum;
