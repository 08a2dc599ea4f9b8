// nt_xent_tile.cuh — a 64 x 64 tile of similarities and the product of such a tile with samples, in three precisions.
//
// Samples lie in memory as rows of 32-bit words: one f32 or two bf16 each, a multiple of 16 words, zeros behind the
// last element. 256 threads share a tile; each holds 16 similarities and 32 sums of the product. Which ones, only the
// precision knows (row, column, slot), so that what is done to them is written once.
//
// The tensor cores' m16n8k16 of bf16 and m16n8k8 of tf32 want the same words in the same lanes: with g = lane / 4 and
// t = lane % 4, A holds words (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); B holds words t and t + 4 of column g; C
// holds (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). (PTX ISA, "Matrix fragments for mma".)
#pragma once
#include "common.cuh"

constexpr u32 TILE = 64;
constexpr u32 TILE_THREADS = 256;
constexpr u32 STEP = 16;       // words of a sample at once
constexpr u32 FEATURES = 128;  // of the product, at once
// Words between rows of a tile of features: 8 more than a multiple of the 32 banks, so that lanes (t, g) of a fragment
// read 32 different banks, 8 t + g.
constexpr u32 FEATURE_STRIDE = FEATURES + 8;

// Where 256 threads sit on a tile with the tensor cores: 4 warps down by 2 across, each 16 rows by 32 columns (or by 64
// features).
struct TensorCores {
    // 20 words between rows: 20 g + t takes 32 different banks; and rows stay aligned to 16 bytes.
    static constexpr u32 STRIDE = STEP + 4;
    static constexpr u32 SLOTS = 2;      // rows of the tile a thread has elements of
    static constexpr u32 SHARERS = 8;    // threads that have elements of a row
    static __device__ __forceinline__ u32 lane() { return threadIdx.x % WARP; }
    static __device__ __forceinline__ u32 across() { return threadIdx.x / WARP % 2; }
    static __device__ __forceinline__ u32 first_row() { return threadIdx.x / (2 * WARP) * 16 + lane() / 4; }
    static __device__ __forceinline__ u32 slot(u32 e) { return e / 2 % 2; }
    static __device__ __forceinline__ u32 row(u32 slot) { return first_row() + 8 * slot; }
    static __device__ __forceinline__ u32 column(u32 e) { return across() * 32 + e / 4 * 8 + lane() % 4 * 2 + e % 2; }
    static __device__ __forceinline__ u32 sharer() { return across() * 4 + lane() % 4; }
    // Of the product's sums.
    static __device__ __forceinline__ u32 sum_slot(u32 e) { return e / 2 % 2; }
    static __device__ __forceinline__ u32 feature(u32 e) { return across() * 64 + e / 4 * 8 + lane() % 4 * 2 + e % 2; }
};

struct Bf16 : TensorCores {
    using T = bf16;
    static constexpr u32 PER_WORD = 2;
    static __device__ __forceinline__ void mma(float* c, const u32 (&a)[4], u32 b0, u32 b1) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
    static __device__ __forceinline__ void put(u32* row, u32 column, float low, float high) {
        row[column / 2] = pack_bf16(low, high);
    }
};

// An f32 rounded to the 10 bits of mantissa the tensor cores read; without, they would cut the others off.
__device__ __forceinline__ float round_tf32(float x) {
    u32 word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x));
    return __uint_as_float(word);
}

struct Tf32 : TensorCores {
    using T = float;
    static constexpr u32 PER_WORD = 1;
    static __device__ __forceinline__ void mma(float* c, const u32 (&a)[4], u32 b0, u32 b1) {
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
    static __device__ __forceinline__ void put(u32* row, u32 column, float low, float high) {
        row[column] = __float_as_uint(round_tf32(low));
        row[column + 1] = __float_as_uint(round_tf32(high));
    }
};

// 16 x 16 threads; a thread has every sixteenth row and column from its own.
struct Fma {
    using T = float;
    static constexpr u32 PER_WORD = 1;
    // Odd, so that 16 threads that read the same word of 16 rows read different banks.
    static constexpr u32 STRIDE = STEP + 1;
    static constexpr u32 SLOTS = 4;
    static constexpr u32 SHARERS = 16;
    static __device__ __forceinline__ u32 slot(u32 e) { return e / 4; }
    static __device__ __forceinline__ u32 row(u32 slot) { return threadIdx.x / 16 + 16 * slot; }
    static __device__ __forceinline__ u32 column(u32 e) { return threadIdx.x % 16 + 16 * (e % 4); }
    static __device__ __forceinline__ u32 sharer() { return threadIdx.x % 16; }
    static __device__ __forceinline__ u32 sum_slot(u32 e) { return e / 8; }
    static __device__ __forceinline__ u32 feature(u32 e) { return threadIdx.x % 16 + 16 * (e % 8); }
};

// Words of a 64-column row of weights, and of its row in shared memory (4 more than a multiple of 32: as STRIDE above).
template <class P> constexpr u32 WEIGHT_WORDS = TILE / P::PER_WORD;
template <class P> constexpr u32 WEIGHT_STRIDE = WEIGHT_WORDS<P> + 4;

template <class P> struct SimilarityTiles {
    alignas(16) u32 rows[TILE][P::STRIDE];
    alignas(16) u32 columns[TILE][P::STRIDE];
};

// Words [word, word + 16) of 64 samples from `first`; zeros behind the last sample.
template <u32 STRIDE>
__device__ __forceinline__ void load_samples(const u32* unit, u32 words, u32 count, u32 first, u32 word,
                                             u32 (*tile)[STRIDE]) {
    const u32 sample = threadIdx.x / 4, quarter = threadIdx.x % 4 * 4;
    uint4 v = make_uint4(0, 0, 0, 0);
    if (first + sample < count) {
        v = *reinterpret_cast<const uint4*>(unit + u64(first + sample) * words + word + quarter);
    }
    u32* to = &tile[sample][quarter];
    if constexpr (STRIDE % 4 == 0) {
        *reinterpret_cast<uint4*>(to) = v;
    } else {
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
}

template <class P> __device__ __forceinline__ void multiply(const SimilarityTiles<P>& tiles, float (&s)[16]) {
    if constexpr (P::STRIDE % 4 == 0) {
        const u32 row = P::first_row(), g = P::lane() / 4, t = P::lane() % 4;
#pragma unroll
        for (u32 k = 0; k < STEP; k += 8) {
            const u32 a[4] = {tiles.rows[row][k + t], tiles.rows[row + 8][k + t], tiles.rows[row][k + t + 4],
                              tiles.rows[row + 8][k + t + 4]};
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                const u32* b = tiles.columns[P::across() * 32 + j * 8 + g];
                P::mma(s + 4 * j, a, b[k + t], b[k + t + 4]);
            }
        }
    } else {
#pragma unroll 4
        for (u32 k = 0; k < STEP; ++k) {
            float a[4], b[4];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                a[i] = __uint_as_float(tiles.rows[P::row(i)][k]);
                b[i] = __uint_as_float(tiles.columns[P::column(i)][k]);
            }
#pragma unroll
            for (u32 e = 0; e < 16; ++e) s[e] = fmaf(a[e / 4], b[e % 4], s[e]);
        }
    }
}

// s = cosines of samples `row` .. with samples `column` .. : this thread's 16 of 64 x 64.
template <class P>
__device__ __forceinline__ void similarities(const u32* unit, u32 words, u32 count, u32 row, u32 column,
                                             SimilarityTiles<P>& tiles, float (&s)[16]) {
#pragma unroll
    for (u32 e = 0; e < 16; ++e) s[e] = 0.0f;
    for (u32 word = 0; word < words; word += STEP) {
        __syncthreads();  // the words before these have been read
        load_samples(unit, words, count, row, word, tiles.rows);
        load_samples(unit, words, count, column, word, tiles.columns);
        __syncthreads();  // these are written before they are read
        multiply<P>(tiles, s);
    }
}

template <class P> struct ProductTiles {
    alignas(16) u32 weights[TILE][WEIGHT_STRIDE<P>];
    // Word k of feature f: sample k (f32), or samples 2k and 2k + 1 (bf16), as the tensor cores want their B.
    alignas(16) u32 features[STEP][FEATURE_STRIDE];
};

template <class P> __device__ __forceinline__ void put_weights(u32 (*tile)[WEIGHT_STRIDE<P>], const float (&w)[16]) {
    if constexpr (P::STRIDE % 4 == 0) {
#pragma unroll
        for (u32 e = 0; e < 16; e += 2) P::put(tile[P::row(P::slot(e))], P::column(e), w[e], w[e + 1]);
    } else {
#pragma unroll
        for (u32 e = 0; e < 16; ++e) tile[P::row(P::slot(e))][P::column(e)] = __float_as_uint(w[e]);
    }
}

// Features [feature, feature + 128) of the samples that make words [word, word + 16) of a weight row; zeros behind the
// last sample and the last feature.
template <class P>
__device__ __forceinline__ void load_features(const u32* unit, u32 words, u32 count, u32 column, u32 word, u32 feature,
                                              u32 (*tile)[FEATURE_STRIDE]) {
    const uint4 zero = make_uint4(0, 0, 0, 0);
    if constexpr (P::PER_WORD == 1) {
        const u32 quad = threadIdx.x % 32 * 4;
#pragma unroll
        for (u32 k = threadIdx.x / 32; k < STEP; k += TILE_THREADS / 32) {
            const u32 sample = column + word + k;
            uint4 v = zero;
            if (sample < count && feature + quad < words) {
                v = *reinterpret_cast<const uint4*>(unit + u64(sample) * words + feature + quad);
            }
            *reinterpret_cast<uint4*>(&tile[k][quad]) = v;
        }
    } else {
        // 16 threads a pair of samples, each 8 features of both.
        const u32 k = threadIdx.x / 16, eight = threadIdx.x % 16 * 8;
        const u32 even = column + 2 * (word + k), at = (feature + eight) / 2;
        uint4 a = zero, b = zero;
        if (even < count && at < words) a = *reinterpret_cast<const uint4*>(unit + u64(even) * words + at);
        if (even + 1 < count && at < words) b = *reinterpret_cast<const uint4*>(unit + u64(even + 1) * words + at);
        // Lower halves are the even features, upper halves the odd ones.
        const uint4 low = make_uint4(__byte_perm(a.x, b.x, 0x5410), __byte_perm(a.x, b.x, 0x7632),
                                     __byte_perm(a.y, b.y, 0x5410), __byte_perm(a.y, b.y, 0x7632));
        const uint4 high = make_uint4(__byte_perm(a.z, b.z, 0x5410), __byte_perm(a.z, b.z, 0x7632),
                                      __byte_perm(a.w, b.w, 0x5410), __byte_perm(a.w, b.w, 0x7632));
        *reinterpret_cast<uint4*>(&tile[k][eight]) = low;
        *reinterpret_cast<uint4*>(&tile[k][eight + 4]) = high;
    }
}

// sums += words [word, word + 16) of the weights times the features.
template <class P>
__device__ __forceinline__ void accumulate(const ProductTiles<P>& tiles, u32 word, float (&sums)[32]) {
    if constexpr (P::STRIDE % 4 == 0) {
        const u32 row = P::first_row(), g = P::lane() / 4, t = P::lane() % 4;
#pragma unroll
        for (u32 k = 0; k < STEP; k += 8) {
            const u32 *upper = &tiles.weights[row][word + k + t], *lower = &tiles.weights[row + 8][word + k + t];
            const u32 a[4] = {upper[0], lower[0], upper[4], lower[4]};
#pragma unroll
            for (u32 j = 0; j < 8; ++j) {
                const u32 feature = P::across() * 64 + j * 8 + g;
                P::mma(sums + 4 * j, a, tiles.features[k + t][feature], tiles.features[k + t + 4][feature]);
            }
        }
    } else {
#pragma unroll 4
        for (u32 k = 0; k < STEP; ++k) {
            float a[4], b[8];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) a[i] = __uint_as_float(tiles.weights[P::row(i)][word + k]);
#pragma unroll
            for (u32 j = 0; j < 8; ++j) b[j] = __uint_as_float(tiles.features[k][P::feature(j)]);
#pragma unroll
            for (u32 e = 0; e < 32; ++e) sums[e] = fmaf(a[e / 8], b[e % 8], sums[e]);
        }
    }
}
