// Activations element by element, as Python hands them over.
#pragma once
#include <cstdint>

namespace gem_fast {

// x = activation(x) · factor, elements `first` to before `last`; `factor` is of x's type, or null for none.
using ActivateElements = void (*)(void* x, const void* factor, int activation, int64_t first, int64_t last);
extern const ActivateElements avx512_activate[3], avx2_activate[3];  // for float32, bfloat16 and float16

}  // namespace gem_fast
