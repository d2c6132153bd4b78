// NACLIP's bias of near patches, from two tables whose product it is. Included once by each instruction set.
#pragma once
#include "tokens.h"

namespace gem_fast {
namespace {

template <class Isa>
class Distance : Tokens<Isa> {
    using Base = Tokens<Isa>;
    using Vec = typename Isa::Vec;
    using Base::problem, Base::N, Base::padded;

    const float **down, **across;  // [padded]: of each token the row of a table

public:
    Distance(const Problem& problem, int64_t b, int64_t h) : Base(problem, b, h) {}

    char* place(char* at) {
        Base::take(at, down, padded);
        Base::take(at, across, padded);
        return at;
    }

    bool any() const { return problem.down; }

    void find_rows() {
        const int64_t w = problem.grid_width;
        for (int64_t i = 0; any() && i < padded; i++) {
            // The last row of a table is zeros: the class token and padding have no place.
            const bool placed = i > 0 && i < N;
            down[i] = problem.down + (placed ? (i - 1) / w : (N - 1) / w) * problem.table_stride;
            across[i] = problem.across + (placed ? (i - 1) % w : w) * problem.table_stride;
        }
    }

    // The logits of token i with those from j on, and their bias.
    GEM_INLINE Vec add(Vec logits, int64_t i, int64_t j) const {
        return Isa::fma(Isa::load(down[i] + j), Isa::load(across[i] + j), logits);
    }
};

}  // namespace
}  // namespace gem_fast
