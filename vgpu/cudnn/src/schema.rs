//! Which attributes a descriptor has: number, types, how many elements, as in `cudnn_graph.h`.

use cudarc::cudnn::sys::cudnnBackendAttributeName_t as A;
use cudarc::cudnn::sys::cudnnBackendAttributeType_t as T;
use cudarc::cudnn::sys::cudnnBackendDescriptorType_t as D;

/// Most dimensions of a tensor.
pub const MAX_DIMS: usize = 8;
/// As many elements as a caller likes.
const MANY: usize = 1 << 20;

/// Whether an attribute must be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Required,
    Optional,
    /// It can be asked only.
    Answer,
}

/// An attribute.
#[derive(Debug)]
pub struct Attribute {
    pub number: u32,
    /// `cudnnBackendAttributeType_t`: any of these.
    pub types: &'static [u32],
    /// Most elements; one means exactly one.
    pub most: usize,
    pub role: Role,
}

/// A kind of descriptor.
#[derive(Debug)]
pub struct Schema {
    /// `cudnnBackendDescriptorType_t`
    pub kind: u32,
    /// Its name in reports.
    pub name: &'static str,
    pub attributes: &'static [Attribute],
}

pub const HANDLE: u32 = T::CUDNN_TYPE_HANDLE as u32;
pub const DATA_TYPE: u32 = T::CUDNN_TYPE_DATA_TYPE as u32;
pub const BOOLEAN: u32 = T::CUDNN_TYPE_BOOLEAN as u32;
pub const INT64: u32 = T::CUDNN_TYPE_INT64 as u32;
pub const INT32: u32 = T::CUDNN_TYPE_INT32 as u32;
pub const FLOAT: u32 = T::CUDNN_TYPE_FLOAT as u32;
pub const DOUBLE: u32 = T::CUDNN_TYPE_DOUBLE as u32;
pub const POINTER: u32 = T::CUDNN_TYPE_VOID_PTR as u32;
pub const DESCRIPTOR: u32 = T::CUDNN_TYPE_BACKEND_DESCRIPTOR as u32;
const NUMERICAL_NOTE: u32 = T::CUDNN_TYPE_NUMERICAL_NOTE as u32;
const BEHAVIOR_NOTE: u32 = T::CUDNN_TYPE_BEHAVIOR_NOTE as u32;

/// Bytes of an element.
pub fn size_of_type(ty: u32) -> usize {
    match ty {
        BOOLEAN => 1,
        HANDLE | INT64 | DOUBLE | POINTER | DESCRIPTOR => 8,
        _ => 4, // float, int32 and enumerations
    }
}

const fn required(name: A, types: &'static [u32], most: usize) -> Attribute {
    Attribute { number: name as u32, types, most, role: Role::Required }
}
const fn optional(name: A, types: &'static [u32], most: usize) -> Attribute {
    Attribute { number: name as u32, types, most, role: Role::Optional }
}
const fn answer(name: A, types: &'static [u32], most: usize) -> Attribute {
    Attribute { number: name as u32, types, most, role: Role::Answer }
}
/// A descriptor that must be set.
const fn descriptor(name: A) -> Attribute {
    required(name, &[DESCRIPTOR], 1)
}
/// A number that may be stated in either precision.
const fn scalar(name: A, role: Role) -> Attribute {
    Attribute { number: name as u32, types: &[FLOAT, DOUBLE], most: 1, role }
}

static TENSOR: Schema = Schema {
    kind: D::CUDNN_BACKEND_TENSOR_DESCRIPTOR as u32,
    name: "tensor",
    attributes: &[
        required(A::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[INT64], 1),
        required(A::CUDNN_ATTR_TENSOR_DATA_TYPE, &[DATA_TYPE], 1),
        required(A::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[INT64], 1),
        required(A::CUDNN_ATTR_TENSOR_DIMENSIONS, &[INT64], MAX_DIMS),
        required(A::CUDNN_ATTR_TENSOR_STRIDES, &[INT64], MAX_DIMS),
        optional(A::CUDNN_ATTR_TENSOR_IS_VIRTUAL, &[BOOLEAN], 1),
        optional(A::CUDNN_ATTR_TENSOR_IS_BY_VALUE, &[BOOLEAN], 1),
    ],
};

static CONVOLUTION: Schema = Schema {
    kind: D::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR as u32,
    name: "convolution",
    attributes: &[
        required(A::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, &[DATA_TYPE], 1),
        required(A::CUDNN_ATTR_CONVOLUTION_CONV_MODE, &[T::CUDNN_TYPE_CONVOLUTION_MODE as u32], 1),
        required(A::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[INT64], 1),
        required(A::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[INT64], MAX_DIMS),
        required(A::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &[INT64], MAX_DIMS),
        required(A::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &[INT64], MAX_DIMS),
        required(A::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &[INT64], MAX_DIMS),
    ],
};

static FORWARD: Schema = Schema {
    kind: D::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR as u32,
    name: "convolution forward",
    attributes: &[
        scalar(A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, Role::Required),
        scalar(A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, Role::Required),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y),
    ],
};

static BACKWARD_DATA: Schema = Schema {
    kind: D::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR as u32,
    name: "convolution backward data",
    attributes: &[
        scalar(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, Role::Required),
        scalar(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, Role::Required),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY),
    ],
};

static BACKWARD_FILTER: Schema = Schema {
    kind: D::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR as u32,
    name: "convolution backward filter",
    attributes: &[
        scalar(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, Role::Required),
        scalar(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, Role::Required),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW),
        descriptor(A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY),
    ],
};

static POINTWISE: Schema = Schema {
    kind: D::CUDNN_BACKEND_POINTWISE_DESCRIPTOR as u32,
    name: "pointwise",
    attributes: &[
        required(A::CUDNN_ATTR_POINTWISE_MODE, &[T::CUDNN_TYPE_POINTWISE_MODE as u32], 1),
        required(A::CUDNN_ATTR_POINTWISE_MATH_PREC, &[DATA_TYPE], 1),
        optional(A::CUDNN_ATTR_POINTWISE_NAN_PROPAGATION, &[T::CUDNN_TYPE_NAN_PROPOGATION as u32], 1),
        scalar(A::CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, Role::Optional),
        scalar(A::CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, Role::Optional),
    ],
};

static OPERATION_POINTWISE: Schema = Schema {
    kind: D::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR as u32,
    name: "pointwise operation",
    attributes: &[
        descriptor(A::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR),
        descriptor(A::CUDNN_ATTR_OPERATION_POINTWISE_XDESC),
        optional(A::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &[DESCRIPTOR], 1),
        optional(A::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &[DESCRIPTOR], 1),
        optional(A::CUDNN_ATTR_OPERATION_POINTWISE_DXDESC, &[DESCRIPTOR], 1),
        optional(A::CUDNN_ATTR_OPERATION_POINTWISE_DYDESC, &[DESCRIPTOR], 1),
        scalar(A::CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, Role::Optional),
        scalar(A::CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, Role::Optional),
    ],
};

static REDUCTION: Schema = Schema {
    kind: D::CUDNN_BACKEND_REDUCTION_DESCRIPTOR as u32,
    name: "reduction",
    attributes: &[
        required(A::CUDNN_ATTR_REDUCTION_OPERATOR, &[T::CUDNN_TYPE_REDUCTION_OPERATOR_TYPE as u32], 1),
        required(A::CUDNN_ATTR_REDUCTION_COMP_TYPE, &[DATA_TYPE], 1),
    ],
};

static OPERATION_REDUCTION: Schema = Schema {
    kind: D::CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR as u32,
    name: "reduction operation",
    attributes: &[
        descriptor(A::CUDNN_ATTR_OPERATION_REDUCTION_DESC),
        descriptor(A::CUDNN_ATTR_OPERATION_REDUCTION_XDESC),
        descriptor(A::CUDNN_ATTR_OPERATION_REDUCTION_YDESC),
    ],
};

static GEN_STATS: Schema = Schema {
    kind: D::CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR as u32,
    name: "statistics",
    attributes: &[
        required(A::CUDNN_ATTR_OPERATION_GENSTATS_MODE, &[T::CUDNN_TYPE_GENSTATS_MODE as u32], 1),
        required(A::CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, &[DATA_TYPE], 1),
        descriptor(A::CUDNN_ATTR_OPERATION_GENSTATS_XDESC),
        descriptor(A::CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC),
        descriptor(A::CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC),
    ],
};

static GRAPH: Schema = Schema {
    kind: D::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR as u32,
    name: "operation graph",
    attributes: &[
        required(A::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, &[HANDLE], 1),
        required(A::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[DESCRIPTOR], MANY),
        answer(A::CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT, &[INT64], 1),
    ],
};

static HEURISTIC: Schema = Schema {
    kind: D::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR as u32,
    name: "engine heuristic",
    attributes: &[
        descriptor(A::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH),
        required(A::CUDNN_ATTR_ENGINEHEUR_MODE, &[T::CUDNN_TYPE_HEUR_MODE as u32], 1),
        optional(A::CUDNN_ATTR_ENGINEHEUR_SM_COUNT_TARGET, &[INT32], 1),
        answer(A::CUDNN_ATTR_ENGINEHEUR_RESULTS, &[DESCRIPTOR], MANY),
    ],
};

static ENGINE: Schema = Schema {
    kind: D::CUDNN_BACKEND_ENGINE_DESCRIPTOR as u32,
    name: "engine",
    attributes: &[
        descriptor(A::CUDNN_ATTR_ENGINE_OPERATION_GRAPH),
        required(A::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, &[INT64], 1),
        optional(A::CUDNN_ATTR_ENGINE_SM_COUNT_TARGET, &[INT32], 1),
        answer(A::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, &[NUMERICAL_NOTE], MANY),
        answer(A::CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, &[BEHAVIOR_NOTE], MANY),
        answer(A::CUDNN_ATTR_ENGINE_KNOB_INFO, &[DESCRIPTOR], MANY),
        answer(A::CUDNN_ATTR_ENGINE_LAYOUT_INFO, &[DESCRIPTOR], MANY),
    ],
};

static CONFIG: Schema = Schema {
    kind: D::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR as u32,
    name: "engine configuration",
    attributes: &[
        descriptor(A::CUDNN_ATTR_ENGINECFG_ENGINE),
        answer(A::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, &[DESCRIPTOR], MANY),
        answer(A::CUDNN_ATTR_ENGINECFG_INTERMEDIATE_INFO, &[DESCRIPTOR], MANY),
        answer(A::CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, &[INT64], 1),
    ],
};

static PLAN: Schema = Schema {
    kind: D::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR as u32,
    name: "execution plan",
    attributes: &[
        required(A::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, &[HANDLE], 1),
        descriptor(A::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG),
        answer(A::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, &[INT64], 1),
        answer(A::CUDNN_ATTR_EXECUTION_PLAN_COMPUTED_INTERMEDIATE_UIDS, &[INT64], MANY),
    ],
};

static PACK: Schema = Schema {
    kind: D::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR as u32,
    name: "variant pack",
    attributes: &[
        required(A::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &[INT64], MANY),
        required(A::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &[POINTER], MANY),
        required(A::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[POINTER], 1),
    ],
};

static ALL: [&Schema; 16] = [
    &TENSOR,
    &CONVOLUTION,
    &FORWARD,
    &BACKWARD_DATA,
    &BACKWARD_FILTER,
    &POINTWISE,
    &OPERATION_POINTWISE,
    &REDUCTION,
    &OPERATION_REDUCTION,
    &GEN_STATS,
    &GRAPH,
    &HEURISTIC,
    &ENGINE,
    &CONFIG,
    &PLAN,
    &PACK,
];

/// The schema of a kind of descriptor.
pub fn schema(kind: u32) -> Option<&'static Schema> {
    ALL.into_iter().find(|s| s.kind == kind)
}
