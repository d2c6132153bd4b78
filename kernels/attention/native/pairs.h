// Attention of pairs of projections of any norm, of one head: a projection with itself by a symmetric matrix of weights,
// where their range allows it. Included once by each instruction set.
#pragma once
#include "query_key.h"

namespace gem_fast {
namespace {

constexpr float WIDEST = 90;  // exponents of two that factors may span: what underflows is below 2^-36 of a row's sum

// softmax(c x xᵀ + bias) v. With a_i about c|x_i|²/2, exp2(c x_i·x_j - a_i - a_j) is symmetric and at most 4 with the bias;
// the row's factor exp2(a_i) falls away in the softmax, and the column's goes to the values. The a_i are whole numbers, so
// that the factors are powers of two and round nothing.
template <class Isa>
class AnyNorm : SymmetricBlocks<Isa, AnyNorm<Isa>> {
    using Base = SymmetricBlocks<Isa, AnyNorm<Isa>>;
    using Vec = typename Isa::Vec;
    using Base::W, Base::G, Base::R, Base::C, Base::TILE;
    using Base::problem, Base::N, Base::padded, Base::width, Base::depth;
    using Base::sum, Base::weights, Base::mirrored, Base::partial, Base::column_sums;
    friend Base;

    Word* columns;         // [padded/TILE, depth, TILE]: x, both operands of the logits
    Word* x_rows;          // [padded/G, width]: the values times their factors
    Word* factors;         // [padded/G]: exp2(a_j - max a), 0 for padding
    float* minus_a;        // [padded]
    Distance<Isa> distance;
    float c;               // log2(e) times the scale

public:
    AnyNorm(const Problem& problem, int64_t b, int64_t h, char* scratch)
        : Base(problem, b, h), distance(problem, b, h), c(problem.inverse_temperature[b] * LOG2_E) {
        place(scratch);
    }

    char* place(char* at) {
        Base::take(at, columns, padded * depth);
        Base::take(at, x_rows, padded / G * width);
        Base::take(at, factors, padded / G + W);  // and what a load of the last ones reads beyond
        Base::take(at, minus_a, padded);
        return Base::place_blocks(distance.place(at));
    }

    // Adds the attention of a projection with itself, or returns false where its norms are too different.
    bool add(int projection, float* total) {
        Base::load(projection, sum);
        if (!find_factors()) return false;
        distance.find_rows();
        for (int64_t i = 0; i < padded; i += TILE)
            Isa::transpose(sum + i * width, width, depth, TILE, columns + i * depth);
        Base::load(2, sum);
        for (int64_t i = 0; i < N; i++) {
            const Vec factor = Isa::set(factor_of(i));
            for (int64_t d = i * width; d < (i + 1) * width; d += W)
                Isa::store(sum + d, Isa::mul(Isa::load(sum + d), factor));
        }
        Base::group(sum, x_rows);
        Base::template multiply_blocks<true>(x_rows);
        Base::add_to(total);
        return true;
    }

private:
    float largest;  // of a

    bool find_factors() {
        float smallest = 0;
        for (int64_t i = 0; i < padded; i++) {
            const float norm = Base::length(sum + i * width);
            const float a = __builtin_nearbyintf(c * norm * norm / 2);
            if (!(a < MOST)) return false;
            if (i == 0) smallest = largest = a;
            if (i < N && a < smallest) smallest = a;
            if (i < N && a > largest) largest = a;
            minus_a[i] = -a;
        }
        if (largest - smallest > WIDEST) return false;
        for (int64_t i = 0; i < padded + G * W; i += G) {
            Word word = 0;
            for (int64_t part = 0; part < G; part++)
                if (i + part < N) word |= bits_of(factor_of(i + part)) >> (32 - 32 / G) << (32 / G * part);
            factors[i / G] = word;
        }
        return true;
    }

    // 2 to a whole number within WIDEST of 0.
    float factor_of(int64_t i) const { return float_of(uint32_t(127 - int(minus_a[i] + largest)) << 23); }

    float padding(int64_t) const { return 0; }  // its factor is 0

    template <bool WithDivisor, int COLUMNS>
    void tile(int64_t I, int i, int64_t J, int j) {
        if (distance.any()) tile_of<true, COLUMNS>(I, i, J, j);
        else tile_of<false, COLUMNS>(I, i, J, j);
    }

    template <bool WithDistance, int COLUMNS>
    __attribute__((noinline)) void tile_of(int64_t I, int i, int64_t J, int j) {
        Vec s[R][COLUMNS];
        const int64_t first = I + i;
        Base::dot_products(s, columns, first, columns, J + j);
        const Vec scale = Isa::set(c);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const Vec shift = Isa::set(minus_a[first + r]);
#pragma GCC unroll 4
            for (int v = 0; v < COLUMNS; v++) {
                const int64_t at = J + j + v * W;
                Vec logits = Isa::add(Isa::fma(s[r][v], scale, shift), Isa::load(minus_a + at));
                if (WithDistance) logits = distance.add(logits, first + r, at);
                s[r][v] = Isa::exp2(logits);
            }
        }
        Isa::template store_weights<BLOCK, true, true>(s, weights + i * (BLOCK / G) + j / G, partial + i * W,
                                                       factors + (J + j) / G);
        Isa::template store_mirrored<BLOCK, true, true>(s, mirrored + i / G * BLOCK + j, column_sums + j, I == J && j <= i,
                                                        factors + first / G);
    }

    static constexpr float MOST = 1 << 20;  // beyond, a float32 logit has no digits left for the softmax
};

template <class Isa>
class Pairs : Tokens<Isa> {
    using Base = Tokens<Isa>;
    using Base::problem, Base::N, Base::padded, Base::width;

    float* total;  // [padded, width]
    AnyNorm<Isa> symmetric;
    QueryKey<Isa> general;  // in the same scratch, after it

public:
    Pairs(const Problem& problem, int64_t b, int64_t h, char* scratch)
        : Base(problem, b, h), symmetric(problem, b, h, nullptr), general(problem, b, h, nullptr) {
        place(scratch);
    }

    char* place(char* at) {
        Base::take(at, total, padded * width);
        char *end = symmetric.place(at), *other = general.place(at);
        return end > other ? end : other;
    }

    void run() {
        __builtin_memset(total, 0, padded * width * sizeof(float));
        for (int pair = 0; pair < problem.projection_count; pair++) {
            const int a = problem.projections[2 * pair], b = problem.projections[2 * pair + 1];
            if (a != b || !symmetric.add(a, total)) general.add(a, b, total);
        }
        for (int64_t i = 0; i < N; i++) Base::store(i, total + i * width);
    }
};

}  // namespace
}  // namespace gem_fast
