// out[T, O] = x[T, I] * weight[O, I]^T + bias, with the weight packed once into panels.
//
// A panel holds NR output columns for all inputs: fp32 as [I][NR]; bf16 as [I/2][NR] words of two consecutive inputs,
// so that a shift and a mask give two fp32 vectors. Accumulation is fp32 with one FMA chain an output element, in input
// order, whatever the number of rows: a row's result does not depend on what else is in the batch, bit for bit.
#include <utility>

#include "parallel.h"
#include "vec.h"

constexpr int NV = 2;                   // vectors a panel is wide
constexpr int NR = NV * W;              // columns of a panel: 16 with AVX2, 32 with AVX-512
constexpr int MR = W == 16 ? 12 : 6;    // rows of a register tile: MR * NV accumulators, NV weights, 1 activation, 1 mask
constexpr int64_t ROW_BLOCK = 72;      // rows whose activations stay in L2 while a panel passes
constexpr int64_t A_BYTES = 384 << 10; // of L2

static int64_t padded_inputs(int64_t I, int dtype) { return dtype == BF16 ? (I + 1) / 2 * 2 : I; }

// The dtypes' inner steps: acc += activations * weights, for one input (fp32) or two (bf16).
template <int M>
static inline void step_f32(const float* a, const char* b, vf (&acc)[M][NV]) {
    vf w[NV];
    for (int j = 0; j < NV; j++) w[j] = load(reinterpret_cast<const float*>(b) + j * W);
#pragma GCC unroll 12
    for (int i = 0; i < M; i++)
        for (int j = 0; j < NV; j++) acc[i][j] += a[i] * w[j];
}
template <int M>
static inline void step_bf16(const float* a, const char* b, vf (&acc)[M][NV]) {
    const vu_mem* words = reinterpret_cast<const vu_mem*>(b);
    vf w[NV];
    for (int j = 0; j < NV; j++) w[j] = vf(words[j] << 16);
#pragma GCC unroll 12
    for (int i = 0; i < M; i++)
        for (int j = 0; j < NV; j++) acc[i][j] += a[i] * w[j];
    asm("" : "+r"(words));  // read them again: the registers are all taken
    for (int j = 0; j < NV; j++) w[j] = vf(words[j] & 0xffff0000u);
#pragma GCC unroll 12
    for (int i = 0; i < M; i++)
        for (int j = 0; j < NV; j++) acc[i][j] += a[M + i] * w[j];
}

// acc[M][NR] (+)= a[inputs][M]^T * b[inputs][NR]. `ahead` walks, `stride` bytes a step, through what is needed next.
template <int M, int DTYPE>
static void tile(const float* a, const char* b, float* acc, int64_t inputs, bool first, const char* ahead,
                 int64_t stride) {
    constexpr int step = DTYPE == BF16 ? 2 : 1;
    vf c[M][NV];
    for (int i = 0; i < M; i++)
        for (int j = 0; j < NV; j++) c[i][j] = first ? vf{} : load(acc + i * NR + j * W);
    for (int64_t k = 0; k < inputs; k += step) {
        __builtin_prefetch(ahead, 0, 2);
        if constexpr (DTYPE == BF16)
            step_bf16<M>(a, b, c);
        else
            step_f32<M>(a, b, c);
        a += step * M;
        b += NR * 4;
        ahead += stride;
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < NV; j++) store(acc + i * NR + j * W, c[i][j]);
}

using Tile = void (*)(const float*, const char*, float*, int64_t, bool, const char*, int64_t);
template <int DTYPE, int... M>
static Tile pick_tile(int64_t m, std::integer_sequence<int, M...>) {
    static constexpr Tile tiles[] = {tile<M + 1, DTYPE>...};
    return tiles[m - 1];
}
static Tile pick_tile(int64_t m, int dtype) {
    using Sizes = std::make_integer_sequence<int, MR>;
    return dtype == BF16 ? pick_tile<BF16>(m, Sizes{}) : pick_tile<F32>(m, Sizes{});
}

// A block's rows in as few tiles as possible, of sizes that differ by one at most: small tiles wait for their FMAs.
struct Tiling {
    int64_t rows, count, base, larger;
    explicit Tiling(int64_t rows)
        : rows(rows), count((rows + MR - 1) / MR), base(rows / count), larger(rows % count) {}
    int64_t size(int64_t t) const { return base + (t < larger); }
    int64_t start(int64_t t) const { return t * base + std::min(t, larger); }
};

// Activations as fp32, [tile][input][row of the tile]; a missing last input (odd I, bf16) is zero.
template <typename X>
static void pack_rows(const X* x, int64_t stride, const Tiling& tiling, int64_t I, int64_t K, float* out) {
    for (int64_t t = 0; t < tiling.count; t++) {
        const int64_t m = tiling.size(t), start = tiling.start(t);
        float* tile_out = out + start * K;
        for (int64_t i = 0; i < m; i++) {
            const X* row = x + (start + i) * stride;
            for (int64_t k = 0; k < I; k++) tile_out[k * m + i] = to_float(row[k]);
            if (K > I) tile_out[I * m + i] = 0;
        }
    }
}

template <typename X>
static void write_rows(const float* acc, const float* bias, X* out, int64_t stride, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++, acc += NR, out += stride)
        for (int j = 0; j < NV && j * W < cols; j++) {
            int n = int(std::min<int64_t>(W, cols - j * W));
            vf v = load(acc + j * W);
            if (n == W) {
                if (bias) v += load(bias + j * W);
                store(out + j * W, v);
            } else {
                if (bias) v += load_n(bias + j * W, n);
                store_n(out + j * W, v, n);
            }
        }
}

template <typename X>
static void linear(const X* x, int64_t x_stride, const char* weight, int dtype, const float* bias, X* out,
                   int64_t out_stride, int64_t T, int64_t I, int64_t O, int num_threads) {
    static thread_local Scratch<float> a_scratch;
    const int64_t K = padded_inputs(I, dtype), panels = (O + NR - 1) / NR;
    const int64_t element = dtype == BF16 ? 2 : 4, panel_bytes = K * NR * element;
    const int64_t max_kc = dtype == BF16 ? 512 : 256;  // a block of a panel stays in L1
    const int64_t k_blocks = std::max<int64_t>(1, (K + max_kc - 1) / max_kc);
    const int64_t KC = ((K + k_blocks - 1) / k_blocks + 1) / 2 * 2;
    const int64_t RB = std::max<int64_t>(MR, std::min(ROW_BLOCK, A_BYTES / (K * 4) / MR * MR));
    const int64_t row_blocks = (T + RB - 1) / RB;

    float* a = a_scratch.get(T * K);
    parallel_for(row_blocks, 1, T * K > 65536 ? num_threads : 1, [&](int64_t begin, int64_t end) {
        for (int64_t rb = begin; rb < end; rb++)
            pack_rows(x + rb * RB * x_stride, x_stride, Tiling(std::min(RB, T - rb * RB)), I, K, a + rb * RB * K);
    });

    const int64_t tasks = row_blocks * panels, chunk = std::max<int64_t>(1, panels / (num_threads * 6));
    const char* last = weight + panels * panel_bytes;
    parallel_for(tasks, chunk, num_threads, [&](int64_t begin, int64_t end) {
        alignas(64) float acc[ROW_BLOCK * NR];
        for (int64_t task = begin; task < end; task++) {
            const int64_t rb = task / panels, panel = task % panels, rows = std::min(RB, T - rb * RB);
            const char* b = weight + panel * panel_bytes;
            const float* a_block = a + rb * RB * K;
            const Tiling tiling(rows);
            for (int64_t k = 0; k < K; k += KC) {
                const int64_t kc = std::min(KC, K - k), bytes = kc * NR * element;
                const char* block = b + k * NR * element;
                // Each tile fetches its share of the next block, spread over its steps.
                const int64_t share = bytes / tiling.count, stride = share / (bytes / (NR * 4));
                for (int64_t t = 0; t < tiling.count; t++) {
                    const int64_t m = tiling.size(t), start = tiling.start(t);
                    const char* ahead = std::min(block + bytes + t * share, last - share);
                    pick_tile(m, dtype)(a_block + start * K + k * m, block, acc + start * NR, kc, k == 0, ahead, stride);
                }
            }
            write_rows(acc, bias ? bias + panel * NR : nullptr, out + rb * RB * out_stride + panel * NR, out_stride,
                       rows, std::min<int64_t>(NR, O - panel * NR));
        }
    });
}

extern "C" {

int64_t servelab_packed_elements(int64_t O, int64_t I, int dtype) {
    return (O + NR - 1) / NR * NR * padded_inputs(I, dtype);
}

void servelab_pack_weight(const void* weight, int64_t stride, int dtype, void* packed, int64_t O, int64_t I,
                          int num_threads) {
    const int64_t K = padded_inputs(I, dtype), panels = (O + NR - 1) / NR;
    parallel_for(panels, 1, num_threads, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; p++)
            for (int64_t k = 0; k < K; k++)
                for (int64_t c = 0; c < NR; c++) {
                    const int64_t o = p * NR + c;
                    const bool inside = o < O && k < I;
                    if (dtype == BF16)
                        static_cast<bf16*>(packed)[p * NR * K + (k / 2) * NR * 2 + c * 2 + k % 2] =
                            inside ? static_cast<const bf16*>(weight)[o * stride + k] : bf16(0);
                    else
                        static_cast<float*>(packed)[p * NR * K + k * NR + c] =
                            inside ? static_cast<const float*>(weight)[o * stride + k] : 0.0f;
                }
    });
}

void servelab_linear(const void* x, int64_t x_stride, int x_dtype, const void* weight, int w_dtype, const float* bias,
                     void* out, int64_t out_stride, int64_t T, int64_t I, int64_t O, int num_threads) {
    const char* w = static_cast<const char*>(weight);
    if (x_dtype == BF16)
        linear(static_cast<const bf16*>(x), x_stride, w, w_dtype, bias, static_cast<bf16*>(out), out_stride, T, I, O,
               num_threads);
    else
        linear(static_cast<const float*>(x), x_stride, w, w_dtype, bias, static_cast<float*>(out), out_stride, T, I, O,
               num_threads);
}

}  // extern "C"
