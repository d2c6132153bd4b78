// The C interface: which instruction sets serve here, and one call that spreads the heads over torch's threads.
#include <immintrin.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

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
    const Problem* problem;
    int computation, path;
    size_t scratch_bytes;
    std::atomic<int64_t> next{0};
    std::atomic<bool> out_of_memory{false};
};

// One thread: takes heads until none is left.
void run_heads(void* argument) {
    Work& work = *static_cast<Work*>(argument);
    const Problem& problem = *work.problem;
    void* scratch = std::aligned_alloc(64, work.scratch_bytes);
    if (!scratch) {
        work.out_of_memory = true;
        return;
    }
    std::memset(scratch, 0, work.scratch_bytes);
    const unsigned flags = _mm_getcsr();
    _mm_setcsr(flags | 0x8040);  // weights that underflow become zero instead of slow denormals
    for (int64_t task; (task = work.next++) < problem.B * problem.H;) {
        const int64_t b = task / problem.H, h = task % problem.H;
        const bool coarse = work.path == AVX512_BF16 && work.computation == self_self &&
                            problem.inverse_temperature[b] > LARGEST_C_BF16;
        KERNELS[coarse ? AVX512 : work.path][work.computation].run(problem, b, h, scratch);
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
// `iterations`. `shape` is B, N, H, D; the rest as in Problem.
int gem_fast_attention(int computation, const void* qkv, const int64_t* strides, const float* inverse_temperature,
                       void* out, const int64_t* shape, int type, const int* projections, int projection_count,
                       int iterations, int path, int threads) {
    using namespace gem_fast;
    const Problem problem = {qkv,      strides,  inverse_temperature, out,         shape[0],         shape[1],
                             shape[2], shape[3], Type(type),          projections, projection_count, iterations};
    Work work{&problem, computation, path, KERNELS[path][computation].scratch_bytes(problem)};
    if (path == AVX512_BF16) {
        const size_t wide = KERNELS[AVX512][computation].scratch_bytes(problem);
        if (wide > work.scratch_bytes) work.scratch_bytes = wide;
    }
    const int64_t heads = problem.B * problem.H;
    GOMP_parallel(run_heads, &work, unsigned(heads < threads ? heads : threads), 0);
    return work.out_of_memory;
}
}
