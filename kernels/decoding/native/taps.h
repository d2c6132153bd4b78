// Bilinear interpolation, pixel centres at half integers: columns first, in registers, then rows.
// Included once by each instruction set.
#pragma once
#include "problem.h"

namespace gem_fast::decoding {
namespace {

// The two source indices of an output position, and the second one's weight.
struct Tap {
    int64_t first, second;
    float weight;
};

inline Tap tap(int64_t i, int64_t inputs, int64_t outputs) {
    const double position = (double(i) + 0.5) * double(inputs) / double(outputs) - 0.5;
    const double inside = position > 0 ? position : 0;
    const int64_t first = int64_t(inside) < inputs ? int64_t(inside) : inputs - 1;
    return {first, first + 1 < inputs ? first + 1 : first, float(inside - double(first))};
}

// A vector of neighbouring output columns, the first of them `x`; past the last, that one again.
template <class Isa>
struct Columns {
    using Vec = typename Isa::Vec;
    static constexpr int lanes = Isa::lanes;

    typename Isa::Index first, second;  // source columns, from `start` on
    Vec weight;                         // of the second
    int64_t start;
    typename Isa::Lanes inside;  // source columns in a vector's reach
    bool near;                   // all of them are

    Columns(int64_t x, int64_t w, int64_t W) {
        alignas(64) int32_t from[lanes], to[lanes];
        alignas(64) float weights[lanes];
        start = tap(x, w, W).first;
        for (int i = 0; i < lanes; i++) {
            const Tap at = tap(x + i < W ? x + i : W - 1, w, W);
            from[i] = int32_t(at.first - start);
            to[i] = int32_t(at.second - start);
            weights[i] = at.weight;
        }
        first = Isa::load_index(from);
        second = Isa::load_index(to);
        weight = Isa::load(weights);
        inside = Isa::first_lanes(w - start);
        near = to[lanes - 1] < lanes;
    }

    // The source on either side of each output column.
    GEM_INLINE void pick(const float* row, Vec& left, Vec& right) const {
        if (near) {
            const Vec x = Isa::load_some(row + start, inside);
            left = Isa::permute(x, first);
            right = Isa::permute(x, second);
        } else {
            left = Isa::gather(row + start, first);
            right = Isa::gather(row + start, second);
        }
    }
};

template <class Isa>
GEM_INLINE typename Isa::Vec lerp(typename Isa::Vec from, typename Isa::Vec to, typename Isa::Vec weight) {
    return Isa::fma(weight, Isa::sub(to, from), from);
}

// The two source rows around an output row, stretched to its columns; a row that is here already is kept.
struct RowPair {
    float *top, *bottom;
    int64_t top_index = -1, bottom_index = -1;

    template <class Stretch>
    GEM_INLINE void move_to(const Tap& at, const Stretch& stretch) {
        if (at.first == bottom_index) {
            float* row = top;
            top = bottom, bottom = row;
            bottom_index = top_index, top_index = at.first;
        }
        if (at.first != top_index) stretch(top_index = at.first, top);
        if (at.second != bottom_index) stretch(bottom_index = at.second, bottom);
    }
};

}  // namespace
}  // namespace gem_fast::decoding
