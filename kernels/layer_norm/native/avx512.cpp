#include <cstdint>

#include "../../native/target.h"
#include "layer_norm.h"

GEM_TARGET(GEM_AVX512)
#include "../../native/avx512.h"
#include "rows.h"

namespace gem_fast {
using V = Avx512Vectors;
const NormRows avx512_layer_norm[] = {norm_rows<V, float>, norm_rows<V, Bfloat16Bits>, norm_rows<V, Float16Bits>};
}
GEM_TARGET_END
