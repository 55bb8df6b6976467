// What turns observations into a chunk of actions: a native network without allocations, or a model of ONNX Runtime.
#pragma once

#include <memory>
#include <string>

#include "robo_rlft/bundle.hpp"

namespace robo_rlft {

// One call. Arrays are float32 in C order and belong to the caller.
struct PolicyInput {
  const float* observation;  // per key [To, width], key after key in the bundle's order, the newest frame last
  const float* noise;        // [H, A]
  const float* prefix;       // [P, A], nullptr where the bundle has none
  float delay;               // committed actions of the prefix, -1: there is no previous chunk
  float guidance;
};

class Policy {
 public:
  virtual ~Policy() = default;
  // Writes [H, A] to `actions`. False where the backend failed: `actions` then hold nothing of use.
  virtual bool infer(const PolicyInput& input, float* actions) noexcept = 0;
  virtual const char* name() const noexcept = 0;
  // May stand in the control thread: no allocation, no lock, a bounded time.
  virtual bool allocation_free() const noexcept = 0;
};

// From weights.safetensors. Raises Error where the tensors do not fit the bundle.
std::unique_ptr<Policy> make_native_policy(const Bundle& bundle);

// By ONNX Runtime's C API, loaded from `library`. Raises Error where library or model do not serve.
std::unique_ptr<Policy> make_onnx_policy(const Bundle& bundle, const std::string& library);

// Runs the golden inputs of the bundle. Returns the largest error; raises Error where it is above the tolerance or NaN.
double check_golden(const Bundle& bundle, Policy& policy);

}  // namespace robo_rlft
