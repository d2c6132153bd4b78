// The C interface of attention: one call that spreads the heads over torch's threads.
#include <immintrin.h>

#include "../../native/threads.h"
#include "problem.h"

namespace gem_fast {
namespace {

constexpr float LARGEST_C_BF16 = 1024;  // above, the rounding of p to bfloat16 moves a logit by more than 2

const Kernel* const KERNELS[] = {avx512_bf16, avx512, avx2};  // as gem_fast_supports numbers them
constexpr int AVX512_BF16 = 0, AVX512 = 1;

// Part `part` of a head: of self-self attention one projection, of pairs one, of that of q and k some of the queries.
void run_part(Problem problem, int computation, int path, int64_t head, int part, void* scratch) {
    const int64_t b = head / problem.H, h = head % problem.H;
    problem.part = part;
    if (computation == self_self) {
        if (path == AVX512_BF16 && problem.inverse_temperature[b] > LARGEST_C_BF16) path = AVX512;
    }
    if (computation != query_key && problem.parts > 1) {
        problem.projections += part * (computation == pairs ? 2 : 1);
        problem.projection_count = 1;
        problem.out = static_cast<float*>(problem.out) + part * problem.B * problem.N * problem.H * problem.D;
    }
    const unsigned flags = _mm_getcsr();
    _mm_setcsr(flags | 0x8040);  // weights that underflow become zero instead of slow denormals
    KERNELS[path][computation].run(problem, b, h, scratch);
    _mm_setcsr(flags);
}

}  // namespace
}  // namespace gem_fast

// 0, or 1 if memory ran out. `computation` 0 is self-self attention; 1 is that of q and k, without `projections` and
// `iterations`; 2 is that of pairs, without `iterations`. `shape` is B, N, H, D, and `table` the grid's width and the
// stride of the tables; the rest as in Problem. `parts` cuts each head for more threads than heads: but for q and k it is
// 1, or the number of projections or pairs, and then `out` is [parts, B, N, H*D] of float32, to be added.
extern "C" int gem_fast_attention(int computation, const void* qkv, const int64_t* strides,
                                  const float* inverse_temperature, void* out, const int64_t* shape, int type,
                                  const int* projections, int projection_count, int ensemble, int iterations,
                                  const float* down, const float* across, const int64_t* table, int path, int threads,
                                  int parts) {
    using namespace gem_fast;
    const bool separate = computation != query_key && parts > 1;
    Problem problem = {qkv,      strides,    out,
                       shape[0], shape[1],   shape[2],
                       shape[3], Type(type), separate ? Type::float32 : Type(type),
                       inverse_temperature,  projections, projection_count, ensemble, iterations,
                       down,     across,     table[0], table[1]};
    problem.parts = parts;
    size_t scratch_bytes = KERNELS[path][computation].scratch_bytes(problem);
    if (path == AVX512_BF16) {
        const size_t wide = KERNELS[AVX512][computation].scratch_bytes(problem);
        if (wide > scratch_bytes) scratch_bytes = wide;
    }
    return !for_each_task(problem.B * problem.H * parts, threads, scratch_bytes, [&](int64_t task, void* scratch) {
        run_part(problem, computation, path, task / parts, int(task % parts), scratch);
    });
}
