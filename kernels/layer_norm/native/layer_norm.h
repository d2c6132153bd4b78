// LayerNorm with the sums before it, as Python hands it over.
#pragma once
#include <cstdint>

namespace gem_fast {

// total = [front, x] + branch, y = LayerNorm(total), norms = |y| · norm_scale, aside_total = aside + aside_branch, all
// of one type, the channels adjacent. What isn't asked for is null.
struct LayerNorm {
    const void *x, *front, *branch;    // [B, N - first, C], [first, C], [B, N, C]
    int64_t x_image, x_token, branch_image, branch_token;  // strides
    const void *gain, *bias;           // [C]
    const void *aside, *aside_branch;  // [B, N, C] without gaps, as all that follows
    void *total, *y, *aside_total;
    float* norms;  // [B, N]
    int64_t B, N, C, first;
    float eps, norm_scale;
};

// Rows of all images from `row` to before `last`: for float32, bfloat16 and float16.
using NormRows = void (*)(const LayerNorm&, int64_t row, int64_t last);
extern const NormRows avx512_layer_norm[3], avx2_layer_norm[3];

}  // namespace gem_fast
