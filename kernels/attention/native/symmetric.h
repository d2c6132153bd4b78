// Products with a symmetric matrix of weights: each of its blocks is computed once and used twice. Included once by each
// instruction set.
#pragma once
#include "tokens.h"

namespace gem_fast {
namespace {

// `Head` computes a tile of the weights, `tile<WithDivisor, COLUMNS>(I, i, J, j)`, and says what padding adds to a row sum.
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
        __builtin_memset(sum, 0, padded * width * sizeof(float));
        if (WithDivisor) __builtin_memset(divisor, 0, padded * sizeof(float));
        for (int64_t I = 0; I < N; I += BLOCK) {
            const int n_I = tokens(I);
            if (WithDivisor) __builtin_memset(partial, 0, BLOCK * W * sizeof(float));
            for (int64_t J = I; J < N; J += BLOCK) {
                const int n_J = tokens(J);
                if (WithDivisor) __builtin_memset(column_sums, 0, BLOCK * sizeof(float));
                tiles<WithDivisor>(I, J);
                accumulate<Isa, BLOCK / G, 1>(weights, x_rows + J / G * width, sum + I * width, n_I, width, words(n_J));
                if (J > I) {
                    const Word* x = x_rows + I / G * width;
                    accumulate<Isa, 1, BLOCK>(mirrored, x, sum + J * width, n_J, width, words(n_I));
                    if (WithDivisor)
                        for (int j = 0; j < n_J; j++) divisor[J + j] += column_sums[j];
                }
            }
            if (WithDivisor)
                for (int i = 0; i < n_I; i++)
                    divisor[I + i] += Isa::add_lanes(Isa::load(partial + i * W)) - head().padding();
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

    template <bool WithDivisor>
    void tiles(int64_t I, int64_t J) {
        const int n_I = tokens(I), n_J = tokens(J);
        for (int j = 0; j < n_J; j += TILE) {
            const int columns = (n_J - j + W - 1) / W;
            for (int i = 0; i < n_I; i += R) {
                if (columns >= C) head().template tile<WithDivisor, C>(I, i, J, j);
                else if (columns == 2) head().template tile<WithDivisor, 2>(I, i, J, j);
                else head().template tile<WithDivisor, 1>(I, i, J, j);
            }
        }
    }
};

}  // namespace
}  // namespace gem_fast
