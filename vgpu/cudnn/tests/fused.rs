//! Graphs of several operations: what a convolution's neighbours compute, against the same by plain loops.

mod common;

use common::reference::{Direction, Shape, convolve};
use common::*;
use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use cudarc::cudnn::sys::cudnnBackendAttributeType_t as T;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t as D;
use cudarc::cudnn::sys::cudnnBackendHeurMode_t::CUDNN_HEUR_MODE_A;
use cudarc::cudnn::sys::*;

const NHWC: Layout = Layout::Nhwc { gap: 0 };

fn function(mode: cudnnPointwiseMode_t) -> Desc {
    Desc::new(D::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)
        .set(A::CUDNN_ATTR_POINTWISE_MODE, T::CUDNN_TYPE_POINTWISE_MODE, &[mode])
        .set(A::CUDNN_ATTR_POINTWISE_MATH_PREC, T::CUDNN_TYPE_DATA_TYPE, &[F32])
        .done()
}

fn open_pointwise(mode: cudnnPointwiseMode_t, x: &Desc, b: Option<&Desc>, y: &Desc) -> Desc {
    let open = Desc::new(D::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
        .with(A::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &function(mode))
        .with(A::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)
        .with(A::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    match b {
        Some(b) => open.with(A::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b),
        None => open,
    }
}

/// Runs the one engine that makes a plan of a graph.
fn run(dnn: &Dnn, operations: &[&Desc], pointers: &[(i64, u64)]) {
    let graph = open_graph(dnn, operations).done();
    let plans: Vec<Desc> =
        configs(&graph, CUDNN_HEUR_MODE_A).unwrap().iter().filter_map(|c| plan(dnn, c).ok()).collect();
    assert_eq!(plans.len(), 1);
    assert_eq!(execute(dnn, &plans[0], pointers, 0), CUDNN_STATUS_SUCCESS, "{}", dnn.gpu.last_report());
    dnn.stream.synchronize().unwrap();
    assert_eq!(dnn.gpu.last_report(), "");
}

fn near(got: &[f32], want: impl Iterator<Item = f64>, tolerance: f64) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((*got as f64 - want).abs() <= tolerance * (1.0 + want.abs()), "{i}: {got} for {want}");
    }
}

#[test]
fn scale_bias_relu_convolution_statistics() {
    let dnn = dnn();
    let s = Shape::new(2, 6, [5, 4], 9, 3, 1, 1);
    let channels = [1, 6, 1, 1];
    for number in [F32, BF16] {
        let [x, w, y] = [(1, s.x()), (2, s.w()), (3, s.y())].map(|(uid, dims)| tensor(uid, number, dims, NHWC));
        let [scale, bias] = [4, 5].map(|uid| tensor(uid, number, channels, NHWC));
        let [sum, squares] = [6, 7].map(|uid| tensor(uid, F32, [1, 9, 1, 1], NHWC));
        let [scaled, shifted, rectified] = [11, 12, 13].map(|uid| virtual_tensor(uid, s.x()));
        use cudnnPointwiseMode_t::*;
        let multiply = open_pointwise(CUDNN_POINTWISE_MUL, &x, Some(&scale), &scaled).done();
        let add = open_pointwise(CUDNN_POINTWISE_ADD, &scaled, Some(&bias), &shifted).done();
        let relu = open_pointwise(CUDNN_POINTWISE_RELU_FWD, &shifted, None, &rectified).done();
        let convolution = open_convolution(&s).done();
        let convolution = open_operation(Direction::Forward, &convolution, &rectified, &w, &y).done();
        let statistics = Desc::new(D::CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR)
            .set(
                A::CUDNN_ATTR_OPERATION_GENSTATS_MODE,
                T::CUDNN_TYPE_GENSTATS_MODE,
                &[cudnnGenStatsMode_t::CUDNN_GENSTATS_SUM_SQSUM],
            )
            .set(A::CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, T::CUDNN_TYPE_DATA_TYPE, &[F32])
            .with(A::CUDNN_ATTR_OPERATION_GENSTATS_XDESC, &y)
            .with(A::CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC, &sum)
            .with(A::CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC, &squares)
            .done();
        let sizes = [2 * 6 * 20, 9 * 6 * 9, 2 * 9 * 20, 6, 6];
        let mut buffers: Vec<Buffer> =
            sizes.iter().enumerate().map(|(i, n)| upload(&dnn, number, &numbers(*n, i as u64))).collect();
        buffers.extend([upload(&dnn, F32, &[0.0; 9]), upload(&dnn, F32, &[0.0; 9])]);
        let pointers: Vec<(i64, u64)> = buffers.iter().enumerate().map(|(i, b)| (i as i64 + 1, b.at())).collect();
        // The order in which operations are stated does not matter.
        run(&dnn, &[&statistics, &convolution, &relu, &add, &multiply], &pointers);
        let before = |i: usize| buffers[i].values.as_slice();
        let activated: Vec<f32> =
            before(0).iter().enumerate().map(|(i, x)| (x * before(3)[i % 6] + before(4)[i % 6]).max(0.0)).collect();
        let of = [(activated.as_slice(), strides(s.x(), NHWC)), (before(1), strides(s.w(), NHWC))];
        let want = convolve(Direction::Forward, &s, of, strides(s.y(), NHWC));
        let stored = buffers[2].download(&dnn);
        near(&stored, want.iter().map(|w| w.0), if number == BF16 { 0.5f64.powi(8) } else { 1e-5 });
        // Statistics are of what is stored.
        let channel = |k: usize, f: fn(f64) -> f64| stored.iter().skip(k).step_by(9).map(|v| f(*v as f64)).sum::<f64>();
        near(&buffers[5].download(&dnn), (0..9).map(|k| channel(k, |v| v)), 1e-6);
        near(&buffers[6].download(&dnn), (0..9).map(|k| channel(k, |v| v * v)), 1e-6);
    }
}

#[test]
fn the_gradient_of_relu_and_its_sum() {
    let dnn = dnn();
    let dims = [2, 5, 3, 4];
    let [x, dy] = [1, 2].map(|uid| tensor(uid, BF16, dims, NHWC));
    let (dx, sum) = (tensor(3, BF16, dims, NHWC), tensor(4, F32, [1, 5, 1, 1], NHWC));
    let backward = Desc::new(D::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
        .with(
            A::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
            &function(cudnnPointwiseMode_t::CUDNN_POINTWISE_RELU_BWD),
        )
        .with(A::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &x)
        .with(A::CUDNN_ATTR_OPERATION_POINTWISE_DYDESC, &dy)
        .with(A::CUDNN_ATTR_OPERATION_POINTWISE_DXDESC, &dx)
        .done();
    let add = cudnnReduceTensorOp_t::CUDNN_REDUCE_TENSOR_ADD;
    let reduction = Desc::new(D::CUDNN_BACKEND_REDUCTION_DESCRIPTOR)
        .set(A::CUDNN_ATTR_REDUCTION_OPERATOR, T::CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, &[add])
        .set(A::CUDNN_ATTR_REDUCTION_COMP_TYPE, T::CUDNN_TYPE_DATA_TYPE, &[F32])
        .done();
    let reduce = Desc::new(D::CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
        .with(A::CUDNN_ATTR_OPERATION_REDUCTION_DESC, &reduction)
        .with(A::CUDNN_ATTR_OPERATION_REDUCTION_XDESC, &dx)
        .with(A::CUDNN_ATTR_OPERATION_REDUCTION_YDESC, &sum)
        .done();
    let buffers: [Buffer; 3] = [1, 2, 3].map(|seed| upload(&dnn, BF16, &numbers(120, seed)));
    let total = upload(&dnn, F32, &[0.0; 5]);
    let pointers = [(1, buffers[0].at()), (2, buffers[1].at()), (3, buffers[2].at()), (4, total.at())];
    run(&dnn, &[&backward, &reduce], &pointers);
    let (x, dy) = (&buffers[0].values, &buffers[1].values);
    let want: Vec<f32> = x.iter().zip(dy).map(|(x, dy)| if *x > 0.0 { *dy } else { 0.0 }).collect();
    assert_eq!(buffers[2].download(&dnn), want);
    near(&total.download(&dnn), (0..5).map(|c| want.iter().skip(c).step_by(5).map(|v| *v as f64).sum()), 1e-6);
}

#[test]
fn a_number_by_value_scales() {
    let dnn = dnn();
    let dims = [2, 3, 2, 2];
    let (x, y) = (tensor(1, F32, dims, NHWC), tensor(2, F32, dims, NHWC));
    let scale = open_tensor(3, F32, [1; 4], NHWC).set(A::CUDNN_ATTR_TENSOR_IS_BY_VALUE, T::CUDNN_TYPE_BOOLEAN, &[true]);
    let multiply = open_pointwise(cudnnPointwiseMode_t::CUDNN_POINTWISE_MUL, &x, Some(&scale.done()), &y)
        .set(A::CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, T::CUDNN_TYPE_FLOAT, &[0.5f32])
        .done();
    let (from, to) = (upload(&dnn, F32, &numbers(24, 1)), upload(&dnn, F32, &[0.0; 24]));
    let three = 3f32; // read when the plan is executed
    run(&dnn, &[&multiply], &[(1, from.at()), (2, to.at()), (3, &raw const three as u64)]);
    assert!(to.download(&dnn).iter().zip(&from.values).all(|(y, x)| *y == 0.5 * x * 3.0));
}

#[test]
fn shapes_that_do_not_fit() {
    let dnn = dnn();
    let bad = |d: Desc, what: &str| {
        assert_eq!(d.finalize(), CUDNN_STATUS_BAD_PARAM);
        let report = dnn.gpu.last_report();
        assert!(report.contains(what), "{report}");
    };
    let t = |uid, dims| tensor(uid, F32, dims, NHWC);
    let (x, y) = (t(1, [2, 3, 4, 5]), t(2, [2, 3, 4, 5]));
    use cudnnPointwiseMode_t::*;
    bad(
        open_pointwise(CUDNN_POINTWISE_ADD, &x, Some(&t(3, [1, 2, 1, 1])), &y),
        "a pointwise operation on [1, 2, 1, 1]",
    );
    bad(open_pointwise(CUDNN_POINTWISE_ADD, &x, None, &y), "lacks CUDNN_ATTR_OPERATION_POINTWISE_BDESC");
    bad(open_pointwise(CUDNN_POINTWISE_RELU_FWD, &x, Some(&y), &t(3, [2, 3, 4, 5])), "which has none");
    let statistics = Desc::new(D::CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR)
        .set(A::CUDNN_ATTR_OPERATION_GENSTATS_MODE, T::CUDNN_TYPE_GENSTATS_MODE, &[0u32])
        .set(A::CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, T::CUDNN_TYPE_DATA_TYPE, &[F32])
        .with(A::CUDNN_ATTR_OPERATION_GENSTATS_XDESC, &x)
        .with(A::CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC, &t(4, [1, 3, 1, 1]))
        .with(A::CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC, &t(5, [1, 4, 1, 1]));
    bad(statistics, "statistics of [2, 3, 4, 5]");
    let (one, two) = (virtual_tensor(6, [2, 3, 4, 5]), virtual_tensor(7, [2, 3, 4, 5]));
    let there = open_pointwise(CUDNN_POINTWISE_IDENTITY, &one, None, &two).done();
    let back = open_pointwise(CUDNN_POINTWISE_IDENTITY, &two, None, &one).done();
    bad(open_graph(&dnn, &[&there, &back]), "operations that wait for each other's results");
}
