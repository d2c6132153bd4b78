// The table of an instruction set's steps. Included once by each instruction set.
#pragma once
#include "heatmaps.h"
#include "labels.h"

namespace gem_fast::decoding {
namespace {

inline int64_t rows_of_patches(const Problem& problem) { return problem.h; }
inline size_t no_scratch(const Problem&) { return 0; }

}  // namespace
}  // namespace gem_fast::decoding

#define GEM_STEPS(Isa)                                                                       \
    {                                                                                        \
        {rows_of_patches, no_scratch, Labels<Isa>::find_peaks},                              \
        {Labels<Isa>::tasks, Labels<Isa>::scratch_bytes, Labels<Isa>::run},                  \
        {Heatmaps<Isa>::tasks, Heatmaps<Isa>::scratch_bytes, Heatmaps<Isa>::find_extremes},  \
        {Heatmaps<Isa>::tasks, Heatmaps<Isa>::scratch_bytes, Heatmaps<Isa>::fill},           \
    }
