// Linear layers in int8 on AVX-512 VNNI (Intel from Cascade Lake, AMD from Zen 4).
#include "../../native/target.h"
#include "layer.h"

GEM_TARGET(GEM_AVX512_VNNI)
#include "../../layer_norm/native/rows.h"
#include "../../native/activations.h"
#include "product.h"

namespace gem_fast {
namespace {

// Takes an array of `count` floats, a whole number of lines, at `at`, which moves past it.
inline float* take(char*& at, int64_t count) {
    float* array = reinterpret_cast<float*>(at);
    at += whole(count * 4, 64);
    return array;
}

template <class From>
void read_row(const From* from, const float* smoothing, int64_t width, float* to) {
    for (int64_t k = 0; k < width; k += W) {
        const Vec x = load_some(from + k, width - k);
        Isa::store(to + k, smoothing ? Isa::mul(x, load_some(smoothing + k, width - k)) : x);
    }
}

struct LinearScratch {
    Bytes x;
    float *row, *out;

    LinearScratch(char* at, const Int8Linear& call)
        : x(at, call.layer.inputs, MOST_ROWS),
          row(take(at, whole(call.layer.inputs, W))),
          out(take(at, call.out_is_bfloat16 ? MOST_ROWS * call.layer.columns() : 0)),
          end(at) {}

    char* end;
};

struct MlpScratch {
    Bytes normed, inner_bytes;
    float *tokens, *row, *inner;
    int64_t width, inner_width;

    MlpScratch(char* at, const Int8Mlp& call)
        : normed(at, call.first.inputs, MOST_ROWS),
          inner_bytes(at, call.first.outputs, MOST_ROWS),
          width(whole(call.first.inputs, W)),
          inner_width(whole(call.first.outputs, W)),
          end(at) {
        tokens = take(end, MOST_ROWS * width);
        row = take(end, width);
        inner = take(end, MOST_ROWS * inner_width);
    }

    char* end;
};

}  // namespace

size_t scratch_bytes(const Int8Linear& call) {
    return size_t(LinearScratch(nullptr, call).end - static_cast<char*>(nullptr));
}

size_t scratch_bytes(const Int8Mlp& call) { return size_t(MlpScratch(nullptr, call).end - static_cast<char*>(nullptr)); }

void run_rows(const Int8Linear& call, int64_t row, int64_t rows, void* memory) {
    LinearScratch scratch(static_cast<char*>(memory), call);
    const int64_t inputs = call.layer.inputs, outputs = call.last - call.first;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t at = (row + r) * inputs;
        if (call.x_is_bfloat16) read_row(static_cast<const Bfloat16Bits*>(call.x) + at, call.smoothing, inputs, scratch.row);
        else read_row(static_cast<const float*>(call.x) + at, call.smoothing, inputs, scratch.row);
        scratch.x.round(r, scratch.row, whole(inputs, W));
    }
    float* to = call.out_is_bfloat16 ? scratch.out : static_cast<float*>(call.out) + row * outputs;
    multiply_rows(scratch.x, rows, call.layer, call.first, call.last, to, outputs);
    if (call.out_is_bfloat16)
        for (int64_t k = 0; k < rows * outputs; k += W)
            Isa::store_first(static_cast<Bfloat16Bits*>(call.out) + row * outputs + k, rows * outputs - k, Isa::load(to + k));
}

void run_rows(const Int8Mlp& call, int64_t row, int64_t rows, void* memory) {
    MlpScratch scratch(static_cast<char*>(memory), call);
    const int64_t width = call.first.inputs, padded = scratch.width;
    const Row<Isa, float> one{width};
    for (int64_t k = width; k < padded; k++) scratch.row[k] = 0;
    for (int64_t r = 0; r < rows; r++) {
        float* tokens = scratch.tokens + r * padded;
        for (int64_t k = 0; k < width; k += W) {
            const int64_t at = (row + r) * width + k, left = width - k;
            const Vec x = load_some(call.x + at, left);
            Isa::store(tokens + k, call.branch ? Isa::add(x, load_some(call.branch + at, left)) : x);
        }
        one.normalize(tokens, call.gain, call.bias, call.eps, scratch.row);
        scratch.normed.round(r, scratch.row, padded);
    }
    multiply_rows(scratch.normed, rows, call.first, 0, call.first.outputs, scratch.inner, scratch.inner_width);
    for (int64_t r = 0; r < rows; r++) {
        float* inner = scratch.inner + r * scratch.inner_width;
        for (int64_t k = call.first.outputs; k < scratch.inner_width; k++) inner[k] = 0;
        Activations<Isa>::activate(inner, scratch.inner_width, Activation(call.activation));
        scratch.inner_bytes.round(r, inner, scratch.inner_width);
    }
    float* to = call.out + row * width;
    if (width == padded) {
        multiply_rows(scratch.inner_bytes, rows, call.second, 0, width, to, width, scratch.tokens);
        return;
    }
    multiply_rows(scratch.inner_bytes, rows, call.second, 0, width, scratch.tokens, padded, scratch.tokens);
    for (int64_t r = 0; r < rows; r++) __builtin_memcpy(to + r * width, scratch.tokens + r * padded, width * 4);
}

}  // namespace gem_fast
GEM_TARGET_END
