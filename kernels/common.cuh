// common.cuh — what the kernels share: bf16 as bits, loads and stores that compute in f32, reductions in a fixed order.
//
// No CUDA header is included: bf16 needs one instruction, and headers that are not ours would raise the PTX ISA and the
// text the virtual GPU must run. Functions are inline, never static: nvcc names static ones after its folder.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using s32 = int;
using s64 = long long;

// A bfloat16 in memory: the upper half of an f32.
struct alignas(2) bf16 {
    u16 bits;
};
// Four of them: one load of 8 bytes.
struct alignas(8) bf16x4 {
    bf16 lane[4];
};

constexpr u32 WARP = 32;

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

template <class T> __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x) { return x; }
// To the nearest, ties to even; NaN stays NaN.
template <> __device__ __forceinline__ bf16 from_f32<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// V neighbouring elements. With V = 4, p is aligned to four elements.
template <u32 V> __device__ __forceinline__ void load(const float* p, float (&x)[V]) {
    if constexpr (V == 4) {
        const float4 v = *reinterpret_cast<const float4*>(p);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
        static_assert(V == 1);
        x[0] = *p;
    }
}
template <u32 V> __device__ __forceinline__ void load(const bf16* p, float (&x)[V]) {
    if constexpr (V == 4) {
        const uint2 v = *reinterpret_cast<const uint2*>(p);
        x[0] = __uint_as_float(v.x << 16), x[1] = __uint_as_float(v.x & 0xffff0000u);
        x[2] = __uint_as_float(v.y << 16), x[3] = __uint_as_float(v.y & 0xffff0000u);
    } else {
        static_assert(V == 1);
        x[0] = to_f32(*p);
    }
}
template <u32 V> __device__ __forceinline__ void store(float* p, const float (&x)[V]) {
    if constexpr (V == 4) {
        *reinterpret_cast<float4*>(p) = make_float4(x[0], x[1], x[2], x[3]);
    } else {
        static_assert(V == 1);
        *p = x[0];
    }
}
// Two f32 as two bf16 in one word, `low` at the lower address.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
template <u32 V> __device__ __forceinline__ void store(bf16* p, const float (&x)[V]) {
    if constexpr (V == 4) {
        *reinterpret_cast<uint2*>(p) = make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
    } else {
        static_assert(V == 1);
        *p = from_f32<bf16>(x[0]);
    }
}

// Elements [first, count) of a flat array in steps of four, from `body(i)` for four and `tail(i)` for one.
// Each thread has one step: a launch is ceil(count / (4 * blockDim.x)) blocks.
constexpr u32 ELEMENTS_PER_THREAD = 4;
template <class Body, class Tail> __device__ __forceinline__ void for_four(u64 count, Body body, Tail tail) {
    const u64 first = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * ELEMENTS_PER_THREAD;
    if (first + ELEMENTS_PER_THREAD <= count) {
        body(first);
    } else {
#pragma unroll 1  // at most three, in one thread of the grid
        for (u64 i = first; i < count; ++i) tail(i);
    }
}

// x of the lane whose number differs by `distance` in its bits; all 32 lanes take part. In PTX, as CUDA's
// __shfl_xor_sync is a static function.
__device__ __forceinline__ u32 shuffle_xor(u32 x, u32 distance) {
    u32 y;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(y) : "r"(x), "r"(distance));
    return y;
}
__device__ __forceinline__ float shuffle_xor(float x, u32 distance) {
    return __uint_as_float(shuffle_xor(__float_as_uint(x), distance));
}
__device__ __forceinline__ double shuffle_xor(double x, u32 distance) {
    u32 low, high;
    asm("mov.b64 {%0, %1}, %2;" : "=r"(low), "=r"(high) : "d"(x));
    low = shuffle_xor(low, distance), high = shuffle_xor(high, distance);
    asm("mov.b64 %0, {%1, %2};" : "=d"(x) : "r"(low), "r"(high));
    return x;
}

// Sum over a warp, in every lane; all 32 lanes take part. The tree is fixed: the same bits on every run.
template <class T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (u32 distance = WARP / 2; distance > 0; distance /= 2) x += shuffle_xor(x, distance);
    return x;
}

// Sum over a block of THREADS, in thread 0 (elsewhere a part of it). To be called by all its threads, once per kernel:
// a second call would need a barrier between the reads of the first and its own writes.
template <u32 THREADS, class T> __device__ __forceinline__ T block_sum(T x) {
    static_assert(THREADS % WARP == 0 && THREADS <= 1024);
    __shared__ T warps[THREADS / WARP];
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = x;
    __syncthreads();  // every warp's sum is written before the first warp reads them
    if (threadIdx.x < WARP) x = warp_sum(threadIdx.x < THREADS / WARP ? warps[threadIdx.x] : T(0));
    return x;
}
