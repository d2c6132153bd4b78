// The C interface of activations: one call that spreads elements over torch's threads.
#include "activation.h"

#include "../../native/threads.h"

namespace {

constexpr int64_t LEAST = 8192;  // elements of a task, which a thread does in about a microsecond

}

// 0, or 1 if memory ran out. `activation` is numbered as in activations.h; `type` 0 is float32, 1 bfloat16, 2 float16;
// `path` is as gem_fast_supports numbers them; the rest as in ActivateElements.
extern "C" int gem_fast_activate(void* x, const void* factor, int64_t count, int activation, int type, int path,
                                 int threads) {
    using namespace gem_fast;
    const ActivateElements run = (path == 2 ? avx2_activate : avx512_activate)[type];
    const int64_t most = 4 * threads, pieces = (count + LEAST - 1) / LEAST, tasks = pieces < most ? pieces : most;
    return !for_each_task(tasks, threads, 0, [&](int64_t task, void*) {
        const int64_t last = pieces * (task + 1) / tasks * LEAST;
        run(x, factor, activation, pieces * task / tasks * LEAST, last < count ? last : count);
    });
}
