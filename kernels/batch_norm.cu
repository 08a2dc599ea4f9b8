// batch_norm.cu — batch norm over all but the last dimension, statistics per view, with residual and ReLU behind.
//
// Computes   per view and channel: mean, inv_std = 1 / sqrt(biased variance + eps);
//            running <- (1 - momentum) running + momentum new, view after view, with the unbiased variance;
//            y = act((x - mean) inv_std weight + bias + residual).
//            Backward, g = dy where the ReLU passed, else 0, xhat = (x - mean) inv_std, means per view:
//            dbias = sum g, dweight = sum g xhat, dx = weight inv_std (g - mean(g) - xhat mean(g xhat)), dresidual = g.
// Shapes     x, y, residual, dy, dx, dresidual [views * rows, columns] f32 or bf16, NHWC with columns = C;
//            weight, bias, dweight, dbias, running_mean, running_var [C] f32; mean, inv_std [views, C] f32;
//            partial [views, chunks, 3 (statistics) or 2, C] f32 scratch; coefficients [views, 3, C] f32 scratch
// Launch     grid (ceil(C / 16 V), chunks, views), block 256, V = 4 where C divides by 4, else 1 (columns.cuh; normalise and
//            backward_data in smaller chunks than the rest); *_finish: grid ceil(C / 8), block 512; inverse_std: grid
//            ceil(C / 256), block 256. Any size.
//            dresidual may be dy itself: each element is read before it is written, by the same thread.
// Cost       reads of x 1 (statistics) + 1 (normalise), writes 1; backward reads x and dy twice, writes 1:
//            3 + 5 elements' bytes; with a residual 1 + 2 more (the residual; y, dresidual); 15 flop an element
// Numerics   Statistics: of distances from a view's first row, by a compensated two-pass over 4 rows in registers (no
//            second read of memory), combined by the pairwise update of Chan, Golub and LeVeque. Welford's update would
//            divide once a row and wait for itself; E[x^2] - E[x]^2 loses a channel of mean 500 and deviation 0.05.
//            Chunks are combined in double. x - mean is taken first, for the same reason. f32 otherwise; a fixed order,
//            so the same bits on every run.
// Twin       src/backend/cpu/batch_norm.rs      Test tests/kernels/batch_norm.rs      Bench benches/kernels.rs
// Source     Ioffe and Szegedy 2015; Chan, Golub and LeVeque 1983, eq. 1.5

#include "columns.cuh"

// Shared with src/backend/cuda/batch_norm.rs.
enum class Activation : u32 { Identity = 0, Relu = 1 };

// -- Statistics -------------------------------------------------------------------------------------------------------

// Adds `count` values with this mean and sum of squared deviations to `seen` values; share = count / (seen + count).
template <class T> __device__ __forceinline__ void combine(T& mean, T& m2, T seen, T other_mean, T other_m2, T share) {
    const T delta = other_mean - mean, step = delta * share;
    mean += step;
    // In this order: delta^2 of a first mean of 1e20 would be infinite, and NaN times seen = 0.
    m2 += other_m2 + step * seen * delta;
}

constexpr u32 HELD = 4;        // rows in registers: 16 of them with V = 4; with 8 rows fewer blocks fit a multiprocessor
constexpr u32 STATISTICS = 3;  // quantities of a chunk: mean and sum of squared deviations of x - shift, and shift

template <class T, u32 V> __device__ __forceinline__ void statistics(const T* x, float* partial, const Columns& m) {
    const Walk w = walk<V>(m);
    // Everything is taken relative to the view's first row. The mean of a few values near 500 is not an f32; that of
    // their distances from one of them is, to seven digits.
    float shift[V] = {}, mean[V] = {}, m2[V] = {}, seen = 0.0f;
    if (w.inside) load<V>(x + u64(blockIdx.z) * m.rows * m.columns + w.column, shift);
    for (u64 row = w.first; row < w.last; row += HELD * ROW_LANES) {
        const u64 left = (w.last - row + ROW_LANES - 1) / ROW_LANES;
        const u32 held = left < HELD ? u32(left) : HELD;
        float v[HELD][V];
#pragma unroll
        for (u32 r = 0; r < HELD; ++r) {
#pragma unroll
            for (u32 i = 0; i < V; ++i) v[r][i] = 0.0f;
            if (r < held) load<V>(x + (row + r * ROW_LANES) * m.columns + w.column, v[r]);
        }
        const float count = float(held), inverse = 1.0f / count, share = count / (seen + count);
#pragma unroll
        for (u32 i = 0; i < V; ++i) {
            float sum = 0.0f;
#pragma unroll
            for (u32 r = 0; r < HELD; ++r) {
                v[r][i] -= shift[i];
                sum += r < held ? v[r][i] : 0.0f;
            }
            float center = sum * inverse, first = 0.0f, second = 0.0f;
#pragma unroll
            for (u32 r = 0; r < HELD; ++r) {
                const float deviation = r < held ? v[r][i] - center : 0.0f;
                first += deviation;
                second += deviation * deviation;
            }
            // `first` would be zero, had the center not been rounded.
            center += first * inverse;
            second -= first * first * inverse;
            combine(mean[i], m2[i], seen, center, second, share);
        }
        seen += count;
    }

    __shared__ float lanes[2][ROW_LANES][V][ACROSS];
    const u32 across = threadIdx.x % ACROSS;
#pragma unroll
    for (u32 i = 0; i < V; ++i) {
        lanes[0][w.lane][i][across] = mean[i];
        lanes[1][w.lane][i][across] = m2[i];
    }
    __syncthreads();  // all lanes have written before lane 0 reads
    if (w.lane != 0 || !w.inside) return;
    // Two passes over the lanes, which wait for each other less than one that combines them one by one.
    const float rows = float(w.last - w.first), inverse = 1.0f / rows;  // lane 0 starts at the chunk's first row
    const auto count = [&](u32 lane) { return float(u32(lane_rows(w.last - w.first, lane))); };
    float center[V] = {}, first[V] = {};
#pragma unroll 4
    for (u32 lane = 0; lane < ROW_LANES; ++lane) {
        const float share = count(lane) * inverse;
#pragma unroll
        for (u32 i = 0; i < V; ++i) center[i] += share * lanes[0][lane][i][across];
    }
#pragma unroll
    for (u32 i = 0; i < V; ++i) m2[i] = 0.0f;
#pragma unroll 4
    for (u32 lane = 0; lane < ROW_LANES; ++lane) {
        const float rows_of = count(lane), share = rows_of * inverse;
#pragma unroll
        for (u32 i = 0; i < V; ++i) {
            const float delta = lanes[0][lane][i][across] - center[i];
            first[i] += share * delta;
            m2[i] += lanes[1][lane][i][across] + rows_of * delta * delta;
        }
    }
#pragma unroll
    for (u32 i = 0; i < V; ++i) {
        // As above: `first` would be zero, had the center not been rounded.
        mean[i] = center[i] + first[i];
        m2[i] -= first[i] * first[i] * rows;
    }
    store<V>(partial + partial_at(m, blockIdx.z, blockIdx.y, 0, STATISTICS) + w.column, mean);
    store<V>(partial + partial_at(m, blockIdx.z, blockIdx.y, 1, STATISTICS) + w.column, m2);
    store<V>(partial + partial_at(m, blockIdx.z, blockIdx.y, 2, STATISTICS) + w.column, shift);
}

// running_mean and running_var are null where nothing is to be updated.
extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
batch_norm_statistics_finish(const float* __restrict__ partial, float* __restrict__ mean, float* __restrict__ inv_std,
                             float* running_mean, float* running_var, Columns m, double eps, double momentum) {
    const u32 column = blockIdx.x * FINISH_COLUMNS + threadIdx.x % FINISH_COLUMNS;
    const bool inside = column < m.columns, writes = inside && threadIdx.x < FINISH_COLUMNS;
    const double rows = double(m.rows);
    // One after the other: the running statistics see view 1 first.
    for (u32 view = 0; view < m.views; ++view) {
        const auto at = [&](u32 chunk) { return partial_at(m, view, chunk, 0, STATISTICS) + column; };
        const auto count = [&](u32 chunk) {
            const u64 start = u64(chunk) * m.chunk_rows;
            return double(start + m.chunk_rows < m.rows ? m.chunk_rows : m.rows - start);
        };
        // Two passes over the chunks' means, so no division for each; all relative to the view's shift.
        const double center =
            sum_over_chunks(m, inside, [&](u32 chunk) { return count(chunk) * partial[at(chunk)]; }) / rows;
        const double m2 = sum_over_chunks(m, inside, [&](u32 chunk) {
            const double delta = partial[at(chunk)] - center;
            return partial[at(chunk) + m.columns] + count(chunk) * delta * delta;
        });
        if (!writes) continue;
        // Rounding may leave a little less than nothing; written so that NaN stays NaN.
        const double var = m2 < 0.0 ? 0.0 : m2 / rows;
        // The shift is one for all chunks of a view.
        const double found = center + partial[partial_at(m, view, 0, 2, STATISTICS) + column];
        mean[u64(view) * m.columns + column] = float(found);
        inv_std[u64(view) * m.columns + column] = float(1.0 / sqrt(var + eps));
        if (running_mean != nullptr) {
            // A single row has no unbiased variance and would give infinity.
            const double unbiased = rows / (rows > 2.0 ? rows - 1.0 : 1.0);
            running_mean[column] = float((1.0 - momentum) * running_mean[column] + momentum * found);
            running_var[column] = float((1.0 - momentum) * running_var[column] + momentum * unbiased * var);
        }
    }
}

// Inference: the same normalise, from given variances.
extern "C" __global__ void __launch_bounds__(256)
batch_norm_inverse_std(const float* __restrict__ var, float* __restrict__ inv_std, u32 columns, double eps) {
    const u32 column = blockIdx.x * 256 + threadIdx.x;
    if (column < columns) inv_std[column] = float(1.0 / sqrt(double(var[column]) + eps));
}

// -- Forward ----------------------------------------------------------------------------------------------------------

// residual is null where there is none.
template <class T, u32 V>
__device__ __forceinline__ void normalise(const T* x, const T* residual, const float* mean, const float* inv_std,
                                          const float* weight, const float* bias, T* y, const Columns& m,
                                          Activation activation) {
    const Walk w = walk<V>(m);
    if (!w.inside) return;
    float center[V], scale[V], factor[V], shift[V];
    load<V>(mean + u64(blockIdx.z) * m.columns + w.column, center);
    load<V>(inv_std + u64(blockIdx.z) * m.columns + w.column, scale);
    load<V>(weight + w.column, factor);
    load<V>(bias + w.column, shift);
#pragma unroll
    for (u32 i = 0; i < V; ++i) scale[i] *= factor[i];
#pragma unroll 2
    for (u64 row = w.first; row < w.last; row += ROW_LANES) {
        const u64 at = row * m.columns + w.column;
        float v[V], r[V] = {};
        load<V>(x + at, v);
        if (residual != nullptr) load<V>(residual + at, r);
#pragma unroll
        for (u32 i = 0; i < V; ++i) {
            v[i] = (v[i] - center[i]) * scale[i] + shift[i] + r[i];
            // Written so that NaN stays NaN.
            if (activation == Activation::Relu) v[i] = v[i] < 0.0f ? 0.0f : v[i];
        }
        store<V>(y + at, v);
    }
}

// -- Backward ---------------------------------------------------------------------------------------------------------

// What a ReLU let pass. Where a residual was added, the forward's output says so; else x does, by the very operations of the
// forward, and the output need not be read. (A positive output that bf16 rounds to 0, below 2^-134, then counts as passed.)
template <class T, u32 V> struct Passed {
    const T* y;  // null where there was no residual
    Activation activation;
    float center[V], scale[V], shift[V];

    __device__ __forceinline__ Passed(const T* y, const float* mean, const float* inv_std, const float* weight,
                                      const float* bias, Activation activation, const Columns& m, const Walk& w)
        : y(y), activation(activation), center{}, scale{}, shift{} {
        if (!w.inside) return;
        float factor[V];
        load<V>(mean + u64(blockIdx.z) * m.columns + w.column, center);
        load<V>(inv_std + u64(blockIdx.z) * m.columns + w.column, scale);
        load<V>(weight + w.column, factor);
        load<V>(bias + w.column, shift);
#pragma unroll
        for (u32 i = 0; i < V; ++i) scale[i] *= factor[i];
    }

    // The gradient behind the activation, for these x.
    __device__ __forceinline__ void gradient(const T* dy, u64 at, const float (&x)[V], float (&g)[V]) const {
        load<V>(dy + at, g);
        if (activation != Activation::Relu) return;
        float out[V];
        if (y != nullptr) {
            load<V>(y + at, out);
        } else {
#pragma unroll
            for (u32 i = 0; i < V; ++i) out[i] = (x[i] - center[i]) * scale[i] + shift[i];
        }
#pragma unroll
        for (u32 i = 0; i < V; ++i) g[i] = out[i] > 0.0f ? g[i] : 0.0f;
    }
};

// Per chunk: sum g and sum g (x - mean). dresidual = g, null where there is no residual.
template <class T, u32 V>
__device__ __forceinline__ void backward_sums(const T* x, const T* y, const T* dy, const float* mean,
                                              const float* inv_std, const float* weight, const float* bias,
                                              float* partial, T* dresidual, const Columns& m, Activation activation) {
    const Walk w = walk<V>(m);
    const Passed<T, V> passed(y, mean, inv_std, weight, bias, activation, m, w);
    float sums[2 * V] = {};
#pragma unroll 2
    for (u64 row = w.first; row < w.last; row += ROW_LANES) {
        const u64 at = row * m.columns + w.column;
        float v[V], g[V];
        load<V>(x + at, v);
        passed.gradient(dy, at, v, g);
        if (dresidual != nullptr) store<V>(dresidual + at, g);
#pragma unroll
        for (u32 i = 0; i < V; ++i) {
            sums[i] += g[i];
            sums[V + i] += g[i] * (v[i] - passed.center[i]);
        }
    }
    lane_sum(w, sums);
    if (w.lane != 0 || !w.inside) return;
#pragma unroll
    for (u32 i = 0; i < V; ++i) {
        partial[partial_at(m, blockIdx.z, blockIdx.y, 0, 2) + w.column + i] = sums[i];
        partial[partial_at(m, blockIdx.z, blockIdx.y, 1, 2) + w.column + i] = sums[V + i];
    }
}

// coefficients, per view: weight inv_std; mean(g); inv_std^2 mean(g (x - mean)).
extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
batch_norm_backward_finish(const float* __restrict__ partial, const float* __restrict__ inv_std,
                           const float* __restrict__ weight, float* __restrict__ dweight, float* __restrict__ dbias,
                           float* __restrict__ coefficients, Columns m) {
    const u32 column = blockIdx.x * FINISH_COLUMNS + threadIdx.x % FINISH_COLUMNS;
    const bool writes = threadIdx.x < FINISH_COLUMNS && column < m.columns;
    double sum_weight = 0.0, sum_bias = 0.0;
    for (u32 view = 0; view < m.views; ++view) {
        const double sum = chunk_sum(partial, m, view, 0, 2);
        const double dot = chunk_sum(partial, m, view, 1, 2);
        if (writes) {
            const double scale = inv_std[u64(view) * m.columns + column];
            sum_bias += sum;
            sum_weight += dot * scale;
            float* out = coefficients + u64(view) * 3 * m.columns + column;
            out[0] = float(weight[column] * scale);
            out[m.columns] = float(sum / double(m.rows));
            out[2 * u64(m.columns)] = float(dot / double(m.rows) * scale * scale);
        }
    }
    if (writes) {
        dweight[column] = float(sum_weight);
        dbias[column] = float(sum_bias);
    }
}

// Where a residual was added, dy is the dresidual of the sums, and nothing more is to be left out.
template <class T, u32 V>
__device__ __forceinline__ void backward_data(const T* x, const T* dy, const float* mean,
                                              const float* inv_std, const float* weight, const float* bias,
                                              const float* coefficients, T* dx, const Columns& m,
                                              Activation activation) {
    const Walk w = walk<V>(m);
    if (!w.inside) return;
    const Passed<T, V> passed(nullptr, mean, inv_std, weight, bias, activation, m, w);
    float scale[V], g_mean[V], slope[V];
    const float* own = coefficients + u64(blockIdx.z) * 3 * m.columns + w.column;
    load<V>(own, scale);
    load<V>(own + m.columns, g_mean);
    load<V>(own + 2 * u64(m.columns), slope);
#pragma unroll 2
    for (u64 row = w.first; row < w.last; row += ROW_LANES) {
        const u64 at = row * m.columns + w.column;
        float v[V], g[V];
        load<V>(x + at, v);
        passed.gradient(dy, at, v, g);
#pragma unroll
        for (u32 i = 0; i < V; ++i) v[i] = scale[i] * (g[i] - g_mean[i] - (v[i] - passed.center[i]) * slope[i]);
        store<V>(dx + at, v);
    }
}

// The entry points. Where columns divides by four, rows stay aligned to four elements.
#define BATCH_NORM(T, name)                                                                                            \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
    batch_norm_statistics_##name(const T* __restrict__ x, float* __restrict__ partial, Columns m) {                    \
        m.columns % 4 == 0 ? statistics<T, 4>(x, partial, m) : statistics<T, 1>(x, partial, m);                        \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
    batch_norm_normalise_##name(const T* __restrict__ x, const T* __restrict__ residual,                               \
                                const float* __restrict__ mean, const float* __restrict__ inv_std,                     \
                                const float* __restrict__ weight, const float* __restrict__ bias, T* __restrict__ y,   \
                                Columns m, Activation activation) {                                                    \
        m.columns % 4 == 0 ? normalise<T, 4>(x, residual, mean, inv_std, weight, bias, y, m, activation)               \
                           : normalise<T, 1>(x, residual, mean, inv_std, weight, bias, y, m, activation);              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
    batch_norm_backward_sums_##name(const T* __restrict__ x, const T* __restrict__ y, const T* dy,                     \
                                    const float* __restrict__ mean, const float* __restrict__ inv_std,                 \
                                    const float* __restrict__ weight, const float* __restrict__ bias,                  \
                                    float* __restrict__ partial, T* dresidual, Columns m, Activation activation) {     \
        m.columns % 4 == 0                                                                                             \
            ? backward_sums<T, 4>(x, y, dy, mean, inv_std, weight, bias, partial, dresidual, m, activation)            \
            : backward_sums<T, 1>(x, y, dy, mean, inv_std, weight, bias, partial, dresidual, m, activation);           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS)                                                       \
    batch_norm_backward_data_##name(const T* __restrict__ x, const T* __restrict__ dy,                                 \
                                    const float* __restrict__ mean, const float* __restrict__ inv_std,                 \
                                    const float* __restrict__ weight, const float* __restrict__ bias,                  \
                                    const float* __restrict__ coefficients, T* __restrict__ dx, Columns m,             \
                                    Activation activation) {                                                           \
        m.columns % 4 == 0                                                                                             \
            ? backward_data<T, 4>(x, dy, mean, inv_std, weight, bias, coefficients, dx, m, activation)                 \
            : backward_data<T, 1>(x, dy, mean, inv_std, weight, bias, coefficients, dx, m, activation);                \
    }
BATCH_NORM(float, f32)
BATCH_NORM(bf16, bf16)
