// Tasks spread over torch's own threads. For sources without GEM_TARGET.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>

// The OpenMP runtime's own entry, left undefined here: it resolves to the runtime that torch has loaded, so that there
// is one pool of threads. Linking an OpenMP library would bring a second one.
extern "C" void GOMP_parallel(void (*function)(void*), void* argument, unsigned threads, unsigned flags);

namespace gem_fast {

// run(task, scratch) for each task, on up to `threads` threads, each with a scratch aligned to 64 bytes. False if
// memory for it ran out.
template <class Run>
bool for_each_task(int64_t tasks, int threads, size_t scratch_bytes, const Run& run) {
    struct Work {
        const Run& run;
        int64_t tasks;
        size_t scratch_bytes;
        std::atomic<int64_t> next{0};
        std::atomic<bool> out_of_memory{false};
    } work{run, tasks, (scratch_bytes + 63) / 64 * 64};
    const auto thread = [](void* argument) {
        Work& work = *static_cast<Work*>(argument);
        void* scratch = std::aligned_alloc(64, work.scratch_bytes + 64);
        if (!scratch) {
            work.out_of_memory = true;
            return;
        }
        for (int64_t task; (task = work.next++) < work.tasks;) work.run(task, scratch);
        std::free(scratch);
    };
    GOMP_parallel(thread, &work, unsigned(tasks < threads ? tasks : threads), 0);
    return !work.out_of_memory;
}

}  // namespace gem_fast
