#include <cstdint>

#include "../../native/target.h"
#include "activation.h"

GEM_TARGET(GEM_AVX2)
#include "../../native/avx2.h"
#include "elements.h"

namespace gem_fast {
using V = Avx2Vectors;
const ActivateElements avx2_activate[] = {activate_elements<V, float>, activate_elements<V, Bfloat16Bits>,
                                        activate_elements<V, Float16Bits>};
}
GEM_TARGET_END
