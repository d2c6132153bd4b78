// Compiles what follows for an instruction set, whatever the command line says: GEM_TARGET("avx2,fma").
// Include the standard headers before it, so that no shared inline function is compiled for a CPU that is not there.
#pragma once
#include <immintrin.h>

#include <type_traits>

#define GEM_INLINE inline __attribute__((always_inline))
#define GEM_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define GEM_TARGET(features) \
    GEM_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define GEM_TARGET_END GEM_PRAGMA(clang attribute pop)
#else
#define GEM_TARGET(features) GEM_PRAGMA(GCC target(features))
#define GEM_TARGET_END
#endif

// The instruction sets that the kernels are compiled for; `library.cpp` tells which of them a CPU runs. Where there is no
// PREFETCHW it does nothing.
#define GEM_AVX2 "avx2,fma,f16c,prfchw"
#define GEM_AVX512 "avx2,fma,f16c,prfchw,avx512f,avx512dq,avx512bw,avx512vl"
#define GEM_AVX512_BF16 "avx2,fma,f16c,prfchw,avx512f,avx512dq,avx512bw,avx512vl,avx512bf16"
#define GEM_AVX512_VNNI "avx2,fma,f16c,prfchw,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni"
