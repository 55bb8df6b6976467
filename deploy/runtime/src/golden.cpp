#include <algorithm>
#include <cmath>
#include <cstring>

#include "robo_rlft/error.hpp"
#include "robo_rlft/policy.hpp"

namespace robo_rlft {
namespace {

// Rows of one golden array; raises Error where it is missing or has another shape.
const float* rows(const Bundle& bundle, const std::string& name, std::vector<std::int64_t> shape) {
  const auto found = bundle.golden.find(name);
  if (found == bundle.golden.end() || found->second.shape != shape) {
    throw Error("the golden file has no '" + name + "' in the bundle's shape: export the bundle again");
  }
  return found->second.data.data();
}

// One row of every observation key, key after key.
void gather(const Bundle& bundle, std::int64_t count, std::int64_t row, float* out) {
  for (const auto& key : bundle.policy.observation) {
    const std::int64_t size = std::int64_t{bundle.policy.obs_horizon} * key.width;
    std::copy_n(rows(bundle, "observation/" + key.key, {count, bundle.policy.obs_horizon, key.width}) + row * size, size, out);
    out += size;
  }
}

}  // namespace

double check_golden(const Bundle& bundle, Policy& policy) {
  const PolicySpec& spec = bundle.policy;
  const std::int64_t width = bundle.action.size(), chunk = spec.chunk * width, ahead = spec.prefix * width;
  const auto wanted = bundle.golden.find("action");
  if (wanted == bundle.golden.end() || wanted->second.shape.empty() || wanted->second.shape[0] < 1) throw Error("the golden file has no actions: export the bundle again");
  const std::int64_t count = wanted->second.shape[0];
  const float* golden = rows(bundle, "action", {count, spec.chunk, width});
  const float* noise = rows(bundle, "noise", {count, spec.chunk, width});
  const float* prefix = spec.prefix > 0 ? rows(bundle, "prefix", {count, spec.prefix, width}) : nullptr;
  const float* delay = spec.prefix > 0 ? rows(bundle, "delay", {count, 1}) : nullptr;
  const float* guidance = spec.guidance ? rows(bundle, "guidance", {count, 1}) : nullptr;
  std::vector<float> seen(static_cast<std::size_t>(spec.obs_horizon * spec.frame_width())), actions(static_cast<std::size_t>(chunk));
  double worst = 0.0;
  for (std::int64_t row = 0; row < count; ++row) {
    gather(bundle, count, row, seen.data());
    const PolicyInput input{seen.data(), noise + row * chunk, prefix == nullptr ? nullptr : prefix + row * ahead,
                            delay == nullptr ? -1.0f : delay[row], guidance == nullptr ? 0.0f : guidance[row]};
    if (!policy.infer(input, actions.data())) throw Error("the policy failed on a golden input: export the bundle again");
    for (std::int64_t i = 0; i < chunk; ++i) {
      const double error = std::fabs(double{actions[static_cast<std::size_t>(i)]} - double{golden[row * chunk + i]}) / bundle.golden_scale[static_cast<std::size_t>(i % width)];
      if (!(error <= bundle.tolerance)) {
        throw Error("the bundle does not reproduce its golden actions on this machine with the backend " + std::string(policy.name()) + ": the error is " + std::to_string(error) +
                    ", allowed is " + std::to_string(bundle.tolerance) + "; export it again");
      }
      worst = std::max(worst, error);
    }
  }
  return worst;
}

}  // namespace robo_rlft
