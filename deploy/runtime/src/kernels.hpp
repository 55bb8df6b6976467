#pragma once

#include "robo_rlft/gemv.hpp"

namespace robo_rlft::kernels {

#define ROBO_RLFT_DECLARE(NAME)                                                                                          \
  namespace NAME {                                                                                                      \
  void multiply(const float* w, int padded, int columns, const float* x, const float* bias, float* y) noexcept;         \
  void activate(Activation kind, float* x, int n) noexcept;                                                             \
  }
ROBO_RLFT_DECLARE(baseline)
ROBO_RLFT_DECLARE(avx2)
ROBO_RLFT_DECLARE(avx512)
#undef ROBO_RLFT_DECLARE

}  // namespace robo_rlft::kernels
