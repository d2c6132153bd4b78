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

template <class T>
GEM_INLINE Vec load_some(const T* at, int64_t count) { return Isa::load_some(at, Isa::first_lanes(count)); }

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

}  // namespace
}  // namespace gem_fast
