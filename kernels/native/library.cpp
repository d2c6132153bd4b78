// What the C interface says of itself: its version, and which instruction sets serve here.
extern "C" {

// Changes with any function of the library, so that one from older sources is told apart.
int gem_fast_interface() { return 3; }

// 1 if the CPU runs the path: 0 AVX-512 BF16, 1 AVX-512, 2 AVX2, the feature sets of target.h.
int gem_fast_supports(int path) {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (path == 2) return avx2;
    if (path == 1) return avx512;
    return path == 0 && avx512 && __builtin_cpu_supports("avx512bf16");
}
}
