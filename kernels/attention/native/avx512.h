// AVX-512: what its float32 and its bfloat16 kernel share. Included after GEM_TARGET.
#pragma once
#include "query_key.h"

namespace gem_fast {
namespace {

struct Avx512 {
    using Vec = __m512;
    static constexpr int lanes = 16, logit_rows = 8, logit_columns = 3, most_columns = 4;
    // Rows of a tile so that 32 registers hold it, a row of its right operand and a broadcast; they divide BLOCK.
    static constexpr int rows_of(int columns) { return columns == 4 ? 6 : columns == 3 ? 8 : 12; }

    static GEM_INLINE Vec zero() { return _mm512_setzero_ps(); }
    static GEM_INLINE Vec set(float x) { return _mm512_set1_ps(x); }
    static GEM_INLINE Vec load(const float* at) { return _mm512_load_ps(at); }
    static GEM_INLINE void store(float* at, Vec x) { _mm512_store_ps(at, x); }
    static GEM_INLINE Vec add(Vec x, Vec y) { return _mm512_add_ps(x, y); }
    static GEM_INLINE Vec mul(Vec x, Vec y) { return _mm512_mul_ps(x, y); }
    static GEM_INLINE Vec max(Vec x, Vec y) { return _mm512_max_ps(x, y); }
    static GEM_INLINE Vec fma(Vec x, Vec y, Vec z) { return _mm512_fmadd_ps(x, y, z); }
    static GEM_INLINE float add_lanes(Vec x) { return _mm512_reduce_add_ps(x); }
    static GEM_INLINE float first(Vec x) { return _mm512_cvtss_f32(x); }

    // 2^x = 2^floor(x) · P(x - floor(x)) with the minimax polynomial P of `terms` coefficients, the highest first.
    template <int terms>
    static GEM_INLINE Vec exp2(Vec x, const float (&coefficients)[terms]) {
        const Vec fraction = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        Vec y = set(coefficients[0]);
#pragma GCC unroll 8
        for (int i = 1; i < terms; i++) y = fma(y, fraction, set(coefficients[i]));
        return _mm512_scalef_ps(y, x);
    }
};

}  // namespace
}  // namespace gem_fast
