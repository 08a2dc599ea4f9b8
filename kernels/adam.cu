// adam.cu — Adam over all parameters at once, with global-norm clipping; the host waits for nothing.
//
// Computes   norm = sqrt(sum of g^2 over all gradients);  scale = min(1, clip_norm / (norm + 1e-6)) (1 for 0);
//            g' = scale g + weight_decay p;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2;
//            p -= learning_rate m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps).
//            A norm that is not finite changes nothing but `nonfinite_steps`; t counts the steps made
// Shapes     chunks [count] AdamChunk, each at most 16,384 elements of one parameter (f32), in any order that stays the
//            same; partial [count] double scratch; state [1] AdamState. Learning rate and step are in device memory, so
//            that a captured graph can be replayed with other ones
// Launch     adam_norm: grid count, block 256;  adam_prepare: 1 block of 1,024;  adam_update: grid count, block 256
// Cost       4 bytes an element (norm), 28 (update); 2 and 14 flop
// Numerics   the norm in double, so that gradients of 1e20 have one; coefficients in double, the update in f32. A fixed
//            order, so the same bits on every run
// Twin       src/backend/cpu/adam.rs, src/optim/mod.rs   Test tests/kernels/adam.rs   Bench benches/kernels.rs
// Source     Kingma and Ba 2015, algorithm 1; clipping as torch.nn.utils.clip_grad_norm_

#include "common.cuh"

constexpr u32 THREADS = 256;
constexpr u32 PREPARE_THREADS = 1024;

// The three structures are shared with src/backend/cuda/adam.rs.
struct AdamChunk {
    float* param;
    const float* grad;
    float* exp_avg;
    float* exp_avg_sq;
    u64 elems;
};
static_assert(sizeof(AdamChunk) == 40 && __builtin_offsetof(AdamChunk, elems) == 32);

struct AdamConfig {
    double beta1, beta2, eps, weight_decay, clip_norm;
};
static_assert(sizeof(AdamConfig) == 40 && __builtin_offsetof(AdamConfig, clip_norm) == 32);

struct AdamState {
    double learning_rate;  // set by the host
    double norm;           // of this step's gradients, before clipping
    u64 step;              // steps made
    u64 nonfinite_steps;   // steps left out
    // For adam_update.
    float grad_scale, weight_decay, beta1, beta2, rest1, rest2, rate, root, eps;
    u32 finite;            // whether this step is made
};
static_assert(sizeof(AdamState) == 72 && alignof(AdamState) == 8);
static_assert(__builtin_offsetof(AdamState, step) == 16 && __builtin_offsetof(AdamState, grad_scale) == 32);
static_assert(__builtin_offsetof(AdamState, finite) == 68);

// This block's chunk. Its pointers come from memory, so the compiler must be told that they point to global memory.
__device__ __forceinline__ AdamChunk chunk_of_block(const AdamChunk* chunks) {
    const AdamChunk chunk = chunks[blockIdx.x];
    __builtin_assume(__isGlobal(chunk.param) && __isGlobal(chunk.grad));
    __builtin_assume(__isGlobal(chunk.exp_avg) && __isGlobal(chunk.exp_avg_sq));
    return chunk;
}

// Each block: the sum of squares of its chunk.
extern "C" __global__ void __launch_bounds__(THREADS)
adam_norm(const AdamChunk* __restrict__ chunks, double* __restrict__ partial) {
    const AdamChunk chunk = chunk_of_block(chunks);
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < chunk.elems; i += THREADS) {
        const double g = chunk.grad[i];
        sum += g * g;
    }
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// x^n by squaring: pow() is ten times the code and no better for whole exponents.
__device__ __forceinline__ double power(double x, u64 n) {
    double result = 1.0;
    for (; n != 0; n >>= 1, x *= x) {
        if (n & 1) result *= x;
    }
    return result;
}

// From the chunks' sums to what every element needs. One block: the sum's order is fixed, and one thread decides.
extern "C" __global__ void __launch_bounds__(PREPARE_THREADS)
adam_prepare(const double* __restrict__ partial, AdamState* __restrict__ state, u32 count, AdamConfig config) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < count; i += PREPARE_THREADS) sum += partial[i];
    sum = block_sum<PREPARE_THREADS>(sum);
    if (threadIdx.x != 0) return;
    const double norm = sqrt(sum);
    const bool finite = norm - norm == 0.0;  // infinity and NaN give NaN
    state->norm = norm;
    state->finite = finite;
    if (!finite) {
        ++state->nonfinite_steps;
        return;
    }
    const u64 step = ++state->step;
    const double clip = config.clip_norm / (norm + 1e-6);
    state->grad_scale = float(config.clip_norm > 0.0 && clip < 1.0 ? clip : 1.0);
    state->weight_decay = float(config.weight_decay);
    state->beta1 = float(config.beta1), state->rest1 = float(1.0 - config.beta1);
    state->beta2 = float(config.beta2), state->rest2 = float(1.0 - config.beta2);
    state->rate = float(state->learning_rate / (1.0 - power(config.beta1, step)));
    state->root = float(1.0 / sqrt(1.0 - power(config.beta2, step)));
    state->eps = float(config.eps);
}

__device__ __forceinline__ void update(const AdamState& s, float g, float& p, float& m, float& v) {
    g = s.grad_scale * g + s.weight_decay * p;
    m = s.beta1 * m + s.rest1 * g;
    v = s.beta2 * v + s.rest2 * g * g;
    p -= s.rate * m / (sqrtf(v) * s.root + s.eps);
}

extern "C" __global__ void __launch_bounds__(THREADS)
adam_update(const AdamChunk* __restrict__ chunks, const AdamState* __restrict__ state) {
    if (!state->finite) return;
    const AdamState s = *state;
    const AdamChunk chunk = chunk_of_block(chunks);
    const u64 fours = chunk.elems / 4;
    for (u64 i = threadIdx.x; i < fours; i += THREADS) {
        float g[4], p[4], m[4], v[4];
        load<4>(chunk.grad + 4 * i, g);
        load<4>(chunk.param + 4 * i, p);
        load<4>(chunk.exp_avg + 4 * i, m);
        load<4>(chunk.exp_avg_sq + 4 * i, v);
#pragma unroll
        for (u32 k = 0; k < 4; ++k) update(s, g[k], p[k], m[k], v[k]);
        store<4>(chunk.param + 4 * i, p);
        store<4>(chunk.exp_avg + 4 * i, m);
        store<4>(chunk.exp_avg_sq + 4 * i, v);
    }
    for (u64 i = 4 * fours + threadIdx.x; i < chunk.elems; i += THREADS) {
        update(s, chunk.grad[i], chunk.param[i], chunk.exp_avg[i], chunk.exp_avg_sq[i]);
    }
}
