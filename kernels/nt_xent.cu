// nt_xent.cu — NT-Xent, forward and backward, fused: the 2R x 2R similarities never reach memory.
//
// Computes   for samples a_i of z, u_i = a_i / max(|a_i|, 1e-12), s_ik = u_i . u_k, p(i) = i + R mod 2R, temperature t:
//            lse_i = log sum_{k != i} exp(s_ik / t);  loss = 1/2R sum_i (lse_i - s_i,p(i) / t)
//            du_i = dloss / (2R t) sum_{k != i} (exp(s_ik / t - lse_i) + exp(s_ik / t - lse_k) - 2 [k = p(i)]) u_k
//            da_i = (du_i - u_i (u_i . du_i)) / |a_i|, or du_i / 1e-12 where the norm was clamped
// Shapes     count = 2R samples of dim elements. z, dz f32 or bf16: rows [count, dim]; columns [2 dim, count / 2],
//            where sample v K + h is column h of the v-th half of the rows. unit [count, words] f32 or bf16, a row
//            padded with zeros to a multiple of 16 words of 32 bits; norm, lse, positive [count] f32; loss, dloss [1]
//            f32. Scratch, f32: largest, sum [splits, count]; partial [splits, rows of the slice, dim]
// Launch     normalise: rows grid ceil(count / 8), columns grid ceil(count / 32), block 256;
//            forward: grid (ceil(count / 64), splits), block 256;  forward_finish: 1 block of 1,024;
//            backward: grid (ceil(slice rows / 64), splits, ceil(dim / 128)), block 256;
//            backward_finish: rows grid ceil(slice rows / 8), columns grid ceil(slice rows / 32), block 256.
//            Any count and dim (tails masked). Splits share the columns where there are few rows; slices of rows, one
//            launch after the other, bound the scratch where there are many
// Cost       forward 2 count^2 dim flop, backward 4 count^2 dim (2 more for each further 128 of dim); unit is read
//            count / 64 times from the L2 cache, everything else once or twice
// Numerics   norms and the projection in double; similarities by FMA in f32, or by tensor cores on tf32 or bf16 samples
//            (weights of the backward too) with f32 sums; the largest term is taken out of every log-sum-exp; NaN is
//            carried. No atomics and a fixed order, so the same bits on every run
// Twin       src/backend/cpu/nt_xent.rs      Test tests/kernels/nt_xent.rs      Bench benches/kernels.rs
// Source     Chen et al. 2020, eq. 1; online softmax: Milakov and Gimelshein 2018

#include "nt_xent_tile.cuh"

constexpr u32 THREADS = 256;
constexpr u32 FINISH_THREADS = 1024;
constexpr double MIN_NORM = 1e-12;
// Where a search for the largest cosine begins. Finite, so that taking it from itself is not NaN.
constexpr float LOWEST = -3e38f;

// Shared with src/backend/cuda/nt_xent.rs.
struct NtXent {
    u32 count;            // samples, 2R
    u32 dim;              // elements of a sample
    u32 words;            // of 32 bits, of a padded sample
    u32 tiles_per_split;  // of 64 samples
    u32 first;            // sample of the slice: backward
    u32 rows;             // samples of the slice: backward
    double temperature;
};
static_assert(sizeof(NtXent) == 32 && alignof(NtXent) == 8);
static_assert(__builtin_offsetof(NtXent, words) == 8 && __builtin_offsetof(NtXent, first) == 16);
static_assert(__builtin_offsetof(NtXent, temperature) == 24);

__device__ __forceinline__ u32 positive_of(u32 i, u32 count) { return i < count / 2 ? i + count / 2 : i - count / 2; }

__device__ __forceinline__ u32 smaller(u32 a, u32 b) { return a < b ? a : b; }

// Position in a matrix of columns of element j of sample i.
__device__ __forceinline__ u64 column_at(const NtXent& n, u32 i, u32 j) {
    const u32 heads = n.count / 2, view = i / heads;
    return (u64(view) * n.dim + j) * heads + (i - view * heads);
}

// -- Unit samples -----------------------------------------------------------------------------------------------------

// Written so that NaN stays NaN.
__device__ __forceinline__ double clamped(double norm) { return norm < MIN_NORM ? MIN_NORM : norm; }

template <class P> __device__ __forceinline__ typename P::T unit_element(float z, double inverse) {
    const float u = float(double(z) * inverse);
    return from_f32<typename P::T>(P::rounded(u));
}
// What a precision stores.
struct StoreF32 {
    using T = float;
    static constexpr u32 PER_WORD = 1;
    static __device__ __forceinline__ float rounded(float u) { return u; }
};
struct StoreTf32 : StoreF32 {
    static __device__ __forceinline__ float rounded(float u) { return round_tf32(u); }
};
struct StoreBf16 {
    using T = bf16;
    static constexpr u32 PER_WORD = 2;
    static __device__ __forceinline__ float rounded(float u) { return u; }
};

// A warp a sample.
template <class P>
__device__ __forceinline__ void normalise_rows(const typename P::T* z, typename P::T* unit, float* norm,
                                               const NtXent& n) {
    const u32 lane = threadIdx.x % WARP;
    const u64 sample = u64(blockIdx.x) * (THREADS / WARP) + threadIdx.x / WARP;
    if (sample >= n.count) return;  // a whole warp: those that stay shuffle among themselves
    z += sample * n.dim;
    unit += sample * n.words * P::PER_WORD;
    double sum = 0.0;
    for (u32 j = lane; j < n.dim; j += WARP) sum += double(to_f32(z[j])) * to_f32(z[j]);
    const double length = sqrt(warp_sum(sum)), inverse = 1.0 / clamped(length);
    if (lane == 0) norm[sample] = float(length);
    for (u32 j = lane; j < n.words * P::PER_WORD; j += WARP) {
        unit[j] = j < n.dim ? unit_element<P>(to_f32(z[j]), inverse) : from_f32<typename P::T>(0.0f);
    }
}

// 32 neighbouring samples a block. Memory is read across samples and written along them, through a tile that is one
// wider than it need be, so that columns of it lie in different banks.
template <class P>
__device__ __forceinline__ void normalise_columns(const typename P::T* z, typename P::T* unit, float* norm,
                                                  const NtXent& n) {
    __shared__ double sums[8][32];
    __shared__ float tile[32][33];
    const u32 x = threadIdx.x % 32, lane = threadIdx.x / 32, first = blockIdx.x * 32;
    const u32 sample = first + x;
    double sum = 0.0;
    if (sample < n.count) {
        for (u32 j = lane; j < n.dim; j += 8) {
            const double v = to_f32(z[column_at(n, sample, j)]);
            sum += v * v;
        }
    }
    sums[lane][x] = sum;
    __syncthreads();  // every lane's sum is written before all are added
    sum = 0.0;
    for (u32 i = 0; i < 8; ++i) sum += sums[i][x];
    const double length = sqrt(sum), inverse = 1.0 / clamped(length);
    if (lane == 0 && sample < n.count) norm[sample] = float(length);
    const u32 padded = n.words * P::PER_WORD;
    for (u32 j0 = 0; j0 < padded; j0 += 32) {
        for (u32 i = lane; i < 32; i += 8) {
            const u32 j = j0 + i;
            const bool inside = sample < n.count && j < n.dim;
            tile[i][x] = inside ? to_f32(unit_element<P>(to_f32(z[column_at(n, sample, j)]), inverse)) : 0.0f;
        }
        __syncthreads();  // the tile is written before it is read the other way
        for (u32 i = lane; i < 32; i += 8) {
            if (first + i < n.count && j0 + x < padded) {
                unit[u64(first + i) * padded + j0 + x] = from_f32<typename P::T>(tile[x][i]);
            }
        }
        __syncthreads();  // it is read before the next is written
    }
}

// -- Forward ----------------------------------------------------------------------------------------------------------

// Per row: the largest cosine to another sample of this split, and the sum of exp((s - largest) / t) over them.
template <class P>
__device__ __forceinline__ void forward(const u32* unit, float* largest, float* sum, float* positive, const NtXent& n) {
    __shared__ SimilarityTiles<P> tiles;
    __shared__ float2 rows[TILE][P::SHARERS + 1];
    const float rate = float(1.0 / n.temperature);
    const u32 row = blockIdx.x * TILE, tile_count = (n.count + TILE - 1) / TILE;
    const u32 start = blockIdx.y * n.tiles_per_split, end = smaller(start + n.tiles_per_split, tile_count);
    float top[P::SLOTS], total[P::SLOTS];
#pragma unroll
    for (u32 slot = 0; slot < P::SLOTS; ++slot) top[slot] = LOWEST, total[slot] = 0.0f;
    for (u32 tile = start; tile < end; ++tile) {
        float s[16];
        similarities<P>(unit, n.words, n.count, row, tile * TILE, tiles, s);
        float next[P::SLOTS];
        bool counts[16];
#pragma unroll
        for (u32 slot = 0; slot < P::SLOTS; ++slot) next[slot] = top[slot];
#pragma unroll
        for (u32 e = 0; e < 16; ++e) {
            const u32 i = row + P::row(P::slot(e)), k = tile * TILE + P::column(e);
            counts[e] = k < n.count && k != i;
            if (counts[e]) next[P::slot(e)] = fmaxf(next[P::slot(e)], s[e]);  // skips NaN; the sum does not
            if (i < n.count && k == positive_of(i, n.count)) positive[i] = s[e];  // one thread of the grid
        }
#pragma unroll
        for (u32 slot = 0; slot < P::SLOTS; ++slot) {
            total[slot] *= expf((top[slot] - next[slot]) * rate);
            top[slot] = next[slot];
        }
#pragma unroll
        for (u32 e = 0; e < 16; ++e) {
            if (counts[e]) total[P::slot(e)] += expf((s[e] - top[P::slot(e)]) * rate);
        }
    }
#pragma unroll
    for (u32 slot = 0; slot < P::SLOTS; ++slot) {
        rows[P::row(slot)][P::sharer()] = make_float2(top[slot], total[slot]);
    }
    __syncthreads();  // every thread's part of a row is written before one thread puts them together
    const u32 i = row + threadIdx.x;
    if (threadIdx.x >= TILE || i >= n.count) return;
    float2 all = rows[threadIdx.x][0];
    for (u32 k = 1; k < P::SHARERS; ++k) {
        const float2 part = rows[threadIdx.x][k];
        const float next = fmaxf(all.x, part.x);
        all.y = all.y * expf((all.x - next) * rate) + part.y * expf((part.x - next) * rate);
        all.x = next;
    }
    largest[u64(blockIdx.y) * n.count + i] = all.x;
    sum[u64(blockIdx.y) * n.count + i] = all.y;
}

extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
nt_xent_forward_finish(const float* __restrict__ largest, const float* __restrict__ sum,
                       const float* __restrict__ positive, float* __restrict__ lse, float* __restrict__ loss,
                       NtXent n, u32 splits) {
    double losses = 0.0;
    for (u32 i = threadIdx.x; i < n.count; i += FINISH_THREADS) {
        float top = largest[i];
        for (u32 k = 1; k < splits; ++k) top = fmaxf(top, largest[u64(k) * n.count + i]);
        double total = 0.0;
        for (u32 k = 0; k < splits; ++k) {
            const u64 at = u64(k) * n.count + i;
            total += sum[at] * expf((largest[at] - top) * float(1.0 / n.temperature));
        }
        const double value = top / n.temperature + log(total);
        lse[i] = float(value);
        losses += value - positive[i] / n.temperature;
    }
    losses = block_sum<FINISH_THREADS>(losses);
    if (threadIdx.x == 0) *loss = float(losses / double(n.count));
}

// -- Backward ---------------------------------------------------------------------------------------------------------

// This split's part of sum_k w_ik u_k for the slice's rows, and 128 of their elements.
template <class P>
__device__ __forceinline__ void backward(const u32* unit, const float* lse, float* partial, const NtXent& n) {
    __shared__ SimilarityTiles<P> tiles;
    __shared__ ProductTiles<P> product;
    const float rate = float(1.0 / n.temperature);
    const u32 row = n.first + blockIdx.x * TILE, row_end = n.first + n.rows, tile_count = (n.count + TILE - 1) / TILE;
    const u32 start = blockIdx.y * n.tiles_per_split, end = smaller(start + n.tiles_per_split, tile_count);
    const u32 feature = blockIdx.z * FEATURES;
    float own[P::SLOTS], sums[32];
#pragma unroll
    for (u32 slot = 0; slot < P::SLOTS; ++slot) {
        const u32 i = row + P::row(slot);
        own[slot] = i < row_end ? lse[i] : 0.0f;
    }
#pragma unroll
    for (u32 e = 0; e < 32; ++e) sums[e] = 0.0f;
    for (u32 tile = start; tile < end; ++tile) {
        float s[16];
        similarities<P>(unit, n.words, n.count, row, tile * TILE, tiles, s);
#pragma unroll
        for (u32 e = 0; e < 16; ++e) {
            const u32 i = row + P::row(P::slot(e)), k = tile * TILE + P::column(e);
            float weight = 0.0f;
            if (i < row_end && k < n.count && k != i) {
                const float scaled = s[e] * rate;
                weight = expf(scaled - own[P::slot(e)]) + expf(scaled - lse[k]);
                if (k == positive_of(i, n.count)) weight -= 2.0f;
            }
            s[e] = weight;
        }
        // The weights before these have been read: similarities() has barriers behind that.
        put_weights<P>(product.weights, s);
        for (u32 word = 0; word < WEIGHT_WORDS<P>; word += STEP) {
            __syncthreads();  // the features before these have been read
            load_features<P>(unit, n.words, n.count, tile * TILE, word, feature, product.features);
            __syncthreads();  // these, and all weights, are written before they are read
            accumulate<P>(product, word, sums);
        }
    }
#pragma unroll
    for (u32 e = 0; e < 32; ++e) {
        const u32 i = row + P::row(P::sum_slot(e)), j = feature + P::feature(e);
        if (i < row_end && j < n.dim) partial[(u64(blockIdx.y) * n.rows + (i - n.first)) * n.dim + j] = sums[e];
    }
}

// Element j of the slice's row r, over all splits.
__device__ __forceinline__ float gathered(const float* partial, const NtXent& n, u32 splits, u32 r, u32 j) {
    float sum = 0.0f;
    for (u32 k = 0; k < splits; ++k) sum += partial[(u64(k) * n.rows + r) * n.dim + j];
    return sum;
}

// Through the normalisation of one sample, by a warp: what of u is to be taken out, and the factor.
struct Projection {
    double along, factor;
};
template <class T>
__device__ __forceinline__ Projection projection(const float* partial, const T* unit, const float* norm, float dloss,
                                                 const NtXent& n, u32 splits, u32 r) {
    double along = 0.0;
    for (u32 j = threadIdx.x % WARP; j < n.dim; j += WARP) {
        along += double(gathered(partial, n, splits, r, j)) * to_f32(unit[j]);
    }
    const double length = norm[n.first + r];
    along = warp_sum(along);
    if (length < MIN_NORM) along = 0.0;  // a clamped norm is a constant: nothing to project out
    return {along, double(dloss) / (double(n.count) * n.temperature) / clamped(length)};
}

// A warp a sample.
template <class T>
__device__ __forceinline__ void backward_rows(const float* partial, const T* unit, const float* norm,
                                              const float* dloss, T* dz, const NtXent& n, u32 splits) {
    const u32 r = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    if (r >= n.rows) return;  // a whole warp
    unit += u64(n.first + r) * n.words * (4 / sizeof(T));
    dz += u64(n.first + r) * n.dim;
    const Projection p = projection(partial, unit, norm, *dloss, n, splits, r);
    for (u32 j = threadIdx.x % WARP; j < n.dim; j += WARP) {
        const double du = gathered(partial, n, splits, r, j);
        dz[j] = from_f32<T>(float((du - p.along * to_f32(unit[j])) * p.factor));
    }
}

// 32 neighbouring samples a block, turned round through a tile as in normalise_columns.
template <class T>
__device__ __forceinline__ void backward_columns(const float* partial, const T* unit, const float* norm,
                                                 const float* dloss, T* dz, const NtXent& n, u32 splits) {
    __shared__ Projection projections[32];
    __shared__ float tile[32][33];
    const u32 x = threadIdx.x % 32, lane = threadIdx.x / 32, first = blockIdx.x * 32;
    const u64 pitch = u64(n.words) * (4 / sizeof(T));
    for (u32 i = lane; i < 32 && first + i < n.rows; i += 8) {  // the same for all of a warp
        const T* u = unit + (n.first + first + i) * pitch;
        const Projection p = projection(partial, u, norm, *dloss, n, splits, first + i);
        if (x == 0) projections[i] = p;
    }
    __syncthreads();  // all projections are written before they are read
    for (u32 j0 = 0; j0 < n.dim; j0 += 32) {
        for (u32 i = lane; i < 32 && first + i < n.rows; i += 8) {
            const u32 j = j0 + x;
            if (j >= n.dim) continue;
            const double du = gathered(partial, n, splits, first + i, j);
            const double u = to_f32(unit[(n.first + first + i) * pitch + j]);
            tile[i][x] = float((du - projections[i].along * u) * projections[i].factor);
        }
        __syncthreads();  // the tile is written before it is read the other way
        for (u32 i = lane; i < 32 && j0 + i < n.dim; i += 8) {
            if (first + x < n.rows) dz[column_at(n, n.first + first + x, j0 + i)] = from_f32<T>(tile[x][i]);
        }
        __syncthreads();  // it is read before the next is written
    }
}

// -- Entry points -----------------------------------------------------------------------------------------------------

#define NORMALISE(P, T, name)                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
    nt_xent_normalise_rows_##name(const T* __restrict__ z, T* __restrict__ unit, float* __restrict__ norm, NtXent n) { \
        normalise_rows<P>(z, unit, norm, n);                                                                          \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
    nt_xent_normalise_columns_##name(const T* __restrict__ z, T* __restrict__ unit, float* __restrict__ norm,         \
                                     NtXent n) {                                                                      \
        normalise_columns<P>(z, unit, norm, n);                                                                       \
    }
NORMALISE(StoreF32, float, f32)
NORMALISE(StoreTf32, float, tf32)
NORMALISE(StoreBf16, bf16, bf16)

#define TILES(P, T, name)                                                                                             \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS)                                                        \
    nt_xent_forward_##name(const T* __restrict__ unit, float* __restrict__ largest, float* __restrict__ sum,          \
                           float* __restrict__ positive, NtXent n) {                                                  \
        forward<P>(reinterpret_cast<const u32*>(unit), largest, sum, positive, n);                                    \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS)                                                        \
    nt_xent_backward_##name(const T* __restrict__ unit, const float* __restrict__ lse, float* __restrict__ partial,   \
                            NtXent n) {                                                                               \
        backward<P>(reinterpret_cast<const u32*>(unit), lse, partial, n);                                             \
    }
TILES(Fma, float, f32)
TILES(Tf32, float, tf32)
TILES(Bf16, bf16, bf16)

#define FINISH(T, name)                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
    nt_xent_backward_rows_finish_##name(const float* __restrict__ partial, const T* __restrict__ unit,                \
                                        const float* __restrict__ norm, const float* __restrict__ dloss,              \
                                        T* __restrict__ dz, NtXent n, u32 splits) {                                   \
        backward_rows(partial, unit, norm, dloss, dz, n, splits);                                                     \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
    nt_xent_backward_columns_finish_##name(const float* __restrict__ partial, const T* __restrict__ unit,             \
                                           const float* __restrict__ norm, const float* __restrict__ dloss,           \
                                           T* __restrict__ dz, NtXent n, u32 splits) {                                \
        backward_columns(partial, unit, norm, dloss, dz, n, splits);                                                  \
    }
FINISH(float, f32)
FINISH(bf16, bf16)
