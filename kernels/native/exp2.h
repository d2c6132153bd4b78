// Coefficients for the `exp2` of vectors, the highest first. Included after GEM_TARGET.
#pragma once

namespace gem_fast {
namespace {

// Relative error 7.5e-8 on [0, 1).
constexpr float EXP2_FLOAT32[] = {1.8775767e-3f, 8.9893397e-3f, 5.5826318e-2f,
                                  2.4015361e-1f, 6.9315308e-1f, 9.9999994e-1f};

}  // namespace
}  // namespace gem_fast
