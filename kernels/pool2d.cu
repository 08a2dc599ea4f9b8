// pool2d.cu — max pooling that keeps its argmax, and global average pooling.
//
// Computes   y[n,p,q,c] = max over taps (r, s) on the image of x[n, p stride + r - padding, q stride + s - padding, c];
//            argmax = r S + s of the first largest in row-major order, of the last NaN where there is one;
//            dx[n,h,w,c] = sum of dy over the outputs whose argmax is this pixel.
//            Average: y[n,c] = mean over H, W of x;  dx = dy / (H W), spread
// Shapes     x, dx [N,H,W,C], y, dy [N,P,Q,C] or [N,C] f32 or bf16; argmax [N,P,Q,C] uint8
// Launch     max_pool_*, global_avg_pool_backward: grid ceil(elements written / 256), block 256, one element a thread;
//            global_avg_pool_forward: grid (ceil(C / 32), N), block 256. Any size; H W < 2^31, R S <= 256, N < 2^16
// Cost       max forward: x once (neighbours share taps through the cache), y and argmax once; backward: the reverse;
//            R S comparisons an output. Average: x once, 1 flop an element
// Numerics   max pooling is exact; its backward adds in the order of outputs in f32, without atomics: each pixel looks
//            up the outputs that may have chosen it. Average: f32, 8 partial sums a channel. The same bits on every run
// Twin       src/backend/cpu/pool2d.rs      Test tests/kernels/pool2d.rs      Bench none yet
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

// Element i of a [N, rows, columns, channels] tensor.
struct Pixel {
    u64 image;
    u32 row, column, channel;
    __device__ __forceinline__ Pixel(u64 i, u32 rows, u32 columns, u32 channels) {
        const u64 pixel = i / channels;
        channel = u32(i - pixel * channels);
        image = pixel / (u64(rows) * columns);
        const u32 inner = u32(pixel - image * rows * columns);
        row = inner / columns;
        column = inner - row * columns;
    }
};

template <class T>
__device__ __forceinline__ void max_forward(const T* x, T* y, u8* argmax, u64 count, const MaxPool& m) {
    const u64 i = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= count) return;
    const Pixel out(i, m.p, m.q, m.channels);
    x += out.image * m.h * m.w * m.channels + out.channel;
    T best = from_f32<T>(-__int_as_float(0x7f800000));
    u32 index = 0;
    bool found = false;
    for (u32 r = 0; r < m.r; ++r) {
        // Above the image the subtraction wraps to a large number, which is outside as well.
        const u32 row = out.row * m.stride + r - m.padding;
        if (row >= m.h) continue;
        for (u32 s = 0; s < m.s; ++s) {
            const u32 column = out.column * m.stride + s - m.padding;
            if (column >= m.w) continue;
            const T value = x[(u64(row) * m.w + column) * m.channels];
            const float v = to_f32(value);
            // The first tap on the image counts even if it is minus infinity.
            if (!found || v > to_f32(best) || v != v) best = value, index = r * m.s + s;
            found = true;
        }
    }
    y[i] = best;
    argmax[i] = u8(index);
}

template <class T>
__device__ __forceinline__ void max_backward(const T* dy, const u8* argmax, T* dx, u64 count, const MaxPool& m) {
    const u64 i = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= count) return;
    const Pixel in(i, m.h, m.w, m.channels);
    const u64 outputs = in.image * m.p * m.q * m.channels + in.channel;
    // Outputs p with p stride <= row + padding < p stride + r.
    const u32 row = in.row + m.padding, column = in.column + m.padding;
    const u32 p_first = row < m.r ? 0 : (row - m.r) / m.stride + 1;
    const u32 q_first = column < m.s ? 0 : (column - m.s) / m.stride + 1;
    float sum = 0.0f;
    for (u32 p = p_first; p < m.p && p * m.stride <= row; ++p) {
        for (u32 q = q_first; q < m.q && q * m.stride <= column; ++q) {
            const u64 at = outputs + (u64(p) * m.q + q) * m.channels;
            const u32 tap = (row - p * m.stride) * m.s + (column - q * m.stride);
            if (argmax[at] == tap) sum += to_f32(dy[at]);
        }
    }
    dx[i] = from_f32<T>(sum);
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
        max_forward(x, y, argmax, count, m);                                                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
    max_pool_backward_##name(const T* __restrict__ dy, const u8* __restrict__ argmax, T* __restrict__ dx, u64 count,   \
                             MaxPool m) {                                                                              \
        max_backward(dy, argmax, dx, count, m);                                                                        \
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
