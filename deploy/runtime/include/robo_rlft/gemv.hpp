// y = activation(W x + b) without an allocation, packed so that the compiler keeps the sums in vector registers.
//
// Rows are packed in panels of up to 64; inside a panel the weights of one column stand side by side. One pass over memory
// in order, no horizontal sums, and so no reassociation that a compiler would need permission for.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace robo_rlft {

enum class Activation { None, Relu, Elu, Tanh, Silu, Gelu, Mish };

// Raises Error for an unknown name.
Activation activation(const std::string& name);

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // From rows x columns in C order, taking columns [first, first + columns) of `stride` wide rows.
  PackedMatrix(const float* weights, int rows, int columns, int stride);

  int rows() const { return rows_; }
  int columns() const { return columns_; }
  int padded_rows() const { return padded_; }

  // y[padded_rows] = bias[padded_rows] + W x[columns]. Entries beyond `rows` are bias alone. y must not overlap x or bias.
  void multiply(const float* x, const float* bias, float* y) const noexcept;

 private:
  struct Free {
    void operator()(float* p) const noexcept;
  };
  int rows_ = 0, columns_ = 0, padded_ = 0;
  std::unique_ptr<float[], Free> panels_;
};

constexpr int kLane = 16;  // floats that every padded length is a multiple of
constexpr int padded(int n) { return (n + kLane - 1) / kLane * kLane; }

// In place, n a multiple of kLane.
void activate(Activation kind, float* x, int n) noexcept;

// Name of the instruction set the kernels use here: "avx512", "avx2", or "baseline" (what the compiler targets anyway).
const char* kernel_name() noexcept;

}  // namespace robo_rlft
