// The blocks of GGUF files, as the products read them.
//
// A panel holds NR output columns (rows of the weight) for all inputs. It is a sequence of units, one per block of the
// file: for each column the block's scales, then its numbers, such that one 32-bit lane belongs to one column. The
// numbers of a unit are small integers q; a weight is d * (q - OFFSET) + m, where d and m hold for SUB inputs.
#pragma once
#include "vec.h"

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

constexpr int NV = 2;        // vectors a panel is wide
constexpr int NR = NV * W;   // columns of a panel: 16 with AVX2, 32 with AVX-512

typedef int16_t vs __attribute__((vector_size(W * 4)));
typedef uint8_t vb __attribute__((vector_size(W)));
typedef int8_t vc __attribute__((vector_size(W)));
typedef vi vi_mem __attribute__((aligned(4), may_alias));
typedef vb vb_mem __attribute__((aligned(1), may_alias));
typedef vc vc_mem __attribute__((aligned(1), may_alias));

enum Kind { Q4_0 = 2, Q4_1 = 3, Q8_0 = 8, Q4_K = 12, Q6_K = 14 };  // the numbers of the file format

static inline float half_to_float(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
    uint32_t u;
    if (exponent == 31) {
        u = sign | 0x7f800000u | fraction << 13;
    } else if (exponent) {
        u = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        const float magnitude = float(fraction) * 0x1p-24f;
        memcpy(&u, &magnitude, 4);
        u |= sign;
    }
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline vf load_half(const char* p) {
#if defined(__AVX512F__)
    return vf(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__) && defined(__AVX2__)
    return vf(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    uint16_t h[W];
    memcpy(h, p, sizeof h);
    vf v;
    for (int i = 0; i < W; i++) v[i] = half_to_float(h[i]);
    return v;
#endif
}
static inline vf load_bytes(const char* p) {
    return __builtin_convertvector(__builtin_convertvector(*reinterpret_cast<const vb_mem*>(p), vi), vf);
}
static inline vf load_signed_bytes(const char* p) {
    return __builtin_convertvector(__builtin_convertvector(*reinterpret_cast<const vc_mem*>(p), vi), vf);
}
static inline vi load_words(const char* p) { return *reinterpret_cast<const vi_mem*>(p); }

// One block of a file, taken apart. `scale` and `minimum` are those of a part of SUB numbers where the format has parts.
struct Block {
    uint16_t d, m;
    uint8_t scale[16], minimum[8], q[256];
};

// What the formats have in common: where the fields of a unit are.
//   INPUTS  numbers of a block          HALVES   fields of 16 bits per column
//   SUB     numbers of one scale        BYTES    fields of 8 bits per column
//   WORDS   32-bit words of a part per column, with SUB numbers in them
template <int INPUTS_, int SUB_, int HALVES_, int BYTES_, int WORDS_>
struct Layout {
    static constexpr int INPUTS = INPUTS_, SUB = SUB_, HALVES = HALVES_, BYTES = BYTES_, WORDS = WORDS_;
    static constexpr int PARTS = INPUTS / SUB, PAIRS = SUB / 2;
    static constexpr int COLUMN_BYTES = 2 * HALVES + BYTES + 4 * WORDS * PARTS;
    static constexpr int64_t UNIT_BYTES = int64_t(COLUMN_BYTES) * NR;
    static const char* half(const char* unit, int field, int j) { return unit + (field * NR + j * W) * 2; }
    static const char* byte(const char* unit, int field, int j) { return unit + 2 * HALVES * NR + field * NR + j * W; }
    static const char* word(const char* unit, int part, int word, int j) {
        return unit + (2 * HALVES + BYTES) * NR + ((part * WORDS + word) * NR + j * W) * 4;
    }
};

// Eight nibbles per word; a shift and a mask give the pair of two consecutive inputs as 16-bit numbers.
static inline void unpack_nibbles(vi word, vi* pairs) {
    for (int i = 0; i < 4; i++) pairs[i * NV] = vi(vu(word) >> (4 * i)) & 0x000f000f;
}
static inline uint32_t pack_nibbles(const uint8_t* q) {
    uint32_t word = 0;
    for (int i = 0; i < 8; i++) word |= uint32_t(q[i]) << (4 * (i / 2) + 16 * (i % 2));
    return word;
}

struct FormatQ4_0 : Layout<32, 32, 1, 0, 4> {
    static constexpr int OFFSET = 8;
    static constexpr bool MINIMUM = false;
    static constexpr int FILE_BYTES = 18;
    static void read(const uint8_t* raw, Block& b) {
        memcpy(&b.d, raw, 2);
        for (int i = 0; i < 16; i++) b.q[i] = raw[2 + i] & 15, b.q[16 + i] = raw[2 + i] >> 4;
    }
    static vf scale(const char* unit, int, int j) { return load_half(half(unit, 0, j)); }
    static vf minimum(const char*, int, int) { return vf{}; }
    static void unpack(const char* unit, int part, int j, vi* pairs) {
        for (int w = 0; w < 4; w++) unpack_nibbles(load_words(word(unit, part, w, j)), pairs + 4 * w * NV);
    }
    static uint32_t pack(const uint8_t* q, int w) { return pack_nibbles(q + 8 * w); }
    static float dequantize(const Block& b, int k) { return half_to_float(b.d) * float(b.q[k] - 8); }
};

struct FormatQ4_1 : Layout<32, 32, 2, 0, 4> {
    static constexpr int OFFSET = 0;
    static constexpr bool MINIMUM = true;
    static constexpr int FILE_BYTES = 20;
    static void read(const uint8_t* raw, Block& b) {
        memcpy(&b.d, raw, 2);
        memcpy(&b.m, raw + 2, 2);
        for (int i = 0; i < 16; i++) b.q[i] = raw[4 + i] & 15, b.q[16 + i] = raw[4 + i] >> 4;
    }
    static vf scale(const char* unit, int, int j) { return load_half(half(unit, 0, j)); }
    static vf minimum(const char* unit, int, int j) { return load_half(half(unit, 1, j)); }
    static void unpack(const char* unit, int part, int j, vi* pairs) {
        for (int w = 0; w < 4; w++) unpack_nibbles(load_words(word(unit, part, w, j)), pairs + 4 * w * NV);
    }
    static uint32_t pack(const uint8_t* q, int w) { return pack_nibbles(q + 8 * w); }
    static float dequantize(const Block& b, int k) { return half_to_float(b.d) * b.q[k] + half_to_float(b.m); }
};

struct FormatQ8_0 : Layout<32, 32, 1, 0, 8> {
    static constexpr int OFFSET = 0;
    static constexpr bool MINIMUM = false;
    static constexpr int FILE_BYTES = 34;
    static void read(const uint8_t* raw, Block& b) {
        memcpy(&b.d, raw, 2);
        memcpy(b.q, raw + 2, 32);
    }
    static vf scale(const char* unit, int, int j) { return load_half(half(unit, 0, j)); }
    static vf minimum(const char*, int, int) { return vf{}; }
    static void unpack(const char* unit, int part, int j, vi* pairs) {
        for (int w = 0; w < 8; w++) {
            const vs both = vs(load_words(word(unit, part, w, j)));
            pairs[2 * w * NV] = vi((both << 8) >> 8);
            pairs[(2 * w + 1) * NV] = vi(both >> 8);
        }
    }
    static uint32_t pack(const uint8_t* q, int w) {
        q += 4 * w;
        return uint32_t(q[0]) | uint32_t(q[2]) << 8 | uint32_t(q[1]) << 16 | uint32_t(q[3]) << 24;
    }
    static float dequantize(const Block& b, int k) { return half_to_float(b.d) * float(int8_t(b.q[k])); }
};

struct FormatQ4_K : Layout<256, 32, 2, 16, 4> {
    static constexpr int OFFSET = 0;
    static constexpr bool MINIMUM = true;
    static constexpr int FILE_BYTES = 144;
    static void read(const uint8_t* raw, Block& b) {
        memcpy(&b.d, raw, 2);
        memcpy(&b.m, raw + 2, 2);
        const uint8_t* packed = raw + 4;  // eight scales and eight minima of 6 bits
        for (int i = 0; i < 4; i++) {
            b.scale[i] = packed[i] & 63;
            b.minimum[i] = packed[4 + i] & 63;
            b.scale[4 + i] = (packed[8 + i] & 15) | (packed[i] >> 6) << 4;
            b.minimum[4 + i] = packed[8 + i] >> 4 | (packed[4 + i] >> 6) << 4;
        }
        for (int i = 0; i < 128; i++) {
            const int k = i / 32 * 64 + i % 32;
            b.q[k] = raw[16 + i] & 15, b.q[k + 32] = raw[16 + i] >> 4;
        }
    }
    static vf scale(const char* unit, int part, int j) {
        return load_half(half(unit, 0, j)) * load_bytes(byte(unit, part, j));
    }
    static vf minimum(const char* unit, int part, int j) {
        return -load_half(half(unit, 1, j)) * load_bytes(byte(unit, 8 + part, j));
    }
    static void unpack(const char* unit, int part, int j, vi* pairs) {
        for (int w = 0; w < 4; w++) unpack_nibbles(load_words(word(unit, part, w, j)), pairs + 4 * w * NV);
    }
    static uint32_t pack(const uint8_t* q, int w) { return pack_nibbles(q + 8 * w); }
    static float dequantize(const Block& b, int k) {
        return half_to_float(b.d) * b.scale[k / 32] * b.q[k] - half_to_float(b.m) * b.minimum[k / 32];
    }
};

struct FormatQ6_K : Layout<256, 16, 1, 16, 3> {
    static constexpr int OFFSET = 32;
    static constexpr bool MINIMUM = false;
    static constexpr int FILE_BYTES = 210;
    static void read(const uint8_t* raw, Block& b) {
        memcpy(&b.d, raw + 208, 2);
        memcpy(b.scale, raw + 192, 16);
        for (int k = 0; k < 256; k++) {
            const int half = k / 128, quarter = k % 128 / 32, l = k % 32;
            const uint8_t low = raw[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
            b.q[k] = low | (raw[128 + half * 32 + l] >> (2 * quarter) & 3) << 4;
        }
    }
    static vf scale(const char* unit, int part, int j) {
        return load_half(half(unit, 0, j)) * load_signed_bytes(byte(unit, part, j));
    }
    static vf minimum(const char*, int, int) { return vf{}; }
    static void unpack(const char* unit, int part, int j, vi* pairs) {
        for (int w = 0; w < 2; w++) unpack_nibbles(load_words(word(unit, part, w, j)), pairs + 4 * w * NV);
        const vu high = vu(load_words(word(unit, part, 2, j)));  // two bits of each of the 16 numbers
        for (int i = 0; i < 8; i++) pairs[i * NV] |= vi(i < 2 ? high << (4 - 2 * i) : high >> (2 * i - 4)) & 0x00300030;
    }
    static uint32_t pack(const uint8_t* q, int w) {
        if (w < 2) {
            uint8_t low[8];
            for (int i = 0; i < 8; i++) low[i] = q[8 * w + i] & 15;
            return pack_nibbles(low);
        }
        uint32_t word = 0;
        for (int i = 0; i < 16; i++) word |= uint32_t(q[i] >> 4) << (2 * (i / 2) + 16 * (i % 2));
        return word;
    }
    static float dequantize(const Block& b, int k) {
        return half_to_float(b.d) * float(int8_t(b.scale[k / 16])) * float(b.q[k] - 32);
    }
};

// Calls f with an object of the format; false for a number that stands for none of them.
template <typename F>
static bool with_format(int kind, const F& f) {
    switch (kind) {
        case Q4_0: return f(FormatQ4_0{}), true;
        case Q4_1: return f(FormatQ4_1{}), true;
        case Q8_0: return f(FormatQ8_0{}), true;
        case Q4_K: return f(FormatQ4_K{}), true;
        case Q6_K: return f(FormatQ6_K{}), true;
    }
    return false;
}
