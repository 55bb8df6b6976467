// policy_bench BUNDLE [--calls N] [--fifo PRIORITY] [--backend native|onnx]: latency of one inference, as JSON.
#include <random>

#include "arguments.hpp"
#include "robo_rlft/gemv.hpp"
#include "robo_rlft/policy.hpp"
#include "robo_rlft/realtime.hpp"

using namespace robo_rlft;

static std::unique_ptr<Policy> make(const Bundle& bundle, const std::string& backend) {
  const char* library = std::getenv("ROBO_RLFT_ONNXRUNTIME");
  return backend == "native" ? make_native_policy(bundle) : make_onnx_policy(bundle, library == nullptr ? "" : library);
}

static void measure(int count, char** words) {
  const Arguments arguments(count, words, {"calls", "fifo", "backend"});
  if (arguments.positional.size() != 1) throw Error("usage: policy_bench BUNDLE [--calls N] [--fifo PRIORITY] [--backend native|onnx]");
  const Bundle bundle = load_bundle(arguments.positional[0]);
  const std::string backend = arguments.text("backend", "native");
  const auto policy = make(bundle, backend);
  const double error = check_golden(bundle, *policy);
  const std::string missing = set_thread(static_cast<int>(arguments.number("fifo", 0)), -1);
  std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  std::vector<float> seen(static_cast<std::size_t>(bundle.policy.obs_horizon * bundle.policy.frame_width()));
  std::vector<float> noise(static_cast<std::size_t>(bundle.policy.chunk * bundle.action.size())), actions(noise.size()), prefix(noise.size());
  for (auto* list : {&seen, &noise}) {
    for (float& v : *list) v = normal(generator);
  }
  const PolicyInput input{seen.data(), noise.data(), prefix.data(), -1, 1};
  DurationHistogram histogram;
  const int calls = static_cast<int>(arguments.number("calls", 5000));
  for (int i = 0; i < calls + 100; ++i) {
    const std::int64_t start = monotonic_ns();
    policy->infer(input, actions.data());
    if (i >= 100) histogram.add(monotonic_ns() - start);
  }
  std::printf("{\"backend\": \"%s\", \"kernel\": \"%s\", \"fifo\": %s, \"calls\": %d, \"golden_error\": %.3g, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
              backend.c_str(), kernel_name(), missing.empty() && arguments.number("fifo", 0) > 0 ? "true" : "false", calls, error, histogram.quantile_us(0.5),
              histogram.quantile_us(0.99), histogram.quantile_us(0.999), histogram.max_us());
}

int main(int count, char** words) {
  return run_tool([&] { measure(count, words); });
}
