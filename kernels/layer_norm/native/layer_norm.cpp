// The C interface of LayerNorm: one call that spreads rows over torch's threads.
#include "layer_norm.h"

#include "../../native/threads.h"

// 0, or 1 if memory ran out. `strides` are those of images and tokens of x, then of branch; `shape` is B, N, C and the
// tokens of `front`; `type` 0 is float32, 1 bfloat16, 2 float16; `path` is as gem_fast_supports
// numbers them; the rest as in LayerNorm.
extern "C" int gem_fast_layer_norm(const void* x, const void* front, const void* branch, const int64_t* strides,
                                   const void* gain, const void* bias, float eps, const void* aside,
                                   const void* aside_branch, void* total, void* y, float* norms, float norm_scale,
                                   void* aside_total, const int64_t* shape, int type, int path, int threads) {
    using namespace gem_fast;
    const LayerNorm call = {x,    front,        branch, strides[0], strides[1],  strides[2], strides[3],
                            gain, bias,         aside,  aside_branch, total,     y,          aside_total,
                            norms, shape[0],    shape[1], shape[2], shape[3],    eps,        norm_scale};
    const NormRows run = (path == 2 ? avx2_layer_norm : avx512_layer_norm)[type];
    const int64_t rows = call.B * call.N, most = 4 * threads, tasks = rows < most ? rows : most;
    return !for_each_task(tasks, threads, 0, [&](int64_t task, void*) {
        run(call, rows * task / tasks, rows * (task + 1) / tasks);
    });
}
