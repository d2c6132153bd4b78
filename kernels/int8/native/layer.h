// Linear layers in int8, and rows of floats, as Python hands them over.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gem_fast {

constexpr int64_t PANEL = 32;      // outputs whose weights lie together
constexpr int64_t ROWS = 12;       // that are multiplied at a time
constexpr int64_t MOST_ROWS = 48;  // of a task: what lies between its products then stays in the second cache

inline int64_t whole(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// y_n = scale_n Σ_k x_k weight_nk + bias_n. Weights of the four inputs that one instruction adds up lie together.
struct Int8Layer {
    const int8_t* weight;  // [panels, words, PANEL, 4]: zeros beyond the inputs and outputs
    const float* factors;  // [3, panels * PANEL]: the scales, Σ_k weight_nk, and the biases
    int64_t inputs, outputs;

    int64_t words() const { return (inputs + 3) / 4; }
    int64_t columns() const { return whole(outputs, PANEL); }
};

struct Int8Linear {
    const void* x;  // [rows, inputs], float32 or bfloat16
    void* out;      // [rows, last - first], float32 or bfloat16
    bool x_is_bfloat16, out_is_bfloat16;
    const float* smoothing;  // [inputs]: what x is multiplied with before it is rounded, or null
    Int8Layer layer;
    int64_t first, last;     // the outputs that are wanted; first is a multiple of PANEL
};

// out = tokens + second(activation(first(LayerNorm(tokens)))), where tokens = x + branch.
struct Int8Mlp {
    const float *x, *branch;  // [rows, width]; branch may be null
    float* out;               // [rows, width]
    const float *gain, *bias; // of the LayerNorm, [width]
    float eps;
    int activation;  // an Activation
    Int8Layer first, second;
};

// One computation of `rows` rows from `row` on in `scratch`, aligned to 64 bytes.
size_t scratch_bytes(const Int8Linear&);
size_t scratch_bytes(const Int8Mlp&);
void run_rows(const Int8Linear&, int64_t row, int64_t rows, void* scratch);
void run_rows(const Int8Mlp&, int64_t row, int64_t rows, void* scratch);

}  // namespace gem_fast
