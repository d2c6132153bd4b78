// The operands of a float32 kernel: a word is a float. Included after GEM_TARGET.
#pragma once
#include "../../native/exp2.h"
#include "pairs.h"

namespace gem_fast {
namespace {

template <class Base>
struct Float32 : Base {
    using Vec = typename Base::Vec;
    using Operand = Vec;
    static constexpr int group = 1;
    static constexpr bool rounds = false;
    static constexpr Word one = 0x3f800000;

    static GEM_INLINE Operand load_operand(const Word* at) { return Base::load(reinterpret_cast<const float*>(at)); }
    static GEM_INLINE Operand load_factors(const Word* at) { return load_operand(at); }
    static GEM_INLINE Operand broadcast(const Word* at) { return Base::set(*reinterpret_cast<const float*>(at)); }
    static GEM_INLINE Vec dot(Vec s, Operand a, Operand b) { return Base::fma(a, b, s); }
    static GEM_INLINE Vec exp2(Vec x) { return Base::exp2(x, EXP2_FLOAT32); }

    static GEM_INLINE Vec round(Vec x) { return x; }

    static GEM_INLINE void group_tokens(const float* rows, int64_t width, Word* to) {
        __builtin_memcpy(to, rows, width * sizeof(float));
    }

    // rows [count, width] to columns [depth, count], multiples of 4 and of the lanes.
    static void transpose(const float* rows, int64_t width, int64_t depth, int count, Word* to) {
        for (int64_t d = 0; d < depth; d += 4)
            for (int i = 0; i < count; i += Base::lanes) {
                Vec square[4];
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++) square[k] = Base::load_fours(rows + (i + k) * width + d, 4 * width);
                Base::transpose_fours(square);
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++) Base::store(reinterpret_cast<float*>(to) + (d + k) * count + i, square[k]);
            }
    }

    // Stores a tile of a block, and adds its rows to row_sums [R, lanes], each column times its factor if there are any.
    template <int BLOCK, bool WithSums, bool WithFactors = false, int R, int C>
    static GEM_INLINE void store_weights(const Vec (&s)[R][C], Word* to, float* row_sums, const Word* factors = nullptr) {
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            Vec sum = Base::zero();
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) {
                Base::store(reinterpret_cast<float*>(to) + r * BLOCK + c * Base::lanes, s[r][c]);
                sum = WithFactors ? dot(sum, s[r][c], load_factors(factors + c * Base::lanes)) : Base::add(sum, s[r][c]);
            }
            float* row_sum = row_sums + r * Base::lanes;
            if (WithSums) Base::store(row_sum, Base::add(Base::load(row_sum), sum));
        }
    }

    // The transpose of a block of floats is that block read by columns: this only adds them to column_sums [C * lanes],
    // each row times its factor if there are any; but for the first vector of a tile on the diagonal.
    template <int BLOCK, bool WithSums, bool WithFactors = false, int R, int C>
    static GEM_INLINE void store_mirrored(const Vec (&s)[R][C], Word*, float* column_sums, bool diagonal,
                                          const Word* factors = nullptr) {
        if (!WithSums) return;
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            if (c == 0 && diagonal) continue;
            Vec sum = Base::zero();
#pragma GCC unroll 16
            for (int r = 0; r < R; r++)
                sum = WithFactors ? dot(sum, s[r][c], broadcast(factors + r)) : Base::add(sum, s[r][c]);
            float* column_sum = column_sums + c * Base::lanes;
            Base::store(column_sum, Base::add(Base::load(column_sum), sum));
        }
    }
};

}  // namespace
}  // namespace gem_fast
