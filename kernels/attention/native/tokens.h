// Tokens of a head between memory of any type, padded float32 and operands. Included once by each instruction set.
#pragma once
#include "tile.h"

namespace gem_fast {
namespace {

GEM_INLINE float float_of(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

GEM_INLINE uint32_t bits_of(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}

// Element `offset` of memory of a type; D a multiple of 8.
inline void load_row(const void* from, int64_t offset, Type type, int64_t D, float* to) {
    if (type == Type::float32) {
        const float* x = static_cast<const float*>(from) + offset;
        for (int64_t d = 0; d < D; d += 8) _mm256_storeu_ps(to + d, _mm256_loadu_ps(x + d));
        return;
    }
    const uint16_t* x = static_cast<const uint16_t*>(from) + offset;
    if (type == Type::bfloat16)
        for (int64_t d = 0; d < D; d++) to[d] = float_of(uint32_t(x[d]) << 16);
    else
        for (int64_t d = 0; d < D; d += 8)
            _mm256_storeu_ps(to + d, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + d))));
}

GEM_INLINE uint16_t to_bfloat16(float x) {
    const uint32_t bits = bits_of(x), nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return uint16_t(x == x ? nearest : 0x7fc0);
}

inline void store_row(const float* from, void* to, int64_t offset, Type type, int64_t D) {
    if (type == Type::float32) {
        __builtin_memcpy(static_cast<float*>(to) + offset, from, D * sizeof(float));
        return;
    }
    uint16_t* x = static_cast<uint16_t*>(to) + offset;
    if (type == Type::bfloat16)
        for (int64_t d = 0; d < D; d++) x[d] = to_bfloat16(from[d]);
    else
        for (int64_t d = 0; d < D; d += 8)
            _mm_storeu_si128(reinterpret_cast<__m128i*>(x + d), _mm256_cvtps_ph(_mm256_loadu_ps(from + d), 0));
}

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

constexpr int BLOCK = 96;  // tokens in a block of S; a multiple of every tile's rows and columns
constexpr float LOG2_E = 1.44269504f;

// One head of a problem: its sizes, and its tokens in and out.
template <class Isa>
struct Tokens {
    using Vec = typename Isa::Vec;
    static constexpr int W = Isa::lanes, G = Isa::group, R = Isa::logit_rows, C = Isa::logit_columns, TILE = C * W;
    static constexpr int AHEAD = 12;  // tokens that are fetched ahead
    static_assert(BLOCK % TILE == 0 && TILE % R == 0 && TILE % G == 0);

    const Problem& problem;
    const int64_t b, h, N, D;
    const int64_t padded, width, depth;  // tokens in whole tiles; D in whole vectors; D in words

    Tokens(const Problem& problem, int64_t b, int64_t h)
        : problem(problem), b(b), h(h), N(problem.N), D(problem.D),
          padded(up(N, TILE)), width(up(D, W)), depth(D / G) {}

    // Takes an array of `count` at `at`, which moves past it.
    template <class T>
    static void take(char*& at, T*& array, int64_t count) {
        array = reinterpret_cast<T*>(at);
        at += up(count * int64_t(sizeof(T)), 64);
    }

    // A projection [N, D] to padded float32 [padded, width].
    void load(int projection, float* to) const {
        const int64_t* stride = problem.strides;
        const int64_t at = b * stride[0] + projection * stride[2] + h * stride[3];
        for (int64_t i = 0; i < N; i++) {
            prefetch<false>(problem.qkv, at + (i + AHEAD) * stride[1], problem.type);
            load_row(problem.qkv, at + i * stride[1], problem.type, D, to + i * width);
            for (int64_t d = D; d < width; d++) to[i * width + d] = 0;
        }
        __builtin_memset(to + N * width, 0, (padded - N) * width * sizeof(float));
    }

    void store(int64_t i, const float* row) const {
        const int64_t stride = problem.H * D, at = (b * N + i) * stride + h * D;
        prefetch<true>(problem.out, at + AHEAD * stride, problem.out_type);
        store_row(row, problem.out, at, problem.out_type, D);
    }

    // Into the second cache, where there is room: tokens lie pages apart, which the hardware does not foresee.
    template <bool Write>
    void prefetch(const void* memory, int64_t offset, Type type) const {
        const int64_t bytes = type == Type::float32 ? 4 : 2;
        const char* at = static_cast<const char*>(memory) + offset * bytes;
        for (int64_t line = 0; line < D * bytes; line += 64) __builtin_prefetch(at + line, Write, 2);
    }

    // A projection to the right operand of a sum over tokens [padded/G, width], through float32 [padded, width].
    void load_rows(int projection, float* through, Word* to) const {
        if (G == 1) return load(projection, reinterpret_cast<float*>(to));
        load(projection, through);
        group(through, to);
    }

    // Rows [padded, width] to the right operand of a sum over tokens [padded/G, width].
    void group(const float* from, Word* to) const {
        for (int64_t i = 0; i < padded; i += G) Isa::group_tokens(from + i * width, width, to + i / G * width);
    }

    float length(const float* row) const {
        Vec squares = Isa::zero();
        for (int64_t d = 0; d < width; d += W) squares = Isa::fma(Isa::load(row + d), Isa::load(row + d), squares);
        return __builtin_sqrtf(Isa::add_lanes(squares));
    }

    int tokens(int64_t block) const { return int(N - block < BLOCK ? N - block : BLOCK); }
    static int words(int n) { return (n + G - 1) / G; }

    // Of columns [padded/TILE, depth, TILE] those from a token on.
    GEM_INLINE const Word* from(const Word* columns, int64_t token) const {
        return columns + token / TILE * TILE * depth + token % TILE;
    }

    // s = the dot products of R tokens of `left` from i on with some of `right` from j on, all in one tile.
    template <int COLUMNS>
    GEM_INLINE void dot_products(Vec (&s)[R][COLUMNS], const Word* left, int64_t i, const Word* right, int64_t j) const {
        for (auto& row : s)
            for (auto& x : row) x = Isa::zero();
        multiply<Isa, 1, TILE>(s, from(left, i), from(right, j), TILE, depth);
    }
};

}  // namespace
}  // namespace gem_fast
