// Float32 vectors of AVX2 and FMA. Included after GEM_TARGET.
#pragma once
#include <cstdint>

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
