// Rows of floats on their way to uint8. Included after GEM_TARGET.
#pragma once
#include "../../native/avx512.h"
#include "layer.h"

namespace gem_fast {
namespace {

using Isa = Avx512Vectors;
using Vec = Isa::Vec;
constexpr int W = Isa::lanes;
constexpr float SMALLEST_STEP = 1e-30f;  // a row that spans less counts as zeros

GEM_INLINE Vec load_some(const float* at, int64_t count) { return Isa::load_some(at, Isa::first_lanes(count)); }

GEM_INLINE Vec load_some(const uint16_t* at, int64_t count) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(Isa::first_lanes(count), at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

GEM_INLINE void store_first(float* at, int64_t count, Vec x) { Isa::store_first(at, count, x); }

// To the nearest bfloat16, NaN to NaN.
GEM_INLINE void store_first(uint16_t* at, int64_t count, Vec x) {
    const __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i nearest = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000));
    _mm256_mask_storeu_epi16(at, Isa::first_lanes(count), _mm512_cvtepi32_epi16(_mm512_srli_epi32(nearest, 16)));
}

// Rows of uint8: x ≈ step · (byte - zero), with a step and a zero a row.
struct Bytes {
    uint8_t* bytes;
    int64_t stride;
    float steps[MOST_ROWS], zeros[MOST_ROWS];  // a zero is a whole number

    // Not a multiple of large powers of two, so that rows don't share the places of the first cache.
    static int64_t stride_of(int64_t width) { return whole(width, 64) + 64; }

    Bytes(char*& at, int64_t width, int64_t rows) : bytes(reinterpret_cast<uint8_t*>(at)), stride(stride_of(width)) {
        at += rows * stride;
    }

    // Row r, of floats that are padded with zeros to whole vectors. The range is widened to hold 0, which is exact.
    void round(int64_t r, const float* x, int64_t padded) {
        Vec least = Isa::zero(), most = Isa::zero(), poison = Isa::zero();
        for (int64_t k = 0; k < padded; k += W) {
            const Vec value = Isa::load(x + k);
            least = Isa::min(value, least);
            most = Isa::max(value, most);
            poison = Isa::fma(value, Isa::zero(), poison);  // NaN where anything isn't finite
        }
        const float low = _mm512_reduce_min_ps(least), range = (_mm512_reduce_max_ps(most) - low) / 255;
        const bool flat = !(range > SMALLEST_STEP);
        const float inverse = flat ? 0.f : 1.f / range, zero = __builtin_nearbyintf(-low * inverse);
        steps[r] = (flat ? 0.f : range) + Isa::add_lanes(poison);
        zeros[r] = zero;
        const __m512i zero_point = _mm512_set1_epi32(int(zero));
        for (int64_t k = 0; k < padded; k += W) {
            const __m512i whole = _mm512_cvtps_epi32(Isa::mul(Isa::load(x + k), Isa::set(inverse)));
            const __m128i low_bytes = _mm512_cvtusepi32_epi8(_mm512_add_epi32(whole, zero_point));
            _mm_store_si128(reinterpret_cast<__m128i*>(bytes + r * stride + k), low_bytes);
        }
    }
};

// LayerNorm of x [width], padded with zeros to whole vectors as y is.
inline void layer_norm(const float* x, const float* gain, const float* bias, float eps, int64_t width, float* y) {
    Vec sum = Isa::zero(), squares = Isa::zero();
    for (int64_t k = 0; k < width; k += W) sum = Isa::add(sum, Isa::load(x + k));
    const float mean = Isa::add_lanes(sum) / float(width);
    for (int64_t k = 0; k < width; k += W) {
        const Vec off = _mm512_maskz_sub_ps(Isa::first_lanes(width - k), Isa::load(x + k), Isa::set(mean));
        squares = Isa::fma(off, off, squares);
    }
    const Vec scale = Isa::set(1.f / __builtin_sqrtf(Isa::add_lanes(squares) / float(width) + eps));
    for (int64_t k = 0; k < width; k += W) {
        const Vec normed = Isa::mul(Isa::sub(Isa::load(x + k), Isa::set(mean)), scale);
        Isa::store(y + k, Isa::fma(normed, load_some(gain + k, width - k), load_some(bias + k, width - k)));
    }
}

}  // namespace
}  // namespace gem_fast
