// What one call computes: shapes, strides and pointers, as Python hands them over.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gem_fast {

enum class Type : int { float32, bfloat16, float16 };

struct Problem {
    const void* qkv;         // [B, N, 3, H, D], the last dimension contiguous
    const int64_t* strides;  // of B, N, 3 and H, in elements
    void* out;               // [B, N, H*D], contiguous
    int64_t B, N, H, D;      // D a multiple of 8
    Type type, out_type;
    const float* inverse_temperature;  // [B]
    const int* projections;            // indices into the third dimension of qkv; of pairs two each
    int projection_count;  // or of pairs
    int ensemble;  // projections that the result is the mean of: more than projection_count where a head is cut
    int iterations;
    const float *down, *across;  // of pairs: tables whose product is the bias times log2(e), or null; [h+1] and [w+1] rows
    int64_t grid_width, table_stride;
    int part = 0, parts = 1;  // which of the equal shares of the query blocks, where a head is cut
};

// One computation on one instruction set: `run` does a head in `scratch`, aligned to 64 bytes.
struct Kernel {
    size_t (*scratch_bytes)(const Problem&);
    void (*run)(const Problem&, int64_t b, int64_t h, void* scratch);
};

enum Computation : int { self_self, query_key, pairs };

extern const Kernel avx512_bf16[], avx512[], avx2[];  // a kernel for each computation

}  // namespace gem_fast
