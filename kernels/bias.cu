// bias.cu — the bias of a linear layer, and its gradient.
//
// Computes   y[r, c] = x[r, c] + b[c];    db[c] = sum_r dy[r, c]
// Shapes     x, y, dy [rows, columns] f32 or bf16; b, db [columns] f32; partial [chunks, columns] f32 scratch
// Launch     grid (ceil(columns / 16 V), chunks), block 256, V = 4 where columns divides by 4, else 1 (columns.cuh);
//            bias_backward_finish: grid ceil(columns / 8), block 512. Any size. bias_add may work in place (y = x).
// Cost       2 sizeof(T) bytes and 1 flop an element (add); sizeof(T) bytes and 1 flop an element (backward)
// Numerics   f32 within a chunk, double across chunks; a fixed order, so the same bits on every run
// Twin       src/backend/cpu/mod.rs (linear_*)   Test tests/kernels/bias.rs   Bench benches/kernels.rs
// Source     none: definitions

#include "columns.cuh"

template <class T, u32 V> __device__ __forceinline__ void add(const T* x, const float* b, T* y, const Columns& m) {
    const Walk w = walk<V>(m);
    if (!w.inside) return;
    float bias[V];
    load<V>(b + w.column, bias);
    for (u64 row = w.first; row < w.last; row += ROW_LANES) {
        float v[V];
        load<V>(x + row * m.columns + w.column, v);
#pragma unroll
        for (u32 i = 0; i < V; ++i) v[i] += bias[i];
        store<V>(y + row * m.columns + w.column, v);
    }
}

template <class T, u32 V> __device__ __forceinline__ void backward(const T* dy, float* partial, const Columns& m) {
    const Walk w = walk<V>(m);
    float sum[V] = {};
    for (u64 row = w.first; row < w.last; row += ROW_LANES) {
        float v[V];
        load<V>(dy + row * m.columns + w.column, v);
#pragma unroll
        for (u32 i = 0; i < V; ++i) sum[i] += v[i];
    }
    lane_sum(w, sum);
    if (w.inside && w.lane == 0) store<V>(partial + partial_at(m, 0, blockIdx.y, 0, 1) + w.column, sum);
}

#define BIAS(T, name)                                                                                    \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                         \
    bias_add_##name(const T* x, const float* __restrict__ b, T* y, Columns m) {                          \
        m.columns % 4 == 0 ? add<T, 4>(x, b, y, m) : add<T, 1>(x, b, y, m);                              \
    }                                                                                                    \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                         \
    bias_backward_##name(const T* __restrict__ dy, float* __restrict__ partial, Columns m) {             \
        m.columns % 4 == 0 ? backward<T, 4>(dy, partial, m) : backward<T, 1>(dy, partial, m);            \
    }
BIAS(float, f32)
BIAS(bf16, bf16)

extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
bias_backward_finish(const float* __restrict__ partial, float* __restrict__ db, Columns m) {
    const double sum = chunk_sum(partial, m, 0, 0, 1);
    const u32 column = blockIdx.x * FINISH_COLUMNS + threadIdx.x;
    if (threadIdx.x < FINISH_COLUMNS && column < m.columns) db[column] = float(sum);
}
