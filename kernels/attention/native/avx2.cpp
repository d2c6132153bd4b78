// float32 on AVX2 and FMA, as every x86-64 CPU since about 2013 has them.
#include "problem.h"
#include "target.h"

GEM_TARGET("avx2,fma,f16c")
#include "float32.h"

namespace gem_fast {
namespace {

struct Avx2 {
    using Vec = __m256;
    static constexpr int lanes = 8, logit_rows = 4, logit_columns = 3, most_columns = 3;
    // Rows of a tile so that 16 registers hold it, a row of its right operand and a broadcast; they divide BLOCK.
    static constexpr int rows_of(int columns) { return columns == 3 ? 4 : columns == 2 ? 6 : 12; }

    static GEM_INLINE Vec zero() { return _mm256_setzero_ps(); }
    static GEM_INLINE Vec set(float x) { return _mm256_set1_ps(x); }
    static GEM_INLINE Vec load(const float* at) { return _mm256_load_ps(at); }
    static GEM_INLINE void store(float* at, Vec x) { _mm256_store_ps(at, x); }
    static GEM_INLINE Vec add(Vec x, Vec y) { return _mm256_add_ps(x, y); }
    static GEM_INLINE Vec mul(Vec x, Vec y) { return _mm256_mul_ps(x, y); }
    static GEM_INLINE Vec max(Vec x, Vec y) { return _mm256_max_ps(x, y); }
    static GEM_INLINE Vec fma(Vec x, Vec y, Vec z) { return _mm256_fmadd_ps(x, y, z); }
    static GEM_INLINE float first(Vec x) { return _mm256_cvtss_f32(x); }
    static GEM_INLINE float add_lanes(Vec x) {
        __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        y = _mm_add_ps(y, _mm_movehl_ps(y, y));
        return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
    }

    // 2^x = 2^floor(x) · P(x - floor(x)); below -126, where floats end, it stays at 2^-126.
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

const Kernel avx2[] = {KERNEL(SelfSelf<Float32<Avx2>>), KERNEL(QueryKey<Float32<Avx2>>)};

}  // namespace gem_fast
GEM_TARGET_END
