// The C interface: which instruction sets serve here, and one call that spreads the heads over torch's threads.
#include <immintrin.h>

#include <atomic>
#include <cstdlib>

#include "problem.h"

// The OpenMP runtime's own entry, left undefined here: it resolves to the runtime that torch has loaded, so that there
// is one pool of threads. Linking an OpenMP library would bring a second one.
extern "C" void GOMP_parallel(void (*function)(void*), void* argument, unsigned threads, unsigned flags);

namespace gem_fast {
namespace {

constexpr float LARGEST_C_BF16 = 1024;  // above, the rounding of p to bfloat16 moves a logit by more than 2

const Kernel* const KERNELS[] = {avx512_bf16, avx512, avx2};  // the fastest first
constexpr int AVX512_BF16 = 0, AVX512 = 1, AVX2 = 2;

bool supported(int path) {
    __builtin_cpu_init();
    const bool has_avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (path == AVX2) return has_avx2;
    if (path == AVX512) return has_avx512;
    return path == AVX512_BF16 && has_avx512 && __builtin_cpu_supports("avx512bf16");
}

struct Work {
    Problem problem;
    int computation, path;
    size_t scratch_bytes;
    std::atomic<int64_t> next{0};
    std::atomic<bool> out_of_memory{false};
};

// Part `part` of a head: of self-self attention one projection, of that of q and k some of the queries.
void run_part(const Work& work, int64_t b, int64_t h, int part, void* scratch) {
    Problem problem = work.problem;
    problem.part = part;
    int path = work.path;
    if (work.computation == self_self) {
        if (path == AVX512_BF16 && problem.inverse_temperature[b] > LARGEST_C_BF16) path = AVX512;
        if (problem.parts > 1) {
            problem.projections += part;
            problem.projection_count = 1;
            problem.out = static_cast<float*>(problem.out) + part * problem.B * problem.N * problem.H * problem.D;
        }
    }
    KERNELS[path][work.computation].run(problem, b, h, scratch);
}

// One thread: takes parts of heads until none is left.
void run_parts(void* argument) {
    Work& work = *static_cast<Work*>(argument);
    const Problem& problem = work.problem;
    void* scratch = std::aligned_alloc(64, work.scratch_bytes);
    if (!scratch) {
        work.out_of_memory = true;
        return;
    }
    const unsigned flags = _mm_getcsr();
    _mm_setcsr(flags | 0x8040);  // weights that underflow become zero instead of slow denormals
    for (int64_t task; (task = work.next++) < problem.B * problem.H * problem.parts;) {
        const int64_t head = task / problem.parts;
        run_part(work, head / problem.H, head % problem.H, int(task % problem.parts), scratch);
    }
    _mm_setcsr(flags);
    std::free(scratch);
}

}  // namespace
}  // namespace gem_fast

extern "C" {

// Changes with the interface below, so that a library from older sources is told apart.
int gem_fast_interface() { return 1; }

// 1 if the CPU runs the path: 0 AVX-512 BF16, 1 AVX-512, 2 AVX2.
int gem_fast_supports(int path) { return gem_fast::supported(path); }

// 0, or 1 if memory ran out. `computation` 0 is self-self attention; 1 is that of q and k, without `projections` and
// `iterations`. `shape` is B, N, H, D; the rest as in Problem. `parts` cuts each head for more threads than heads: of
// self-self attention it is 1, or the number of projections, and then `out` is [parts, B, N, H*D] of float32.
int gem_fast_attention(int computation, const void* qkv, const int64_t* strides, const float* inverse_temperature,
                       void* out, const int64_t* shape, int type, const int* projections, int projection_count,
                       int iterations, int path, int threads, int parts) {
    using namespace gem_fast;
    const bool separate = computation == self_self && parts > 1;
    Problem problem = {qkv,      strides,    out,
                       shape[0], shape[1],   shape[2],
                       shape[3], Type(type), separate ? Type::float32 : Type(type),
                       inverse_temperature,  projections, projection_count, iterations};
    problem.parts = parts;
    Work work{problem, computation, path, KERNELS[path][computation].scratch_bytes(problem)};
    if (path == AVX512_BF16) {
        const size_t wide = KERNELS[AVX512][computation].scratch_bytes(problem);
        if (wide > work.scratch_bytes) work.scratch_bytes = wide;
    }
    const int64_t tasks = problem.B * problem.H * parts;
    GOMP_parallel(run_parts, &work, unsigned(tasks < threads ? tasks : threads), 0);
    return work.out_of_memory;
}
}
