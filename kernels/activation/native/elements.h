// Activations of elements in float32. Included after GEM_TARGET.
#pragma once
#include "../../native/activations.h"
#include "activation.h"

namespace gem_fast {
namespace {

template <class Isa, class T, typename Isa::Vec (*function)(typename Isa::Vec)>
void activate_by(T* x, const T* factor, int64_t first, int64_t last) {
    for (int64_t k = first; k < last; k += Isa::lanes) {
        const auto some = Isa::first_lanes(last - k);
        auto y = function(Isa::load_some(x + k, some));
        if (factor) y = Isa::mul(y, Isa::load_some(factor + k, some));
        Isa::store_first(x + k, last - k, y);
    }
}

template <class Isa, class T>
void activate_elements(void* x, const void* factor, int activation, int64_t first, int64_t last) {
    using A = Activations<Isa>;
    const auto by = Activation(activation) == Activation::silu ? activate_by<Isa, T, A::silu>
                                                               : activate_by<Isa, T, A::quick_gelu>;
    by(static_cast<T*>(x), static_cast<const T*>(factor), first, last);
}

}  // namespace
}  // namespace gem_fast
