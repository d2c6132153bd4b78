// The C interface of int8 layers: calls that spread rows over torch's threads.
#include <immintrin.h>

#include "../../native/threads.h"
#include "layer.h"

namespace gem_fast {
namespace {

// Rows in tasks of about equal size, as many for each thread. 0, or 1 if memory ran out.
template <class Call>
int for_all_rows(const Call& call, int64_t rows, int threads) {
    const int64_t tiles = (rows + ROWS - 1) / ROWS, most = MOST_ROWS / ROWS * threads;
    const int64_t wanted = (tiles + most - 1) / most * threads, tasks = wanted < tiles ? wanted : tiles;
    return !for_each_task(tasks, threads, scratch_bytes(call), [&](int64_t task, void* scratch) {
        const unsigned flags = _mm_getcsr();
        _mm_setcsr(flags | 0x8040);  // what underflows becomes zero instead of slow denormals
        const int64_t first = tiles * task / tasks * ROWS, last = tiles * (task + 1) / tasks * ROWS;
        run_rows(call, first, (last < rows ? last : rows) - first, scratch);
        _mm_setcsr(flags);
    });
}

}  // namespace
}  // namespace gem_fast

// Both return 0, or 1 if memory ran out; their arguments are those of Int8Linear and Int8Mlp.

// `sizes` are the rows, the layer's inputs and outputs, and the first and last of the wanted outputs.
extern "C" int gem_fast_int8_linear(const void* x, int x_is_bfloat16, const float* smoothing, const int8_t* weight,
                                    const float* factors, const int64_t* sizes, void* out, int out_is_bfloat16,
                                    int threads) {
    using namespace gem_fast;
    const Int8Layer layer = {weight, factors, sizes[1], sizes[2]};
    const Int8Linear call = {x, out, bool(x_is_bfloat16), bool(out_is_bfloat16), smoothing, layer, sizes[3], sizes[4]};
    return for_all_rows(call, sizes[0], threads);
}

// `sizes` are the rows, and the widths outside and inside.
extern "C" int gem_fast_int8_mlp(const float* x, const float* branch, const float* gain, const float* bias, float eps,
                                 const int8_t* in_weight, const float* in_factors, const int8_t* out_weight,
                                 const float* out_factors, const int64_t* sizes, int activation, float* out,
                                 int threads) {
    using namespace gem_fast;
    const Int8Layer first = {in_weight, in_factors, sizes[1], sizes[2]};
    const Int8Layer second = {out_weight, out_factors, sizes[2], sizes[1]};
    const Int8Mlp call = {x, branch, out, gain, bias, eps, activation, first, second};
    return for_all_rows(call, sizes[0], threads);
}
