// binary_entropy.cu — sigmoid heads and the mean entropy of what they say, from the logits, in one pass each way.
//
// Computes   y = 1 / (1 + exp(-a));  loss = 1/count sum [ log2(1 + e^-|a|) + |a| sigmoid(-|a|) / ln 2 ], in bits;
//            da = dy y (1 - y) - dloss a y (1 - y) / (ln 2 count)
// Shapes     a, y, dy, da [count] f32 or bf16; partial [blocks] double scratch; loss, dloss [1] f32
// Launch     binary_entropy_forward: grid min(1024, ceil(count / 1024)), block 256;
//            binary_entropy_finish: 1 block of 1,024;  *_backward, sigmoid_*: grid ceil(count / 1024), block 256.
//            y (forward) and dy (backward) may be null: then the entropy alone is computed.
// Cost       forward 2 sizeof(T) bytes an element, backward 3; about 30 flop an element
// Numerics   everything from t = e^-|a| <= 1: no overflow, and exact where y rounds to 0 or 1. At an infinite logit the
//            entropy and its gradient are 0, as 0 log 0 = 0; NaN is carried. f32 an element, sums in double, in order
// Twin       src/backend/cpu/binary_entropy.rs   Test tests/kernels/binary_entropy.rs   Bench benches/kernels.rs
// Source     the paper's equations 9-10 with 0 log 0 = 0

#include "common.cuh"

constexpr u32 THREADS = 256;
constexpr u32 FINISH_THREADS = 1024;
constexpr double INV_LN_2 = 1.4426950408889634;

// What both the sigmoid and its entropy come from: t = e^-|a| and q = sigmoid(-|a|).
struct Tail {
    float t, q;
    __device__ __forceinline__ explicit Tail(float a) : t(expf(-fabsf(a))), q(t / (1.0f + t)) {}
};

__device__ __forceinline__ float sigmoid(float a, Tail tail) { return a < 0.0f ? tail.q : 1.0f / (1.0f + tail.t); }
__device__ __forceinline__ float sigmoid(float a) { return sigmoid(a, Tail(a)); }

// In nats.
__device__ __forceinline__ float entropy(float a, Tail tail) {
    return log1pf(tail.t) + (tail.q == 0.0f ? 0.0f : tail.q * fabsf(a));
}

template <class T>
__device__ __forceinline__ void entropy_forward(const T* logits, T* y, double* partial, u64 count) {
    // Each thread takes four neighbours at a time. A float holds what four add; the rest is added in double.
    double sum = 0.0;
    const u64 step = u64(gridDim.x) * THREADS * 4;
    for (u64 i = (u64(blockIdx.x) * THREADS + threadIdx.x) * 4; i < count; i += step) {
        if (i + 4 <= count) {
            float a[4], out[4], four = 0.0f;
            load<4>(logits + i, a);
#pragma unroll
            for (u32 k = 0; k < 4; ++k) {
                const Tail tail(a[k]);
                out[k] = sigmoid(a[k], tail);
                four += entropy(a[k], tail);
            }
            if (y != nullptr) store<4>(y + i, out);
            sum += four;
        } else {
#pragma unroll 1  // at most three
            for (u64 k = i; k < count; ++k) {
                const float a = to_f32(logits[k]);
                const Tail tail(a);
                if (y != nullptr) y[k] = from_f32<T>(sigmoid(a, tail));
                sum += entropy(a, tail);
            }
        }
    }
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// `factor` is -dloss / (ln 2 count).
__device__ __forceinline__ float entropy_gradient(float a, float dy, float factor) {
    const float q = Tail(a).q;
    if (q == 0.0f) return 0.0f;  // also at an infinite logit, where a q would be NaN
    return (factor * a + dy) * q * (1.0f - q);
}

template <class T>
__device__ __forceinline__ void entropy_backward(const T* logits, const T* dy, const float* dloss, T* da, u64 count) {
    const float factor = float(-double(*dloss) * INV_LN_2 / double(count));
    for_four(
        count,
        [&](u64 i) {
            float a[4], g[4] = {};
            load<4>(logits + i, a);
            if (dy != nullptr) load<4>(dy + i, g);
#pragma unroll
            for (u32 k = 0; k < 4; ++k) g[k] = entropy_gradient(a[k], g[k], factor);
            store<4>(da + i, g);
        },
        [&](u64 i) {
            const float g = dy != nullptr ? to_f32(dy[i]) : 0.0f;
            da[i] = from_f32<T>(entropy_gradient(to_f32(logits[i]), g, factor));
        });
}

extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
binary_entropy_finish(const double* __restrict__ partial, float* __restrict__ loss, u64 count, u32 blocks) {
    const double sum = block_sum<FINISH_THREADS>(threadIdx.x < blocks ? partial[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) *loss = float(sum * INV_LN_2 / double(count));
}

template <class T> __device__ __forceinline__ void sigmoid_forward(const T* x, T* y, u64 count) {
    for_four(
        count,
        [&](u64 i) {
            float v[4];
            load<4>(x + i, v);
#pragma unroll
            for (u32 k = 0; k < 4; ++k) v[k] = sigmoid(v[k]);
            store<4>(y + i, v);
        },
        [&](u64 i) { y[i] = from_f32<T>(sigmoid(to_f32(x[i]))); });
}

template <class T> __device__ __forceinline__ void sigmoid_backward(const T* y, const T* dy, T* dx, u64 count) {
    for_four(
        count,
        [&](u64 i) {
            float v[4], g[4];
            load<4>(y + i, v);
            load<4>(dy + i, g);
#pragma unroll
            for (u32 k = 0; k < 4; ++k) g[k] = g[k] * v[k] * (1.0f - v[k]);
            store<4>(dx + i, g);
        },
        [&](u64 i) { dx[i] = from_f32<T>(to_f32(dy[i]) * to_f32(y[i]) * (1.0f - to_f32(y[i]))); });
}

#define BINARY_ENTROPY(T, name)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
    binary_entropy_forward_##name(const T* __restrict__ logits, T* __restrict__ y, double* __restrict__ partial,       \
                                  u64 count) {                                                                         \
        entropy_forward(logits, y, partial, count);                                                                    \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
    binary_entropy_backward_##name(const T* __restrict__ logits, const T* __restrict__ dy,                             \
                                   const float* __restrict__ dloss, T* __restrict__ da, u64 count) {                   \
        entropy_backward(logits, dy, dloss, da, count);                                                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
    sigmoid_forward_##name(const T* __restrict__ x, T* __restrict__ y, u64 count) {                                    \
        sigmoid_forward(x, y, count);                                                                                  \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
    sigmoid_backward_##name(const T* __restrict__ y, const T* __restrict__ dy, T* __restrict__ dx, u64 count) {        \
        sigmoid_backward(y, dy, dx, count);                                                                            \
    }
BINARY_ENTROPY(float, f32)
BINARY_ENTROPY(bf16, bf16)
