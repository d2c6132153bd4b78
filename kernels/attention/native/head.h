// Self-self attention of one head: S = p pᵀ is symmetric, so each of its blocks is computed once and used twice.
// Included once by each instruction set.
#pragma once
#include "rows.h"

namespace gem_fast {
namespace {

constexpr int BLOCK = 96;               // tokens in a block of S; a multiple of every tile's rows and columns
constexpr float SMALLEST_NORM = 1e-12f; // that of torch.nn.functional.normalize; a shorter row counts as zero
constexpr float LARGEST_C = 1e6f;       // above, rounding of a float32 logit alone decides the softmax
constexpr float LOG2_E = 1.44269504f;

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

template <class Isa>
class Head {
    using Vec = typename Isa::Vec;
    static constexpr int W = Isa::lanes, G = Isa::group, R = Isa::logit_rows, C = Isa::logit_columns, TILE = C * W;
    static_assert(BLOCK % TILE == 0 && TILE % R == 0 && BLOCK % G == 0);

    const Problem& problem;
    const int64_t b, h, N, D;
    const int64_t padded, width, depth;  // tokens in whole blocks; D in whole vectors; D in words
    Word *p_columns;                     // [padded/TILE, depth, TILE]: p, both operands of S
    Word *p_rows, *v_rows;               // [padded/G, width]: p and V, the right operands of S·p and S·V
    float *sum, *total;                  // [padded, width]: the running product; the ensemble
    float *divisor;                      // [padded]: row sums of exp(S)
    float *correction;                   // [padded]: 1/‖p‖ once p is rounded to its operand type
    Word *weights, *mirrored;            // [BLOCK, BLOCK/G] and [BLOCK/G, BLOCK]: a block of exp(S), and for its transpose
    float *partial;                      // [BLOCK, W]: row sums of a block row, not yet added over lanes
    float *rows;                         // [TILE, width]: tokens on their way to p_columns and p_rows
    float *mean;                         // [BLOCK, width]: what a zero row attends to
    uint8_t *is_zero;                    // [padded]
    bool any_zero = false;
    float c;                             // log2(e)/τ

public:
    Head(const Problem& problem, int64_t b, int64_t h, char* scratch)
        : problem(problem), b(b), h(h), N(problem.N), D(problem.D), padded(up(N, BLOCK)), width(up(D, W)), depth(D / G) {
        const float given = problem.inverse_temperature[b];
        c = (given > LARGEST_C ? LARGEST_C : given) * LOG2_E;
        place(scratch);
    }

    // Lays the arrays out from `at` on and returns the end.
    char* place(char* at) {
        auto take = [&](auto*& array, int64_t count) {
            array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(at);
            at += up(count * int64_t(sizeof *array), 64);
        };
        take(p_columns, padded * depth);
        take(p_rows, padded / G * width);
        take(v_rows, padded / G * width);
        take(sum, padded * width);
        take(total, padded * width);
        take(divisor, padded);
        take(correction, padded);
        take(weights, BLOCK * BLOCK / G);
        if (G == 1) mirrored = weights;  // read by columns
        else take(mirrored, BLOCK / G * BLOCK);
        take(partial, BLOCK * W);
        take(rows, TILE * width);
        take(mean, BLOCK * width);
        take(is_zero, padded);
        return at;
    }

    void run() {
        load(2);
        pack_values();
        __builtin_memset(total, 0, padded * width * sizeof(float));
        for (int index = 0; index < problem.projection_count; index++) {
            load(problem.projections[index]);
            pack_unit_rows();
            for (int k = 0; k < problem.iterations; k++) {
                attend<false>(p_rows);
                pack_unit_rows();  // Eq. 5: the softmax's divisor cancels in the norm
            }
            attend<true>(v_rows);  // Eq. 6
            add_to_total();        // Eq. 7
        }
        for (int64_t i = 0; i < N; i++)
            store_row(total + i * width, problem.out, ((b * N + i) * problem.H + h) * D, problem.type, D);
    }

private:
    void load(int projection) {
        const int64_t* stride = problem.strides;
        const int64_t at = b * stride[0] + projection * stride[2] + h * stride[3];
        for (int64_t i = 0; i < N; i++) {
            load_row(problem.qkv, at + i * stride[1], problem.type, D, sum + i * width);
            for (int64_t d = D; d < width; d++) sum[i * width + d] = 0;
        }
        __builtin_memset(sum + N * width, 0, (padded - N) * width * sizeof(float));
    }

    void pack_values() {
        for (int64_t i = 0; i < padded; i += G) Isa::group_tokens(sum + i * width, width, v_rows + i / G * width);
    }

    // p = sum / ‖sum‖ into p_columns and p_rows; padding is zero.
    void pack_unit_rows() {
        any_zero = false;
        for (int64_t i0 = 0; i0 < padded; i0 += TILE) {
            for (int i = 0; i < TILE; i++) {
                const float* from = sum + (i0 + i) * width;
                float* to = rows + i * width;
                const float norm = length(from);
                const bool zero = i0 + i >= N || norm < SMALLEST_NORM;
                const Vec scale = Isa::set(zero ? 0.f : 1.f / norm);
                for (int64_t d = 0; d < width; d += W)
                    Isa::store(to + d, Isa::round(Isa::mul(Isa::load(from + d), scale)));
                if (Isa::rounds) correction[i0 + i] = zero ? 0.f : 1.f / length(to);
                is_zero[i0 + i] = zero;
                any_zero |= zero && i0 + i < N;
            }
            for (int i = 0; i < TILE; i += G) Isa::group_tokens(rows + i * width, width, p_rows + (i0 + i) / G * width);
            Isa::transpose(rows, width, depth, TILE, p_columns + i0 * depth);
        }
    }

    float length(const float* x) const {
        Vec squares = Isa::zero();
        for (int64_t d = 0; d < width; d += W) squares = Isa::fma(Isa::load(x + d), Isa::load(x + d), squares);
        return __builtin_sqrtf(Isa::add_lanes(squares));
    }

    // sum_i = Σ_j exp2(c s_ij - c) x_j, with the row sums of the exponentials in `divisor` if wanted.
    template <bool WithDivisor>
    void attend(const Word* x_rows) {
        __builtin_memset(sum, 0, padded * width * sizeof(float));
        if (WithDivisor) __builtin_memset(divisor, 0, padded * sizeof(float));
        for (int64_t I = 0; I < N; I += BLOCK) {
            const int n_I = tokens(I);
            if (WithDivisor) __builtin_memset(partial, 0, BLOCK * W * sizeof(float));
            for (int64_t J = I; J < N; J += BLOCK) {
                const int n_J = tokens(J);
                exponentials<WithDivisor>(I, J);
                accumulate<Isa, BLOCK / G, 1>(weights, x_rows + J / G * width, sum + I * width, n_I, width, words(n_J));
                if (J > I)
                    accumulate<Isa, 1, BLOCK>(mirrored, x_rows + I / G * width, sum + J * width, n_J, width, words(n_I));
            }
            if (WithDivisor)
                for (int i = 0; i < n_I; i++) divisor[I + i] += Isa::add_lanes(Isa::load(partial + i * W)) - padding();
        }
        if (any_zero) attend_uniformly(x_rows);
    }

    int tokens(int64_t block) const { return int(N - block < BLOCK ? N - block : BLOCK); }
    static int words(int n) { return (n + G - 1) / G; }

    // What the zero rows that pad the last vector add to a row sum.
    float padding() const { return float(up(N, W) - N) * Isa::first(Isa::round(Isa::exp2(Isa::set(-c)))); }

    // A block of exp2(c S - c): no exponent is above 0, since the rows of p have the norm 1.
    template <bool WithDivisor>
    void exponentials(int64_t I, int64_t J) {
        const int n_I = tokens(I), n_J = tokens(J);
        for (int j = 0; j < n_J; j += TILE) {
            const int columns = (n_J - j + W - 1) / W;
            for (int i = 0; i < n_I; i += R) {
                if (columns >= C) exponential_tile<WithDivisor, C>(I, i, J, j);
                else if (columns == 2) exponential_tile<WithDivisor, 2>(I, i, J, j);
                else exponential_tile<WithDivisor, 1>(I, i, J, j);
            }
        }
    }

    template <bool WithDivisor, int COLUMNS>
    __attribute__((noinline)) void exponential_tile(int64_t I, int i, int64_t J, int j) {
        Vec s[R][COLUMNS];
        for (auto& row : s)
            for (auto& x : row) x = Isa::zero();
        const int64_t first = I + i;
        const Word* left = p_columns + first / TILE * TILE * depth + first % TILE;
        multiply<Isa, 1, TILE>(s, left, p_columns + (J + j) * depth, TILE, depth);
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
        if (J > I) Isa::template store_mirrored<BLOCK, WithDivisor>(s, mirrored + i / G * BLOCK + j, divisor + J + j);
    }

    // A zero row has equal weights, exp2(-c), which can underflow: 1 gives the same mean.
    void attend_uniformly(const Word* x_rows) {
        for (int64_t i = 0; i < BLOCK * BLOCK / G; i++) weights[i] = Isa::one;
        __builtin_memset(mean, 0, BLOCK * width * sizeof(float));
        for (int64_t J = 0; J < N; J += BLOCK)
            accumulate<Isa, BLOCK / G, 1>(weights, x_rows + J / G * width, mean, 1, width, words(tokens(J)));
        for (int64_t i = 0; i < N; i++)
            if (is_zero[i]) {
                __builtin_memcpy(sum + i * width, mean, width * sizeof(float));
                divisor[i] = float(N);
            }
    }

    void add_to_total() {
        for (int64_t i = 0; i < N; i++) {
            const Vec share = Isa::set(1.f / (divisor[i] * float(problem.projection_count)));
            for (int64_t d = i * width; d < (i + 1) * width; d += W)
                Isa::store(total + d, Isa::fma(Isa::load(sum + d), share, Isa::load(total + d)));
        }
    }
};

template <class Isa>
size_t scratch_bytes(const Problem& problem) {
    const float any = 1;
    Problem one = problem;
    one.inverse_temperature = &any;
    return size_t(Head<Isa>(one, 0, 0, nullptr).place(nullptr) - static_cast<char*>(nullptr));
}

template <class Isa>
void run_head(const Problem& problem, int64_t b, int64_t h, void* scratch) {
    Head<Isa>(problem, b, h, static_cast<char*>(scratch)).run();
}

}  // namespace
}  // namespace gem_fast
