// columns.cuh — how batch_norm.cu and bias.cu walk a row-major [rows, columns] matrix to reduce over its rows.
//
// A block is 16 threads across columns by 16 row lanes. A thread has V neighbouring columns (4 where columns divides by
// 4, else 1), so with V = 4 a row of bf16 is 128 contiguous bytes a half-warp; it goes down the rows of one chunk in
// steps of 16. grid.x: groups of 16 V columns; grid.y: chunks of rows; grid.z: views. The host cuts chunks by the shape
// alone, so that sums are added in the same order on every device.
#pragma once
#include "common.cuh"

// Shared with src/backend/cuda/columns.rs.
struct Columns {
    u64 rows;        // of one view
    u64 chunk_rows;  // of every chunk but perhaps a view's last
    u32 columns;
    u32 views;       // equal parts of the matrix, one behind the other
    u32 chunks;      // of one view: ceil(rows / chunk_rows)
    u32 reserved;
};
static_assert(sizeof(Columns) == 32 && alignof(Columns) == 8);
static_assert(__builtin_offsetof(Columns, chunk_rows) == 8 && __builtin_offsetof(Columns, columns) == 16);
static_assert(__builtin_offsetof(Columns, views) == 20 && __builtin_offsetof(Columns, chunks) == 24);

constexpr u32 ACROSS = 16;     // threads side by side in a row
constexpr u32 ROW_LANES = 16;  // rows at once
constexpr u32 COLUMN_THREADS = ACROSS * ROW_LANES;

// What one thread walks: rows first, first + 16, ... < last of the whole matrix; empty where the columns end.
struct Walk {
    u64 first, last;
    u64 column;
    u32 lane;
    bool inside;
};

template <u32 V> __device__ __forceinline__ Walk walk(const Columns& m) {
    Walk w;
    w.column = (u64(blockIdx.x) * ACROSS + threadIdx.x % ACROSS) * V;
    w.lane = threadIdx.x / ACROSS;
    w.inside = w.column < m.columns;
    const u64 start = u64(blockIdx.y) * m.chunk_rows;
    const u64 end = start + m.chunk_rows < m.rows ? start + m.chunk_rows : m.rows;
    const u64 view = u64(blockIdx.z) * m.rows;
    w.last = view + end;
    w.first = w.inside ? view + start + w.lane : w.last;
    return w;
}

// Rows of a chunk that fall to a row lane.
__device__ __forceinline__ u64 lane_rows(u64 chunk_rows, u32 lane) {
    return chunk_rows > lane ? (chunk_rows - lane + ROW_LANES - 1) / ROW_LANES : 0;
}

// Adds up N values of each of the 16 row lanes, lane by lane; the sum is in lane 0. By all threads, once per kernel.
template <u32 N> __device__ __forceinline__ void lane_sum(const Walk& w, float (&x)[N]) {
    __shared__ float lanes[ROW_LANES][N][ACROSS];
#pragma unroll
    for (u32 i = 0; i < N; ++i) lanes[w.lane][i][threadIdx.x % ACROSS] = x[i];
    __syncthreads();  // all lanes have written before lane 0 reads
    if (w.lane != 0) return;
    for (u32 lane = 1; lane < ROW_LANES; ++lane) {
#pragma unroll
        for (u32 i = 0; i < N; ++i) x[i] += lanes[lane][i][threadIdx.x];
    }
}

// Where a chunk's partial results lie: [view][chunk][quantity][column].
__device__ __forceinline__ u64 partial_at(const Columns& m, u32 view, u32 chunk, u32 quantity, u32 quantities) {
    return ((u64(view) * m.chunks + chunk) * quantities + quantity) * m.columns;
}

// The kernels that combine chunks: 8 columns by 64 lanes, each taking every 64th chunk; grid ceil(columns / 8). What they
// take is waiting for memory, not moving it: 32 columns by 8 lanes took 122 us at 64 channels on an H100.
constexpr u32 FINISH_COLUMNS = 8;
constexpr u32 FINISH_LANES = 64;
constexpr u32 FINISH_THREADS = FINISH_COLUMNS * FINISH_LANES;

// The sum over chunks of value(chunk), in double precision, by a tree over the lanes: the same on every device, and in every
// thread of the column. By all threads; ends behind a barrier, so it can be called again.
template <class Value> __device__ __forceinline__ double sum_over_chunks(const Columns& m, bool inside, Value value) {
    __shared__ double lanes[FINISH_LANES][FINISH_COLUMNS];
    const u32 x = threadIdx.x % FINISH_COLUMNS, lane = threadIdx.x / FINISH_COLUMNS;
    double sum = 0.0;
    if (inside) {
#pragma unroll 4
        for (u32 chunk = lane; chunk < m.chunks; chunk += FINISH_LANES) sum += value(chunk);
    }
    lanes[lane][x] = sum;
    for (u32 half = FINISH_LANES / 2; half > 0; half /= 2) {
        __syncthreads();  // the upper half has written before the lower reads
        if (lane < half) lanes[lane][x] += lanes[lane + half][x];
    }
    __syncthreads();  // lane 0 has written before all read
    sum = lanes[0][x];
    __syncthreads();  // all have read before the next call writes
    return sum;
}

// The sum over a view's chunks of one quantity of one column. As above.
__device__ __forceinline__ double chunk_sum(const float* partial, const Columns& m, u32 view, u32 quantity,
                                            u32 quantities) {
    const u32 column = blockIdx.x * FINISH_COLUMNS + threadIdx.x % FINISH_COLUMNS;
    return sum_over_chunks(m, column < m.columns, [&](u32 chunk) {
        return double(partial[partial_at(m, view, chunk, quantity, quantities) + column]);
    });
}
