// Kernels whose PTX is kept beside this file: what nvcc makes of loops, tiles, copies and header functions.
// nvcc -ptx -arch=compute_80 -std=c++17 -lineinfo -o kernels.sm_80.ptx kernels.cu   (and compute_90)
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" __global__ void axpy(int n, float a, const float *x, float *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}

// Sum of a row by one block, any number of threads.
extern "C" __global__ void row_sum(const float *x, float *out, int columns) {
    __shared__ float part[32];
    float sum = 0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) sum += x[(size_t)blockIdx.x * columns + i];
    for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(~0u, sum, step);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0;
        for (int w = 0; w < (blockDim.x + 31) / 32; w++) total += part[w];
        out[blockIdx.x] = total;
    }
}

// Lanes with loops of different lengths, one inside the other, and early ends.
extern "C" __global__ void collatz(const unsigned *x, unsigned *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned v = x[i], steps = 0;
    while (v != 1) {
        if (v & 1) v = 3 * v + 1;
        else do { v >>= 1; steps++; } while (!(v & 1));
        if (v != 1 && (v & 1)) steps += 0;
        if (++steps > 500) break;
    }
    out[i] = steps;
}

struct Element { float mean; int count; };
__constant__ float offset[2];
__device__ unsigned launches;

// A structure by value, .const, a .global variable, local memory indexed at run time.
struct Options { float scale; int n; float weights[4]; };
extern "C" __global__ void options(Options o, float *out, int shift) {
    int i = threadIdx.x;
    float local[8];
    for (int k = 0; k < 8; k++) local[k] = o.weights[k & 3] * k;
    if (i < o.n) out[i] = o.scale * local[(i + shift) & 7] + offset[i & 1];
    if (i == 0) atomicAdd(&launches, 1u);
}

// 16-bit arithmetic of the toolkit's headers.
extern "C" __global__ void narrow(const float2 *x, __nv_bfloat162 *b, __half2 *h, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    __nv_bfloat162 v = __floats2bfloat162_rn(x[i].x, x[i].y);
    b[i] = __hfma2(v, v, __hmax2(v, __hneg2(v)));
    __half2 w = __floats2half2_rn(x[i].x, x[i].y);
    h[i] = __hadd2(__hmul2(w, w), w);
}

// Functions of the mathematical library.
extern "C" __global__ void math(const float *x, float *out, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    out[i] = expf(v) + logf(fabsf(v) + 1.f) + sinf(v) + tanhf(v) + log1pf(fabsf(v)) + rsqrtf(fabsf(v) + .5f) + erff(v) +
             cosf(v * 1e5f) + powf(fabsf(v), 1.5f) + (float)exp((double)v) + v / (fabsf(v) + 3.f) + fminf(v, .25f);
}

// 64x64 tile of a b^T in bf16, 128 threads, copies in two stages.
extern "C" __global__ void __launch_bounds__(128) tile(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, int k) {
    __shared__ __align__(16) __nv_bfloat16 sa[2][64][40], sb[2][64][40];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, in = lane % 4;
    float acc[8][4] = {};
    auto fetch = [&](int stage, int k0) {
        for (int e = threadIdx.x; e < 256; e += 128) {
            int row = e / 4, col = e % 4 * 8;
            unsigned to_a = __cvta_generic_to_shared(&sa[stage][row][col]), to_b = __cvta_generic_to_shared(&sb[stage][row][col]);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to_a), "l"(a + (size_t)row * k + k0 + col));
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to_b), "l"(b + (size_t)row * k + k0 + col));
        }
        asm volatile("cp.async.commit_group;");
    };
    fetch(0, 0);
    for (int k0 = 0; k0 < k; k0 += 32) {
        int stage = k0 / 32 & 1;
        if (k0 + 32 < k) {
            fetch(stage ^ 1, k0 + 32);
            asm volatile("cp.async.wait_group 1;");
        } else asm volatile("cp.async.wait_group 0;");
        __syncthreads();
        for (int kk = 0; kk < 32; kk += 16) {
            unsigned r[4], at = __cvta_generic_to_shared(&sa[stage][warp * 16 + lane % 16][kk + lane / 16 * 8]);
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                         : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
            for (int j = 0; j < 8; j++) {
                unsigned b0 = *(unsigned *)&sb[stage][j * 8 + group][kk + in * 2], b1 = *(unsigned *)&sb[stage][j * 8 + group][kk + in * 2 + 8];
                asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                             : "+f"(acc[j][0]), "+f"(acc[j][1]), "+f"(acc[j][2]), "+f"(acc[j][3])
                             : "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]), "r"(b0), "r"(b1));
            }
        }
        __syncthreads();
    }
    for (int j = 0; j < 8; j++)
        for (int q = 0; q < 4; q++) c[(warp * 16 + group + q / 2 * 8) * 64 + j * 8 + in * 2 + q % 2] = acc[j][q];
}
