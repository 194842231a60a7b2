// Causal attention of a mixed batch straight over the paged KV cache.
//
// Cache: [block][KV head][K, V][block_size * H]. A block of keys is transposed, [H][block_size], so that both products
// read it along its rows: scores = q[., H] * K[H, tokens] and out += p[., tokens] * V[tokens, H], with the query heads
// of a KV head (GQA) and the tokens of a query tile as the rows of a small matrix product.
//
// The softmax is online (Milakov & Gimelshein, arXiv 1805.02867; FlashAttention, arXiv 2205.14135) over chunks that
// start at fixed positions, in fp32. Masked entries add exact zeros, so a token's result does not depend on how its
// prompt was cut into chunks or on who shares the batch, bit for bit.
#include <cmath>
#include <vector>

#include "parallel.h"
#include "vec.h"

constexpr int MR = 6;               // rows of a register tile
constexpr int64_t TILE_ROWS = 48;   // query rows (tokens * group) that share a pass over the keys
constexpr int64_t CHUNK_TOKENS = 64;

struct Shape {
    int64_t N, M, H, block_size, group;
    int64_t window;  // how many positions a query sees, its own included; 0 for all
    float cap;       // of scores; 0 for none
};

// c[M][cols] = (c +) a[M][K] * b[K][cols]; writes whole vectors, up to W - 1 columns past `cols`.
template <int M, int NV, typename B>
static void product_tile(const float* a, int64_t lda, const B* b, int64_t ldb, float* c, int64_t ldc, int64_t K, bool add) {
    vf acc[M][NV];
    for (int i = 0; i < M; i++)
        for (int j = 0; j < NV; j++) acc[i][j] = add ? load(c + i * ldc + j * W) : vf{};
    for (int64_t k = 0; k < K; k++) {
        vf w[NV];
        for (int j = 0; j < NV; j++) w[j] = load(b + k * ldb + j * W);
#pragma GCC unroll 6
        for (int i = 0; i < M; i++)
            for (int j = 0; j < NV; j++) acc[i][j] += a[i * lda + k] * w[j];
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < NV; j++) store(c + i * ldc + j * W, acc[i][j]);
}

template <int M, typename B>
static void product_rows(int64_t m, const float* a, int64_t lda, const B* b, int64_t ldb, float* c, int64_t ldc, int64_t K,
                         int64_t cols, bool add) {
    if constexpr (M > 1)
        if (m < M) return product_rows<M - 1>(m, a, lda, b, ldb, c, ldc, K, cols, add);
    int64_t j = 0;
    for (; j + W < cols; j += 2 * W) product_tile<M, 2>(a, lda, b + j, ldb, c + j, ldc, K, add);
    if (j < cols) product_tile<M, 1>(a, lda, b + j, ldb, c + j, ldc, K, add);
}

template <typename B>
static void product(int64_t rows, const float* a, int64_t lda, const B* b, int64_t ldb, float* c, int64_t ldc, int64_t K,
                    int64_t cols, bool add) {
    for (int64_t r = 0; r < rows; r += MR)
        product_rows<MR>(std::min<int64_t>(MR, rows - r), a + r * lda, lda, b, ldb, c + r * ldc, ldc, K, cols, add);
}

// Blocks lie anywhere in memory, where hardware fetches nothing ahead.
template <typename C>
static void fetch(const C* block, int64_t elements) {
    const char* p = reinterpret_cast<const char*>(block);
    for (int64_t i = 0; i < int64_t(elements * sizeof(C)); i += 64) __builtin_prefetch(p + i);
}

// c tanh(s / c), as c - 2 c / (exp(2 s / c) + 1).
static void cap_row(float* scores, int64_t width, float cap) {
    for (int64_t j = 0; j < width; j += W) {
        const vf power = vexp(load(scores + j) * splat(2.0f / cap));
        store(scores + j, splat(cap) - splat(2.0f * cap) / (power + splat(1.0f)));
    }
}

// Turns a row's scores into exp(score - max), zero before `skip` and past `valid`; updates the running max and sum and
// rescales `out`. All may be masked.
static void softmax_row(float* scores, int64_t skip, int64_t valid, int64_t width, float& row_max, float& row_sum,
                        float* out, int64_t H) {
    for (int64_t j = 0; j < skip; j++) scores[j] = -INFINITY;
    for (int64_t j = valid; j < width; j++) scores[j] = -INFINITY;
    vf top = splat(row_max);
    for (int64_t j = 0; j < width; j += W) top = vmax(load(scores + j), top);
    const float new_max = reduce_max(top);
    vf sum{};
    for (int64_t j = 0; j < width; j += W) {
        const vf s = load(scores + j), p = select(s == splat(-INFINITY), vf{}, vexp(s - new_max));
        store(scores + j, p);
        sum += p;
    }
    const float keep = row_max == -INFINITY ? 0.0f : expf(row_max - new_max);
    row_sum = row_sum * keep + reduce_sum(sum);
    if (keep != 1.0f)
        for (int64_t h = 0; h < H; h += W) store(out + h, load(out + h) * keep);
    row_max = new_max;
}

// `tokens` consecutive queries, the first at position `start`, against one KV head.
template <typename X, typename C>
static void attend(const X* q, int64_t q_stride, X* out, const C* cache, const int32_t* table, const Shape& s, int64_t head,
                   int64_t start, int64_t tokens, float scale) {
    static thread_local Scratch<float> scratch;
    const int64_t H = s.H, bs = s.block_size, G = s.group, rows = tokens * G, end = start + tokens;
    const int64_t chunk_blocks = std::max<int64_t>(1, CHUNK_TOKENS / bs), chunk = chunk_blocks * bs;
    const int64_t ld = (chunk + 2 * W - 1) / W * W;
    float* qf = scratch.get(rows * (2 * H + ld + 2));
    float *acc = qf + rows * H, *scores = acc + rows * H, *row_max = scores + rows * ld, *row_sum = row_max + rows;
    for (int64_t r = 0; r < rows; r++) {
        const X* src = q + r / G * q_stride + (head * G + r % G) * H;
        for (int64_t h = 0; h < H; h += W) {
            store(qf + r * H + h, load(src + h) * scale);
            store(acc + r * H + h, vf{});
        }
        row_max[r] = -INFINITY;
        row_sum[r] = 0;
    }
    const int64_t seen = s.window > 0 ? std::max<int64_t>(0, start - s.window + 1) : 0;  // from here on
    for (int64_t first = seen / chunk * chunk; first < end; first += chunk) {
        const int64_t n = std::min(chunk, end - first), blocks = (n + bs - 1) / bs, width = (n + W - 1) / W * W;
        const int32_t* ids = table + first / bs;
        const auto keys = [&](int64_t j) { return cache + (ids[j] * s.M + head) * 2 * bs * H; };
        for (int64_t j = 0; j < blocks; j++) {
            fetch(keys(j) + bs * H, bs * H);  // its values
            product(rows, qf, H, keys(j), bs, scores + j * bs, ld, H, std::min(bs, n - j * bs), false);
        }
        for (int64_t r = 0; r < rows; r++) {
            const int64_t valid = std::clamp<int64_t>(start + r / G + 1 - first, 0, n);
            const int64_t skip =
                s.window > 0 ? std::clamp<int64_t>(start + r / G - s.window + 1 - first, 0, n) : 0;
            if (s.cap > 0) cap_row(scores + r * ld, width, s.cap);
            softmax_row(scores + r * ld, skip, valid, width, row_max[r], row_sum[r], acc + r * H, H);
        }
        for (int64_t j = 0; j < blocks; j++) {
            if (first + chunk + j * bs < end) fetch(keys(chunk_blocks + j), bs * H);  // the next chunk's keys
            product(rows, scores + j * bs, ld, keys(j) + bs * H, H, acc, H, std::min(bs, n - j * bs), H, true);
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        X* dst = out + (r / G * s.N + head * G + r % G) * H;
        for (int64_t h = 0; h < H; h += W) store(dst + h, load(acc + r * H + h) / row_sum[r]);
    }
}

template <typename X, typename C>
static void write_kv(const X* k, int64_t k_stride, const X* v, int64_t v_stride, C* cache, const int64_t* slots, int64_t T,
                     const Shape& s, int num_threads) {
    const int64_t H = s.H, bs = s.block_size;
    parallel_for(T, 8, T > 16 ? num_threads : 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++) {
            if (slots[t] < 0) continue;
            const int64_t block = slots[t] / bs, offset = slots[t] % bs;
            for (int64_t m = 0; m < s.M; m++) {
                C* key = cache + (block * s.M + m) * 2 * bs * H;
                C* value = key + bs * H + offset * H;
                const X *k_row = k + t * k_stride + m * H, *v_row = v + t * v_stride + m * H;
                for (int64_t h = 0; h < H; h += W) {
                    C converted[W];
                    store(converted, load(k_row + h));
                    for (int i = 0; i < W; i++) key[(h + i) * bs + offset] = converted[i];
                    store(value + h, load(v_row + h));
                }
            }
        }
    });
}

struct Task {
    int32_t row, token, count, head;
};

template <typename X, typename C>
static void paged_attention(const X* q, int64_t q_stride, const X* k, int64_t k_stride, const X* v, int64_t v_stride, X* out,
                            C* cache, const int64_t* slots, const int32_t* query_start, const int32_t* seq_lens,
                            const int32_t* tables, int64_t table_stride, int64_t R, const Shape& s, float scale,
                            int num_threads) {
    write_kv(k, k_stride, v, v_stride, cache, slots, query_start[R], s, num_threads);
    static thread_local std::vector<Task> tasks_of_thread;
    std::vector<Task>& tasks = tasks_of_thread;
    tasks.clear();
    const int tile = int(std::max<int64_t>(1, TILE_ROWS / s.group));
    for (int64_t r = R; r-- > 0;)  // last rows and last tiles first: they are the longest, and the short ones fill the gaps
        for (int token = (query_start[r + 1] - query_start[r] - 1) / tile * tile; token >= 0; token -= tile)
            for (int64_t head = 0; head < s.M; head++)
                if (query_start[r] + token < query_start[r + 1])
                    tasks.push_back({int32_t(r), token, std::min(tile, query_start[r + 1] - query_start[r] - token), int32_t(head)});
    parallel_for(int64_t(tasks.size()), 1, num_threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const Task& t = tasks[i];
            const int64_t first = query_start[t.row] + t.token;
            const int64_t start = seq_lens[t.row] - (query_start[t.row + 1] - first);
            attend(q + first * q_stride, q_stride, out + first * s.N * s.H, cache, tables + t.row * table_stride, s, t.head,
                   start, t.count, scale);
        }
    });
}

extern "C" void servelab_paged_attention(const void* q, int64_t q_stride, const void* k, int64_t k_stride, const void* v,
                                         int64_t v_stride, int x_dtype, void* out, void* cache, int cache_dtype,
                                         const int64_t* slots, const int32_t* query_start, const int32_t* seq_lens,
                                         const int32_t* tables, int64_t table_stride, int64_t R, int64_t N, int64_t M,
                                         int64_t H, int64_t block_size, float scale, int64_t window, float cap,
                                         int num_threads) {
    const Shape s{N, M, H, block_size, N / M, window, cap};
    auto run = [&](auto* x, auto* c) {
        using X = std::remove_pointer_t<decltype(x)>;
        using C = std::remove_pointer_t<decltype(c)>;
        paged_attention(static_cast<const X*>(q), q_stride, static_cast<const X*>(k), k_stride, static_cast<const X*>(v),
                        v_stride, static_cast<X*>(out), static_cast<C*>(cache), slots, query_start, seq_lens, tables,
                        table_stride, R, s, scale, num_threads);
    };
    float* f = nullptr;
    bf16* b = nullptr;
    if (x_dtype == BF16)
        cache_dtype == BF16 ? run(b, b) : run(b, f);
    else
        cache_dtype == BF16 ? run(f, b) : run(f, f);
}
