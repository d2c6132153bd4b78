// AVX-512: what its float32 and its bfloat16 kernel share. Included after GEM_TARGET.
#pragma once
#include "../../native/avx512.h"
#include "pairs.h"

namespace gem_fast {
namespace {

struct Avx512 : Avx512Vectors {
    static constexpr int logit_rows = 8, logit_columns = 3, most_columns = 4;
    // Rows of a tile so that 32 registers hold it, a row of its right operand and a broadcast; they divide TILE / 2.
    static constexpr int rows_of(int columns) { return columns == 4 ? 6 : columns == 3 ? 8 : 12; }

    // Four neighbours each of four rows `step` apart.
    static GEM_INLINE Vec load_fours(const float* at, int64_t step) {
        return fours(at, at + step, at + 2 * step, at + 3 * step);
    }
};

}  // namespace
}  // namespace gem_fast
