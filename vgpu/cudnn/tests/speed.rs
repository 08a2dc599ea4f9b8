//! How fast convolutions are. Numbers, not a test: run with `--ignored --nocapture`.

mod common;

use common::reference::{DIRECTIONS, Shape};
use common::*;
use cudarc::cudnn::sys::cudnnBackendHeurMode_t::CUDNN_HEUR_MODE_FALLBACK;
use std::time::Instant;

#[test]
#[ignore = "a measurement"]
fn layers_of_a_residual_network() {
    let dnn = dnn();
    let layout = Layout::Nhwc { gap: 0 };
    for (channels, size, filters, stride) in
        [(8, 32, 8, 1), (64, 32, 64, 1), (64, 32, 128, 2), (256, 8, 256, 1), (512, 4, 512, 1)]
    {
        let shape = Shape::new(8, channels, [size; 2], filters, 3, stride, 1);
        for direction in DIRECTIONS {
            let config = &configs(&convolution_graph(&dnn, direction, &shape, BF16, layout), CUDNN_HEUR_MODE_FALLBACK)
                .unwrap()[0];
            let plan = plan(&dnn, config).unwrap();
            let buffers = [shape.x(), shape.w(), shape.y()]
                .map(|dims| upload(&dnn, BF16, &vec![0.5; dims.iter().product::<i64>() as usize]));
            let pointers = [1, 2, 3].map(|uid| (uid, buffers[uid as usize - 1].at()));
            dnn.stream.synchronize().unwrap();
            let start = Instant::now();
            assert_eq!(execute(&dnn, &plan, &pointers, 0), CUDNN_STATUS_SUCCESS);
            dnn.stream.synchronize().unwrap();
            let seconds = start.elapsed().as_secs_f64();
            let sums = shape.y().iter().product::<i64>() as f64 * channels as f64 * 9.0;
            println!(
                "{channels:3} x {size:2} -> {filters:3} /{stride} {direction:?}: {:6.1} ms, {:5.1} GFLOP/s",
                seconds * 1e3,
                2e-9 * sums / seconds
            );
        }
    }
}
