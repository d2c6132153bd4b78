// Score decoding on AVX-512.
#include "../../native/target.h"
#include "problem.h"

GEM_TARGET(GEM_AVX512)
#include "../../native/avx512.h"
#include "steps.h"

namespace gem_fast::decoding {
const Step avx512[] = GEM_STEPS(Avx512Vectors);
}
GEM_TARGET_END
