// float32 on AVX2 and FMA, as every x86-64 CPU since about 2013 has them.
#include "../../native/target.h"
#include "problem.h"

GEM_TARGET(GEM_AVX2)
#include "../../native/avx2.h"
#include "float32.h"

namespace gem_fast {
namespace {

struct Avx2 : Avx2Vectors {
    static constexpr int logit_rows = 4, logit_columns = 3, most_columns = 3;
    // Rows of a tile so that 16 registers hold it, a row of its right operand and a broadcast; they divide BLOCK.
    static constexpr int rows_of(int columns) { return columns == 3 ? 4 : columns == 2 ? 6 : 12; }
};

}  // namespace

const Kernel avx2[] = {KERNEL(SelfSelf<Float32<Avx2>>), KERNEL(QueryKey<Float32<Avx2>>), KERNEL(Pairs<Float32<Avx2>>)};

}  // namespace gem_fast
GEM_TARGET_END
