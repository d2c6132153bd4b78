// Products of uint8 rows and int8 weights, exact in int32. Included after GEM_TARGET.
#pragma once
#include "rows.h"

namespace gem_fast {
namespace {

constexpr int R = int(ROWS), C = int(PANEL) / W;  // rows and vectors of a tile: its sums fill 24 of 32 registers
static_assert(MOST_ROWS % R == 0);

// sums [R, PANEL] of R rows with a panel's weights.
inline void multiply(const uint8_t* rows, int64_t stride, const int8_t* weight, int64_t words, int32_t* sums) {
    __m512i s[R][C];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) s[r][c] = _mm512_setzero_si512();
    for (int64_t k = 0; k < words; k++, rows += 4, weight += PANEL * 4) {
        __m512i columns[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) columns[c] = _mm512_load_si512(weight + c * 64);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            int word;
            __builtin_memcpy(&word, rows + r * stride, 4);
            const __m512i row = _mm512_set1_epi32(word);
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) s[r][c] = _mm512_dpbusd_epi32(s[r][c], row, columns[c]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) _mm512_store_si512(sums + r * PANEL + c * W, s[r][c]);
}

// to [rows, stride] = x · weight + bias for the outputs from `first` to `last`, plus `plus` of the same form if given.
inline void multiply_rows(const Bytes& x, int64_t rows, const Int8Layer& layer, int64_t first, int64_t last, float* to,
                          int64_t stride, const float* plus = nullptr) {
    int32_t sums[R * PANEL] __attribute__((aligned(64)));
    for (int64_t n = first; n < last; n += PANEL)
        for (int64_t r0 = 0; r0 < rows; r0 += R) {
            multiply(x.bytes + r0 * x.stride, x.stride, layer.weight + n * layer.words() * 4, layer.words(), sums);
            for (int64_t r = r0; r < r0 + R && r < rows; r++)
                for (int64_t c = 0; c < PANEL && n + c < last; c += W) {
                    const float* factors = layer.factors + n + c;
                    const int64_t at = r * stride + n + c - first, left = last - n - c;
                    const Vec sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums + (r - r0) * PANEL + c));
                    const Vec steps = Isa::mul(Isa::load(factors), Isa::set(x.steps[r]));
                    const Vec whole = _mm512_fnmadd_ps(Isa::set(x.zeros[r]), Isa::load(factors + layer.columns()), sum);
                    Vec y = Isa::fma(whole, steps, Isa::load(factors + 2 * layer.columns()));
                    if (plus) y = Isa::add(y, load_some(plus + at, left));
                    Isa::store_first(to + at, left, y);
                }
        }
}

}  // namespace
}  // namespace gem_fast
