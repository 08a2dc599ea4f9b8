// cast.cu — f32 to bf16 and back; uint8 images to network input.
//
// Computes   y = x, rounded to nearest even (f32 to bf16) or exactly (bf16 to f32)
//            images: y[p, c] = pixels[p, c] / 255 for c < channels, 0 for channels <= c < padded
// Shapes     x, y [count];  pixels [count, channels] uint8, y [count, padded]; a pixel is one (n, h, w) of NHWC
// Launch     grid ceil(count / 1024), block 256: four neighbouring elements a thread; any count, the tail one by one.
//            images: grid ceil(count / 256), block 256: one pixel a thread
// Cost       6 bytes an element (cast);  channels + padded * sizeof(T) bytes a pixel (images); 1 flop an element
// Numerics   the division is correctly rounded, as on the CPU: multiplying by 1/255 is one bit off for 126 levels
// Twin       src/backend/cpu/mod.rs (upload_images)      Test tests/kernels/cast.rs      Bench benches/kernels.rs
// Source     none: definitions

#include "common.cuh"

constexpr u32 THREADS = 256;

template <class From, class To> __device__ __forceinline__ void cast(const From* x, To* y, u64 count) {
    for_four(
        count,
        [&](u64 i) {
            float v[4];
            load<4>(x + i, v);
            store<4>(y + i, v);
        },
        [&](u64 i) { y[i] = from_f32<To>(to_f32(x[i])); });
}

extern "C" __global__ void __launch_bounds__(THREADS)
cast_f32_to_bf16(const float* __restrict__ x, bf16* __restrict__ y, u64 count) {
    cast(x, y, count);
}

extern "C" __global__ void __launch_bounds__(THREADS)
cast_bf16_to_f32(const bf16* __restrict__ x, float* __restrict__ y, u64 count) {
    cast(x, y, count);
}

// The padding is for the stem: tensor cores want its 3 channels to be 4 or 8, and filters padded alike ignore zeros.
template <class T>
__device__ __forceinline__ void images(const u8* pixels, T* y, u64 count, u32 channels, u32 padded) {
    const u64 pixel = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (pixel >= count) return;
    pixels += pixel * channels;
    y += pixel * padded;
    const auto level = [&](u32 c) { return c < channels ? float(pixels[c]) / 255.0f : 0.0f; };
    if (padded % 4 == 0) {
        for (u32 c = 0; c < padded; c += 4) {
            const float v[4] = {level(c), level(c + 1), level(c + 2), level(c + 3)};
            store<4>(y + c, v);
        }
    } else {
        for (u32 c = 0; c < padded; ++c) y[c] = from_f32<T>(level(c));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
cast_images_to_f32(const u8* __restrict__ pixels, float* __restrict__ y, u64 count, u32 channels, u32 padded) {
    images(pixels, y, count, channels, padded);
}

extern "C" __global__ void __launch_bounds__(THREADS)
cast_images_to_bf16(const u8* __restrict__ pixels, bf16* __restrict__ y, u64 count, u32 channels, u32 padded) {
    images(pixels, y, count, channels, padded);
}
