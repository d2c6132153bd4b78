// Rows of a LayerNorm, each in the first cache from its sum to its norm. Included after GEM_TARGET.
#pragma once
#include "layer_norm.h"

namespace gem_fast {
namespace {

template <class Isa, class T>
struct Row {
    using Vec = typename Isa::Vec;
    static constexpr int W = Isa::lanes;
    const int64_t C;

    GEM_INLINE Vec load(const T* at, int64_t k) const { return Isa::load_some(at + k, Isa::first_lanes(C - k)); }
    GEM_INLINE void store(T* at, int64_t k, Vec x) const { Isa::store_first(at + k, C - k, x); }

    void add(const T* a, const T* b, T* to) const {
        for (int64_t k = 0; k < C; k += W) store(to, k, Isa::add(load(a, k), load(b, k)));
    }

    // Two passes, since a mean of squares less the square of the mean loses what rows with a large mean are told by.
    void normalize(const T* x, const T* gain, const T* bias, float eps, T* y) const {
        Vec sum = Isa::zero(), squares = Isa::zero();
        for (int64_t k = 0; k < C; k += W) sum = Isa::add(sum, load(x, k));
        const Vec mean = Isa::set(Isa::add_lanes(sum) / float(C));
        for (int64_t k = 0; k < C; k += W) {
            const Vec off = Isa::keep(Isa::first_lanes(C - k), Isa::sub(load(x, k), mean));
            squares = Isa::fma(off, off, squares);
        }
        const Vec scale = Isa::set(1.f / __builtin_sqrtf(Isa::add_lanes(squares) / float(C) + eps));
        for (int64_t k = 0; k < C; k += W) {
            const Vec normed = Isa::mul(Isa::sub(load(x, k), mean), scale);
            store(y, k, Isa::fma(normed, load(gain, k), load(bias, k)));
        }
    }

    float norm(const T* y) const {
        Vec squares = Isa::zero();
        for (int64_t k = 0; k < C; k += W) squares = Isa::fma(load(y, k), load(y, k), squares);
        return __builtin_sqrtf(Isa::add_lanes(squares));
    }
};

template <class Isa, class T>
void norm_rows(const LayerNorm& call, int64_t row, int64_t last) {
    const auto from = [](const void* base, int64_t at) { return base ? static_cast<const T*>(base) + at : nullptr; };
    const auto into = [](void* base, int64_t at) { return base ? static_cast<T*>(base) + at : nullptr; };
    const Row<Isa, T> one{call.C};
    for (; row < last; row++) {
        const int64_t b = row / call.N, n = row % call.N, at = row * call.C;
        const T* tokens = n < call.first ? from(call.front, n * call.C)
                                         : from(call.x, b * call.x_image + (n - call.first) * call.x_token);
        if (T* total = into(call.total, at)) {
            one.add(tokens, from(call.branch, b * call.branch_image + n * call.branch_token), total);
            tokens = total;
        }
        T* y = into(call.y, at);
        one.normalize(tokens, from(call.gain, 0), from(call.bias, 0), call.eps, y);
        if (call.norms) call.norms[row] = one.norm(y) * call.norm_scale;
        if (T* aside = into(call.aside_total, at)) one.add(from(call.aside, at), from(call.aside_branch, at), aside);
    }
}

}  // namespace
}  // namespace gem_fast
