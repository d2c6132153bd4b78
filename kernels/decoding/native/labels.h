// Labels: the argmax over the classes of upsampled logits, and its softmax. Included once by each instruction set.
#pragma once
#include "taps.h"

namespace gem_fast::decoding {
namespace {

// 2^x on [0, 1): exactly 1 at 0, relative error 6.5e-8 with all roundings.
constexpr float EXP2[] = {2.16129149e-4f, 1.24678470e-3f, 9.67545155e-3f, 5.54852821e-2f,
                          2.40229309e-1f, 6.93147063e-1f, 1.f};

// A strip of pixels, one vector wide. Logits are those of base 2, less the largest of each patch: a softmax does not
// see what all classes share, and the difference keeps digits that a logit of 25 would have lost.
template <class Isa>
class Labels {
    using Vec = typename Isa::Vec;
    static constexpr int lanes = Isa::lanes;

    const Problem& problem;
    const int64_t x;
    const Columns<Isa> columns;
    RowPair rows;  // [P, lanes]

public:
    static int64_t strips(const Problem& problem) { return (problem.W + lanes - 1) / lanes; }
    static int64_t tasks(const Problem& problem) { return strips(problem) * problem.parts; }
    static size_t scratch_bytes(const Problem& problem) { return 2 * problem.P * lanes * sizeof(float); }

    static void run(const Problem& problem, int64_t task, void* scratch) {
        const unsigned flags = _mm_getcsr();
        _mm_setcsr(flags | 0x8040);  // exponentials that underflow become zero instead of slow denormals
        const int64_t part = task / strips(problem);
        Labels(problem, task % strips(problem) * lanes, static_cast<float*>(scratch))
            .decode(part_start(problem.H, problem.parts, part), part_start(problem.H, problem.parts, part + 1));
        _mm_setcsr(flags);
    }

    // The largest logit of each patch of row `task`.
    static void find_peaks(const Problem& problem, int64_t task, void*) {
        float* peaks = problem.peaks + task * problem.w;
        for (int64_t j = 0; j < problem.w; j += lanes) {
            const typename Isa::Lanes inside = Isa::first_lanes(problem.w - j);
            const float* scores = problem.scores + task * problem.h_stride + j;
            Vec peak = Isa::set(-__builtin_inff());
            for (int64_t p = 0; p < problem.P; p++, scores += problem.P_stride)
                peak = Isa::max(Isa::mul(Isa::load_some(scores, inside), Isa::set(problem.logit_scale)), peak);
            Isa::store_first(peaks + j, problem.w - j, peak);
        }
    }

private:
    Labels(const Problem& problem, int64_t x, float* scratch)
        : problem(problem), x(x), columns(x, problem.w, problem.W), rows{scratch, scratch + problem.P * lanes} {}

    void decode(int64_t y, int64_t end) {
        while (y < end) {
            const Tap at = tap(y, problem.h, problem.H);
            rows.move_to(at, [this](int64_t i, float* row) { stretch(i, row); });
            float weights[4] = {at.weight};
            int count = 1;
            for (; count < 4 && y + count < end; count++) {
                const Tap next = tap(y + count, problem.h, problem.H);
                if (next.first != at.first) break;
                weights[count] = next.weight;
            }
            if (count == 4) decode_rows<4>(y, weights);
            else if (count > 1) decode_rows<2>(y, weights), count = 2;
            else decode_rows<1>(y, weights);
            y += count;
        }
    }

    // Row i of the patches' logits, at the strip's columns: [P, lanes].
    void stretch(int64_t i, float* row) const {
        const Vec scale = Isa::set(problem.logit_scale);
        Vec left_peak, right_peak, left, right;
        columns.pick(problem.peaks + i * problem.w, left_peak, right_peak);
        const float* scores = problem.scores + i * problem.h_stride;
        for (int64_t p = 0; p < problem.P; p++, scores += problem.P_stride) {
            columns.pick(scores, left, right);
            left = finite_or_nan(Isa::fmsub(left, scale, left_peak));
            right = finite_or_nan(Isa::fmsub(right, scale, right_peak));
            Isa::store(row + p * lanes, lerp<Isa>(left, right, columns.weight));
        }
    }

    // Infinity becomes NaN, so that the pixels around it are told by their sum.
    static GEM_INLINE Vec finite_or_nan(Vec x) { return Isa::fma(x, Isa::zero(), x); }

    // R output rows between the same two rows of patches.
    template <int R>
    void decode_rows(int64_t y, const float* weights) {
        Vec weight[R], best[R], label[R], sum[R];
        for (int r = 0; r < R; r++) {
            weight[r] = Isa::set(weights[r]);
            best[r] = Isa::set(-__builtin_inff());
            label[r] = sum[r] = Isa::zero();
        }
        for (int64_t p = 0; p < problem.P; p++) {
            const Vec top = Isa::load(rows.top + p * lanes), step = Isa::sub(Isa::load(rows.bottom + p * lanes), top);
            const Vec number = Isa::set_bits(int32_t(p + 1));
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const Vec logit = Isa::fma(weight[r], step, top);
                label[r] = Isa::select(Isa::greater(logit, best[r]), number, label[r]);
                best[r] = Isa::max(logit, best[r]);  // in this order NaN is passed over
            }
        }
        for (int64_t p = 0; p < problem.P; p++) {
            const Vec top = Isa::load(rows.top + p * lanes), step = Isa::sub(Isa::load(rows.bottom + p * lanes), top);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const Vec logit = Isa::fma(weight[r], step, top);
                sum[r] = Isa::add(sum[r], Isa::exp2(Isa::sub(logit, best[r]), EXP2));
            }
        }
        for (int r = 0; r < R; r++) {
            const Vec confidence = Isa::div(Isa::set(1.f), sum[r]);
            const typename Isa::Lanes sure = Isa::at_least(confidence, Isa::set(problem.threshold));
            const int64_t at = (y + r) * problem.W + x;
            Isa::store_first(problem.confidence + at, problem.W - x, confidence);
            Isa::store_first(reinterpret_cast<float*>(problem.labels + at), problem.W - x,
                             Isa::select(sure, label[r], Isa::zero()));
        }
    }
};

}  // namespace
}  // namespace gem_fast::decoding
