// Float32 vectors of AVX2 and FMA. Included after GEM_TARGET.
#pragma once
#include <cstdint>

#include "types.h"

namespace gem_fast {
namespace {

struct Avx2Vectors {
    using Vec = __m256;
    using Index = __m256i;
    using Lanes = __m256i;  // all bits set where a lane counts
    static constexpr int lanes = 8;

    static GEM_INLINE Vec zero() { return _mm256_setzero_ps(); }
    static GEM_INLINE Vec set(float x) { return _mm256_set1_ps(x); }
    static GEM_INLINE Vec set_bits(int32_t x) { return _mm256_castsi256_ps(_mm256_set1_epi32(x)); }
    static GEM_INLINE Vec load(const float* at) { return _mm256_load_ps(at); }
    static GEM_INLINE void store(float* at, Vec x) { _mm256_store_ps(at, x); }
    static GEM_INLINE Vec add(Vec x, Vec y) { return _mm256_add_ps(x, y); }
    static GEM_INLINE Vec sub(Vec x, Vec y) { return _mm256_sub_ps(x, y); }
    static GEM_INLINE Vec mul(Vec x, Vec y) { return _mm256_mul_ps(x, y); }
    static GEM_INLINE Vec div(Vec x, Vec y) { return _mm256_div_ps(x, y); }
    static GEM_INLINE Vec max(Vec x, Vec y) { return _mm256_max_ps(x, y); }
    static GEM_INLINE Vec min(Vec x, Vec y) { return _mm256_min_ps(x, y); }
    static GEM_INLINE Vec fma(Vec x, Vec y, Vec z) { return _mm256_fmadd_ps(x, y, z); }
    static GEM_INLINE Vec fmsub(Vec x, Vec y, Vec z) { return _mm256_fmsub_ps(x, y, z); }
    static GEM_INLINE float first(Vec x) { return _mm256_cvtss_f32(x); }
    static GEM_INLINE float add_lanes(Vec x) {
        __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        y = _mm_add_ps(y, _mm_movehl_ps(y, y));
        return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
    }

    static GEM_INLINE Lanes greater(Vec x, Vec y) { return _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_GT_OQ)); }
    static GEM_INLINE Lanes at_least(Vec x, Vec y) { return _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_GE_OQ)); }
    static GEM_INLINE Vec select(Lanes which, Vec x, Vec y) {
        return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(which));
    }

    static GEM_INLINE Lanes first_lanes(int64_t count) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count < lanes ? count : lanes)),
                                  _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
    }
    static GEM_INLINE Vec load_some(const float* at, Lanes which) { return _mm256_maskload_ps(at, which); }
    static GEM_INLINE void store_first(float* at, int64_t count, Vec x) {
        if (count < lanes) _mm256_maskstore_ps(at, first_lanes(count), x);
        else _mm256_storeu_ps(at, x);  // a masked store of all lanes takes several times as long
    }
    static GEM_INLINE Vec keep(Lanes which, Vec x) { return _mm256_and_ps(_mm256_castsi256_ps(which), x); }

    static GEM_INLINE Vec load_some(const Bfloat16Bits* at, Lanes which) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_halves(at, which)), 16));
    }
    static GEM_INLINE Vec load_some(const Float16Bits* at, Lanes which) { return _mm256_cvtph_ps(load_halves(at, which)); }
    // To the nearest, NaN to NaN.
    static GEM_INLINE void store_first(Bfloat16Bits* at, int64_t count, Vec x) {
        const __m256i bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        const Vec nearest = _mm256_blendv_ps(_mm256_castsi256_ps(up), set_bits(0x7fc00000), _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
        const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(nearest), 16);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
        store_halves(at, count, _mm256_castsi256_si128(packed));
    }
    static GEM_INLINE void store_first(Float16Bits* at, int64_t count, Vec x) {
        store_halves(at, count, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
    // There is no mask for lanes of two bytes.
    static GEM_INLINE __m128i load_halves(const void* at, Lanes which) {
        const int count = __builtin_popcount(_mm256_movemask_ps(_mm256_castsi256_ps(which)));
        if (count == lanes) return _mm_loadu_si128(static_cast<const __m128i*>(at));
        __m128i some = _mm_setzero_si128();
        __builtin_memcpy(&some, at, count * 2);
        return some;
    }
    static GEM_INLINE void store_halves(void* at, int64_t count, __m128i x) {
        if (count < lanes) __builtin_memcpy(at, &x, count * 2);
        else _mm_storeu_si128(static_cast<__m128i*>(at), x);
    }

    static GEM_INLINE Index load_index(const int32_t* at) {
        return _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
    }
    static GEM_INLINE Vec permute(Vec x, Index index) { return _mm256_permutevar8x32_ps(x, index); }
    static GEM_INLINE Vec gather(const float* from, Index index) { return _mm256_i32gather_ps(from, index, 4); }

    // 2^x = 2^floor(x) · P(x - floor(x)) with P of `terms` coefficients, the highest first; below -126, where floats
    // end, it stays at 2^-126.
    template <int terms>
    static GEM_INLINE Vec exp2(Vec x, const float (&coefficients)[terms]) {
        x = _mm256_max_ps(_mm256_set1_ps(-126.f), x);  // in this order NaN stays
        const Vec whole = _mm256_floor_ps(x), fraction = _mm256_sub_ps(x, whole);
        Vec y = set(coefficients[0]);
#pragma GCC unroll 8
        for (int i = 1; i < terms; i++) y = fma(y, fraction, set(coefficients[i]));
        const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
        return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), exponent));
    }
};

}  // namespace
}  // namespace gem_fast
