// float32 on AVX-512, as every server CPU of Intel since 2017 and of AMD since 2022 has it.
#include "problem.h"
#include "target.h"

GEM_TARGET("avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl")
#include "avx512.h"
#include "float32.h"

namespace gem_fast {
const Kernel avx512[] = {KERNEL(SelfSelf<Float32<Avx512>>), KERNEL(QueryKey<Float32<Avx512>>)};
}
GEM_TARGET_END
