// Attention of any pair of projections, as softmax(q kᵀ/√D) v of an unchanged block, of one head. Included once by each instruction set.
#pragma once
#include "distance.h"
#include "self_self.h"

namespace gem_fast {
namespace {

constexpr float MASKED = -1e30f;              // added to a logit, leaves a weight of zero
constexpr float SMALLEST_DIVISOR = 0x1p-64f;  // of a row whose largest weight is still exact enough in bfloat16

template <class Isa>
class QueryKey : Tokens<Isa> {
    using Base = Tokens<Isa>;
    using Vec = typename Isa::Vec;
    using Base::W, Base::G, Base::R, Base::C, Base::TILE;
    using Base::problem, Base::N, Base::padded, Base::width, Base::depth, Base::tokens, Base::words;

    Word *q_columns, *k_columns;  // [padded/TILE, depth, TILE]
    Word* v_rows;                 // [padded/G, width]
    float* sum;                   // [padded, width]
    float* shift;                 // [padded]: what is subtracted from the logits of a row, a bound of the largest
    float* mask;                  // [padded]: 0 for a key, MASKED for padding
    Word* weights;                // [BLOCK, BLOCK/G]: a block of exp2(logits - shift)
    float* partial;               // [BLOCK, W]: sums of the weights, or largest logits, not yet over lanes
    Distance<Isa> distance;
    float c;                      // log2(e)/√D, or log2(e) times the scale

public:
    QueryKey(const Problem& problem, int64_t b, int64_t h, char* scratch)
        : Base(problem, b, h), distance(problem, b, h) {
        c = problem.inverse_temperature[b] * LOG2_E;
        place(scratch);
    }

    char* place(char* at) {
        Base::take(at, q_columns, padded * depth);
        Base::take(at, k_columns, padded * depth);
        Base::take(at, v_rows, padded / G * width);
        Base::take(at, sum, padded * width);
        Base::take(at, shift, padded);
        Base::take(at, mask, padded);
        Base::take(at, weights, BLOCK * BLOCK / G);
        Base::take(at, partial, BLOCK * W);
        return distance.place(at);
    }

    void run() {
        pack(0, 1);
        for (int64_t I = first_row(problem.part); I < first_row(problem.part + 1); I += BLOCK) {
            attend_safely(I);
            for (int i = 0; i < tokens(I); i++) Base::store(I + i, sum + (I + i) * width);
        }
    }

    // Adds the attention of projection a as queries with b as keys, of the share that the result has of it.
    void add(int a, int b, float* total) {
        pack(a, b);
        const Vec share = Isa::set(1.f / float(problem.ensemble));
        for (int64_t I = 0; I < N; I += BLOCK) {
            attend_safely(I);
            for (int64_t d = I * width; d < (I + tokens(I)) * width; d += W)
                Isa::store(total + d, Isa::add(Isa::mul(Isa::load(sum + d), share), Isa::load(total + d)));
        }
    }

private:
    void pack(int queries, int keys) {
        Base::load_rows(2, sum, v_rows);
        Base::load(keys, sum);
        pack_columns(k_columns);
        float longest_key = 0;
        for (int64_t i = 0; i < N; i++) {
            const float norm = Base::length(sum + i * width);
            longest_key = norm > longest_key ? norm : longest_key;
        }
        for (int64_t i = 0; i < padded; i++) mask[i] = i < N ? 0.f : MASKED;
        Base::load(queries, sum);
        pack_columns(q_columns);
        for (int64_t i = 0; i < N; i++) shift[i] = c * Base::length(sum + i * width) * longest_key;
        distance.find_rows();
    }

    // |q·k| ≤ ‖q‖‖k‖ spares a search for the largest logit, unless it is so far off that weights underflow. A bias of at
    // most 1 is no matter. Logits of 10^9 and more are rounded before the shift too, or the largest would not be its own.
    void attend_safely(int64_t I) {
        if (attend<SHIFTED>(I)) return;
        find_largest(I);
        if (!attend<SHIFTED>(I)) attend<ROUNDED>(I);
    }

    int64_t first_row(int part) const { return up(N, BLOCK) / BLOCK * part / problem.parts * BLOCK; }

    void pack_columns(Word* to) {
        for (int64_t i = 0; i < N; i += TILE) Isa::transpose(sum + i * width, width, depth, TILE, to + i * depth);
    }

    enum Logits { LARGEST, SHIFTED, ROUNDED };  // a search for the largest, and weights

    // sum_i = Σ_j w_ij v_j / Σ_j w_ij for a block of rows; false if some divisor is too small or too large to trust.
    template <Logits kind>
    bool attend(int64_t I) {
        __builtin_memset(partial, 0, BLOCK * W * sizeof(float));
        for (int64_t J = 0; J < N; J += BLOCK) {
            tiles<kind>(I, J);
            const Word* v = v_rows + J / G * width;
            accumulate<Isa, BLOCK / G, 1>(weights, v, sum + I * width, tokens(I), width, words(tokens(J)), J == 0);
        }
        bool exact = true;
        for (int i = 0; i < tokens(I); i++) {
            const float divisor = Isa::add_lanes(Isa::load(partial + i * W));
            exact &= divisor >= SMALLEST_DIVISOR && divisor <= 1 / SMALLEST_DIVISOR;
            const Vec scale = Isa::set(1.f / divisor);
            for (int64_t d = (I + i) * width; d < (I + i + 1) * width; d += W)
                Isa::store(sum + d, Isa::mul(Isa::load(sum + d), scale));
        }
        return exact;
    }

    void find_largest(int64_t I) {
        for (int i = 0; i < BLOCK * W; i++) partial[i] = MASKED;
        for (int64_t J = 0; J < N; J += BLOCK) tiles<LARGEST>(I, J);
        for (int i = 0; i < tokens(I); i++) {
            shift[I + i] = partial[i * W];
            for (int lane = 1; lane < W; lane++)
                if (partial[i * W + lane] > shift[I + i]) shift[I + i] = partial[i * W + lane];
        }
    }

    template <Logits kind>
    void tiles(int64_t I, int64_t J) {
        for (int j = 0; j < tokens(J); j += TILE) {
            const int columns = (tokens(J) - j + W - 1) / W;
            for (int i = 0; i < tokens(I); i += R) {
                if (columns >= C) tile<kind, C>(I, i, J, j);
                else if (columns == 2) tile<kind, 2>(I, i, J, j);
                else tile<kind, 1>(I, i, J, j);
            }
        }
    }

    template <Logits kind, int COLUMNS>
    void tile(int64_t I, int i, int64_t J, int j) {
        if (distance.any()) tile_of<kind, true, COLUMNS>(I, i, J, j);
        else tile_of<kind, false, COLUMNS>(I, i, J, j);
    }

    template <Logits kind, bool WithDistance, int COLUMNS>
    __attribute__((noinline)) void tile_of(int64_t I, int i, int64_t J, int j) {
        Vec s[R][COLUMNS];
        Base::dot_products(s, q_columns, I + i, k_columns, J + j);
        const Vec scale = Isa::set(c);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const Vec minus_shift = Isa::set(-shift[I + i + r]);
#pragma GCC unroll 4
            for (int v = 0; v < COLUMNS; v++) {
                const int64_t at = J + j + v * W;
                const Vec plus = kind == SHIFTED ? minus_shift : Isa::zero();
                Vec logit = Isa::add(Isa::fma(s[r][v], scale, plus), Isa::load(mask + at));
                if (WithDistance) logit = distance.add(logit, I + i + r, at);
                if (kind == ROUNDED) logit = Isa::add(logit, minus_shift);
                s[r][v] = kind == LARGEST ? logit : Isa::exp2(logit);
            }
        }
        if (kind != LARGEST) {
            Isa::template store_weights<BLOCK, true>(s, weights + i * (BLOCK / G) + j / G, partial + i * W);
            return;
        }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < COLUMNS; v++)
                Isa::store(partial + (i + r) * W, Isa::max(s[r][v], Isa::load(partial + (i + r) * W)));
    }
};

template <class Head>
size_t scratch_bytes(const Problem& problem) {
    const float any = 1;
    Problem one = problem;
    one.inverse_temperature = &any;
    return size_t(Head(one, 0, 0, nullptr).place(nullptr) - static_cast<char*>(nullptr));
}

template <class Head>
void run_head(const Problem& problem, int64_t b, int64_t h, void* scratch) {
    Head(problem, b, h, static_cast<char*>(scratch)).run();
}

#define KERNEL(...) {scratch_bytes<__VA_ARGS__>, run_head<__VA_ARGS__>}

}  // namespace
}  // namespace gem_fast
