// kmeans.cu — Lloyd's iteration of k-means for several runs side by side, with labels that no rounding of a product decides.
//
// Computes   prepare: y[i, f] = x[i, f] scale - shift[f];
//            assign: label(i, t) = argmin_c |x_i - centre(t, c)|, the first of equals. score(c) = dots[i, t, c] - half[t, c]
//            is largest at the nearest centre: dots = y_i . column(t, c), half = |column(t, c)|^2 / 2. Where the two largest are
//            no further apart than twice the bound of their error, the distances themselves decide;
//            move: sums[range, run, c] += x_i for the points of the range that are c's now and were not, -= x_i for those
//            that were and are not; counts alike; moved = points with another label;
//            gather: total[t, c] = sum over ranges of sums[range, run(t), c];
//            distances: d[i, t] = |x_i - centre(t, label(i, run(t)))|^2
// Shapes     x, y [n, dim] f32; dots [rows, targets, clusters] f32 for rows from `first` on; shift [dim] f32; half
//            [targets, clusters], longest [targets], lengths [n], centres and total [targets, clusters, dim],
//            sums [ranges, runs, clusters, dim], d [n, targets] f64; run [targets], labels, before [n, runs],
//            counts [ranges, runs, clusters], moved [ranges, targets] u32
// Launch     prepare: grid ceil(n dim / 1024); assign, distances: a thread a point and target, block 256; move: grid
//            (ceil(dim / 128), ranges, targets), block 128, a thread a feature; gather: grid (ceil(clusters dim / 256), targets),
//            block 256. Any size
// Cost       prepare 8 bytes an element; assign 4 clusters + 12 bytes and 2 clusters flop a point and target, and 3 dim flop in
//            double for each centre that a product cannot tell from the nearest; move 8 bytes a point and target, and 36 bytes
//            and 2 flop in double a feature that moves; gather 8 (ranges + 1) bytes an element; distances 4 dim bytes a point,
//            12 bytes and 3 dim flop in double a point and target
// Numerics   scores in double from f32 products; distances in double from the points as given, in eight sums as the twin adds
//            them; sums in double, each added to in the order of the rows by one thread. No atomics, no fused multiply-add where
//            the twin has none: labels, sums and distances are the twin's to the bit
// Twin       src/eval/kmeans/host.rs   Test tests/kernels/kmeans.rs   Bench benches/kernels.rs
// Source     Lloyd 1982; the bound of a product's error: Higham 2002, section 3.1

#include "common.cuh"

constexpr u32 THREADS = 256;
constexpr u32 FEATURES = 128;
constexpr u32 NO_CLUSTER = 0xffffffffu;
constexpr u32 LANES = 8;
constexpr double UNIT = 1.0 / 16777216.0;  // relative error of rounding to f32

// Shared with src/backend/cuda/kmeans.rs.
struct Partition {
    u64 first;     // of the points at hand
    u64 rows;      // points at hand
    u32 dim;
    u32 clusters;
    u32 runs;      // all there are
    u32 targets;   // those at hand
};
static_assert(sizeof(Partition) == 32 && alignof(Partition) == 8);
static_assert(__builtin_offsetof(Partition, dim) == 16 && __builtin_offsetof(Partition, runs) == 24);

// |x - centre|^2: neighbours go to eight sums, the rest to a ninth, and these are added up in order.
__device__ __forceinline__ double squared_distance(const float* x, const double* centre, u32 dim) {
    double sums[LANES] = {};
    u32 f = 0;
    for (; f + LANES <= dim; f += LANES) {
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane) {
            const double d = __dsub_rn(double(x[f + lane]), centre[f + lane]);
            sums[lane] = __dadd_rn(sums[lane], __dmul_rn(d, d));
        }
    }
    double rest = 0.0;
#pragma unroll 1
    for (; f < dim; ++f) {
        const double d = __dsub_rn(double(x[f]), centre[f]);
        rest = __dadd_rn(rest, __dmul_rn(d, d));
    }
    double sum = 0.0;
#pragma unroll
    for (u32 lane = 0; lane < LANES; ++lane) sum = __dadd_rn(sum, sums[lane]);
    return __dadd_rn(sum, rest);
}

// Bound of the error of a product of a point of this length with a column no longer than `longest`: see Points::error.
__device__ __forceinline__ double product_error(double length, double longest, u32 dim) {
    return 1.01 * (dim + 4.0) * UNIT * length * longest + 1e-15 * longest * longest + dim * 1e-37;
}

extern "C" __global__ void __launch_bounds__(THREADS)
kmeans_prepare(const float* __restrict__ x, const float* __restrict__ shift, float* __restrict__ y, u64 count, u32 dim,
               double scale) {
    const float factor = float(scale);  // a power of two
    const auto one = [&](u64 i, float v) { return __fsub_rn(__fmul_rn(v, factor), shift[i % dim]); };
    for_four(
        count,
        [&](u64 i) {
            float v[4];
            load<4>(x + i, v);
#pragma unroll
            for (u32 k = 0; k < 4; ++k) v[k] = one(i + k, v[k]);
            store<4>(y + i, v);
        },
        [&](u64 i) { y[i] = one(i, x[i]); });
}

extern "C" __global__ void __launch_bounds__(THREADS)
kmeans_assign(const float* __restrict__ x, const double* __restrict__ lengths, const float* __restrict__ dots,
              const double* __restrict__ half, const double* __restrict__ longest, const double* __restrict__ centres,
              const u32* __restrict__ run, u32* __restrict__ labels, u32* __restrict__ before, Partition p) {
    const u64 i = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= p.rows * p.targets) return;
    const u64 row = p.first + i / p.targets;
    const u32 target = u32(i % p.targets);
    const float* dot = dots + i * p.clusters;
    const double* halves = half + u64(target) * p.clusters;
    const double none = -__longlong_as_double(0x7ff0000000000000ll);
    double best = none, second = none;
    u32 label = 0;
    for (u32 c = 0; c < p.clusters; ++c) {
        const double score = double(dot[c]) - halves[c];
        if (score > best) {
            second = best, best = score, label = c;
        } else if (score > second) {
            second = score;
        }
    }
    const double error = product_error(lengths[row], longest[target], p.dim);
    if (!(best - second > 2.0 * error)) {
        const double least = best - 2.0 * error;
        double nearest = -none;
        for (u32 c = 0; c < p.clusters; ++c) {
            if (!(double(dot[c]) - halves[c] >= least)) continue;
            const double d = squared_distance(x + row * p.dim, centres + (u64(target) * p.clusters + c) * p.dim, p.dim);
            if (d < nearest) nearest = d, label = c;
        }
    }
    const u64 at = row * p.runs + run[target];
    before[at] = labels[at];
    labels[at] = label;
}

extern "C" __global__ void __launch_bounds__(FEATURES)
kmeans_move(const float* __restrict__ x, const u32* __restrict__ labels, const u32* __restrict__ before,
            const u32* __restrict__ run, double* __restrict__ sums, u32* __restrict__ counts, u32* __restrict__ moved,
            u64 range_rows, Partition p) {
    const u32 f = blockIdx.x * FEATURES + threadIdx.x;
    if (f >= p.dim) return;
    const u32 range = blockIdx.y, of = run[blockIdx.z];
    const u64 first = u64(range) * range_rows;
    const u64 last = first + range_rows < p.rows ? first + range_rows : p.rows;
    const u64 cluster = (u64(range) * p.runs + of) * p.clusters;  // the range's and run's first
    u32 others = 0;
    for (u64 row = first; row < last; ++row) {
        const u32 to = labels[row * p.runs + of], from = before[row * p.runs + of];
        if (to == from) continue;
        // Each sum belongs to one thread.
        const double v = double(x[row * p.dim + f]);
        sums[(cluster + to) * p.dim + f] += v;
        if (from != NO_CLUSTER) sums[(cluster + from) * p.dim + f] -= v;
        if (f == 0) {
            ++others, ++counts[cluster + to];
            if (from != NO_CLUSTER) --counts[cluster + from];
        }
    }
    if (f == 0) moved[u64(range) * p.targets + blockIdx.z] = others;
}

extern "C" __global__ void __launch_bounds__(THREADS)
kmeans_gather(const double* __restrict__ sums, const u32* __restrict__ run, double* __restrict__ total, u32 ranges, Partition p) {
    const u64 elems = u64(p.clusters) * p.dim, i = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= elems) return;
    double sum = 0.0;
    for (u32 range = 0; range < ranges; ++range) sum += sums[(u64(range) * p.runs + run[blockIdx.y]) * elems + i];
    total[blockIdx.y * elems + i] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
kmeans_distances(const float* __restrict__ x, const u32* __restrict__ labels, const double* __restrict__ centres,
                 const u32* __restrict__ run, double* __restrict__ distances, Partition p) {
    const u64 i = u64(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= p.rows * p.targets) return;
    const u64 row = p.first + i / p.targets;
    const u32 target = u32(i % p.targets), label = labels[row * p.runs + run[target]];
    distances[i] = squared_distance(x + row * p.dim, centres + (u64(target) * p.clusters + label) * p.dim, p.dim);
}
