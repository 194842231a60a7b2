// out[T, O] = x[T, I] * weight[O, I]^T with the weight in the blocks of a GGUF file.
//
// Activations are rounded to 16 bits, with one scale for 32 inputs of a row (error of an element: at most 1/65534 of the
// largest of the 32). Products of integers are summed exactly in 32 bits over the inputs of one weight scale; what that
// gives is scaled and summed in fp32, in input order, whatever the number of rows: a row's result does not depend on
// what else is in the batch, bit for bit. llama.cpp rounds activations to 8 bits, an error 258 times as large.
#include "blocks.h"

#include <cmath>
#include <utility>

#include "parallel.h"

constexpr int MR = W == 16 ? 12 : 6;   // rows of a register tile: MR * NV accumulators, NV weights, 1 activation, 1 product
constexpr int64_t ROW_BLOCK = 72;      // rows that share one unpacking of a panel
constexpr int64_t AHEAD_BYTES = 4096;  // how far ahead of its use a panel is fetched
constexpr int GROUP = 32;              // inputs of one activation scale
constexpr int GROUP_WORDS = 20;        // of a row: 16 pairs, two sums of 16 numbers, scale, scaled sum of all

// acc + the products of the pairs of 16-bit numbers in each lane
static inline vi dot_pairs(vi acc, vi a, vi b) {
#if defined(__AVX512VNNI__)
    return vi(_mm512_dpwssd_epi32(__m512i(acc), __m512i(a), __m512i(b)));
#elif defined(__AVX512BW__)
    return acc + vi(_mm512_madd_epi16(__m512i(a), __m512i(b)));
#elif defined(__AVX512F__)
    const auto half = [&](int i) { return _mm256_madd_epi16(_mm512_extracti64x4_epi64(__m512i(a), i), _mm512_extracti64x4_epi64(__m512i(b), i)); };
    return acc + vi(_mm512_inserti64x4(_mm512_castsi256_si512(half(0)), half(1), 1));
#elif defined(__AVX2__)
    return acc + vi(_mm256_madd_epi16(__m256i(a), __m256i(b)));
#else
    return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// The rows of a block of rows in as few tiles as possible, of sizes that differ by one at most.
struct Tiling {
    int64_t rows, count, base, larger;
    explicit Tiling(int64_t rows)
        : rows(rows), count((rows + MR - 1) / MR), base(rows / count), larger(rows % count) {}
    int64_t size(int64_t t) const { return base + (t < larger); }
    int64_t start(int64_t t) const { return t * base + std::min(t, larger); }
};

// One group of a row as 16-bit numbers with their sums, `m` words apart.
template <typename X>
static void round_group(const X* x, int32_t* out, int64_t m) {
    vf top{}, poison{};
    for (int k = 0; k < GROUP; k += W) {
        const vf v = load(x + k);
        top = vmax(top, vmax(v, -v));
        poison += v * 0.0f;  // NaN if an element is not finite
    }
    const float largest = reduce_max(top), inverse = largest > 1e-30f ? 32767.0f / largest : 0.0f;
    const float scale = (inverse ? largest / 32767.0f : 0.0f) + reduce_sum(poison);
    const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    int32_t q[GROUP], sum[2] = {};
    for (int k = 0; k < GROUP; k += W) {
        const vi n = vi(load(x + k) * inverse + magic) - vi(magic);
        memcpy(q + k, &n, sizeof n);
    }
    for (int k = 0; k < GROUP; k += 2) {
        out[k / 2 * m] = (q[k] & 0xffff) | int32_t(uint32_t(q[k + 1]) << 16);
        sum[k / 16] += q[k] + q[k + 1];
    }
    out[16 * m] = sum[0];
    out[17 * m] = sum[1];
    const float scaled_sum = scale * float(sum[0] + sum[1]);
    memcpy(out + 18 * m, &scale, 4);
    memcpy(out + 19 * m, &scaled_sum, 4);
}

// [tile][group][word][row of the tile]
template <typename X>
static void round_rows(const X* x, int64_t stride, const Tiling& tiling, int64_t I, int32_t* out) {
    const int64_t groups = I / GROUP;
    for (int64_t t = 0; t < tiling.count; t++) {
        const int64_t m = tiling.size(t), start = tiling.start(t);
        int32_t* tile_out = out + start * groups * GROUP_WORDS;
        for (int64_t g = 0; g < groups; g++)
            for (int64_t i = 0; i < m; i++)
                round_group(x + (start + i) * stride + g * GROUP, tile_out + g * GROUP_WORDS * m + i, m);
    }
}

// The weights of a panel for the inputs of one scale, as 16-bit numbers.
struct Part {
    vf scale[NV], minimum[NV];
    bool has_minimum;
    int offset;
    vi pairs[GROUP / 2 * NV];
};

// acc[M][NR] += the products of PAIRS pairs of inputs, which begin at pair `first` of a group.
template <int PAIRS, int M>
static void tile(const int32_t* group, int first, const Part& part, float* acc) {
    vi c[M][NV] = {};
    if (part.offset)
        for (int i = 0; i < M; i++) {
            const int32_t sum = PAIRS == 16 ? group[16 * M + i] + group[17 * M + i] : group[(16 + first / 8) * M + i];
            for (int j = 0; j < NV; j++) c[i][j] = vi{} - part.offset * sum;
        }
    const int32_t* x = group + first * M;
    for (int p = 0; p < PAIRS; p++, x += M) {
        vi w[NV];
        for (int j = 0; j < NV; j++) w[j] = part.pairs[p * NV + j];
#pragma GCC unroll 12
        for (int i = 0; i < M; i++)
            for (int j = 0; j < NV; j++) c[i][j] = dot_pairs(c[i][j], w[j], vi{} + x[i]);
    }
    const float* scales = reinterpret_cast<const float*>(group + 18 * M);
    vf scale[NV], minimum[NV];  // what is stored below could be `part`, for all that a compiler knows
    for (int j = 0; j < NV; j++) scale[j] = part.scale[j], minimum[j] = part.minimum[j];
    const bool has_minimum = part.has_minimum;
#pragma GCC unroll 12
    for (int i = 0; i < M; i++)
        for (int j = 0; j < NV; j++) {
            vf sum = load(acc + i * NR + j * W);
            sum += __builtin_convertvector(c[i][j], vf) * (scale[j] * scales[i]);
            if (has_minimum) sum += minimum[j] * scales[M + i];
            store(acc + i * NR + j * W, sum);
        }
}

using Tile = void (*)(const int32_t*, int, const Part&, float*);
template <int PAIRS, int... M>
static Tile pick_tile(int64_t m, std::integer_sequence<int, M...>) {
    static constexpr Tile tiles[] = {tile<PAIRS, M + 1>...};
    return tiles[m - 1];
}

// acc[rows][NR] = the products of a block of rows with one panel
template <typename Format>
static void panel_product(const int32_t* x, const char* panel, float* acc, int64_t rows, int64_t I) {
    const Tiling tiling(rows);
    Tile tiles[2] = {};  // the larger tiles come first
    for (int64_t t : {tiling.count - 1, int64_t(0)})
        tiles[t >= tiling.larger] = pick_tile<Format::PAIRS>(tiling.size(t), std::make_integer_sequence<int, MR>{});
    const int64_t groups = I / GROUP;
    memset(acc, 0, rows * NR * sizeof(float));
    Part part;
    part.has_minimum = Format::MINIMUM;
    part.offset = Format::OFFSET;
    for (int64_t k = 0; k < I; k += Format::INPUTS, panel += Format::UNIT_BYTES) {
        for (int64_t ahead = 0; ahead < Format::UNIT_BYTES; ahead += 64)
            __builtin_prefetch(panel + AHEAD_BYTES + ahead);
        for (int index = 0; index < Format::PARTS; index++) {
            for (int j = 0; j < NV; j++) {
                part.scale[j] = Format::scale(panel, index, j);
                part.minimum[j] = Format::minimum(panel, index, j);
                Format::unpack(panel, index, j, part.pairs + j);
            }
            const int64_t input = k + index * Format::SUB, g = input / GROUP;
            for (int64_t t = 0; t < tiling.count; t++) {
                const int64_t m = tiling.size(t), start = tiling.start(t);
                const int32_t* group = x + (start * groups + g * m) * GROUP_WORDS;
                tiles[t >= tiling.larger](group, int(input % GROUP / 2), part, acc + start * NR);
            }
        }
    }
}

template <typename X>
static void write_rows(const float* acc, const float* bias, X* out, int64_t stride, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++, acc += NR, out += stride)
        for (int j = 0; j < NV && j * W < cols; j++) {
            const int n = int(std::min<int64_t>(W, cols - j * W));
            vf v = load(acc + j * W);
            if (bias) v += load_n(bias + j * W, n);
            n == W ? store(out + j * W, v) : store_n(out + j * W, v, n);
        }
}

// Consecutive columns of the product whose weights have one format.
struct Piece {
    int64_t kind, columns;
    const char* panels;
};

template <typename X>
static void linear(const X* x, int64_t x_stride, const Piece* pieces, int num_pieces, const float* bias, X* out,
                   int64_t out_stride, int64_t T, int64_t I, int num_threads) {
    static thread_local Scratch<int32_t> scratch;
    const int64_t row_words = I / GROUP * GROUP_WORDS, row_blocks = (T + ROW_BLOCK - 1) / ROW_BLOCK;
    int32_t* rounded = scratch.get(T * row_words);
    const auto rows_of = [&](int64_t rb) { return std::min(ROW_BLOCK, T - rb * ROW_BLOCK); };
    parallel_for(row_blocks, 1, T * I > 65536 ? num_threads : 1, [&](int64_t begin, int64_t end) {
        for (int64_t rb = begin; rb < end; rb++)
            round_rows(x + rb * ROW_BLOCK * x_stride, x_stride, Tiling(rows_of(rb)), I, rounded + rb * ROW_BLOCK * row_words);
    });
    int64_t panels = 0;
    for (int p = 0; p < num_pieces; p++) panels += (pieces[p].columns + NR - 1) / NR;
    const int64_t chunk = std::max<int64_t>(1, panels / (num_threads * 6));
    parallel_for(row_blocks * panels, chunk, num_threads, [&](int64_t begin, int64_t end) {
        alignas(64) float acc[ROW_BLOCK * NR];
        for (int64_t task = begin; task < end; task++) {
            const int64_t rb = task / panels, rows = rows_of(rb);
            int64_t panel = task % panels, column = 0;
            const Piece* piece = pieces;
            for (; panel >= (piece->columns + NR - 1) / NR; piece++) {
                panel -= (piece->columns + NR - 1) / NR;
                column += piece->columns;
            }
            with_format(int(piece->kind), [&](auto format) {
                using Format = decltype(format);
                const char* data = piece->panels + panel * (I / Format::INPUTS) * Format::UNIT_BYTES;
                panel_product<Format>(rounded + rb * ROW_BLOCK * row_words, data, acc, rows, I);
            });
            column += panel * NR;
            write_rows(acc, bias ? bias + column : nullptr, out + rb * ROW_BLOCK * out_stride + column, out_stride, rows,
                       std::min<int64_t>(NR, piece->columns - panel * NR));
        }
    });
}

// The fields and numbers of one column of a unit
template <typename Format>
static void pack_column(const Block& b, char* unit, int column) {
    if (Format::HALVES > 0) memcpy(unit + column * 2, &b.d, 2);
    if (Format::HALVES > 1) memcpy(unit + (NR + column) * 2, &b.m, 2);
    for (int i = 0; i < Format::BYTES; i++) {
        const bool is_minimum = Format::HALVES > 1 && i >= 8;
        unit[2 * Format::HALVES * NR + i * NR + column] = char(is_minimum ? b.minimum[i - 8] : b.scale[i]);
    }
    for (int part = 0; part < Format::PARTS; part++)
        for (int w = 0; w < Format::WORDS; w++) {
            const uint32_t word = Format::pack(b.q + part * Format::SUB, w);
            memcpy(const_cast<char*>(Format::word(unit, part, w, 0)) + column * 4, &word, 4);
        }
}

extern "C" {

// The bytes of the panels of O columns; 0 for a format that is not known or that I inputs do not fit.
int64_t servelab_block_panel_bytes(int kind, int64_t O, int64_t I) {
    int64_t bytes = 0;
    with_format(kind, [&](auto format) {
        using Format = decltype(format);
        if (I % Format::INPUTS == 0) bytes = (O + NR - 1) / NR * (I / Format::INPUTS) * Format::UNIT_BYTES;
    });
    return bytes;
}

// `raw` has the blocks of a row of the weight one after another, and a row every `stride` bytes. Missing columns of the
// last panel become zeros.
void servelab_pack_blocks(int kind, const void* raw, int64_t stride, void* panels, int64_t O, int64_t I, int num_threads) {
    with_format(kind, [&](auto format) {
        using Format = decltype(format);
        const int64_t units = I / Format::INPUTS;
        parallel_for((O + NR - 1) / NR, 1, num_threads, [&](int64_t begin, int64_t end) {
            Block block;
            for (int64_t p = begin; p < end; p++) {
                char* panel = static_cast<char*>(panels) + p * units * Format::UNIT_BYTES;
                for (int64_t o = p * NR; o < (p + 1) * NR; o++)
                    for (int64_t u = 0; u < units; u++) {
                        if (o < O)
                            Format::read(static_cast<const uint8_t*>(raw) + o * stride + u * Format::FILE_BYTES, block);
                        else
                            memset(&block, 0, sizeof block);
                        pack_column<Format>(block, panel + u * Format::UNIT_BYTES, int(o - p * NR));
                    }
            }
        });
    });
}

void servelab_block_linear(const void* x, int64_t x_stride, int dtype, const void* pieces, int num_pieces,
                           const float* bias, void* out, int64_t out_stride, int64_t T, int64_t I, int num_threads) {
    const Piece* p = static_cast<const Piece*>(pieces);
    if (dtype == BF16)
        linear(static_cast<const bf16*>(x), x_stride, p, num_pieces, bias, static_cast<bf16*>(out), out_stride, T, I,
               num_threads);
    else
        linear(static_cast<const float*>(x), x_stride, p, num_pieces, bias, static_cast<float*>(out), out_stride, T, I,
               num_threads);
}

// Rows of a weight as numbers: out[n, I] = raw[rows[n], I].
void servelab_block_rows(int kind, const void* raw, int64_t stride, const int64_t* rows, void* out, int dtype, int64_t n,
                         int64_t I, int num_threads) {
    with_format(kind, [&](auto format) {
        using Format = decltype(format);
        parallel_for(n, 4, n * I > 16384 ? num_threads : 1, [&](int64_t begin, int64_t end) {
            Block block;
            for (int64_t r = begin; r < end; r++)
                for (int64_t k = 0; k < I; k++) {
                    if (k % Format::INPUTS == 0)
                        Format::read(static_cast<const uint8_t*>(raw) + rows[r] * stride + k / Format::INPUTS * Format::FILE_BYTES, block);
                    const float value = Format::dequantize(block, int(k % Format::INPUTS));
                    if (dtype == BF16) {
                        vf v = splat(value);
                        store_n(static_cast<bf16*>(out) + r * I + k, v, 1);
                    } else {
                        static_cast<float*>(out)[r * I + k] = value;
                    }
                }
        });
    });
}

}  // extern "C"
