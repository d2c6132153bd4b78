// The C interface of score decoding: two calls, each in two steps that are spread over torch's threads.
#include "../../native/threads.h"
#include "problem.h"

namespace gem_fast::decoding {
namespace {

constexpr int64_t ROWS = 64;  // of labels in a task: few columns make many tasks too
constexpr double LOG2_E = 1.4426950408889634;

bool run(const Problem& problem, StepIndex index, int path, int threads) {
    const Step& step = (path == 1 ? avx512 : avx2)[index];  // as gem_fast_supports numbers them
    return for_each_task(step.tasks(problem), threads, step.scratch_bytes(problem),
                         [&](int64_t task, void* scratch) { step.run(problem, task, scratch); });
}

}  // namespace
}  // namespace gem_fast::decoding

extern "C" {

// 0, or 1 if memory ran out. `shape` is P, h, w, H, W, none of them 0; `strides` those of P and h, in elements;
// `peaks` [h, w] is scratch; the rest as in Problem.
int gem_fast_decode_labels(const float* scores, const int64_t* strides, const int64_t* shape, double logit_scale,
                           double threshold, float* peaks, int32_t* labels, float* confidence, int path, int threads) {
    using namespace gem_fast::decoding;
    Problem problem = {scores, strides[0], strides[1], shape[0], shape[1], shape[2], shape[3], shape[4]};
    problem.logit_scale = float(logit_scale * LOG2_E);
    problem.threshold = float(threshold);
    problem.peaks = peaks;
    problem.labels = labels;
    problem.confidence = confidence;
    problem.parts = (problem.H + ROWS - 1) / ROWS;
    return !(run(problem, find_peaks, path, threads) && run(problem, decode_labels, path, threads));
}

// 0, or 1 if memory ran out. `extremes` [P, threads, 2] is scratch; the rest as above.
int gem_fast_decode_heatmaps(const float* scores, const int64_t* strides, const int64_t* shape, float* extremes,
                             float* maps, int path, int threads) {
    using namespace gem_fast::decoding;
    Problem problem = {scores, strides[0], strides[1], shape[0], shape[1], shape[2], shape[3], shape[4]};
    problem.extremes = extremes;
    problem.maps = maps;
    const int64_t parts = problem.P < 4 * threads ? threads : 1;  // few prompts: rows go to threads of their own
    problem.parts = parts < problem.H ? parts : problem.H;
    return !(run(problem, find_extremes, path, threads) && run(problem, fill_maps, path, threads));
}
}
