// Score decoding on AVX2 and FMA.
#include "../../native/target.h"
#include "problem.h"

GEM_TARGET(GEM_AVX2)
#include "../../native/avx2.h"
#include "steps.h"

namespace gem_fast::decoding {
const Step avx2[] = GEM_STEPS(Avx2Vectors);
}
GEM_TARGET_END
