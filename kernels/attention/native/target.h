// Compiles what follows for an instruction set, whatever the command line says: GEM_TARGET("avx2,fma").
// Include the standard headers before it, so that no shared inline function is compiled for a CPU that is not there.
#pragma once
#include <immintrin.h>

#include <type_traits>

#define GEM_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define GEM_TARGET(features) \
    GEM_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define GEM_TARGET_END GEM_PRAGMA(clang attribute pop)
#else
#define GEM_TARGET(features) GEM_PRAGMA(GCC target(features))
#define GEM_TARGET_END
#endif
