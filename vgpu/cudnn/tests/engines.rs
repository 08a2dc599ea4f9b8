//! Engines: what a caller who selects among them must see.

mod common;

use common::reference::{DIRECTIONS, Direction, Shape};
use common::*;
use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use cudarc::cudnn::sys::cudnnBackendAttributeType_t as T;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t as D;
use cudarc::cudnn::sys::cudnnBackendHeurMode_t::*;
use cudarc::cudnn::sys::cudnnBackendNumericalNote_t::*;
use cudarc::cudnn::sys::{cudnnDataType_t, cudnnGetVersion};

const SHAPE: fn() -> Shape = || Shape::new(2, 8, [8, 8], 8, 3, 1, 1);
const NHWC: Layout = Layout::Nhwc { gap: 0 };

#[test]
fn the_version_has_the_graph_api() {
    let _dnn = dnn();
    // SAFETY: answers a number.
    assert!(unsafe { cudnnGetVersion() } >= 90_800);
}

#[test]
fn heuristics_list_engines_of_every_kind() {
    let dnn = dnn();
    for direction in DIRECTIONS {
        for (number, count) in [(F32, 5), (BF16, 4)] {
            let graph = convolution_graph(&dnn, direction, &SHAPE(), number, NHWC);
            for (mode, count) in [
                (CUDNN_HEUR_MODE_A, count),
                (CUDNN_HEUR_MODE_INSTANT, count),
                (CUDNN_HEUR_MODE_B, count),
                (CUDNN_HEUR_MODE_FALLBACK, 1),
            ] {
                let list = configs(&graph, mode).unwrap();
                assert_eq!(list.len(), count);
                for config in &list {
                    let (index, notes) = engine(config);
                    assert_eq!(notes.contains(&CUDNN_NUMERICAL_NOTE_TENSOR_CORE), number == BF16 || index == 4);
                    assert_eq!(notes.contains(&CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC), index == 2);
                    match plan(&dnn, config) {
                        Ok(plan) => assert_eq!(workspace(&plan) > 0, index == 1),
                        Err(status) => assert_eq!((index, status), (3, CUDNN_STATUS_NOT_SUPPORTED)),
                    }
                }
            }
            let all = graph.get::<i64>(A::CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT, T::CUDNN_TYPE_INT64, 1);
            assert_eq!(all, Ok(vec![5]));
        }
    }
    assert_eq!(dnn.gpu.last_report(), "", "that an engine makes no plan is an answer, no mistake");
}

#[test]
fn an_engine_can_be_asked_for_by_its_index() {
    let dnn = dnn();
    let graph = convolution_graph(&dnn, Direction::Forward, &SHAPE(), F32, NHWC);
    let open = |index: i64| {
        Desc::new(D::CUDNN_BACKEND_ENGINE_DESCRIPTOR).with(A::CUDNN_ATTR_ENGINE_OPERATION_GRAPH, &graph).set(
            A::CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
            T::CUDNN_TYPE_INT64,
            &[index],
        )
    };
    let config =
        Desc::new(D::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).with(A::CUDNN_ATTR_ENGINECFG_ENGINE, &open(1).done()).done();
    assert_eq!(engine(&config).0, 1);
    let plan = plan(&dnn, &config).unwrap();
    assert_eq!(workspace(&plan), 2 * 8 * 8 * 8 * 4);
    let again = plan.part(A::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, D::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    assert_eq!(engine(&again).0, 1);
    assert_eq!(dnn.gpu.last_report(), "");
    assert_eq!(open(5).finalize(), CUDNN_STATUS_NOT_SUPPORTED);
    assert!(dnn.gpu.last_report().contains("engine 5 of 5"));
}

/// The result of a plan run once more.
fn run(dnn: &Dnn, plan: &Desc, number: cudnnDataType_t, direction: Direction) -> Vec<u32> {
    let shape = SHAPE();
    let mut seed = 0;
    let buffers = [shape.x(), shape.w(), shape.y()].map(|dims| {
        seed += 1;
        upload(dnn, number, &numbers(dims.iter().product::<i64>() as usize, seed))
    });
    let pointers = [1, 2, 3].map(|uid| (uid, buffers[uid as usize - 1].at()));
    let scratch = dnn.stream.alloc_zeros::<u8>(workspace(plan).max(1)).unwrap();
    assert_eq!(execute(dnn, plan, &pointers, address(&scratch)), CUDNN_STATUS_SUCCESS);
    let result = match direction {
        Direction::Forward => 2,
        Direction::Data => 0,
        Direction::Filter => 1,
    };
    let written = dnn.stream.clone_dtoh(&scratch).unwrap().iter().any(|b| *b != 0);
    assert_eq!(written, workspace(plan) > 0, "the workspace is used");
    buffers[result].download(dnn).iter().map(|v| v.to_bits()).collect()
}

#[test]
fn only_the_engine_that_says_so_is_not_deterministic() {
    let dnn = dnn();
    for direction in DIRECTIONS {
        let graph = convolution_graph(&dnn, direction, &SHAPE(), F32, NHWC);
        for config in configs(&graph, CUDNN_HEUR_MODE_A).unwrap() {
            let (index, notes) = engine(&config);
            let Ok(plan) = plan(&dnn, &config) else { continue };
            let runs: Vec<Vec<u32>> = (0..3).map(|_| run(&dnn, &plan, F32, direction)).collect();
            let same = runs.iter().all(|r| *r == runs[0]);
            assert_eq!(
                same,
                !notes.contains(&CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC),
                "{direction:?} by engine {index}"
            );
        }
    }
}

#[test]
fn a_graph_that_no_engine_takes_has_none() {
    let dnn = dnn();
    let shape = SHAPE();
    let x = tensor(1, F32, shape.x(), NHWC);
    let w = tensor(2, BF16, shape.w(), NHWC);
    let y = tensor(3, F32, shape.y(), NHWC);
    let operation = open_operation(Direction::Forward, &open_convolution(&shape).done(), &x, &w, &y).done();
    let graph = open_graph(&dnn, &[&operation]).done();
    assert_eq!(configs(&graph, CUDNN_HEUR_MODE_A).err(), Some(CUDNN_STATUS_NOT_SUPPORTED));
    assert_eq!(dnn.gpu.last_report(), "");
    let mut text = [0; 200];
    // SAFETY: room for the text.
    let text = unsafe {
        cudarc::cudnn::sys::cudnnGetLastErrorString(text.as_mut_ptr(), text.len());
        std::ffi::CStr::from_ptr(text.as_ptr()).to_str().unwrap()
    };
    assert_eq!(text, "cudnnBackendFinalize: a convolution of f32 and bf16 into f32");
}
