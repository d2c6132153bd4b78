// Activations of float32 vectors. Included after GEM_TARGET.
#pragma once
#include <cstdint>

#include "exp2.h"

namespace gem_fast {
namespace {

enum class Activation : int { none = -1, gelu, gelu_tanh, quick_gelu, silu };

// Of Abramowitz and Stegun, 7.1.26, the highest power first.
constexpr float ERF[] = {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};

template <class Isa>
struct Activations {
    using Vec = typename Isa::Vec;
    static constexpr float LOG2_OF_E = 1.44269504f;
    static constexpr float FAR = 16;

    static GEM_INLINE Vec exp2(Vec x) { return Isa::exp2(x, EXP2_FLOAT32); }

    // x · sigmoid(s), with s times -log2(e); from 2^128 on, where floats end, the sigmoid is 0.
    static GEM_INLINE Vec gated(Vec x, Vec minus_s) {
        const Vec share = Isa::div(x, Isa::add(Isa::set(1), exp2(minus_s)));
        return Isa::select(Isa::at_least(minus_s, Isa::set(128)), Isa::mul(x, Isa::zero()), share);
    }

    static GEM_INLINE Vec silu(Vec x) { return gated(x, Isa::mul(x, Isa::set(-LOG2_OF_E))); }

    static GEM_INLINE Vec quick_gelu(Vec x) { return gated(x, Isa::mul(x, Isa::set(-1.702f * LOG2_OF_E))); }

    // (1 + tanh(u)) / 2 = sigmoid(2u), u = √(2/π) (x + 0.044715 x³).
    static GEM_INLINE Vec gelu_tanh(Vec x) {
        const Vec inner = Isa::mul(x, Isa::fma(Isa::mul(x, x), Isa::set(0.044715f), Isa::set(1)));
        return gated(x, Isa::mul(inner, Isa::set(-1.5957691f * LOG2_OF_E)));
    }

    // x Φ(x), by Φ(-|x|) = (a₁t + … + a₅t⁵) exp(-x²/2) / 2, t = 1 / (1 + p|x|/√2), to 1e-7; from FAR on it is 0 in float32.
    static GEM_INLINE Vec gelu(Vec x) {
        const Vec size = Isa::min(Isa::set(FAR), Isa::max(x, Isa::sub(Isa::zero(), x)));  // in this order NaN stays
        const Vec t = Isa::reciprocal(Isa::fma(size, Isa::set(0.3275911f * 0.70710678f), Isa::set(1)));
        Vec sum = Isa::set(ERF[0] / 2);
#pragma GCC unroll 8
        for (int i = 1; i < 5; i++) sum = Isa::fma(sum, t, Isa::set(ERF[i] / 2));
        const Vec share = Isa::mul(Isa::mul(sum, t), exp2(Isa::mul(Isa::mul(size, size), Isa::set(-LOG2_OF_E / 2))));
        return Isa::mul(x, Isa::select(Isa::at_least(x, Isa::zero()), Isa::sub(Isa::set(1), share), share));
    }

    template <Vec (*function)(Vec)>
    static void apply(float* row, int64_t padded) {
        for (int64_t k = 0; k < padded; k += Isa::lanes)
            Isa::store_first(row + k, Isa::lanes, function(Isa::load_some(row + k, Isa::first_lanes(Isa::lanes))));
    }

    // In place, of a row of whole vectors.
    static void activate(float* row, int64_t padded, Activation activation) {
        switch (activation) {
            case Activation::none: return;
            case Activation::gelu: return apply<gelu>(row, padded);
            case Activation::gelu_tanh: return apply<gelu_tanh>(row, padded);
            case Activation::quick_gelu: return apply<quick_gelu>(row, padded);
            case Activation::silu: return apply<silu>(row, padded);
        }
    }
};

}  // namespace
}  // namespace gem_fast
