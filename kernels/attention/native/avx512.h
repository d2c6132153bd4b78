// AVX-512: what its float32 and its bfloat16 kernel share. Included after GEM_TARGET.
#pragma once
#include "../../native/avx512.h"
#include "pairs.h"

namespace gem_fast {
namespace {

struct Avx512 : Avx512Vectors {
    static constexpr int logit_rows = 8, logit_columns = 3, most_columns = 4;
    // Rows of a tile so that 32 registers hold it, a row of its right operand and a broadcast; they divide BLOCK.
    static constexpr int rows_of(int columns) { return columns == 4 ? 6 : columns == 3 ? 8 : 12; }

    // Four neighbours each of four rows `step` apart.
    static GEM_INLINE Vec load_fours(const float* at, int64_t step) {
        const Vec x = _mm512_insertf32x4(_mm512_castps128_ps512(_mm_loadu_ps(at)), _mm_loadu_ps(at + step), 1);
        return _mm512_insertf32x4(_mm512_insertf32x4(x, _mm_loadu_ps(at + 2 * step), 2), _mm_loadu_ps(at + 3 * step), 3);
    }

    // The squares of 4 that four such vectors hold.
    static GEM_INLINE void transpose_fours(Vec (&x)[4]) {
        const __m512d a = __m512d(_mm512_unpacklo_ps(x[0], x[1])), b = __m512d(_mm512_unpackhi_ps(x[0], x[1]));
        const __m512d c = __m512d(_mm512_unpacklo_ps(x[2], x[3])), d = __m512d(_mm512_unpackhi_ps(x[2], x[3]));
        x[0] = Vec(_mm512_unpacklo_pd(a, c)), x[1] = Vec(_mm512_unpackhi_pd(a, c));
        x[2] = Vec(_mm512_unpacklo_pd(b, d)), x[3] = Vec(_mm512_unpackhi_pd(b, d));
    }
};

}  // namespace
}  // namespace gem_fast
