// bfloat16 on AVX-512 BF16 (AMD from Zen 4, Intel from Cooper Lake): a word is two bfloat16 that follow in the sum.
#include "../../native/target.h"
#include "problem.h"

GEM_TARGET(GEM_AVX512_BF16)
#include "avx512.h"

namespace gem_fast {
namespace {

// Relative error 7.5e-5 on [0, 1), an order below the rounding to bfloat16.
constexpr float EXP2_BFLOAT16[] = {7.8024521e-2f, 2.2606716e-1f, 6.9583356e-1f, 9.9992520e-1f};

struct Bfloat16 : Avx512 {
    using Operand = __m512bh;
    static constexpr int group = 2;
    static constexpr bool rounds = true;
    static constexpr Word one = 0x3f803f80;

    static GEM_INLINE Operand load_operand(const Word* at) { return Operand(_mm512_load_si512(at)); }
    static GEM_INLINE Operand load_factors(const Word* at) { return Operand(_mm512_loadu_si512(at)); }
    static GEM_INLINE Operand broadcast(const Word* at) { return Operand(_mm512_set1_epi32(int(*at))); }
    static GEM_INLINE Vec dot(Vec s, Operand a, Operand b) { return _mm512_dpbf16_ps(s, a, b); }
    static GEM_INLINE Vec exp2(Vec x) { return Avx512::exp2(x, EXP2_BFLOAT16); }

    static GEM_INLINE Vec round(Vec x) {
        const __m512i wide = _mm512_cvtepu16_epi32(__m256i(_mm512_cvtneps_pbh(x)));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }

    static GEM_INLINE __m512i both(Vec low, Vec high) { return __m512i(_mm512_cvtne2ps_pbh(high, low)); }

    // Lane by lane, x in the lower and y in the upper half of a word.
    static GEM_INLINE __m512i pair(Vec x, Vec y) {
        const __m512i halves = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                                6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        return _mm512_permutexvar_epi16(halves, both(x, y));
    }

    // Two tokens [2, width] to words [width].
    static GEM_INLINE void group_tokens(const float* rows, int64_t width, Word* to) {
        for (int64_t d = 0; d < width; d += lanes)
            _mm512_store_si512(to + d, pair(load(rows + d), load(rows + width + d)));
    }

    // rows [count, width] to columns [depth, count] of words, each two neighbours of a row.
    static void transpose(const float* rows, int64_t width, int64_t depth, int count, Word* to) {
        for (int i = 0; i < count; i++) {
            Word row[64] __attribute__((aligned(64)));
            for (int64_t d = 0; d < width; d += lanes) {
                const __m256i words = __m256i(_mm512_cvtneps_pbh(load(rows + i * width + d)));
                _mm256_store_si256(reinterpret_cast<__m256i*>(row + d / 2), words);
            }
            for (int64_t d = 0; d < depth; d++) to[d * count + i] = row[d];
        }
    }

    // Stores a tile of a block, and adds its rows, as rounded, to row_sums [R, lanes], each column times its factor if
    // there are any.
    template <int BLOCK, bool WithSums, bool WithFactors = false, int R, int C>
    static GEM_INLINE void store_weights(const Vec (&s)[R][C], Word* to, float* row_sums, const Word* factors = nullptr) {
        const Operand ones = Operand(_mm512_set1_epi32(one));
#pragma GCC unroll 16
        for (int r = 0; r < R; r++, to += BLOCK / 2) {
            Vec sum = WithSums ? load(row_sums + r * lanes) : zero();
            if (C > 1) {
                const __m512i x = both(s[r][0], s[r][C > 1]);
                _mm512_storeu_si512(to, x);
                sum = dot(sum, Operand(x), WithFactors ? load_factors(factors) : ones);
            }
            if (C % 2) {
                const __m512i x = both(s[r][C - 1], zero());
                _mm256_store_si256(reinterpret_cast<__m256i*>(to + C / 2 * lanes), _mm512_castsi512_si256(x));
                sum = dot(sum, Operand(x), WithFactors ? load_factors(factors + C / 2 * lanes) : ones);
            }
            if (WithSums) store(row_sums + r * lanes, sum);
        }
    }

    // Stores its transpose, and adds its columns, as rounded, to column_sums [C * lanes], each row times its factor if
    // there are any; but for the first vector of a tile on the diagonal.
    template <int BLOCK, bool WithSums, bool WithFactors = false, int R, int C>
    static GEM_INLINE void store_mirrored(const Vec (&s)[R][C], Word* to, float* column_sums, bool diagonal,
                                          const Word* factors = nullptr) {
        const Operand ones = Operand(_mm512_set1_epi32(one));
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            Vec sum = WithSums ? load(column_sums + c * lanes) : zero();
#pragma GCC unroll 8
            for (int r = 0; r < R; r += 2) {
                const __m512i x = pair(s[r][c], s[r + 1][c]);
                _mm512_store_si512(to + r / 2 * BLOCK + c * lanes, x);
                sum = dot(sum, Operand(x), WithFactors ? broadcast(factors + r / 2) : ones);
            }
            if (WithSums && (c > 0 || !diagonal)) store(column_sums + c * lanes, sum);
        }
    }
};

}  // namespace

const Kernel avx512_bf16[] = {KERNEL(SelfSelf<Bfloat16>), KERNEL(QueryKey<Bfloat16>), KERNEL(Pairs<Bfloat16>)};

}  // namespace gem_fast
GEM_TARGET_END
