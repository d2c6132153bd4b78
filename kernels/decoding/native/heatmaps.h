// Heat maps: upsampled scores, stretched to 0..1 for each prompt by itself. Included once by each instruction set.
#pragma once
#include "taps.h"

namespace gem_fast::decoding {
namespace {

// A run of rows of one prompt's map. It is computed twice, for its extremes and for its pixels: that is cheaper than
// to write it, read it and write it again.
template <class Isa>
class Heatmaps {
    using Vec = typename Isa::Vec;
    static constexpr int lanes = Isa::lanes;

    const Problem& problem;
    const int64_t p, part, vectors;
    Columns<Isa>* columns;  // [vectors]
    RowPair rows;           // [vectors, lanes]

public:
    static int64_t tasks(const Problem& problem) { return problem.P * problem.parts; }
    static int64_t vectors_of(const Problem& problem) { return (problem.W + lanes - 1) / lanes; }
    static size_t scratch_bytes(const Problem& problem) {
        return vectors_of(problem) * (2 * lanes * sizeof(float) + sizeof(Columns<Isa>));
    }

    static void find_extremes(const Problem& problem, int64_t task, void* scratch) {
        Heatmaps(problem, task, scratch).find_extremes();
    }
    static void fill(const Problem& problem, int64_t task, void* scratch) { Heatmaps(problem, task, scratch).fill(); }

private:
    Heatmaps(const Problem& problem, int64_t task, void* scratch)
        : problem(problem), p(task / problem.parts), part(task % problem.parts), vectors(vectors_of(problem)) {
        rows.top = static_cast<float*>(scratch);
        rows.bottom = rows.top + vectors * lanes;
        columns = reinterpret_cast<Columns<Isa>*>(rows.bottom + vectors * lanes);
        for (int64_t v = 0; v < vectors; v++) columns[v] = Columns<Isa>(v * lanes, problem.w, problem.W);
    }

    void find_extremes() {
        Vec low = Isa::set(__builtin_inff()), high = Isa::set(-__builtin_inff()), finite = Isa::zero();
        for_each_vector([&](int64_t, int64_t, Vec score) {
            low = Isa::min(score, low);
            high = Isa::max(score, high);
            finite = Isa::fma(score, Isa::zero(), finite);  // else NaN
        });
        alignas(64) float lows[lanes], highs[lanes];
        Isa::store(lows, Isa::add(low, finite));
        Isa::store(highs, high);
        float* extremes = problem.extremes + 2 * (p * problem.parts + part);
        extremes[0] = *lows, extremes[1] = *highs;
        for (int i = 1; i < lanes; i++) extend(extremes, lows[i], highs[i]);
    }

    // Extremes (lowest, highest) of more; where the lowest is NaN, it stays so.
    static void extend(float* extremes, float low, float high) {
        if (low < extremes[0] || low != low) extremes[0] = low;
        if (high > extremes[1]) extremes[1] = high;
    }

    void fill() {
        const float* parts = problem.extremes + 2 * p * problem.parts;
        float extremes[] = {parts[0], parts[1]};
        for (int64_t i = 1; i < problem.parts; i++) extend(extremes, parts[2 * i], parts[2 * i + 1]);
        const float lowest = extremes[0], highest = extremes[1];
        const float contrast = highest - lowest;
        const Vec low = Isa::set(lowest), divisor = Isa::set(contrast == 0 ? 1.f : contrast);
        float* map = problem.maps + p * problem.H * problem.W;
        for_each_vector([&](int64_t y, int64_t x, Vec score) {
            Isa::store_first(map + y * problem.W + x, problem.W - x, Isa::div(Isa::sub(score, low), divisor));
        });
    }

    // use(y, x, the upsampled scores from there on), row by row.
    template <class Use>
    GEM_INLINE void for_each_vector(const Use& use) {
        const int64_t end = part_start(problem.H, problem.parts, part + 1);
        for (int64_t y = part_start(problem.H, problem.parts, part); y < end; y++) {
            const Tap at = tap(y, problem.h, problem.H);
            rows.move_to(at, [this](int64_t i, float* row) { stretch(i, row); });
            const Vec weight = Isa::set(at.weight);
            for (int64_t x = 0; x < problem.W; x += lanes)
                use(y, x, lerp<Isa>(Isa::load(rows.top + x), Isa::load(rows.bottom + x), weight));
        }
    }

    void stretch(int64_t i, float* row) const {
        const float* scores = problem.scores + p * problem.P_stride + i * problem.h_stride;
        for (int64_t v = 0; v < vectors; v++) {
            Vec left, right;
            columns[v].pick(scores, left, right);
            Isa::store(row + v * lanes, lerp<Isa>(left, right, columns[v].weight));
        }
    }
};

}  // namespace
}  // namespace gem_fast::decoding
