// Rows of tokens between memory of any type and padded float32. Included once by each instruction set.
#pragma once
#include "tile.h"

namespace gem_fast {
namespace {

GEM_INLINE float float_of(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

GEM_INLINE uint32_t bits_of(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}

// Element `offset` of memory of a type; D a multiple of 8.
inline void load_row(const void* from, int64_t offset, Type type, int64_t D, float* to) {
    if (type == Type::float32) {
        __builtin_memcpy(to, static_cast<const float*>(from) + offset, D * sizeof(float));
        return;
    }
    const uint16_t* x = static_cast<const uint16_t*>(from) + offset;
    if (type == Type::bfloat16)
        for (int64_t d = 0; d < D; d++) to[d] = float_of(uint32_t(x[d]) << 16);
    else
        for (int64_t d = 0; d < D; d += 8)
            _mm256_storeu_ps(to + d, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + d))));
}

GEM_INLINE uint16_t to_bfloat16(float x) {
    const uint32_t bits = bits_of(x), nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return uint16_t(x == x ? nearest : 0x7fc0);
}

inline void store_row(const float* from, void* to, int64_t offset, Type type, int64_t D) {
    if (type == Type::float32) {
        __builtin_memcpy(static_cast<float*>(to) + offset, from, D * sizeof(float));
        return;
    }
    uint16_t* x = static_cast<uint16_t*>(to) + offset;
    if (type == Type::bfloat16)
        for (int64_t d = 0; d < D; d++) x[d] = to_bfloat16(from[d]);
    else
        for (int64_t d = 0; d < D; d += 8)
            _mm_storeu_si128(reinterpret_cast<__m128i*>(x + d), _mm256_cvtps_ph(_mm256_loadu_ps(from + d), 0));
}

}  // namespace
}  // namespace gem_fast
