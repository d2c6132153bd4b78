// Linear layers in float32 on AVX-512. Rows are laid out once a task, so that a tile of them and a block of the weights
// are read from beginning to end; weights, which come from memory, are fetched while the block before is multiplied.
#include "../../native/target.h"
#include "linear.h"

GEM_TARGET(GEM_AVX512)
#include "../../native/avx512.h"
#include "../../native/activations.h"

namespace gem_fast {
namespace {

using Isa = Avx512Vectors;
using Vec = Isa::Vec;
constexpr int W = Isa::lanes;
constexpr int TILE = 14;          // rows whose sums, two vectors each, stay in registers
constexpr int STRIDE = 16;        // of such rows in memory
constexpr int64_t BLOCK = 256;    // inputs: a panel's weights of so many stay in the first cache
constexpr int64_t GROUP = 1024;   // inputs whose rows are laid out at a time, and stay in the second
constexpr int FETCHED = 4;        // inputs after which a line of the next weights is fetched

int64_t tiles_of(int64_t rows) { return (rows + TILE - 1) / TILE; }

// Rows [row, row + STRIDE) of x as [inputs, STRIDE]; those beyond the last are any.
void lay_out(const Linear& call, int64_t row, int64_t first, int64_t last, float* to) {
    const float* from[STRIDE];
    for (int i = 0; i < STRIDE; i++) from[i] = call.x + (row + i < call.rows ? row + i : call.rows - 1) * call.inputs;
    int64_t k = first;
    for (; k + 4 <= last; k += 4, to += 4 * STRIDE) {
        Vec square[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) square[i] = Isa::fours(from[i] + k, from[i + 4] + k, from[i + 8] + k, from[i + 12] + k);
        Isa::transpose_fours(square);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) Isa::store(to + i * STRIDE, square[i]);
    }
    for (; k < last; k++, to += STRIDE)
        for (int i = 0; i < STRIDE; i++) to[i] = from[i][k];
}

// One tile with one block of weights: what it adds to `out`, or begins it with. Each block is summed by itself, so that
// rounding grows with a block's length and the number of blocks, not with their product.
template <int ROWS>
__attribute__((noinline)) void multiply(const float* x, const float* weights, int64_t inputs, const char* next,
                                        float* out, int64_t stride, const float* bias, bool begins) {
    Vec sums[ROWS][2];
    for (auto& row : sums) row[0] = row[1] = Isa::zero();
    for (int r = 0; begins && r < ROWS; r++)  // rows lie pages apart, which the hardware does not foresee
        for (int half = 0; half < 2; half++) __builtin_prefetch(out + r * stride + half * W, 1);
    const auto step = [&](int64_t k) __attribute__((always_inline)) {
        const Vec left = Isa::load(weights + k * PANEL), right = Isa::load(weights + k * PANEL + W);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            const Vec value = Isa::set(x[k * STRIDE + r]);
            sums[r][0] = Isa::fma(value, left, sums[r][0]);
            sums[r][1] = Isa::fma(value, right, sums[r][1]);
        }
    };
    int64_t k = 0;
    for (; k + FETCHED <= inputs; k += FETCHED, next += 64) {
        _mm_prefetch(next, _MM_HINT_T1);
#pragma GCC unroll 4
        for (int i = 0; i < FETCHED; i++) step(k + i);
    }
    for (; k < inputs; k++) step(k);
    for (int r = 0; r < ROWS; r++)
        for (int half = 0; half < 2; half++) {
            float* to = out + r * stride + half * W;
            const Vec before = !begins ? _mm512_loadu_ps(to) : bias ? _mm512_loadu_ps(bias + half * W) : Isa::zero();
            _mm512_storeu_ps(to, Isa::add(before, sums[r][half]));
        }
}

using Multiply = decltype(&multiply<1>);
constexpr Multiply MULTIPLY[] = {nullptr,      multiply<1>,  multiply<2>,  multiply<3>,  multiply<4>,
                                 multiply<5>,  multiply<6>,  multiply<7>,  multiply<8>,  multiply<9>,
                                 multiply<10>, multiply<11>, multiply<12>, multiply<13>, multiply<14>};
static_assert(sizeof(MULTIPLY) / sizeof(Multiply) == TILE + 1);

}  // namespace

size_t scratch_bytes(const Linear& call, int64_t rows) {
    return tiles_of(rows) * (call.inputs < GROUP ? call.inputs : GROUP) * STRIDE * sizeof(float);
}

void run_share(const Linear& call, const Share& share, void* scratch) {
    float* laid = static_cast<float*>(scratch);
    const int64_t rows = share.last_row - share.row, tiles = tiles_of(rows), inputs = call.inputs, N = call.outputs;
    const auto row_of = [&](int64_t tile) { return share.row + rows * tile / tiles; };
    for (int64_t group = 0; group < inputs; group += GROUP) {
        const int64_t end = group + GROUP < inputs ? group + GROUP : inputs;
        for (int64_t tile = 0; tile < tiles; tile++)
            lay_out(call, row_of(tile), group, end, laid + tile * (end - group) * STRIDE);
        for (int64_t panel = share.panel; panel < share.last_panel; panel++)
            for (int64_t first = group; first < end; first += BLOCK) {
                const int64_t count = first + BLOCK < end ? BLOCK : end - first;
                const float* weights = call.panels + (panel * inputs + first) * PANEL;
                const bool goes_on = first + count < end;
                const char* next = reinterpret_cast<const char*>(
                    goes_on ? weights + count * PANEL : call.panels + ((panel + 1) * inputs + group) * PANEL);
                for (int64_t tile = 0; tile < tiles; tile++) {
                    const int64_t row = row_of(tile), own = row_of(tile + 1) - row;
                    float* out = call.out + row * N + panel * PANEL;
                    MULTIPLY[own](laid + (tile * (end - group) + first - group) * STRIDE, weights, count,
                                  next + tile * (count / FETCHED) * 64, out, N,
                                  call.bias ? call.bias + panel * PANEL : nullptr, first == 0);
                    if (first + count == inputs)
                        for (int64_t r = 0; r < own; r++)
                            Activations<Isa>::activate(out + r * N, PANEL, Activation(call.activation));
                }
            }
    }
}

}  // namespace gem_fast
GEM_TARGET_END
