// replay BUNDLE LOG [--backend native|onnx]: asks the bundle's policy what it would have said to the observations and noise of a
// log, and prints the difference from what was said then.
#include <cmath>

#include "arguments.hpp"
#include "robo_rlft/log.hpp"
#include "robo_rlft/policy.hpp"

using namespace robo_rlft;

namespace {

void check_sizes(const Bundle& bundle, const LogHeader& header) {
  const PolicySpec& p = bundle.policy;
  const bool same = static_cast<int>(header.actions) == bundle.action.size() && static_cast<int>(header.chunk) == p.chunk &&
                    static_cast<int>(header.observation) == p.obs_horizon * p.frame_width() && static_cast<int>(header.prefix) == p.prefix;
  if (!same) throw Error("the log is of a policy with other observations, actions or chunks than the bundle's");
}

void replay(int count, char** words) {
  const Arguments arguments(count, words, {"backend"});
  if (arguments.positional.size() != 2) throw Error("usage: replay BUNDLE LOG [--backend native|onnx]");
  const Bundle bundle = load_bundle(arguments.positional[0]);
  const Log log = read_log(arguments.positional[1]);
  check_sizes(bundle, log.header);
  const char* library = std::getenv("ROBO_RLFT_ONNXRUNTIME");
  const auto policy = arguments.text("backend", "native") == "native" ? make_native_policy(bundle) : make_onnx_policy(bundle, library == nullptr ? "" : library);
  check_golden(bundle, *policy);
  const auto width = static_cast<std::size_t>(bundle.action.size());
  std::vector<double> largest(width), total(width);
  std::vector<float> actions(static_cast<std::size_t>(bundle.policy.chunk) * width);
  std::size_t failed = 0;
  for (const Log::Policy& call : log.policy) {
    const PolicyInput input{call.observation.data(), call.noise.data(), call.prefix.data(), call.record.delay, call.record.guidance};
    if (!policy->infer(input, actions.data())) {
      ++failed;
      continue;
    }
    for (std::size_t i = 0; i < actions.size(); ++i) {
      const double difference = std::fabs(double{actions[i]} - double{call.actions[i]});
      total[i % width] += difference;
      // Not std::max: a NaN must show.
      if (!(difference <= largest[i % width])) largest[i % width] = difference;
    }
  }
  const bool same_bundle = bundle.digest == std::string(log.header.digest, sizeof log.header.digest);
  std::printf("%zu policy calls, %zu control cycles, %s bundle, %zu calls failed\n", log.policy.size(), log.control.size(), same_bundle ? "the same" : "another", failed);
  std::printf("%-24s %14s %14s\n", "action", "largest", "mean");
  const double entries = static_cast<double>(std::max<std::size_t>(log.policy.size() - failed, 1)) * bundle.policy.chunk;
  for (std::size_t i = 0; i < width; ++i) std::printf("%-24s %14.6g %14.6g\n", bundle.action.names[i].c_str(), largest[i], total[i] / entries);
}

}  // namespace

int main(int count, char** words) {
  return run_tool([&] { replay(count, words); });
}
