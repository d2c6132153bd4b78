// What one call decodes: shapes, strides and pointers, as Python hands them over.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gem_fast::decoding {

struct Problem {
    const float* scores;  // [P, h, w], the last dimension contiguous
    int64_t P_stride, h_stride;
    int64_t P, h, w, H, W;
    float logit_scale;    // times log2(e)
    float threshold;
    float* peaks;         // [h, w]: the largest logit of each patch, over log(2)
    int32_t* labels;      // [H, W]
    float* confidence;    // [H, W]
    float* extremes;      // [P, parts, 2]: the lowest and the highest score of each part of a map
    float* maps;          // [P, H, W]
    int64_t parts;        // into how many runs of rows the output is cut
};

// The row and the column of pixels that part `i` of `parts` starts with.
inline int64_t part_start(int64_t size, int64_t parts, int64_t i) { return size * i / parts; }

// One step on one instruction set: `tasks` of them, each run in a scratch aligned to 64 bytes.
struct Step {
    int64_t (*tasks)(const Problem&);
    size_t (*scratch_bytes)(const Problem&);
    void (*run)(const Problem&, int64_t task, void* scratch);
};

enum StepIndex : int { find_peaks, decode_labels, find_extremes, fill_maps };

extern const Step avx512[], avx2[];  // indexed by StepIndex

}  // namespace gem_fast::decoding
