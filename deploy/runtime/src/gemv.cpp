#include "robo_rlft/gemv.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "kernels.hpp"
#include "robo_rlft/error.hpp"

namespace robo_rlft {
namespace {

struct Kernels {
  decltype(&kernels::baseline::multiply) multiply;
  decltype(&kernels::baseline::activate) activate;
  const char* name;
};

Kernels choose() noexcept {
#ifdef ROBO_RLFT_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return {kernels::avx512::multiply, kernels::avx512::activate, "avx512"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {kernels::avx2::multiply, kernels::avx2::activate, "avx2"};
#endif
  return {kernels::baseline::multiply, kernels::baseline::activate, "baseline"};
}

const Kernels kKernels = choose();
constexpr int kPanel = 4 * kLane;

}  // namespace

Activation activation(const std::string& name) {
  if (name == "relu") return Activation::Relu;
  if (name == "elu") return Activation::Elu;
  if (name == "tanh") return Activation::Tanh;
  if (name == "silu") return Activation::Silu;
  if (name == "gelu") return Activation::Gelu;
  if (name == "mish") return Activation::Mish;
  throw Error("activation '" + name + "' is unknown: expected relu, elu, tanh, silu, gelu or mish");
}

void PackedMatrix::Free::operator()(float* p) const noexcept { std::free(p); }

PackedMatrix::PackedMatrix(const float* weights, int rows, int columns, int stride) : rows_(rows), columns_(columns), padded_(padded(rows)) {
  const std::size_t size = static_cast<std::size_t>(padded_) * static_cast<std::size_t>(columns);
  // One lane more, so that a matrix without columns has an address too.
  panels_.reset(static_cast<float*>(std::aligned_alloc(64, (size + kLane) * sizeof(float))));
  if (!panels_) throw std::bad_alloc();
  float* out = panels_.get();
  for (int top = 0; top < padded_; top += kPanel) {
    const int height = std::min(kPanel, padded_ - top);
    for (int c = 0; c < columns; ++c) {
      for (int r = top; r < top + height; ++r) *out++ = r < rows ? weights[static_cast<std::size_t>(r) * static_cast<std::size_t>(stride) + static_cast<std::size_t>(c)] : 0.0f;
    }
  }
}

void PackedMatrix::multiply(const float* x, const float* bias, float* y) const noexcept {
  kKernels.multiply(panels_.get(), padded_, columns_, x, bias, y);
}

void activate(Activation kind, float* x, int n) noexcept { kKernels.activate(kind, x, n); }

const char* kernel_name() noexcept { return kKernels.name; }

}  // namespace robo_rlft
