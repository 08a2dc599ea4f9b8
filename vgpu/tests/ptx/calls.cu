// Kernels that call functions: what nvcc makes of them is kept beside this file.
// nvcc -ptx -arch=compute_80 -std=c++17 -lineinfo -o calls.sm_80.ptx calls.cu   (and compute_90)
#include <cassert>
#include <cstdio>

__device__ __noinline__ float twice(float x, int *calls) {
    *calls += 1;
    return 2.f * x;
}

__device__ __noinline__ float grow(float x) {
    if (x < 3.f) return -1.f;
    for (int i = 0; i < 3; i++) {
        if (x > 20.f) return x;
        x *= 2.f;
    }
    return x;
}

struct Pair { float sum; int parts[3]; };

__device__ __noinline__ Pair add(Pair p, float x) {
    int calls = 0;
    p.sum += twice(x, &calls);
    p.parts[calls] = (int)x;
    return p;
}

// Functions with returns in the middle, with a structure in and out, and one inside the other.
extern "C" __global__ void calls(const float *x, float *out, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    int calls = 0;
    float v = twice(twice(x[i], &calls), &calls);
    Pair p = {1.f, {10, 20, 30}};
    p = add(p, x[i]);
    out[i] = v + calls + grow(x[i]) + p.sum + p.parts[0] + p.parts[1] + p.parts[2];
}

extern "C" __global__ void prints(int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) printf("%d of %u: %.2f %s %c|%4d|%-4d|%llx 100%%\n", i, n, i * 0.5, "text", 'c', -i, i, 0x123456789abcull + i);
}

extern "C" __global__ void asserts(const int *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) assert(x[i] >= 0);
}
