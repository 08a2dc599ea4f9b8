//! Every class of misuse is refused with a status and named in the report.

mod common;

use common::reference::{DIRECTIONS, Direction, Shape};
use common::*;
use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use cudarc::cudnn::sys::cudnnBackendAttributeType_t as T;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t as D;
use cudarc::cudnn::sys::cudnnBackendHeurMode_t::CUDNN_HEUR_MODE_FALLBACK;
use cudarc::cudnn::sys::*;
use std::ptr::{null, null_mut};

const NHWC: Layout = Layout::Nhwc { gap: 0 };

fn shape() -> Shape {
    Shape::new(2, 8, [8, 8], 16, 3, 1, 1)
}

/// The report has one line, of this function, that says this.
fn named(dnn: &Dnn, function: &str, what: &str) {
    let report = dnn.gpu.last_report();
    assert!(report.starts_with(&format!("bad call: `{function}`")) && report.contains(what), "{what}: {report}");
    assert_eq!(report.lines().count(), 1, "{report}");
}

#[test]
fn attributes_are_checked_when_they_are_set() {
    let dnn = dnn();
    let t = Desc::new(D::CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    let function = "cudnnBackendSetAttribute";
    let (name, ty) = (A::CUDNN_ATTR_TENSOR_DATA_TYPE, T::CUDNN_TYPE_DATA_TYPE);
    assert_eq!(t.try_set(A::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, ty, &[F32]), CUDNN_STATUS_BAD_PARAM);
    named(&dnn, function, "the tensor has no attribute 100");
    assert_eq!(t.try_set(name, T::CUDNN_TYPE_INT64, &[0i64]), CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE);
    named(&dnn, function, "attribute 901 of the tensor is of type [1], not 3");
    assert_eq!(t.try_set(name, ty, &[F32, F32]), CUDNN_STATUS_BAD_PARAM);
    named(&dnn, function, "attribute 901 of the tensor has 1 to 1 elements, not 2");
    assert_eq!(t.try_set(A::CUDNN_ATTR_TENSOR_DIMENSIONS, T::CUDNN_TYPE_INT64, &[1i64; 9]), CUDNN_STATUS_BAD_PARAM);
    named(&dnn, function, "1 to 8 elements, not 9");
    // SAFETY: wrong on purpose, here and below.
    unsafe {
        assert_eq!(cudnnBackendSetAttribute(t.0, name, ty, 1, null()), CUDNN_STATUS_BAD_PARAM);
        named(&dnn, function, "are at null");
        assert_eq!(cudnnBackendSetAttribute(null_mut(), name, ty, 1, null()), CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
        named(&dnn, function, "the descriptor is null");
    }
    let done = tensor(1, F32, shape().x(), NHWC);
    assert_eq!(done.try_set(name, ty, &[F32]), CUDNN_STATUS_BAD_PARAM);
    named(&dnn, function, "attribute 901 is set after the tensor was finalised");
    assert_eq!(done.finalize(), CUDNN_STATUS_BAD_PARAM);
    named(&dnn, "cudnnBackendFinalize", "the tensor is finalised already");
    let graph = Desc::new(D::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    let count = A::CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT;
    assert_eq!(graph.try_set(count, T::CUDNN_TYPE_INT64, &[1i64]), CUDNN_STATUS_BAD_PARAM);
    named(&dnn, function, "can only be asked");
}

#[test]
fn attributes_are_checked_when_they_are_asked() {
    let dnn = dnn();
    let function = "cudnnBackendGetAttribute";
    let t = open_tensor(1, F32, [2, 3, 4, 5], NHWC);
    let (dims, int64) = (A::CUDNN_ATTR_TENSOR_DIMENSIONS, T::CUDNN_TYPE_INT64);
    assert_eq!(t.get::<i64>(dims, int64, 4), Err(CUDNN_STATUS_NOT_INITIALIZED));
    named(&dnn, function, "is asked before the tensor is finalised");
    let t = t.done();
    assert_eq!(t.get::<i64>(dims, int64, 8), Ok(vec![2, 3, 4, 5]));
    assert_eq!(t.get::<i64>(dims, int64, 2), Ok(vec![2, 3]));
    let mut count = 0;
    // SAFETY: asks for the number of elements; then there is nowhere to write to, on purpose.
    unsafe {
        assert_eq!(cudnnBackendGetAttribute(t.0, dims, int64, 0, &mut count, null_mut()), CUDNN_STATUS_SUCCESS);
        assert_eq!((count, dnn.gpu.last_report()), (4, String::new()));
        assert_eq!(cudnnBackendGetAttribute(t.0, dims, int64, 4, null_mut(), null_mut()), CUDNN_STATUS_BAD_PARAM);
    }
    named(&dnn, function, "nowhere to write attribute 902");
    assert_eq!(t.get::<f32>(dims, T::CUDNN_TYPE_FLOAT, 4), Err(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE));
    named(&dnn, function, "is of type [3], not 4");
    let graph = convolution_graph(&dnn, Direction::Forward, &shape(), F32, NHWC);
    let config = &configs(&graph, CUDNN_HEUR_MODE_FALLBACK).unwrap()[0];
    let (mut list, engine) = ([t.0], A::CUDNN_ATTR_ENGINECFG_ENGINE);
    // SAFETY: a descriptor of another kind to fill, on purpose.
    let status = unsafe {
        let ty = T::CUDNN_TYPE_BACKEND_DESCRIPTOR;
        cudnnBackendGetAttribute(config.0, engine, ty, 1, &mut count, list.as_mut_ptr().cast())
    };
    assert_eq!(status, CUDNN_STATUS_BAD_PARAM);
    named(&dnn, function, "the descriptor to be filled is finalised or another one: tensor");
}

#[test]
fn handles_and_descriptors_are_checked() {
    let dnn = dnn();
    let mut handle = null_mut();
    // SAFETY: what is wrong is so on purpose, here and below.
    unsafe {
        assert_eq!(cudnnCreate(&mut handle), CUDNN_STATUS_SUCCESS);
        assert_eq!(cudnnSetStream(handle, 0x77 as cudaStream_t), CUDNN_STATUS_BAD_PARAM);
        named(&dnn, "cudnnSetStream", "0x77 is no stream");
        assert_eq!(cudnnDestroy(handle), CUDNN_STATUS_SUCCESS);
        assert_eq!(cudnnDestroy(handle), CUDNN_STATUS_BAD_PARAM);
        named(&dnn, "cudnnDestroy", "the handle is destroyed before");
        assert_eq!(cudnnCreate(null_mut()), CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
        named(&dnn, "cudnnCreate", "nowhere to write");
        let mut t = Desc::new(D::CUDNN_BACKEND_TENSOR_DESCRIPTOR);
        assert_eq!(cudnnBackendDestroyDescriptor(t.0), CUDNN_STATUS_SUCCESS);
        assert_eq!(t.finalize(), CUDNN_STATUS_BAD_PARAM);
        named(&dnn, "cudnnBackendFinalize", "the descriptor is destroyed before");
        t.0 = null_mut();
        assert_eq!(t.finalize(), CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
        named(&dnn, "cudnnBackendFinalize", "the descriptor is null");
        let mut to = null_mut();
        let kind = D::CUDNN_BACKEND_RNG_DESCRIPTOR;
        assert_eq!(cudnnBackendCreateDescriptor(kind, &mut to), CUDNN_STATUS_NOT_SUPPORTED);
        named(&dnn, "cudnnBackendCreateDescriptor", "kind 32 are not covered");
    }
    let operation = open_tensor(1, F32, shape().x(), NHWC);
    let graph = open_graph(&dnn, &[&operation]);
    let set = graph.try_set(A::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, T::CUDNN_TYPE_HANDLE, &[handle]);
    assert_eq!(set, CUDNN_STATUS_SUCCESS);
    assert_eq!(graph.finalize(), CUDNN_STATUS_BAD_PARAM);
    named(&dnn, "cudnnBackendFinalize", "the handle of the operation graph is destroyed before");
}

/// Finalising is refused with this status and these words.
fn refused(dnn: &Dnn, d: Desc, status: cudnnStatus_t, what: &str) {
    assert_eq!(d.finalize(), status, "{what}");
    named(dnn, "cudnnBackendFinalize", what);
}

#[test]
fn tensors_are_checked() {
    let dnn = dnn();
    let (bad, int64) = (CUDNN_STATUS_BAD_PARAM, T::CUDNN_TYPE_INT64);
    let good = || open_tensor(1, F32, [2, 3, 4, 5], NHWC);
    let missing = Desc::new(D::CUDNN_BACKEND_TENSOR_DESCRIPTOR).set(A::CUDNN_ATTR_TENSOR_UNIQUE_ID, int64, &[1i64]);
    refused(&dnn, missing, bad, "attribute 901 of the tensor was not set");
    refused(&dnn, good().set(A::CUDNN_ATTR_TENSOR_DIMENSIONS, int64, &[2i64, 0, 4, 5]), bad, "0 among the dimensions");
    refused(&dnn, good().set(A::CUDNN_ATTR_TENSOR_STRIDES, int64, &[60i64, 1, 15, -3]), bad, "-3 among the strides");
    refused(&dnn, good().set(A::CUDNN_ATTR_TENSOR_STRIDES, int64, &[60i64, 1, 15]), bad, "4 dimensions with 3 strides");
    let large = [i64::MAX / 2, 1, 15, 3];
    refused(&dnn, good().set(A::CUDNN_ATTR_TENSOR_STRIDES, int64, &large), bad, "larger than memory");
    let alignment = A::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT;
    refused(&dnn, good().set(alignment, int64, &[2i64]), bad, "an alignment of 2 bytes");
    refused(&dnn, good().set(alignment, int64, &[0i64]), bad, "an alignment of 0 bytes");
    let by_value = good().set(A::CUDNN_ATTR_TENSOR_IS_BY_VALUE, T::CUDNN_TYPE_BOOLEAN, &[true]);
    refused(&dnn, by_value, bad, "a tensor by value has one element");
    let half = good().set(A::CUDNN_ATTR_TENSOR_DATA_TYPE, T::CUDNN_TYPE_DATA_TYPE, &[cudnnDataType_t::CUDNN_DATA_HALF]);
    refused(&dnn, half, CUDNN_STATUS_NOT_SUPPORTED, "data type 2 of the tensor is not covered");
}

#[test]
fn convolutions_are_checked() {
    let dnn = dnn();
    let (bad, not, int64) = (CUDNN_STATUS_BAD_PARAM, CUDNN_STATUS_NOT_SUPPORTED, T::CUDNN_TYPE_INT64);
    let good = || open_convolution(&shape());
    let (strides, spatial) = (A::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, A::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
    refused(&dnn, good().set(strides, int64, &[1i64, 0]), bad, "FILTER_STRIDES is [1, 0]");
    refused(&dnn, good().set(strides, int64, &[1i64; 3]), bad, "FILTER_STRIDES is [1, 1, 1]");
    let paddings = A::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS;
    refused(&dnn, good().set(paddings, int64, &[-1i64, 1]), bad, "PRE_PADDINGS is [-1, 1]");
    refused(&dnn, good().set(A::CUDNN_ATTR_CONVOLUTION_DILATIONS, int64, &[0i64, 1]), bad, "DILATIONS is [0, 1]");
    refused(&dnn, good().set(spatial, int64, &[0i64]), bad, "0 spatial dimensions");
    refused(&dnn, good().set(spatial, int64, &[3i64]), not, "3 spatial dimensions are not covered");
    let compute = A::CUDNN_ATTR_CONVOLUTION_COMP_TYPE;
    refused(&dnn, good().set(compute, T::CUDNN_TYPE_DATA_TYPE, &[BF16]), not, "the convolution in bf16");
    let mode = cudnnConvolutionMode_t::CUDNN_CONVOLUTION;
    let flipped = good().set(A::CUDNN_ATTR_CONVOLUTION_CONV_MODE, T::CUDNN_TYPE_CONVOLUTION_MODE, &[mode]);
    refused(&dnn, flipped, not, "convolution mode 0");
}

#[test]
fn operations_are_checked() {
    let dnn = dnn();
    let s = shape();
    let t = |uid, dims| tensor(uid, F32, dims, NHWC);
    let (x, w, y) = (t(1, s.x()), t(2, s.w()), t(3, s.y()));
    let convolution = open_convolution(&s).done();
    let (bad, not) = (CUDNN_STATUS_BAD_PARAM, CUDNN_STATUS_NOT_SUPPORTED);
    for direction in DIRECTIONS {
        let with = |x: &Desc, w: &Desc, y: &Desc| open_operation(direction, &convolution, x, w, y);
        refused(&dnn, with(&x, &w, &t(3, [3, 16, 8, 8])), bad, "do not give [3, 16, 8, 8]");
        refused(&dnn, with(&x, &w, &t(3, [2, 16, 7, 8])), bad, "do not give [2, 16, 7, 8]");
        refused(&dnn, with(&x, &t(2, [15, 8, 3, 3]), &y), bad, "a filter [15, 8, 3, 3]");
        refused(&dnn, with(&x, &t(2, [16, 7, 3, 3]), &y), bad, "images of 8 channels and a filter of 7");
        refused(&dnn, with(&x, &t(2, [16, 4, 3, 3]), &y), not, "groups of channels");
        refused(&dnn, with(&open_tensor(1, F32, s.x(), NHWC), &w, &y), bad, "was not finalised before it was set");
        refused(&dnn, with(&convolution, &w, &y), bad, "is another descriptor: convolution");
        refused(&dnn, open_operation(direction, &x, &x, &w, &y), bad, "is another descriptor: tensor");
    }
    let forward = || open_operation(Direction::Forward, &convolution, &x, &w, &y);
    let alpha = A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA;
    refused(&dnn, forward().set(alpha, T::CUDNN_TYPE_DOUBLE, &[2f64]), not, "an alpha besides 1");
    refused(&dnn, open_operation_by(Direction::Forward, 0.5, &convolution, &x, &w, &y), not, "a beta besides 0 and 1");
    let stale = A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X;
    let operation = forward();
    let ty = T::CUDNN_TYPE_BACKEND_DESCRIPTOR;
    assert_eq!(operation.try_set(stale, ty, &[null_mut::<u8>()]), CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
    named(&dnn, "cudnnBackendSetAttribute", "the descriptor among the elements is null");
}

#[test]
fn graphs_are_checked() {
    let dnn = dnn();
    let (s, bad) = (shape(), CUDNN_STATUS_BAD_PARAM);
    let convolution = open_convolution(&s).done();
    let t = |uid, dims| tensor(uid, F32, dims, NHWC);
    let (x, w, y) = (t(1, s.x()), t(2, s.w()), t(3, s.y()));
    let operation = |x: &Desc, w: &Desc, y: &Desc| open_operation(Direction::Forward, &convolution, x, w, y).done();
    let graph = |o: &Desc| open_graph(&dnn, &[o]);
    let open = open_operation(Direction::Forward, &convolution, &x, &w, &y);
    refused(&dnn, graph(&open), bad, "was not finalised before it was set");
    refused(&dnn, graph(&x), bad, "CUDNN_ATTR_OPERATIONGRAPH_OPS of the operation graph is another descriptor: tensor");
    refused(&dnn, graph(&operation(&x, &t(1, s.w()), &y)), bad, "two different tensors have the unique id 1");
    refused(&dnn, graph(&operation(&virtual_tensor(1, s.x()), &w, &y)), bad, "virtual tensor 1 is read and never made");
    refused(&dnn, graph(&operation(&x, &w, &virtual_tensor(3, s.y()))), bad, "virtual tensor 3 is made and never read");
    let (one, two) = (operation(&x, &w, &y), operation(&x, &w, &y));
    refused(&dnn, open_graph(&dnn, &[&one, &two]), bad, "tensor 3 is written after it was read or written");
    let overlapping = open_tensor(3, F32, s.y(), NHWC)
        .set(A::CUDNN_ATTR_TENSOR_STRIDES, T::CUDNN_TYPE_INT64, &[1i64, 1, 128, 16])
        .done();
    refused(&dnn, graph(&operation(&x, &w, &overlapping)), bad, "tensor 3 is a result and overlaps itself");
}

/// A forward plan with a workspace, and its buffers: x, w, y, workspace.
fn ready(dnn: &Dnn) -> (Desc, [Buffer; 4]) {
    let s = shape();
    let graph = convolution_graph(dnn, Direction::Forward, &s, F32, NHWC);
    let all = configs(&graph, cudnnBackendHeurMode_t::CUDNN_HEUR_MODE_A).unwrap();
    let plan = plan(dnn, all.iter().find(|c| engine(c).0 == 1).unwrap()).unwrap();
    let count = |dims: [i64; 4]| dims.iter().product::<i64>() as usize;
    let buffer = |n| upload(dnn, F32, &vec![0.5; n]);
    let buffers = [buffer(count(s.x())), buffer(count(s.w())), buffer(count(s.y())), buffer(workspace(&plan) / 4)];
    (plan, buffers)
}

#[test]
fn variant_packs_are_checked() {
    let dnn = dnn();
    let (plan, [x, w, y, scratch]) = ready(&dnn);
    refused(&dnn, open_pack(&[(1, 16), (1, 32)], 0), CUDNN_STATUS_BAD_PARAM, "unique ids that are not unique");
    let short =
        open_pack(&[(1, 16), (2, 32)], 0).set(A::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, T::CUDNN_TYPE_INT64, &[1i64]);
    refused(&dnn, short, CUDNN_STATUS_BAD_PARAM, "1 unique ids and 2 pointers");
    let all = [(1, x.at()), (2, w.at()), (3, y.at())];
    let wrong = |pointers: &[(i64, u64)], workspace: u64, status, what: &str| {
        assert_eq!(execute(&dnn, &plan, pointers, workspace), status, "{what}");
        named(&dnn, "cudnnBackendExecute", what);
    };
    use cudnnStatus_t::*;
    let (null, misaligned) = (CUDNN_STATUS_BAD_PARAM_NULL_POINTER, CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER);
    wrong(&all[..2], scratch.at(), CUDNN_STATUS_BAD_PARAM, "tensor 3 has no pointer");
    wrong(&[all[0], all[1], all[2], (4, x.at())], scratch.at(), CUDNN_STATUS_BAD_PARAM, "a pointer for 4");
    wrong(&[all[0], (2, 0), all[2]], scratch.at(), null, "tensor 2 is at null");
    wrong(&[(1, x.at() + 8), all[1], all[2]], scratch.at(), misaligned, "was stated to be aligned to 16 bytes");
    wrong(&all, 0, null, "the workspace of 8192 bytes is at null");
    wrong(&all, scratch.at() + 4, misaligned, "which does not divide by 16");
    wrong(&all, x.at(), CUDNN_STATUS_BAD_PARAM, "tensor 1 and the workspace overlap");
    wrong(&[all[0], all[1], (3, x.at())], scratch.at(), CUDNN_STATUS_BAD_PARAM, "tensor 1 and tensor 3 overlap");
    let open = open_pack(&all, 0);
    let config = Desc::new(D::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    // SAFETY: wrong on purpose.
    unsafe {
        assert_eq!(cudnnBackendExecute(dnn.handle, plan.0, open.0), CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED);
        named(&dnn, "cudnnBackendExecute", "the variant pack is not finalised");
        let pack = open.done();
        assert_eq!(cudnnBackendExecute(dnn.handle, config.0, pack.0), CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED);
        named(&dnn, "cudnnBackendExecute", "the plan is not finalised: engine configuration");
        assert_eq!(cudnnBackendExecute(dnn.handle, pack.0, pack.0), CUDNN_STATUS_BAD_PARAM);
        named(&dnn, "cudnnBackendExecute", "the plan is another descriptor: variant pack");
        assert_eq!(cudnnBackendExecute(null_mut(), plan.0, pack.0), CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
        named(&dnn, "cudnnBackendExecute", "the handle is null");
    }
}

#[test]
fn memory_is_checked_when_the_stream_comes_to_it() {
    let dnn = dnn();
    let (plan, [x, w, y, scratch]) = ready(&dnn);
    let all = [(1, x.at()), (2, w.at()), (3, y.at())];
    let found = |pointers: &[(i64, u64)], workspace: u64, what: &str| {
        assert_eq!(execute(&dnn, &plan, pointers, workspace), CUDNN_STATUS_SUCCESS);
        assert!(dnn.stream.synchronize().is_err(), "{what}");
        let report = dnn.gpu.last_report();
        assert!(report.contains(what), "{what}: {report}");
    };
    // SAFETY: read before it is written, on purpose.
    let unwritten = unsafe { dnn.stream.alloc::<u8>(x.values.len() * 4) }.unwrap();
    let place = "`cudnnBackendExecute` at convolution forward, engine Halves, ";
    found(
        &[(1, address(&unwritten)), all[1], all[2]],
        scratch.at(),
        &format!("uninitialised read: {place}tensor 1: byte 0"),
    );
    let small = dnn.stream.alloc_zeros::<u8>(8191).unwrap();
    found(&all, address(&small), &format!("out of bounds: {place}the workspace"));
    found(&[all[0], all[1], (3, address(&small))], scratch.at(), &format!("out of bounds: {place}tensor 3"));
    let freed = address(&small);
    drop(small);
    dnn.stream.synchronize().unwrap();
    found(&[all[0], (2, freed), all[2]], scratch.at(), &format!("use after free: {place}tensor 2"));
}

#[test]
fn a_stream_that_is_gone() {
    let dnn = dnn();
    let (plan, [x, w, y, scratch]) = ready(&dnn);
    let other = dnn.context.new_stream().unwrap();
    dnn.stream.synchronize().unwrap();
    // SAFETY: a live stream, until it is dropped on purpose.
    unsafe { assert_eq!(cudnnSetStream(dnn.handle, other.cu_stream() as cudaStream_t), CUDNN_STATUS_SUCCESS) };
    drop(other);
    let all = [(1, x.at()), (2, w.at()), (3, y.at())];
    assert_eq!(execute(&dnn, &plan, &all, scratch.at()), CUDNN_STATUS_EXECUTION_FAILED);
    named(&dnn, "cudnnBackendExecute", "was destroyed");
}
