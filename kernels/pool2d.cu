// pool2d.cu — max pooling that keeps its argmax, and global average pooling.
//
// Computes   y[n,p,q,c] = max over taps (r, s) on the image of x[n, p stride + r - padding, q stride + s - padding, c];
//            argmax = r S + s of the first largest in row-major order, of the last NaN where there is one;
//            dx[n,h,w,c] = sum of dy over the outputs whose argmax is this pixel.
//            Average: y[n,c] = mean over H, W of x;  dx = dy / (H W), spread
// Shapes     x, dx [N,H,W,C], y, dy [N,P,Q,C] or [N,C] f32 or bf16; argmax [N,P,Q,C] uint8
// Launch     max_pool_*: grid rows written * ceil(columns C / V / 256), block 256, V neighbouring channels a thread, V = 4 where
//            C divides by 4, else 1 (backward of a 3 x 3 window of stride 2 and padding 1: V channels of 2 x 2 pixels a
//            thread, rows and columns by two); global_avg_pool_backward: grid ceil(elements written / 256), block 256;
//            global_avg_pool_forward: grid (ceil(C / 32), N), block 256. Any size; H W < 2^31, R S <= 256, N < 2^16
// Cost       max forward: x once (neighbours share taps through the cache), y and argmax once; backward: the reverse;
//            R S comparisons an output. Average: x once, 1 flop an element
// Numerics   max pooling is exact; its backward adds in the order of outputs in f32, without atomics: each pixel looks
//            up the outputs that may have chosen it. Average: f32, 8 partial sums a channel. The same bits on every run
// Twin       src/backend/cpu/pool2d.rs      Test tests/kernels/pool2d.rs      Bench benches/kernels.rs
// Source     none: definitions; NaN and ties as PyTorch's max_pool2d

#include "common.cuh"

constexpr u32 THREADS = 256;

// Shared with src/backend/cuda/pool2d.rs.
struct MaxPool {
    u32 h, w;  // input
    u32 p, q;  // output
    u32 channels;
    u32 r, s;  // window
    u32 stride, padding;
};
static_assert(sizeof(MaxPool) == 36 && alignof(MaxPool) == 4);
static_assert(__builtin_offsetof(MaxPool, p) == 8 && __builtin_offsetof(MaxPool, channels) == 16);
static_assert(__builtin_offsetof(MaxPool, r) == 20 && __builtin_offsetof(MaxPool, stride) == 28);

// The V neighbouring channels of a [N, rows, columns, channels] tensor that are a thread's: a block stays in one row, so that
// only small numbers are divided.
template <u32 V> struct Place {
    u32 image, row, column, channel;
    bool inside;
    __device__ __forceinline__ Place(u32 rows, u32 columns, u32 channels) {
        const u32 groups = channels / V, across = columns * groups;
        const u32 blocks = (across + THREADS - 1) / THREADS;
        const u32 line = blockIdx.x / blocks, i = (blockIdx.x - line * blocks) * THREADS + threadIdx.x;
        image = line / rows;
        row = line - image * rows;
        column = i / groups;
        channel = (i - column * groups) * V;
        inside = i < across;
    }
    // Of a channel's pixel in a tensor of these sizes.
    __device__ __forceinline__ u64 at(u32 rows, u32 columns, u32 channels, u32 r, u32 c) const {
        return ((u64(image) * rows + r) * columns + c) * channels + channel;
    }
};

// V bytes: a word for four, which are aligned to it.
template <u32 V> __device__ __forceinline__ void store(u8* p, const u32 (&x)[V]) {
    if constexpr (V == 4) {
        *reinterpret_cast<u32*>(p) = x[0] | x[1] << 8 | x[2] << 16 | x[3] << 24;
    } else {
        *p = u8(x[0]);
    }
}
template <u32 V> __device__ __forceinline__ void load(const u8* p, u32 (&x)[V]) {
    if constexpr (V == 4) {
        const u32 word = *reinterpret_cast<const u32*>(p);
        x[0] = word & 0xff, x[1] = word >> 8 & 0xff, x[2] = word >> 16 & 0xff, x[3] = word >> 24;
    } else {
        x[0] = *p;
    }
}

// TAPS: a square window of that many, stride 2 (the stem's), or 0 for what `m` says.
template <class T, u32 V, u32 TAPS>
__device__ __forceinline__ void max_forward(const T* x, T* y, u8* argmax, u64 count, const MaxPool& m) {
    const Place<V> out(m.p, m.q, m.channels);
    const u64 i = out.at(m.p, m.q, m.channels, out.row, out.column);
    if (!out.inside || i >= count) return;
    const u32 taps_r = TAPS ? TAPS : m.r, taps_s = TAPS ? TAPS : m.s, stride = TAPS ? 2 : m.stride;
    float best[V];
    u32 index[V] = {};
    bool found = false;
#pragma unroll
    for (u32 k = 0; k < V; ++k) best[k] = -__int_as_float(0x7f800000);
#pragma unroll
    for (u32 r = 0; r < taps_r; ++r) {
        // Above the image the subtraction wraps to a large number, which is outside as well.
        const u32 row = out.row * stride + r - m.padding;
        if (row >= m.h) continue;
#pragma unroll
        for (u32 s = 0; s < taps_s; ++s) {
            const u32 column = out.column * stride + s - m.padding;
            if (column >= m.w) continue;
            float v[V];
            load<V>(x + out.at(m.h, m.w, m.channels, row, column), v);
#pragma unroll
            for (u32 k = 0; k < V; ++k) {
                // The first tap on the image counts even if it is minus infinity.
                if (!found || v[k] > best[k] || v[k] != v[k]) best[k] = v[k], index[k] = r * taps_s + s;
            }
            found = true;
        }
    }
    store<V>(y + i, best);
    store<V>(argmax + i, index);
}

template <class T, u32 V>
__device__ __forceinline__ void max_backward(const T* dy, const u8* argmax, T* dx, u64 count, const MaxPool& m) {
    const Place<V> in(m.h, m.w, m.channels);
    const u64 i = in.at(m.h, m.w, m.channels, in.row, in.column);
    if (!in.inside || i >= count) return;
    // Outputs p with p stride <= row + padding < p stride + r.
    const u32 row = in.row + m.padding, column = in.column + m.padding;
    const u32 p_first = row < m.r ? 0 : (row - m.r) / m.stride + 1;
    const u32 q_first = column < m.s ? 0 : (column - m.s) / m.stride + 1;
    float sum[V] = {};
    for (u32 p = p_first; p < m.p && p * m.stride <= row; ++p) {
        for (u32 q = q_first; q < m.q && q * m.stride <= column; ++q) {
            const u64 at = in.at(m.p, m.q, m.channels, p, q);
            const u32 tap = (row - p * m.stride) * m.s + (column - q * m.stride);
            u32 chosen[V];
            float g[V];
            load<V>(argmax + at, chosen);
            load<V>(dy + at, g);
#pragma unroll
            for (u32 k = 0; k < V; ++k) sum[k] += chosen[k] == tap ? g[k] : 0.0f;
        }
    }
    store<V>(dx + i, sum);
}

// The same for a window of 3 x 3, stride 2, padding 1, on blocks of 2 x 2 pixels: together they look at 2 x 2 outputs, each
// of which is loaded once instead of up to four times.
template <class T> __device__ __forceinline__ void max_backward_stem(const T* dy, const u8* argmax, T* dx, const MaxPool& m) {
    const Place<4> in((m.h + 1) / 2, (m.w + 1) / 2, m.channels);
    if (!in.inside) return;
    u32 chosen[2][2][4];
    float g[2][2][4];
#pragma unroll
    for (u32 p = 0; p < 2; ++p) {
#pragma unroll
        for (u32 q = 0; q < 2; ++q) {
#pragma unroll
            for (u32 k = 0; k < 4; ++k) chosen[p][q][k] = 9, g[p][q][k] = 0.0f;
            if (in.row + p < m.p && in.column + q < m.q) {
                const u64 at = in.at(m.p, m.q, m.channels, in.row + p, in.column + q);
                load<4>(argmax + at, chosen[p][q]);
                load<4>(dy + at, g[p][q]);
            }
        }
    }
#pragma unroll
    for (u32 h = 0; h < 2; ++h) {
#pragma unroll
        for (u32 w = 0; w < 2; ++w) {
            if (2 * in.row + h >= m.h || 2 * in.column + w >= m.w) continue;
            float sum[4] = {};
            // The second pixel lies in the windows of both outputs, as their last and first; the first in that of one.
#pragma unroll
            for (u32 p = 0; p <= h; ++p) {
#pragma unroll
                for (u32 q = 0; q <= w; ++q) {
                    const u32 tap = (1 + h - 2 * p) * 3 + 1 + w - 2 * q;
#pragma unroll
                    for (u32 k = 0; k < 4; ++k) sum[k] += chosen[p][q][k] == tap ? g[p][q][k] : 0.0f;
                }
            }
            store<4>(dx + in.at(m.h, m.w, m.channels, 2 * in.row + h, 2 * in.column + w), sum);
        }
    }
}

constexpr u32 AVG_LANES = THREADS / WARP;

template <class T> __device__ __forceinline__ void avg_forward(const T* x, T* y, u32 pixels, u32 channels) {
    __shared__ float lanes[AVG_LANES][WARP];
    const u32 across = threadIdx.x % WARP, lane = threadIdx.x / WARP, channel = blockIdx.x * WARP + across;
    x += u64(blockIdx.y) * pixels * channels;
    float sum = 0.0f;
    if (channel < channels) {
        for (u32 pixel = lane; pixel < pixels; pixel += AVG_LANES) sum += to_f32(x[u64(pixel) * channels + channel]);
    }
    lanes[lane][across] = sum;
    __syncthreads();  // all lanes have written before lane 0 reads
    if (lane != 0 || channel >= channels) return;
    for (u32 i = 1; i < AVG_LANES; ++i) sum += lanes[i][across];
    y[u64(blockIdx.y) * channels + channel] = from_f32<T>(sum / float(pixels));
}

template <class T>
__device__ __forceinline__ void avg_backward(const T* dy, T* dx, u64 count, u32 pixels, u32 channels) {
    const u64 i = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= count) return;
    const u64 pixel = i / channels;
    dx[i] = from_f32<T>(to_f32(dy[pixel / pixels * channels + (i - pixel * channels)]) / float(pixels));
}

#define POOL2D(T, name)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
    max_pool_forward_##name(const T* __restrict__ x, T* __restrict__ y, u8* __restrict__ argmax, u64 count,            \
                            MaxPool m) {                                                                               \
        const bool stem = m.r == 3 && m.s == 3 && m.stride == 2;                                                       \
        m.channels % 4   ? max_forward<T, 1, 0>(x, y, argmax, count, m)                                                \
        : stem           ? max_forward<T, 4, 3>(x, y, argmax, count, m)                                                \
                         : max_forward<T, 4, 0>(x, y, argmax, count, m);                                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
    max_pool_backward_##name(const T* __restrict__ dy, const u8* __restrict__ argmax, T* __restrict__ dx, u64 count,   \
                             MaxPool m) {                                                                              \
        const bool stem = m.r == 3 && m.s == 3 && m.stride == 2 && m.padding == 1;                                     \
        m.channels % 4   ? max_backward<T, 1>(dy, argmax, dx, count, m)                                                \
        : stem           ? max_backward_stem(dy, argmax, dx, m)                                                        \
                         : max_backward<T, 4>(dy, argmax, dx, count, m);                                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
    global_avg_pool_forward_##name(const T* __restrict__ x, T* __restrict__ y, u32 pixels, u32 channels) {             \
        avg_forward(x, y, pixels, channels);                                                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
    global_avg_pool_backward_##name(const T* __restrict__ dy, T* __restrict__ dx, u64 count, u32 pixels,               \
                                    u32 channels) {                                                                    \
        avg_backward(dy, dx, count, pixels, channels);                                                                 \
    }
POOL2D(float, f32)
POOL2D(bf16, bf16)
