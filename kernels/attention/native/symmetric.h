// Products with a symmetric matrix of weights: half of it is computed, and used twice. Included once by each instruction set.
#pragma once
#include "tokens.h"

namespace gem_fast {
namespace {

// `Head` computes a tile of the weights, `tile<WithDivisor, COLUMNS>(I, i, J, j)`, and says what padding adds to a sum.
template <class Isa, class Head>
class SymmetricBlocks : protected Tokens<Isa> {
    using Base = Tokens<Isa>;

protected:
    using Base::W, Base::G, Base::R, Base::C, Base::TILE;
    using Base::N, Base::padded, Base::width, Base::tokens, Base::words;

    float *sum;                 // [padded, width]: the running product
    float *divisor;             // [padded]: row sums of the weights
    Word *weights, *mirrored;   // [BLOCK, BLOCK/G] and [BLOCK/G, BLOCK]: a block of the weights, its transpose
    float *partial;             // [BLOCK, W]: row sums of a block row, not yet added over lanes
    float *column_sums;         // [BLOCK]: of a block

    using Base::Base;

    char* place_blocks(char* at) {
        Base::take(at, sum, padded * width);
        Base::take(at, divisor, padded);
        Base::take(at, weights, BLOCK * BLOCK / G);
        if (G == 1) mirrored = weights;  // read by columns
        else Base::take(at, mirrored, BLOCK / G * BLOCK);
        Base::take(at, partial, BLOCK * W);
        Base::take(at, column_sums, BLOCK);
        return at;
    }

    // sum_i = Σ_j w_ij x_j, with the row sums of the weights in `divisor` if wanted.
    template <bool WithDivisor>
    void multiply_blocks(const Word* x_rows) {
        if (WithDivisor) __builtin_memset(divisor, 0, padded * sizeof(float));
        for (int64_t I = 0; I < N; I += BLOCK) {
            const int n_I = tokens(I);
            const Word* x_I = x_rows + I / G * width;
            if (WithDivisor) __builtin_memset(partial, 0, BLOCK * W * sizeof(float));
            // Below the diagonal, where the last block's tokens are rows: those are padded less than columns.
            for (int64_t J = 0; J < I; J += BLOCK) {
                if (WithDivisor) __builtin_memset(column_sums, 0, BLOCK * sizeof(float));
                tiles<WithDivisor>(I, J);
                accumulate<Isa, BLOCK / G, 1>(weights, x_rows + J / G * width, sum + I * width, n_I, width, BLOCK / G, J == 0);
                accumulate<Isa, 1, BLOCK>(mirrored, x_I, sum + J * width, BLOCK, width, words(n_I), false);
                if (WithDivisor) add_columns(J, BLOCK, up(n_I, R) - n_I);
            }
            if (WithDivisor) __builtin_memset(column_sums, 0, BLOCK * sizeof(float));
            tiles<WithDivisor>(I, I);
            multiply_diagonal(I, x_I);
            if (!WithDivisor) continue;
            add_columns(I, n_I, 0);
            const float padding = head().padding(up(n_I, W) - n_I);
            for (int i = 0; i < n_I; i++) divisor[I + i] += Isa::add_lanes(Isa::load(partial + i * W)) - padding;
        }
    }

    // total += sum / divisor, of the share that the result has of it.
    void add_to(float* total) const {
        for (int64_t i = 0; i < N; i++) {
            const auto share = Isa::set(1.f / (divisor[i] * float(Base::problem.ensemble)));
            for (int64_t d = i * width; d < (i + 1) * width; d += W)
                // Not fused: where a head is cut, its parts are added outside, to the same bits.
                Isa::store(total + d, Isa::add(Isa::mul(Isa::load(sum + d), share), Isa::load(total + d)));
        }
    }

private:
    Head& head() { return static_cast<Head&>(*this); }

    // Of a block whose last rows are `zeros` tokens of padding.
    void add_columns(int64_t J, int count, int64_t zeros) {
        const float padding = head().padding(zeros);
        for (int j = 0; j < count; j++) divisor[J + j] += column_sums[j] - padding;
    }

    // Of a block on the diagonal only from the vector on that the diagonal meets.
    template <bool WithDivisor>
    void tiles(int64_t I, int64_t J) {
        for (int start = 0; start < tokens(J); start += TILE) {
            const int end = tokens(J) < start + TILE ? tokens(J) : start + TILE;
            const int rows = J < I ? tokens(I) : end;
            for (int i = 0; i < rows; i += R) {
                const int j = J < I || i < start ? start : i / W * W;
                const int columns = (end - j + W - 1) / W;
                if (columns >= C) head().template tile<WithDivisor, C>(I, i, J, j);
                else if (columns == 2) head().template tile<WithDivisor, 2>(I, i, J, j);
                else head().template tile<WithDivisor, 1>(I, i, J, j);
            }
        }
    }

    // The product with such a block, in strips of rows: what lies left of the last vector that a strip's rows begin with is
    // read from the columns above.
    void multiply_diagonal(int64_t I, const Word* x) {
        constexpr int STRIP = TILE / 2;  // no two of its rows begin more than a vector apart
        static_assert(2 * STRIP <= 3 * W);
        for (int first = 0; first < tokens(I); first += STRIP) {
            const int rows = tokens(I) - first < STRIP ? tokens(I) - first : STRIP;
            const int begin = (first + rows - 1) / W * W;
            float* to = sum + (I + first) * width;
            const Word* w = weights + (first * BLOCK + begin) / G;
            accumulate<Isa, 1, BLOCK>(mirrored + first, x, to, rows, width, begin / G, I == 0);
            accumulate<Isa, BLOCK / G, 1>(w, x + begin / G * width, to, rows, width, words(tokens(I) - begin), false);
        }
    }
};

}  // namespace
}  // namespace gem_fast
