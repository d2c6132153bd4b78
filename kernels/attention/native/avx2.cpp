// float32 on AVX2 and FMA, as every x86-64 CPU since about 2013 has them.
#include "../../native/target.h"
#include "problem.h"

GEM_TARGET(GEM_AVX2)
#include "../../native/avx2.h"
#include "float32.h"

namespace gem_fast {
namespace {

struct Avx2 : Avx2Vectors {
    static constexpr int logit_rows = 4, logit_columns = 3, most_columns = 3;
    // Rows of a tile so that 16 registers hold it, a row of its right operand and a broadcast; they divide TILE / 2.
    static constexpr int rows_of(int columns) { return columns == 3 ? 4 : columns == 2 ? 6 : 12; }

    // Four neighbours each of two rows `step` apart.
    static GEM_INLINE Vec load_fours(const float* at, int64_t step) {
        return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)), _mm_loadu_ps(at + step), 1);
    }

    // The squares of 4 that four such vectors hold.
    static GEM_INLINE void transpose_fours(Vec (&x)[4]) {
        const __m256d a = __m256d(_mm256_unpacklo_ps(x[0], x[1])), b = __m256d(_mm256_unpackhi_ps(x[0], x[1]));
        const __m256d c = __m256d(_mm256_unpacklo_ps(x[2], x[3])), d = __m256d(_mm256_unpackhi_ps(x[2], x[3]));
        x[0] = Vec(_mm256_unpacklo_pd(a, c)), x[1] = Vec(_mm256_unpackhi_pd(a, c));
        x[2] = Vec(_mm256_unpacklo_pd(b, d)), x[3] = Vec(_mm256_unpackhi_pd(b, d));
    }
};

}  // namespace

const Kernel avx2[] = {KERNEL(SelfSelf<Float32<Avx2>>), KERNEL(QueryKey<Float32<Avx2>>), KERNEL(Pairs<Float32<Avx2>>)};

}  // namespace gem_fast
GEM_TARGET_END
