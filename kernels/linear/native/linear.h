// A linear layer in float32, as Python hands it over.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gem_fast {

constexpr int64_t PANEL = 32;  // outputs whose weights lie together

// out = activation(x weightᵀ + bias).
struct Linear {
    const float* x;       // [rows, inputs]
    const float* panels;  // [outputs / PANEL, inputs, PANEL], aligned to 64 bytes
    const float* bias;    // [outputs], or null
    float* out;           // [rows, outputs]
    int64_t rows, inputs, outputs;
    int activation;
};

// Rows and panels of a task.
struct Share {
    int64_t row, last_row, panel, last_panel;
};

size_t scratch_bytes(const Linear&, int64_t rows);
void run_share(const Linear&, const Share&, void* scratch);

}  // namespace gem_fast
