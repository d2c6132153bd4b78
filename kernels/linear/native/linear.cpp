// The C interface of linear layers: one call that spreads rows, and panels where rows are few, over torch's threads.
#include "linear.h"

#include "../../native/threads.h"

namespace gem_fast {
namespace {

constexpr int64_t MOST_ROWS = 140;  // of a task: laid out they stay in the second cache, and so does a block of weights
constexpr int64_t LEAST_ROWS = 64;  // of each thread: with fewer, threads share out the weights instead

int64_t whole(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

int64_t least(int64_t n, int64_t limit) { return n < limit ? n : limit; }

}  // namespace
}  // namespace gem_fast

// 0, or 1 if memory ran out. `sizes` are rows, inputs and outputs; the rest as in Linear.
extern "C" int gem_fast_linear(const float* x, const float* panels, const float* bias, const int64_t* sizes,
                               int activation, float* out, int threads) {
    using namespace gem_fast;
    const Linear call = {x, panels, bias, out, sizes[0], sizes[1], sizes[2], activation};
    const int64_t parts = (call.rows + MOST_ROWS - 1) / MOST_ROWS, count = call.outputs / PANEL;
    const bool many = call.rows >= LEAST_ROWS * threads;
    const int64_t down = many ? whole(parts, threads) : parts;
    const int64_t across = many ? 1 : least(whole(2 * threads, down) / down, count);
    const size_t scratch = scratch_bytes(call, (call.rows + down - 1) / down);
    return !for_each_task(down * across, threads, scratch, [&](int64_t task, void* memory) {
        const int64_t row = task % down, column = task / down;
        const Share share = {call.rows * row / down, call.rows * (row + 1) / down, count * column / across,
                             count * (column + 1) / across};
        run_share(call, share, memory);
    });
}
