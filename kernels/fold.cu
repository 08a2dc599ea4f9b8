// fold.cu — images as the first convolution takes them best: blocks of pixels become channels, padding is written out.
//
// A convolution of R x S taps, stride f and padding p over few channels C is one of stride 1 without padding over f f C
// channels: with A = ceil(p / f), B = floor((R - 1 - p) / f) it has A + B + 1 taps in each direction, on an image whose pixel
// (i, j) is the f x f block at (i - A, j - A) of the original. Tensor cores then have more channels to multiply, and a
// seventh-by-seventh stem of stride 2 has 4 x 4 taps over 12 channels: 192 products instead of 49 times 8 padded ones.
//
// Computes   images: y[n, i, j, (b, d, c)] = x[n, f (i - A) + b, f (j - A) + d, c], 0 outside of x and in channels that are only
//            padding; uint8 images are divided by 255
//            filter: v[k, a, e, (b, d, c)] = w[k, f (a - A) + b + p, f (e - A) + d + p, c], 0 outside of w and in padding;
//            back: dw[k, r, s, c] = dv[k, a, e, (b, d, c)] with f (a - A) + b + p = r, f (e - A) + d + p = s
// Shapes     x [N, H, W, C] uint8, f32 or bf16; y [N, I, J, F], F >= f f C, F a multiple of 4; w, dw [K, R, S, C] f32;
//            v, dv [K, A + B + 1, A + B + 1, F] f32 or bf16
// Launch     images: grid ceil(N I J / 256), block 256, a folded pixel a thread, where C = 3, f <= 2 and F has no more padding
//            than tensor cores want; else grid ceil(N I J F / 4 / 256), four channels a thread; filter: grid ceil(elements / 256), block 256
// Cost       at least sizeof(x) N H W C + sizeof(y) N I J F bytes (images); filters are small
// Numerics   the division is correctly rounded, as on the CPU; all else is exact, or rounded once to bf16
// Twin       src/backend/cpu/conv2d/mod.rs (the convolution itself)      Test tests/kernels/fold.rs      Bench benches/kernels.rs
// Source     the identity above; NVIDIA's ResNet-50 for MLPerf folds its stem alike

#include "common.cuh"

constexpr u32 THREADS = 256;

// Shared with src/backend/cuda/fold.rs.
struct Fold {
    u32 h, w, c;        // of x
    u32 i, j, channels; // of y; channels is F
    u32 factor;         // f
    u32 border;         // A
    u32 padding;        // p
    u32 taps_in;        // R = S
    u32 taps;           // A + B + 1
};
static_assert(sizeof(Fold) == 44 && alignof(Fold) == 4, "as in fold.rs");

__device__ __forceinline__ float level(u8 x) { return float(x) / 255.0f; }
__device__ __forceinline__ float level(float x) { return x; }
__device__ __forceinline__ float level(bf16 x) { return to_f32(x); }

// Where channel f of a folded pixel comes from.
struct Source {
    u32 b, d, c;
    bool real;
};
__device__ __forceinline__ Source source(u32 f, const Fold& s) {
    const u32 c = f % s.c, block = f / s.c;
    return {block / s.factor, block % s.factor, c, block < s.factor * s.factor};
}

template <class S, class T>
__device__ __forceinline__ void images(const S* x, T* y, u64 count, const Fold& s) {
    const u64 four = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (four >= count) return;
    const u32 fours = s.channels / 4;
    const u32 first = u32(four % fours) * 4;
    const u64 pixel = four / fours;
    const u32 j = u32(pixel % s.j);
    const u64 row = pixel / s.j;
    const u32 i = u32(row % s.i);
    const u64 n = row / s.i;
    float v[4];
#pragma unroll
    for (u32 k = 0; k < 4; ++k) {
        const Source from = source(first + k, s);
        // Below zero wraps round to a number larger than any side.
        const u32 h = s.factor * (i - s.border) + from.b, w = s.factor * (j - s.border) + from.d;
        const bool inside = from.real && h < s.h && w < s.w;
        v[k] = inside ? level(x[((n * s.h + h) * s.w + w) * s.c + from.c]) : 0.0f;
    }
    store<4>(y + four * 4, v);
}

// The same for sizes known when compiled, a folded pixel a thread: nothing is divided but the pixel's own number.
template <u32 FACTOR, u32 C, u32 F, class S, class T>
__device__ __forceinline__ void images_of(const S* x, T* y, u64 count, const Fold& s) {
    const u64 pixel = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (pixel >= count / (F / 4)) return;
    const u32 line = u32(pixel / s.j), j = u32(pixel - u64(line) * s.j), n = line / s.i, i = line - n * s.i;
    const u32 h = FACTOR * (i - s.border), w = FACTOR * (j - s.border);
    x += ((s64(n) * s.h + s32(h)) * s.w + s32(w)) * s64(C);
    float v[F] = {};
#pragma unroll
    for (u32 b = 0; b < FACTOR; ++b) {
#pragma unroll
        for (u32 d = 0; d < FACTOR; ++d) {
            // Below zero wraps round to a number larger than any side.
            if (h + b >= s.h || w + d >= s.w) continue;
#pragma unroll
            for (u32 c = 0; c < C; ++c) v[(b * FACTOR + d) * C + c] = level(x[(s64(b) * s.w + d) * C + c]);
        }
    }
#pragma unroll
    for (u32 f = 0; f < F; f += 4) {
        const float four[4] = {v[f], v[f + 1], v[f + 2], v[f + 3]};
        store<4>(y + pixel * F + f, four);
    }
}

// The stems of networks on RGB have paths of their own.
template <class S, class T> __device__ __forceinline__ void any_images(const S* x, T* y, u64 count, const Fold& s) {
    if (s.c == 3 && s.factor == 2 && s.channels == 16) {
        images_of<2, 3, 16>(x, y, count, s);
    } else if (s.c == 3 && s.factor == 2 && s.channels == 12) {
        images_of<2, 3, 12>(x, y, count, s);
    } else if (s.c == 3 && s.factor == 1 && s.channels == 8) {
        images_of<1, 3, 8>(x, y, count, s);
    } else if (s.c == 3 && s.factor == 1 && s.channels == 4) {
        images_of<1, 3, 4>(x, y, count, s);
    } else {
        images(x, y, count, s);
    }
}

template <class T> __device__ __forceinline__ void filter(const float* w, T* v, u64 count, const Fold& s) {
    const u64 at = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (at >= count) return;
    const Source from = source(u32(at % s.channels), s);
    const u64 tap = at / s.channels;
    const u32 e = u32(tap % s.taps), a = u32(tap / s.taps % s.taps);
    const u64 k = tap / s.taps / s.taps;
    const u32 r = s.factor * (a - s.border) + from.b + s.padding, q = s.factor * (e - s.border) + from.d + s.padding;
    const bool inside = from.real && r < s.taps_in && q < s.taps_in;
    v[at] = from_f32<T>(inside ? w[((k * s.taps_in + r) * s.taps_in + q) * s.c + from.c] : 0.0f);
}

template <class T> __device__ __forceinline__ void back(const T* dv, float* dw, u64 count, const Fold& s) {
    const u64 at = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (at >= count) return;
    const u32 c = u32(at % s.c);
    const u64 tap = at / s.c;
    const u32 q = u32(tap % s.taps_in), r = u32(tap / s.taps_in % s.taps_in);
    const u64 k = tap / s.taps_in / s.taps_in;
    const u32 up = r + s.factor * s.border - s.padding, left = q + s.factor * s.border - s.padding;
    const u32 a = up / s.factor, b = up % s.factor, e = left / s.factor, d = left % s.factor;
    const u32 f = (b * s.factor + d) * s.c + c;
    dw[at] = to_f32(dv[((k * s.taps + a) * s.taps + e) * s.channels + f]);
}

extern "C" __global__ void __launch_bounds__(THREADS)
fold_images_u8_to_f32(const u8* __restrict__ x, float* __restrict__ y, u64 count, Fold shape) {
    any_images(x, y, count, shape);
}

extern "C" __global__ void __launch_bounds__(THREADS)
fold_images_u8_to_bf16(const u8* __restrict__ x, bf16* __restrict__ y, u64 count, Fold shape) {
    any_images(x, y, count, shape);
}

extern "C" __global__ void __launch_bounds__(THREADS)
fold_images_f32(const float* __restrict__ x, float* __restrict__ y, u64 count, Fold shape) {
    any_images(x, y, count, shape);
}

extern "C" __global__ void __launch_bounds__(THREADS)
fold_images_bf16(const bf16* __restrict__ x, bf16* __restrict__ y, u64 count, Fold shape) {
    any_images(x, y, count, shape);
}

extern "C" __global__ void __launch_bounds__(THREADS)
fold_filter_f32(const float* __restrict__ w, float* __restrict__ v, u64 count, Fold shape) {
    filter(w, v, count, shape);
}

extern "C" __global__ void __launch_bounds__(THREADS)
fold_filter_bf16(const float* __restrict__ w, bf16* __restrict__ v, u64 count, Fold shape) {
    filter(w, v, count, shape);
}

extern "C" __global__ void __launch_bounds__(THREADS)
fold_filter_back_f32(const float* __restrict__ dv, float* __restrict__ dw, u64 count, Fold shape) {
    back(dv, dw, count, shape);
}

extern "C" __global__ void __launch_bounds__(THREADS)
fold_filter_back_bf16(const bf16* __restrict__ dv, float* __restrict__ dw, u64 count, Fold shape) {
    back(dv, dw, count, shape);
}
