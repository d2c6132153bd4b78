// Self-self attention of one head, whose S = p pᵀ is symmetric. Included once by each instruction set.
#pragma once
#include "symmetric.h"

namespace gem_fast {
namespace {

constexpr float SMALLEST_NORM = 1e-12f; // that of torch.nn.functional.normalize; a shorter row counts as zero
constexpr float LARGEST_C = 1e6f;       // above, rounding of a float32 logit alone decides the softmax

template <class Isa>
class SelfSelf : SymmetricBlocks<Isa, SelfSelf<Isa>> {
    using Base = SymmetricBlocks<Isa, SelfSelf<Isa>>;
    using Vec = typename Isa::Vec;
    using Base::W, Base::G, Base::R, Base::C, Base::TILE;
    using Base::problem, Base::N, Base::padded, Base::width, Base::depth, Base::tokens, Base::words;
    using Base::sum, Base::divisor, Base::weights, Base::mirrored, Base::partial, Base::column_sums;
    friend Base;

    Word *p_columns;                     // [padded/TILE, depth, TILE]: p, both operands of S
    Word *p_rows, *v_rows;               // [padded/G, width]: p and V, the right operands of S·p and S·V
    float *total;                        // [padded, width]: the ensemble
    float *correction;                   // [padded]: 1/‖p‖ once p is rounded to its operand type
    float *rows;                         // [TILE, width]: tokens on their way to words of more than one
    float *mean;                         // [BLOCK, width]: what a zero row attends to
    uint8_t *is_zero;                    // [padded]
    bool any_zero = false;
    float c;                             // log2(e)/τ

public:
    SelfSelf(const Problem& problem, int64_t b, int64_t h, char* scratch) : Base(problem, b, h) {
        const float given = problem.inverse_temperature[b];
        c = (given > LARGEST_C ? LARGEST_C : given) * LOG2_E;
        place(scratch);
    }

    // Lays the arrays out from `at` on and returns the end.
    char* place(char* at) {
        Base::take(at, p_columns, padded * depth);
        Base::take(at, p_rows, padded / G * width);
        Base::take(at, v_rows, padded / G * width);
        Base::take(at, total, padded * width);
        Base::take(at, correction, padded);
        Base::take(at, rows, TILE * width);
        Base::take(at, mean, BLOCK * width);
        Base::take(at, is_zero, padded);
        return Base::place_blocks(at);
    }

    void run() {
        Base::load_rows(2, sum, v_rows);
        __builtin_memset(total, 0, padded * width * sizeof(float));
        for (int index = 0; index < problem.projection_count; index++) {
            Base::load(problem.projections[index], sum);
            pack_unit_rows();
            for (int k = 0; k < problem.iterations; k++) {
                attend<false>(p_rows);
                pack_unit_rows();  // Eq. 5: the softmax's divisor cancels in the norm
            }
            attend<true>(v_rows);  // Eq. 6
            Base::add_to(total);   // Eq. 7
        }
        for (int64_t i = 0; i < N; i++) Base::store(i, total + i * width);
    }

private:
    // p = sum / ‖sum‖ into p_columns and p_rows; padding is zero.
    void pack_unit_rows() {
        any_zero = false;
        for (int64_t i0 = 0; i0 < padded; i0 += TILE) {
            float* unit = G == 1 ? reinterpret_cast<float*>(p_rows) + i0 * width : rows;
            for (int i = 0; i < TILE; i++) {
                const float* from = sum + (i0 + i) * width;
                float* to = unit + i * width;
                // A row of padding may hold NaN, which the last strip of a product left there.
                const float norm = i0 + i < N ? Base::length(from) : 0;
                const bool zero = norm < SMALLEST_NORM;
                const Vec scale = Isa::set(1.f / norm);
                for (int64_t d = 0; d < width; d += W)
                    Isa::store(to + d, zero ? Isa::zero() : Isa::round(Isa::mul(Isa::load(from + d), scale)));
                if (Isa::rounds) correction[i0 + i] = zero ? 0.f : 1.f / Base::length(to);
                is_zero[i0 + i] = zero;
                any_zero |= zero && i0 + i < N;
            }
            if (G > 1)
                for (int i = 0; i < TILE; i += G) Isa::group_tokens(unit + i * width, width, p_rows + (i0 + i) / G * width);
            Isa::transpose(unit, width, depth, TILE, p_columns + i0 * depth);
        }
    }

    // sum_i = Σ_j exp2(c s_ij - c) x_j, with the row sums of the exponentials in `divisor` if wanted.
    template <bool WithDivisor>
    void attend(const Word* x_rows) {
        Base::template multiply_blocks<WithDivisor>(x_rows);
        if (any_zero) attend_uniformly(x_rows);
    }

    // What so many zero rows add to a sum of weights.
    float padding(int64_t zeros) const { return float(zeros) * Isa::first(Isa::round(Isa::exp2(Isa::set(-c)))); }

    // A tile of exp2(c S - c): no exponent is above 0, since the rows of p have the norm 1.
    template <bool WithDivisor, int COLUMNS>
    __attribute__((noinline)) void tile(int64_t I, int i, int64_t J, int j) {
        Vec s[R][COLUMNS];
        const int64_t first = I + i;
        Base::dot_products(s, p_columns, first, p_columns, J + j);
        const Vec shift = Isa::set(-c);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const Vec scale = Isa::set(Isa::rounds ? c * correction[first + r] : c);
#pragma GCC unroll 4
            for (int v = 0; v < COLUMNS; v++) {
                if (Isa::rounds) s[r][v] = Isa::mul(s[r][v], Isa::load(correction + J + j + v * W));
                s[r][v] = Isa::exp2(Isa::fma(s[r][v], scale, shift));
            }
        }
        Isa::template store_weights<BLOCK, WithDivisor>(s, weights + i * (BLOCK / G) + j / G, partial + i * W);
        Isa::template store_mirrored<BLOCK, WithDivisor>(s, mirrored + i / G * BLOCK + j, column_sums + j, I == J && j <= i);
    }

    // A zero row has equal weights, exp2(-c), which can underflow: 1 gives the same mean.
    void attend_uniformly(const Word* x_rows) {
        for (int64_t i = 0; i < BLOCK * BLOCK / G; i++) weights[i] = Isa::one;
        for (int64_t J = 0; J < N; J += BLOCK)
            accumulate<Isa, BLOCK / G, 1>(weights, x_rows + J / G * width, mean, 1, width, words(tokens(J)), J == 0);
        for (int64_t i = 0; i < N; i++)
            if (is_zero[i]) {
                __builtin_memcpy(sum + i * width, mean, width * sizeof(float));
                divisor[i] = float(N);
            }
    }
};

}  // namespace
}  // namespace gem_fast
