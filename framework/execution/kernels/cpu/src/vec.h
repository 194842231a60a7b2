// Vectors of fp32 in the widest registers that the build machine has, and loads and stores of fp32 and bf16 memory.
//
// GCC/Clang vector extensions, so that one source serves AVX-512, AVX2, SSE and NEON.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint16_t vh __attribute__((vector_size(W * 2)));
// The same in memory: any address, any type of what lies there. (memcpy would do, but GCC 12 sends it through the stack.)
typedef float vf_mem __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef uint32_t vu_mem __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef uint16_t vh_mem __attribute__((vector_size(W * 2), aligned(2), may_alias));

typedef uint16_t bf16;  // only ever converted, never computed with

enum DType { F32 = 0, BF16 = 1 };

static inline vf splat(float x) { return x - vf{}; }

static inline float to_float(float x) { return x; }
static inline float to_float(bf16 x) {
    uint32_t u = uint32_t(x) << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline vf load(const float* p) {
    return *reinterpret_cast<const vf_mem*>(p);
}
static inline vf load(const bf16* p) {
    vh h = *reinterpret_cast<const vh_mem*>(p);
    return vf(__builtin_convertvector(h, vu) << 16);
}

static inline void store(float* p, vf v) { *reinterpret_cast<vf_mem*>(p) = v; }
static inline void store(bf16* p, vf v) {  // round to nearest even; NaN stays NaN
    vu u = vu(v);
    vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    vu is_nan = vu(v != v);
    vu bits = (rounded & ~is_nan) | (0x7fc0u & is_nan);
    *reinterpret_cast<vh_mem*>(p) = __builtin_convertvector(bits, vh);
}

template <typename T>
static inline vf load_n(const T* p, int n) {  // n < W elements, zeros behind them
    T tmp[W] = {};
    memcpy(tmp, p, n * sizeof(T));
    return load(tmp);
}
template <typename T>
static inline void store_n(T* p, vf v, int n) {
    T tmp[W];
    store(tmp, v);
    memcpy(p, tmp, n * sizeof(T));
}

static inline vf select(vi mask, vf a, vf b) { return vf((vi(a) & mask) | (vi(b) & ~mask)); }
static inline vf vmax(vf a, vf b) { return select(a > b, a, b); }
static inline vf vmin(vf a, vf b) { return select(a < b, a, b); }

static inline float reduce_sum(vf v) {
    float s = 0;
    for (int i = 0; i < W; i++) s += v[i];
    return s;
}
static inline float reduce_max(vf v) {
    float m = v[0];
    for (int i = 1; i < W; i++) m = v[i] > m ? v[i] : m;
    return m;
}

// e^x to 2 units in the last place: x = n ln2 + r, a polynomial in r, n into the exponent. Below -87.3 gives about 1e-38
// rather than a denormal; callers that need an exact zero select it.
static inline vf vexp(vf x) {
    x = vmax(vmin(x, splat(88.37f)), splat(-87.33f));
    const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    vf shifted = x * 1.44269504f + magic;
    vf n = shifted - magic;
    vf r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    vi e = (vi(shifted) - vi(magic) + 127) << 23;
    return p * vf(e);
}
