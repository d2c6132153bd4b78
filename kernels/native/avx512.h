// Float32 vectors of AVX-512. Included after GEM_TARGET.
#pragma once
#include <cstdint>

#include "types.h"

namespace gem_fast {
namespace {

struct Avx512Vectors {
    using Vec = __m512;
    using Index = __m512i;
    using Lanes = __mmask16;
    static constexpr int lanes = 16;

    static GEM_INLINE Vec zero() { return _mm512_setzero_ps(); }
    static GEM_INLINE Vec set(float x) { return _mm512_set1_ps(x); }
    static GEM_INLINE Vec set_bits(int32_t x) { return _mm512_castsi512_ps(_mm512_set1_epi32(x)); }
    static GEM_INLINE Vec load(const float* at) { return _mm512_load_ps(at); }
    static GEM_INLINE void store(float* at, Vec x) { _mm512_store_ps(at, x); }
    static GEM_INLINE Vec add(Vec x, Vec y) { return _mm512_add_ps(x, y); }
    static GEM_INLINE Vec sub(Vec x, Vec y) { return _mm512_sub_ps(x, y); }
    static GEM_INLINE Vec mul(Vec x, Vec y) { return _mm512_mul_ps(x, y); }
    static GEM_INLINE Vec div(Vec x, Vec y) { return _mm512_div_ps(x, y); }
    static GEM_INLINE Vec max(Vec x, Vec y) { return _mm512_max_ps(x, y); }
    static GEM_INLINE Vec min(Vec x, Vec y) { return _mm512_min_ps(x, y); }
    static GEM_INLINE Vec fma(Vec x, Vec y, Vec z) { return _mm512_fmadd_ps(x, y, z); }
    static GEM_INLINE Vec fmsub(Vec x, Vec y, Vec z) { return _mm512_fmsub_ps(x, y, z); }
    static GEM_INLINE Vec fnma(Vec x, Vec y, Vec z) { return _mm512_fnmadd_ps(x, y, z); }
    // Of what is finite, by a step of Newton's: a division takes several times as long.
    static GEM_INLINE Vec reciprocal(Vec x) {
        const Vec y = _mm512_rcp14_ps(x);
        return mul(y, fnma(x, y, set(2)));
    }
    static GEM_INLINE float add_lanes(Vec x) { return _mm512_reduce_add_ps(x); }
    static GEM_INLINE float first(Vec x) { return _mm512_cvtss_f32(x); }

    static GEM_INLINE Lanes greater(Vec x, Vec y) { return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ); }
    static GEM_INLINE Lanes at_least(Vec x, Vec y) { return _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ); }
    static GEM_INLINE Vec select(Lanes which, Vec x, Vec y) { return _mm512_mask_mov_ps(y, which, x); }

    static GEM_INLINE Lanes first_lanes(int64_t count) { return Lanes((1u << (count < lanes ? count : lanes)) - 1); }
    static GEM_INLINE Vec load_some(const float* at, Lanes which) { return _mm512_maskz_loadu_ps(which, at); }
    static GEM_INLINE void store_first(float* at, int64_t count, Vec x) {
        _mm512_mask_storeu_ps(at, first_lanes(count), x);
    }
    static GEM_INLINE Vec keep(Lanes which, Vec x) { return _mm512_maskz_mov_ps(which, x); }

    static GEM_INLINE Vec load_some(const Bfloat16Bits* at, Lanes which) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(which, at));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    static GEM_INLINE Vec load_some(const Float16Bits* at, Lanes which) {
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(which, at));
    }
    // To the nearest, NaN to NaN.
    static GEM_INLINE void store_first(Bfloat16Bits* at, int64_t count, Vec x) {
        const __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        const __m512i nearest = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000));
        _mm256_mask_storeu_epi16(at, first_lanes(count), _mm512_cvtepi32_epi16(_mm512_srli_epi32(nearest, 16)));
    }
    static GEM_INLINE void store_first(Float16Bits* at, int64_t count, Vec x) {
        _mm256_mask_storeu_epi16(at, first_lanes(count), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }

    // Four neighbours each from four places.
    static GEM_INLINE Vec fours(const float* a, const float* b, const float* c, const float* d) {
        const Vec x = _mm512_insertf32x4(_mm512_castps128_ps512(_mm_loadu_ps(a)), _mm_loadu_ps(b), 1);
        return _mm512_insertf32x4(_mm512_insertf32x4(x, _mm_loadu_ps(c), 2), _mm_loadu_ps(d), 3);
    }

    // The squares of 4 that four such vectors hold.
    static GEM_INLINE void transpose_fours(Vec (&x)[4]) {
        const __m512d a = __m512d(_mm512_unpacklo_ps(x[0], x[1])), b = __m512d(_mm512_unpackhi_ps(x[0], x[1]));
        const __m512d c = __m512d(_mm512_unpacklo_ps(x[2], x[3])), d = __m512d(_mm512_unpackhi_ps(x[2], x[3]));
        x[0] = Vec(_mm512_unpacklo_pd(a, c)), x[1] = Vec(_mm512_unpackhi_pd(a, c));
        x[2] = Vec(_mm512_unpacklo_pd(b, d)), x[3] = Vec(_mm512_unpackhi_pd(b, d));
    }

    static GEM_INLINE Index load_index(const int32_t* at) { return _mm512_load_si512(at); }
    static GEM_INLINE Vec permute(Vec x, Index index) { return _mm512_permutexvar_ps(index, x); }
    static GEM_INLINE Vec gather(const float* from, Index index) { return _mm512_i32gather_ps(index, from, 4); }

    // 2^x = 2^floor(x) · P(x - floor(x)) with P of `terms` coefficients, the highest first.
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
