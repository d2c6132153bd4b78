// The register tile that both products of attention are made of. Included once by each instruction set.
#pragma once
#include "problem.h"

namespace gem_fast {
namespace {

using Word = uint32_t;  // what one lane multiplies at a time: a float32, or two bfloat16 that follow in the sum

// s[r][c] += Σ_k a(r, k) · b(k, c), where a(r, k) is broadcast from a[r*ROW + k*STEP] and b has rows of `width` words.
template <class Isa, int ROW, int STEP, int R, int C>
GEM_INLINE void multiply(typename Isa::Vec (&s)[R][C], const Word* a, const Word* b, ptrdiff_t width, ptrdiff_t words) {
    for (ptrdiff_t k = 0; k < words; k++, a += STEP, b += width) {
        typename Isa::Operand columns[C];
#pragma GCC unroll 8
        for (int c = 0; c < C; c++) columns[c] = Isa::load_operand(b + c * Isa::lanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const typename Isa::Operand row = Isa::broadcast(a + r * ROW);
#pragma GCC unroll 8
            for (int c = 0; c < C; c++) s[r][c] = Isa::dot(s[r][c], row, columns[c]);
        }
    }
}

// to[r][0:C] += Σ_k a(r, k) · b(k, 0:C), or = where it begins, for `rows` rows of `width` floats, R rows at a time; a and b
// as in `multiply`.
template <class Isa, int ROW, int STEP, int C>
void accumulate_columns(const Word* a, const Word* b, float* to, int rows, ptrdiff_t width, ptrdiff_t words, bool begins) {
    constexpr int R = Isa::rows_of(C);
    for (int r0 = 0; r0 < rows; r0 += R) {
        typename Isa::Vec s[R][C];
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int c = 0; c < C; c++) s[r][c] = Isa::zero();
        multiply<Isa, ROW, STEP>(s, a + r0 * ROW, b, width, words);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int c = 0; c < C; c++) {
                // Added only now: long float32 sums keep their digits when they are sums of short ones.
                float* at = to + (r0 + r) * width + c * Isa::lanes;
                Isa::store(at, begins ? s[r][c] : Isa::add(Isa::load(at), s[r][c]));
            }
    }
}

// The same over the whole width, in chunks of columns that the registers hold. `rows` is rounded up to a whole tile.
template <class Isa, int ROW, int STEP>
void accumulate(const Word* a, const Word* b, float* to, int rows, ptrdiff_t width, ptrdiff_t words, bool begins) {
    const int vectors = int(width / Isa::lanes), chunks = (vectors + Isa::most_columns - 1) / Isa::most_columns;
    for (int chunk = 0, v = 0; chunk < chunks; chunk++) {
        const int columns = (vectors - v + chunks - chunk - 1) / (chunks - chunk);
        const ptrdiff_t at = ptrdiff_t(v) * Isa::lanes;
        switch (columns) {
            case 1: accumulate_columns<Isa, ROW, STEP, 1>(a, b + at, to + at, rows, width, words, begins); break;
            case 2: accumulate_columns<Isa, ROW, STEP, 2>(a, b + at, to + at, rows, width, words, begins); break;
            case 3: accumulate_columns<Isa, ROW, STEP, 3>(a, b + at, to + at, rows, width, words, begins); break;
            default:
                if constexpr (Isa::most_columns == 4)
                    accumulate_columns<Isa, ROW, STEP, 4>(a, b + at, to + at, rows, width, words, begins);
        }
        v += columns;
    }
}

}  // namespace
}  // namespace gem_fast
