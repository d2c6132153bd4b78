// What the C interface says of itself: its version, and which instruction sets serve here.
extern "C" {

// Changes with any function of the library, so that one from older sources is told apart.
int gem_fast_interface() { return 6; }

// 1 if the CPU runs the path: 0 AVX-512 BF16, 1 AVX-512, 2 AVX2, 3 AVX-512 VNNI, the feature sets of target.h; 4
// AVX-512 BF16 at twice the rate of float32, which AMD's CPUs have and Intel's have not; 5 AVX-512 on a CPU of Intel.
int gem_fast_supports(int path) {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (path == 2) return avx2;
    if (path == 1) return avx512;
    if (path == 5) return avx512 && __builtin_cpu_is("intel");
    if (path == 3) return avx512 && __builtin_cpu_supports("avx512vnni");
    const bool bfloat16 = avx512 && __builtin_cpu_supports("avx512bf16");
    return path == 4 ? bfloat16 && __builtin_cpu_is("amd") : path == 0 && bfloat16;
}
}
