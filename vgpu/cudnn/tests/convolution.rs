//! Convolutions against plain loops in double precision.

mod common;

use common::reference::{DIRECTIONS, Direction, Shape, convolve};
use common::*;
use cudarc::cudnn::sys::cudnnBackendHeurMode_t::{CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
use cudarc::cudnn::sys::cudnnDataType_t;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

/// The inputs of a convolution, and room for its result, by unique id.
struct Data {
    buffers: [Buffer; 3],
}

fn len(dims: [i64; 4], layout: Layout) -> usize {
    1 + dims.iter().zip(strides(dims, layout)).map(|(d, s)| ((d - 1) * s) as usize).sum::<usize>()
}

impl Data {
    fn new(dnn: &Dnn, direction: Direction, shape: &Shape, numbers_of: [cudnnDataType_t; 2], layout: Layout) -> Data {
        let tensors = [(Direction::Data, shape.x()), (Direction::Filter, shape.w()), (Direction::Forward, shape.y())];
        let mut seed = 0;
        let buffers = tensors.map(|(made, dims)| {
            seed += 1;
            let number = numbers_of[(direction == made) as usize];
            upload(dnn, number, &numbers(len(dims, layout), seed))
        });
        Data { buffers }
    }
    fn pointers(&self) -> [(i64, u64); 3] {
        [1, 2, 3].map(|uid| (uid, self.buffers[uid as usize - 1].at()))
    }
    fn result(&self, direction: Direction) -> &Buffer {
        match direction {
            Direction::Forward => &self.buffers[2],
            Direction::Data => &self.buffers[0],
            Direction::Filter => &self.buffers[1],
        }
    }
    fn inputs(&self, direction: Direction, shape: &Shape, layout: Layout) -> [(&[f32], [i64; 4]); 2] {
        let pick = match direction {
            Direction::Forward => [0, 1],
            Direction::Data => [1, 2],
            Direction::Filter => [0, 2],
        };
        let dims = [shape.x(), shape.w(), shape.y()];
        pick.map(|i| (self.buffers[i].values.as_slice(), strides(dims[i], layout)))
    }
}

/// Rounding errors of inputs and of the result, relative.
fn roundings(number: cudnnDataType_t, index: i64) -> (f64, f64) {
    let result = if number == BF16 { 0.5f64.powi(8) } else { 0.5f64.powi(24) };
    (if index == 4 { 2.0 * 0.5f64.powi(11) } else { 0.0 }, result)
}

/// Runs a convolution with each engine that makes a plan, and checks every element of the result, and the gaps.
fn check(dnn: &Dnn, direction: Direction, shape: &Shape, [input, number]: [cudnnDataType_t; 2], layout: Layout) {
    let graph = convolution_graph_into(dnn, direction, shape, [input, number], layout);
    for config in configs(&graph, CUDNN_HEUR_MODE_A).unwrap() {
        let (index, _) = engine(&config);
        let Ok(plan) = plan(dnn, &config) else { continue };
        let data = Data::new(dnn, direction, shape, [input, number], layout);
        let scratch = dnn.stream.alloc_zeros::<u8>(workspace(&plan).max(1)).unwrap();
        assert_eq!(execute(dnn, &plan, &data.pointers(), address(&scratch)), CUDNN_STATUS_SUCCESS);
        let (result, to) = (data.result(direction), strides(shape.dims(direction), layout));
        let got = result.download(dnn);
        let want = convolve(direction, shape, data.inputs(direction, shape, layout), to);
        let dims = shape.dims(direction).map(|d| d as usize);
        let mut inside = vec![false; got.len()];
        for i in 0..dims.iter().product() {
            let index4 = [
                i / (dims[1] * dims[2] * dims[3]),
                i / (dims[2] * dims[3]) % dims[1],
                i / dims[3] % dims[2],
                i % dims[3],
            ];
            let at = common::reference::place(index4, to);
            let (sum, size, terms) = want[at];
            let (of_inputs, of_result) = roundings(number, index);
            // A rounding for each product and sum in f32, then one to the type of the result.
            let tolerance = size * ((2 * terms + 2) as f64 * 0.5f64.powi(24) + of_inputs) + sum.abs() * of_result;
            assert!(
                (got[at] as f64 - sum).abs() <= tolerance * 1.01,
                "{direction:?} {index4:?} by engine {index}: {} for {sum}, {shape:?} {number:?} {layout:?}",
                got[at]
            );
            inside[at] = true;
        }
        let kept = got.iter().zip(&result.values).zip(inside).all(|((g, v), inside)| inside || g == v);
        assert!(kept, "what lies between the channels was written");
    }
    assert_eq!(dnn.gpu.last_report(), "");
}

#[test]
fn every_direction_filter_stride_and_padding() {
    let dnn = dnn();
    for shape in [
        Shape::new(1, 1, [1, 1], 1, 1, 1, 0),
        Shape::new(2, 5, [7, 6], 3, 1, 1, 0),
        Shape::new(2, 8, [9, 8], 16, 1, 2, 0),
        Shape::new(3, 4, [5, 7], 6, 3, 1, 1),
        Shape::new(2, 20, [8, 9], 35, 3, 2, 1),
        Shape::new(1, 3, [16, 15], 18, 7, 2, 3),
        Shape::new(2, 16, [4, 4], 16, 3, 1, 1),
        Shape::new(1, 2, [3, 3], 2, 3, 1, 0),
        Shape { before: [0, 1], after: [1, 2], ..Shape::new(2, 3, [6, 5], 4, 3, 2, 0) },
        Shape { taps: [1, 3], before: [0, 1], after: [0, 1], ..Shape::new(2, 3, [6, 5], 4, 3, 1, 0) },
    ] {
        for direction in DIRECTIONS {
            for numbers in [[F32; 2], [BF16; 2], [BF16, F32]] {
                check(&dnn, direction, &shape, numbers, Layout::Nhwc { gap: 0 });
            }
        }
    }
}

#[test]
fn other_layouts() {
    let dnn = dnn();
    let shape = Shape::new(2, 5, [6, 7], 9, 3, 2, 1);
    for direction in DIRECTIONS {
        for numbers in [[F32; 2], [BF16; 2], [BF16, F32]] {
            check(&dnn, direction, &shape, numbers, Layout::Nhwc { gap: 3 });
            check(&dnn, direction, &shape, numbers, Layout::Nchw);
        }
    }
}

/// With beta 1 a result is what was there and the convolution, rounded once; what was there must have been written.
#[test]
fn a_result_may_be_added() {
    let dnn = dnn();
    let (shape, layout) = (Shape::new(2, 5, [7, 6], 3, 3, 2, 1), Layout::Nhwc { gap: 0 });
    for direction in DIRECTIONS {
        for number in [F32, BF16] {
            let [x, w, y] =
                [(1, shape.x()), (2, shape.w()), (3, shape.y())].map(|(uid, dims)| tensor(uid, number, dims, layout));
            let operation = open_operation_by(direction, 1.0, &open_convolution(&shape).done(), &x, &w, &y).done();
            let graph = open_graph(&dnn, &[&operation]).done();
            let plan = plan(&dnn, &configs(&graph, CUDNN_HEUR_MODE_FALLBACK).unwrap()[0]).unwrap();
            let data = Data::new(&dnn, direction, &shape, [number; 2], layout);
            assert_eq!(execute(&dnn, &plan, &data.pointers(), 0), CUDNN_STATUS_SUCCESS);
            let result = data.result(direction);
            let to = strides(shape.dims(direction), layout);
            let added = convolve(direction, &shape, data.inputs(direction, &shape, layout), to);
            for ((got, before), (sum, size, terms)) in result.download(&dnn).iter().zip(&result.values).zip(added) {
                let exact = f64::from(*before) + sum;
                let (_, rounding) = roundings(number, 0);
                let tolerance =
                    (size + exact.abs()) * (2 * terms + 3) as f64 * 0.5f64.powi(24) + exact.abs() * rounding;
                assert!((f64::from(*got) - exact).abs() <= tolerance * 1.01, "{direction:?}: {got} for {exact}");
            }
            assert_eq!(dnn.gpu.last_report(), "");
            // SAFETY: never read by the test; that the library reads it is what is reported.
            let unwritten = unsafe { dnn.stream.alloc::<u8>(result.device.len()) }.unwrap();
            let of_result = |(uid, at)| (uid, if at == result.at() { address(&unwritten) } else { at });
            assert_eq!(execute(&dnn, &plan, &data.pointers().map(of_result), 0), CUDNN_STATUS_SUCCESS);
            let _ = dnn.stream.synchronize();
            assert!(dnn.gpu.last_report().contains("uninitialised read"), "{direction:?}");
        }
    }
}

#[test]
fn a_capture_records_and_a_graph_replays() {
    let dnn = dnn();
    let (shape, layout) = (Shape::new(2, 4, [6, 6], 4, 3, 1, 1), Layout::Nhwc { gap: 0 });
    let plans: Vec<Desc> = DIRECTIONS
        .into_iter()
        .map(|d| {
            plan(&dnn, &configs(&convolution_graph(&dnn, d, &shape, F32, layout), CUDNN_HEUR_MODE_FALLBACK).unwrap()[0])
                .unwrap()
        })
        .collect();
    let data = Data::new(&dnn, Direction::Forward, &shape, [F32; 2], layout);
    let gradient = upload(&dnn, F32, &data.buffers[1].values);
    let [x, w, y] = data.pointers();
    dnn.stream.synchronize().unwrap();
    let before = data.buffers[0].download(&dnn);
    dnn.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    for (plan, w) in plans.iter().zip([w, w, (2, gradient.at())]) {
        assert_eq!(execute(&dnn, plan, &[x, w, y], 0), CUDNN_STATUS_SUCCESS);
    }
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = dnn.stream.end_capture(flags).unwrap().unwrap();
    assert_eq!(data.buffers[0].download(&dnn), before, "capturing runs nothing");
    drop(plans); // a graph does not need them any more
    let (mut x, w) = (data.buffers[0].values.clone(), data.buffers[1].values.clone());
    let dims = [shape.x(), shape.w(), shape.y()].map(|d| strides(d, layout));
    let convolve = |direction, a: &[f32], i: usize, b: &[f32], j: usize, to: usize| -> Vec<f32> {
        convolve(direction, &shape, [(a, dims[i]), (b, dims[j])], dims[to]).iter().map(|v| v.0 as f32).collect()
    };
    for round in 0..3 {
        graph.launch().unwrap();
        let y = convolve(Direction::Forward, &x, 0, &w, 1, 2);
        x = convolve(Direction::Data, &w, 1, &y, 2, 0);
        let dw = convolve(Direction::Filter, &x, 0, &y, 2, 1);
        for (buffer, want) in [(&data.buffers[2], &y), (&data.buffers[0], &x), (&gradient, &dw)] {
            let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            let got = buffer.download(&dnn);
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 1e-4 * largest), "round {round}");
        }
    }
    assert_eq!(dnn.gpu.last_report(), "");
}
