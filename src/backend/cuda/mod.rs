//! The CUDA backend.
//!
//! - [`device`]: streams, libraries, memory of a device: the handle [`Cuda`]
//! - `contract`: the methods of the trait; `ops`: what they do, from shapes to launches
//! - [`lane`]: steps under way: copies, recording, replay, report
//! - [`memory`]: the pool
//! - [`convolution`], [`cudnn`], [`cublaslt`]: the parts of the libraries that are called; [`libraries`]: where they are and
//!   whether they are whole; [`engines`]: which of cuDNN's were chosen
//! - [`kernel`], [`ptx`]: launching our own kernels; a file for each of kernels/*.cu declares its arguments

pub mod adam;
pub mod batch_norm;
pub mod bias;
pub mod binary_entropy;
pub mod cast;
pub mod columns;
mod contract;
pub mod convolution;
pub mod cublaslt;
pub mod cudnn;
pub mod device;
pub mod elementwise;
pub mod engines;
pub mod fold;
pub mod kernel;
pub mod kmeans;
pub mod lane;
pub mod libraries;
pub mod memory;
pub mod nt_xent;
mod ops;
pub mod pool2d;
pub mod ptx;
mod symbols;

pub use device::Cuda;

#[cfg(test)]
mod signatures {
    //! Every wrapper's parameters are those of the compiled kernel, and every compiled kernel has a wrapper.

    use std::collections::BTreeMap;

    use half::bf16;

    use super::{
        adam, batch_norm, bias, binary_entropy, cast, elementwise, fold, kernel::Signature, kmeans, nt_xent, pool2d,
        ptx,
    };

    fn of_element<T: super::kernel::Element>() -> Vec<Signature> {
        vec![
            cast::CastImages::<T>::signature(),
            elementwise::AddAssign::<T>::signature(),
            fold::FoldFilter::<T>::signature(),
            fold::FoldFilterBack::<T>::signature(),
            elementwise::Scale::<T>::signature(),
            bias::BiasAdd::<T>::signature(),
            bias::BiasBackward::<T>::signature(),
            batch_norm::Statistics::<T>::signature(),
            batch_norm::Normalise::<T>::signature(),
            batch_norm::BackwardSums::<T>::signature(),
            batch_norm::BackwardData::<T>::signature(),
            pool2d::MaxPoolForward::<T>::signature(),
            pool2d::MaxPoolBackward::<T>::signature(),
            pool2d::GlobalAvgPoolForward::<T>::signature(),
            pool2d::GlobalAvgPoolBackward::<T>::signature(),
            binary_entropy::BinaryEntropyForward::<T>::signature(),
            binary_entropy::BinaryEntropyBackward::<T>::signature(),
            binary_entropy::SigmoidForward::<T>::signature(),
            binary_entropy::SigmoidBackward::<T>::signature(),
        ]
    }

    fn of_precision<P: nt_xent::Precision>() -> Vec<Signature> {
        vec![
            nt_xent::NormaliseRows::<P>::signature(),
            nt_xent::NormaliseColumns::<P>::signature(),
            nt_xent::Forward::<P>::signature(),
            nt_xent::Backward::<P>::signature(),
            nt_xent::BackwardRowsFinish::<P>::signature(),
            nt_xent::BackwardColumnsFinish::<P>::signature(),
        ]
    }

    #[test]
    fn wrappers_fit_the_compiled_kernels() {
        let single = vec![
            cast::CastToBf16::signature(),
            cast::CastToF32::signature(),
            fold::FoldImages::<u8, f32>::signature(),
            fold::FoldImages::<u8, bf16>::signature(),
            fold::FoldImages::<f32, f32>::signature(),
            fold::FoldImages::<bf16, bf16>::signature(),
            elementwise::WeightedSum::signature(),
            bias::BiasBackwardFinish::signature(),
            batch_norm::StatisticsFinish::signature(),
            batch_norm::InverseStd::signature(),
            batch_norm::BackwardFinish::signature(),
            binary_entropy::BinaryEntropyFinish::signature(),
            kmeans::Prepare::signature(),
            kmeans::Assign::signature(),
            kmeans::Move::signature(),
            kmeans::Gather::signature(),
            kmeans::Distances::signature(),
            nt_xent::ForwardFinish::signature(),
            adam::Keep::signature(),
            adam::Norm::signature(),
            adam::Prepare::signature(),
            adam::Update::signature(),
        ];
        let generic = [of_element::<f32>(), of_element::<bf16>()].into_iter().flatten();
        let precisions =
            [of_precision::<nt_xent::F32>(), of_precision::<nt_xent::Tf32>(), of_precision::<nt_xent::Bf16>()];
        let wrapped: BTreeMap<_, _> =
            single.into_iter().chain(generic).chain(precisions.into_iter().flatten()).collect();
        let compiled: BTreeMap<_, _> = ptx::MODULES.iter().flat_map(|(_, text)| ptx::entry_points(text)).collect();
        assert_eq!(wrapped, compiled);
    }
}
