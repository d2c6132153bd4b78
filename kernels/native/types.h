// Types of two bytes that memory holds, and kernels compute in float32.
#pragma once
#include <cstdint>

namespace gem_fast {

struct Bfloat16Bits {
    uint16_t bits;
};

struct Float16Bits {
    uint16_t bits;
};

}  // namespace gem_fast
