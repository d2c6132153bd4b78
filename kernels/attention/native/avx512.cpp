// float32 on AVX-512, as every server CPU of Intel since 2017 and of AMD since 2022 has it.
#include "../../native/target.h"
#include "problem.h"

GEM_TARGET(GEM_AVX512)
#include "avx512.h"
#include "float32.h"

namespace gem_fast {
const Kernel avx512[] = {KERNEL(SelfSelf<Float32<Avx512>>), KERNEL(QueryKey<Float32<Avx512>>), KERNEL(Pairs<Float32<Avx512>>)};
}
GEM_TARGET_END
