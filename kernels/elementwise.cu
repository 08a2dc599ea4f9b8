// elementwise.cu — the sums and products between the layers: gradients that meet, scalars that weigh.
//
// Computes   add_assign: x += y;  scale: y = factor x, factor a number of the host;
//            weighted_sum: total = sum_i weights[i] terms[i] of up to 3 scalars
// Shapes     x, y [count]; terms, total scalars
// Launch     grid ceil(count / 1024), block 256: four neighbouring elements a thread; any count, the tail one by one.
//            weighted_sum: grid 1, block 1
// Cost       add_assign 3 sizeof(T) bytes an element, scale 2 sizeof(T); 1 flop an element
// Numerics   in f32, rounded once; weighted_sum in f64
// Twin       src/backend/cpu/mod.rs, src/backend/cpu/elementwise.rs      Test tests/kernels/elementwise.rs      Bench benches/kernels.rs
// Source     none: definitions

#include "common.cuh"

constexpr u32 THREADS = 256;

template <class T> __device__ __forceinline__ void add(T* x, const T* y, u64 count) {
    for_four(
        count,
        [&](u64 i) {
            float a[4], b[4];
            load<4>(x + i, a);
            load<4>(y + i, b);
#pragma unroll
            for (u32 k = 0; k < 4; ++k) a[k] += b[k];
            store<4>(x + i, a);
        },
        [&](u64 i) { x[i] = from_f32<T>(to_f32(x[i]) + to_f32(y[i])); });
}

template <class T> __device__ __forceinline__ void scale(const T* x, T* y, u64 count, float factor) {
    for_four(
        count,
        [&](u64 i) {
            float a[4];
            load<4>(x + i, a);
#pragma unroll
            for (u32 k = 0; k < 4; ++k) a[k] *= factor;
            store<4>(y + i, a);
        },
        [&](u64 i) { y[i] = from_f32<T>(factor * to_f32(x[i])); });
}

extern "C" __global__ void __launch_bounds__(THREADS)
add_assign_f32(float* __restrict__ x, const float* __restrict__ y, u64 count) {
    add(x, y, count);
}

extern "C" __global__ void __launch_bounds__(THREADS)
add_assign_bf16(bf16* __restrict__ x, const bf16* __restrict__ y, u64 count) {
    add(x, y, count);
}

extern "C" __global__ void __launch_bounds__(THREADS)
scale_f32(const float* __restrict__ x, float* __restrict__ y, u64 count, double factor) {
    scale(x, y, count, float(factor));
}

extern "C" __global__ void __launch_bounds__(THREADS)
scale_bf16(const bf16* __restrict__ x, bf16* __restrict__ y, u64 count, double factor) {
    scale(x, y, count, float(factor));
}

// A term whose address is null counts nothing.
extern "C" __global__ void weighted_sum(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ c,
                                        float* __restrict__ total, double weight_a, double weight_b, double weight_c) {
    double sum = 0.0;
    if (a) sum += weight_a * double(*a);
    if (b) sum += weight_b * double(*b);
    if (c) sum += weight_c * double(*c);
    *total = float(sum);
}
