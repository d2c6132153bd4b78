// The C interface of linear layers: one call that spreads rows, and panels where rows are few, over torch's threads.
#include "linear.h"

#include "../../native/threads.h"

namespace gem_fast {
namespace {

constexpr int64_t MOST_ROWS = 140;  // of a task: laid out they stay in the second cache, and so does a block of weights
constexpr int64_t LEAST_ROWS = 64;  // of each thread: with fewer, threads share out the weights instead

int64_t whole(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

int64_t least(int64_t n, int64_t limit) { return n < limit ? n : limit; }

// How many parts rows are cut into.
int64_t parts_of(int64_t rows, int threads) {
    const int64_t parts = (rows + MOST_ROWS - 1) / MOST_ROWS;
    return rows >= LEAST_ROWS * threads ? whole(parts, threads) : parts;
}

}  // namespace
}  // namespace gem_fast

// Both return 0, or 1 if memory ran out.

// `sizes` are rows, inputs and outputs; the rest as in Linear.
extern "C" int gem_fast_linear(const float* x, const float* panels, const float* bias, const int64_t* sizes,
                               int activation, float* out, int threads) {
    using namespace gem_fast;
    const Linear call = {x, panels, bias, out, sizes[0], sizes[1], sizes[2], activation};
    const int64_t count = call.outputs / PANEL, down = parts_of(call.rows, threads);
    const bool many = call.rows >= LEAST_ROWS * threads;
    const int64_t across = many ? 1 : least(whole(2 * threads, down) / down, count);
    const size_t scratch = scratch_bytes(call, (call.rows + down - 1) / down);
    return !for_each_task(down * across, threads, scratch, [&](int64_t task, void* memory) {
        const int64_t row = task % down, column = task / down;
        const Share share = {call.rows * row / down, call.rows * (row + 1) / down, count * column / across,
                             count * (column + 1) / across};
        run_share(call, share, memory);
    });
}

// Two layers, of which the first has the activation; what lies between them never leaves a core's cache. `sizes` are
// rows, and the widths of x, between and of `out`.
extern "C" int gem_fast_mlp(const float* x, const float* panels, const float* bias, const float* out_panels,
                            const float* out_bias, const int64_t* sizes, int activation, float* out, int threads) {
    using namespace gem_fast;
    const int64_t rows = sizes[0], width = sizes[1], inner = sizes[2], outputs = sizes[3];
    const int64_t parts = parts_of(rows, threads), most = (rows + parts - 1) / parts;
    const Linear first = {x, panels, bias, nullptr, rows, width, inner, activation};
    const Linear second = {nullptr, out_panels, out_bias, out, most, inner, outputs, -1};
    const size_t between = most * inner * sizeof(float), one = scratch_bytes(first, most), other = scratch_bytes(second, most);
    return !for_each_task(parts, threads, between + (one > other ? one : other), [&](int64_t part, void* memory) {
        const int64_t row = rows * part / parts, count = rows * (part + 1) / parts - row;
        float* held = static_cast<float*>(memory);
        void* scratch = held + most * inner;
        Linear own = first, next = second;
        own.x = x + row * width, own.out = held, own.rows = count;
        next.x = held, next.out = out + row * outputs, next.rows = count;
        run_share(own, {0, count, 0, inner / PANEL}, scratch);
        run_share(next, {0, count, 0, outputs / PANEL}, scratch);
    });
}
