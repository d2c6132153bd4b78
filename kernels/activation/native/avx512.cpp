#include <cstdint>

#include "../../native/target.h"
#include "activation.h"

GEM_TARGET(GEM_AVX512)
#include "../../native/avx512.h"
#include "elements.h"

namespace gem_fast {
using V = Avx512Vectors;
const ActivateElements avx512_activate[] = {activate_elements<V, float>, activate_elements<V, Bfloat16Bits>,
                                        activate_elements<V, Float16Bits>};
}
GEM_TARGET_END
