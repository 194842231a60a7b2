// The operations between matrix products, one pass each: at one row PyTorch's cost is the number of calls, not the work.
#include <cmath>

#include "parallel.h"
#include "vec.h"

constexpr int64_t ONE_THREAD_ELEMENTS = 16384;  // below it, waking a second thread costs more than it saves

template <typename Vector, typename Tail>
static inline void for_vectors(int64_t n, const Vector& whole, const Tail& tail) {
    int64_t j = 0;
    for (; j + W <= n; j += W) whole(j);
    if (j < n) tail(j, int(n - j));
}

// residual += x when there is one; out = it (or x) / rms * weight.
template <typename X>
static void rms_norm(const X* x, X* residual, const X* weight, X* out, int64_t T, int64_t D, float eps, int num_threads) {
    parallel_for(T, 4, T * D > ONE_THREAD_ELEMENTS ? num_threads : 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++) {
            const X* in = x + t * D;
            vf square{};
            if (residual) {
                X* r = residual + t * D;
                for_vectors(
                    D, [&](int64_t j) { store(r + j, load(r + j) + load(in + j)); },
                    [&](int64_t j, int n) { store_n(r + j, load_n(r + j, n) + load_n(in + j, n), n); });
                in = r;
            }
            for_vectors(
                D, [&](int64_t j) { const vf v = load(in + j); square += v * v; },
                [&](int64_t j, int n) { const vf v = load_n(in + j, n); square += v * v; });
            const float scale = 1.0f / std::sqrt(reduce_sum(square) / float(D) + eps);
            X* o = out + t * D;
            for_vectors(
                D, [&](int64_t j) { store(o + j, load(in + j) * scale * load(weight + j)); },
                [&](int64_t j, int n) { store_n(o + j, load_n(in + j, n) * scale * load_n(weight + j, n), n); });
        }
    });
}

static inline vf silu(vf x) { return x / (1.0f + vexp(-x)); }

template <typename X>
static void silu_and_mul(const X* gate_up, X* out, int64_t T, int64_t I, int num_threads) {
    parallel_for(T, 1, T * I > ONE_THREAD_ELEMENTS ? num_threads : 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++) {
            const X *gate = gate_up + t * 2 * I, *up = gate + I;
            X* o = out + t * I;
            for_vectors(
                I, [&](int64_t j) { store(o + j, silu(load(gate + j)) * load(up + j)); },
                [&](int64_t j, int n) { store_n(o + j, silu(load_n(gate + j, n)) * load_n(up + j, n), n); });
        }
    });
}

// In place, on the first `heads` heads of each row: x[h] = x[h] cos[h] + x[(h + H/2) mod H] signed_sin[h].
template <typename X>
static void rotate(X* qk, int64_t stride, const X* cos, const X* sin, int64_t T, int64_t heads, int64_t H, int num_threads) {
    const int64_t half = H / 2;
    parallel_for(T, 4, T * heads * H > ONE_THREAD_ELEMENTS ? num_threads : 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++) {
            const X *c = cos + t * H, *s = sin + t * H;
            for (int64_t head = 0; head < heads; head++) {
                X *a = qk + t * stride + head * H, *b = a + half;
                for_vectors(
                    half,
                    [&](int64_t j) {
                        const vf x = load(a + j), y = load(b + j);
                        store(a + j, x * load(c + j) + y * load(s + j));
                        store(b + j, y * load(c + half + j) + x * load(s + half + j));
                    },
                    [&](int64_t j, int n) {
                        const vf x = load_n(a + j, n), y = load_n(b + j, n);
                        store_n(a + j, x * load_n(c + j, n) + y * load_n(s + j, n), n);
                        store_n(b + j, y * load_n(c + half + j, n) + x * load_n(s + half + j, n), n);
                    });
            }
        }
    });
}

#define DISPATCH(dtype, call)        \
    if ((dtype) == BF16) {           \
        using X = bf16;              \
        call;                        \
    } else {                         \
        using X = float;             \
        call;                        \
    }

extern "C" {

void servelab_rms_norm(const void* x, void* residual, const void* weight, void* out, int dtype, int64_t T, int64_t D,
                       float eps, int num_threads) {
    DISPATCH(dtype, rms_norm((const X*)x, (X*)residual, (const X*)weight, (X*)out, T, D, eps, num_threads))
}

void servelab_silu_and_mul(const void* gate_up, void* out, int dtype, int64_t T, int64_t I, int num_threads) {
    DISPATCH(dtype, silu_and_mul((const X*)gate_up, (X*)out, T, I, num_threads))
}

void servelab_rotate(void* qk, int64_t stride, const void* cos, const void* sin, int dtype, int64_t T, int64_t heads,
                     int64_t H, int num_threads) {
    DISPATCH(dtype, rotate((X*)qk, stride, (const X*)cos, (const X*)sin, T, heads, H, num_threads))
}

}  // extern "C"
