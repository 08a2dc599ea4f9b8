// adam.cu — Adam over all parameters at once, with global-norm clipping; the host waits for nothing.
//
// Computes   norm = sqrt(sum of g^2 over all gradients);  scale = min(1, clip_norm / (norm + 1e-6)) (1 for 0);
//            g' = scale g + weight_decay p;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2;
//            p -= learning_rate m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps).
//            Kept tensors (running statistics, which the forward pass has changed already): before = value at the
//            beginning of a step. A step is left out if (scale norm)^2 is not finite in f32, the loss is not finite, a kept
//            tensor is not finite, or the step before was left out and the host has not cleared it since: then
//            value = before, and nothing else changes but `left_out` and `nonfinite_steps`; t counts the steps made
// Shapes     chunks [count] AdamChunk, each at most 16,384 elements of one parameter or kept tensor (f32), in any order
//            that stays the same; partial [count] double scratch; loss [1] f32 or null; state [1] AdamState. Learning rate,
//            step and what was left out are in device memory, so that a captured graph can be replayed with other ones
// Launch     adam_keep (kept tensors only), adam_norm: grid count, block 256;  adam_prepare: 1 block of 1,024;  adam_update: grid count, block 256
// Cost       4 bytes an element (norm), 28 (update), 8 (keep); 2, 14 and 0 flop; of a kept tensor 4 in the norm, 0 in the
//            update of a step that is made
// Numerics   the norm in double, so that gradients of 1e20 have one; coefficients in double, the update in f32. A fixed
//            order, so the same bits on every run
// Twin       src/backend/cpu/adam.rs, src/optim/mod.rs   Test tests/kernels/adam.rs   Bench benches/kernels.rs
// Source     Kingma and Ba 2015, algorithm 1; clipping as torch.nn.utils.clip_grad_norm_

#include "common.cuh"

constexpr u32 THREADS = 256;
constexpr u32 PREPARE_THREADS = 1024;

// The largest norm whose square is an f32: beyond it the second moment would be infinite for good.
constexpr double LARGEST_NORM = 1.8446743e19;

// The three structures are shared with src/backend/cuda/adam.rs.
struct AdamChunk {
    float* param;        // or the value of a kept tensor
    const float* grad;   // null: a kept tensor
    float* exp_avg;      // or what a kept tensor was before the step
    float* exp_avg_sq;   // null for a kept tensor
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
    u64 nonfinite_steps;   // steps left out, those after a bad one included
    // For adam_update.
    float grad_scale, weight_decay, beta1, beta2, rest1, rest2, rate, root, eps;
    u32 left_out;          // 1: this step is left out; every later one as well until the host sets 0
};
static_assert(sizeof(AdamState) == 72 && alignof(AdamState) == 8);
static_assert(__builtin_offsetof(AdamState, step) == 16 && __builtin_offsetof(AdamState, grad_scale) == 32);
static_assert(__builtin_offsetof(AdamState, left_out) == 68);

// Pointers in chunks come from memory, so the compiler must be told that they point to global memory.
__device__ __forceinline__ bool is_kept(const AdamChunk& chunk) { return chunk.grad == nullptr; }

// to = from, both of this block's chunk.
__device__ __forceinline__ void copy(const float* from, float* to, u64 elems) {
    __builtin_assume(__isGlobal(from) && __isGlobal(to));
    for (u64 i = threadIdx.x; i < elems; i += THREADS) to[i] = from[i];
}

// Each block: what a kept tensor is before the step.
extern "C" __global__ void __launch_bounds__(THREADS)
adam_keep(const AdamChunk* __restrict__ chunks) {
    const AdamChunk chunk = chunks[blockIdx.x];
    copy(chunk.param, chunk.exp_avg, chunk.elems);
}

// Each block: the sum of squares of its chunk; of a kept tensor 0, or NaN where it is not finite.
extern "C" __global__ void __launch_bounds__(THREADS)
adam_norm(const AdamChunk* __restrict__ chunks, double* __restrict__ partial) {
    const AdamChunk chunk = chunks[blockIdx.x];
    double sum = 0.0;
    if (is_kept(chunk)) {
        __builtin_assume(__isGlobal(chunk.param));
        for (u64 i = threadIdx.x; i < chunk.elems; i += THREADS) {
            const float x = chunk.param[i];
            sum += x - x;  // NaN for infinity and NaN
        }
    } else {
        __builtin_assume(__isGlobal(chunk.grad));
        for (u64 i = threadIdx.x; i < chunk.elems; i += THREADS) {
            const double g = chunk.grad[i];
            sum += g * g;
        }
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
adam_prepare(const double* __restrict__ partial, const float* __restrict__ loss, AdamState* __restrict__ state, u32 count,
             AdamConfig config) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < count; i += PREPARE_THREADS) sum += partial[i];
    sum = block_sum<PREPARE_THREADS>(sum);
    if (threadIdx.x != 0) return;
    const double norm = sqrt(sum);
    const double clip = config.clip_norm / (norm + 1e-6);
    const double scale = config.clip_norm > 0.0 && clip < 1.0 ? clip : 1.0;
    state->norm = norm;
    // Infinity and NaN are not at most anything: 0 times infinity is NaN.
    const bool fits = scale * norm <= LARGEST_NORM;
    const bool finite_loss = loss == nullptr || *loss - *loss == 0.0f;
    // A step after one that was left out waits for the host: the state stays what it was before the bad one.
    if (state->left_out || !fits || !finite_loss) {
        state->left_out = 1;
        ++state->nonfinite_steps;
        return;
    }
    const u64 step = ++state->step;
    state->grad_scale = float(scale);
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
    const AdamChunk chunk = chunks[blockIdx.x];
    if (is_kept(chunk)) {
        if (state->left_out) copy(chunk.exp_avg, chunk.param, chunk.elems);
        return;
    }
    if (state->left_out) return;
    const AdamState s = *state;
    __builtin_assume(__isGlobal(chunk.param) && __isGlobal(chunk.grad));
    __builtin_assume(__isGlobal(chunk.exp_avg) && __isGlobal(chunk.exp_avg_sq));
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
