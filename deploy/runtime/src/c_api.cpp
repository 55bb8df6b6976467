#include <algorithm>
#include <exception>
#include <string>

#include "robo_rlft/error.hpp"
#include "robo_rlft/runtime.h"
#include "robo_rlft/runtime.hpp"

using namespace robo_rlft;  // NOLINT: this file is the library in C's clothes

// The header's numbers are the library's.
static_assert(int{RR_ESTOP} == static_cast<int>(Mode::Estop) && int{RR_JOINTS_OUTSIDE} == int{kJointsOutside} && int{RR_NOT_READY} == int{kNotReady});
static_assert(int{RR_CLAMP_NOT_FINITE} == int{kClampNotFinite} && int{RR_EFFORT_CUT} == int{kEffortCut} && int{RR_PREFIX_OVERRUN} == int{kPrefixOverrun});

struct rr_runtime {
  rr_runtime(const char* folder, const Options& options) : runtime(folder, options), command(runtime.empty_command()), last(command) {}

  Runtime runtime;
  Command command;             // of rr_tick
  TripleBuffer<Command> last;  // of the threads
  std::string notes;
};

namespace {

thread_local std::string g_error;

template <typename Function>
int guarded(Function&& function) noexcept {
  try {
    function();
    return 0;
  } catch (const std::exception& error) {
    g_error = error.what();
  }
  return -1;
}

int checked(int value, int highest, const char* name) {
  if (value < 0 || value > highest) throw Error(std::string(name) + " " + std::to_string(value) + " is unknown");
  return value;
}

Options options_of(const rr_options& given) {
  Options out;
  out.backend = static_cast<Backend>(checked(given.backend, RR_BACKEND_ONNX, "backend"));
  out.interpolation = static_cast<Interpolation>(checked(given.interpolation, RR_INTERPOLATE_LINEAR, "interpolation"));
  out.stitching = static_cast<Stitching>(checked(given.stitching, RR_STITCH_REAL_TIME, "stitching"));
  out.estop = static_cast<EstopAction>(checked(given.estop, RR_ESTOP_CUT, "estop"));
  out.inline_policy = given.inline_policy != 0;
  out.fade_s = given.fade_s;
  out.decay = given.decay;
  out.control_hz = given.control_hz;
  if (!(given.simulated_latency_s >= 0 && given.simulated_latency_s < 1e6)) throw Error("simulated_latency must be between 0 and a million seconds");
  out.simulated_latency_ns = static_cast<std::int64_t>(given.simulated_latency_s * 1e9);
  out.seed = given.seed;
  out.onnx_library = given.onnx_library == nullptr ? "" : given.onnx_library;
  return out;
}

void copy(const Command& from, rr_status* status, double* target, double* effort) noexcept {
  *status = {from.now_ns, from.chunk_stamp_ns, from.index, static_cast<std::uint32_t>(from.mode), from.faults, from.latched, from.clamped, from.flags, 0, from.clamp_count};
  std::copy(from.target.begin(), from.target.end(), target);
  std::copy(from.effort.begin(), from.effort.end(), effort);
}

const char* name_at(const std::vector<std::string>& names, std::int32_t index) {
  return index >= 0 && static_cast<std::size_t>(index) < names.size() ? names[static_cast<std::size_t>(index)].c_str() : nullptr;
}

}  // namespace

extern "C" {

int32_t rr_abi_version(void) { return RR_ABI_VERSION; }
const char* rr_error(void) { return g_error.c_str(); }
int64_t rr_now(void) { return monotonic_ns(); }

void rr_default_options(rr_options* options) {
  const Options defaults;
  *options = rr_options{};
  options->fade_s = defaults.fade_s;
  options->decay = defaults.decay;
}

rr_runtime* rr_create(const char* bundle, const rr_options* options) {
  rr_runtime* out = nullptr;
  guarded([&] { out = new rr_runtime(bundle, options_of(*options)); });
  return out;
}

void rr_destroy(rr_runtime* runtime) { delete runtime; }

void rr_get_sizes(const rr_runtime* runtime, rr_sizes* sizes) {
  const Runtime& r = runtime->runtime;
  const Bundle& b = r.bundle();
  *sizes = {b.action.size(), b.joints.size(), static_cast<int32_t>(r.joint_count()), static_cast<int32_t>(b.policy.observation.size()),
            b.policy.frame_width(), b.policy.obs_horizon, b.policy.chunk, b.policy.execute, b.policy.prefix, 0,
            b.rate_hz, r.control_hz(), r.golden_error()};
}

const char* rr_backend(const rr_runtime* runtime) { return runtime->runtime.policy().name(); }

const char* rr_notes(rr_runtime* runtime) {
  guarded([&] { runtime->notes = runtime->runtime.notes(); });
  return runtime->notes.c_str();
}

const char* rr_action_name(const rr_runtime* runtime, int32_t index) { return name_at(runtime->runtime.bundle().action.names, index); }
const char* rr_joint_name(const rr_runtime* runtime, int32_t index) { return name_at(runtime->runtime.bundle().joints.names, index); }

const char* rr_key(const rr_runtime* runtime, int32_t index, int32_t* width) {
  const auto& keys = runtime->runtime.bundle().policy.observation;
  if (index < 0 || static_cast<std::size_t>(index) >= keys.size()) return nullptr;
  *width = keys[static_cast<std::size_t>(index)].width;
  return keys[static_cast<std::size_t>(index)].key.c_str();
}

int rr_bind_joints(rr_runtime* runtime, const char* const* names, int32_t count) {
  return guarded([&] { runtime->runtime.bind_joints(std::vector<std::string>(names, names + std::max(count, 0))); });
}

int rr_tighten(rr_runtime* runtime, const double* velocity, const double* acceleration) {
  const std::size_t n = runtime->command.target.size();
  return guarded([&] { runtime->runtime.commander().tighten({velocity, velocity + n}, {acceleration, acceleration + n}); });
}

int rr_set_workspace(rr_runtime* runtime, const double* pose, const double* low, const double* high) {
  const std::size_t n = runtime->command.target.size();
  return guarded([&] { runtime->runtime.commander().set_workspace({pose, pose + n}, {low, low + n}, {high, high + n}); });
}

void rr_get_limits(rr_runtime* runtime, double* low, double* high, double* velocity, double* acceleration, double* effort) {
  for (const Limits& l : runtime->runtime.commander().limits()) {
    *low++ = l.low, *high++ = l.high, *velocity++ = l.velocity, *acceleration++ = l.acceleration, *effort++ = l.effort;
  }
}

int rr_observe(rr_runtime* runtime, int64_t stamp_ns, const float* frame) { return static_cast<int>(runtime->runtime.observe(stamp_ns, frame)); }

int rr_joint_state(rr_runtime* runtime, int64_t stamp_ns, const double* position, const double* velocity) {
  return static_cast<int>(runtime->runtime.joint_state(stamp_ns, position, velocity));
}

void rr_tick(rr_runtime* runtime, int64_t now_ns, rr_status* status, double* target, double* effort) {
  runtime->runtime.tick(now_ns, runtime->command);
  copy(runtime->command, status, target, effort);
}

int rr_policy_step(rr_runtime* runtime, int64_t now_ns) { return runtime->runtime.policy_step(now_ns) ? 1 : 0; }
void rr_set_noise(rr_runtime* runtime, const float* noise) { runtime->runtime.set_noise(noise); }
void rr_reset(rr_runtime* runtime) { runtime->runtime.reset(); }
void rr_estop(rr_runtime* runtime) { runtime->runtime.estop(); }

int rr_start(rr_runtime* runtime, const rr_thread_options* given) {
  return guarded([&] {
    ThreadOptions options;
    options.control_priority = given->control_priority;
    options.policy_priority = given->policy_priority;
    options.control_cpu = given->control_cpu;
    options.policy_cpu = given->policy_cpu;
    options.lock_memory = given->lock_memory != 0;
    const auto callback = given->on_command;
    void* user = given->user;
    options.on_command = [runtime, callback, user](const Command& command) {
      runtime->last.back() = command;  // equal sizes: copied in place
      runtime->last.publish();
      if (callback == nullptr) return;
      const rr_status status = {command.now_ns, command.chunk_stamp_ns, command.index, static_cast<std::uint32_t>(command.mode), command.faults,
                                command.latched, command.clamped, command.flags, 0, command.clamp_count};
      callback(user, &status, command.target.data(), command.effort.data());
    };
    runtime->runtime.start(options);
  });
}

void rr_stop(rr_runtime* runtime) { runtime->runtime.stop(); }

void rr_get_report(const rr_runtime* runtime, rr_report* report) {
  const ThreadReport& r = runtime->runtime.report();
  *report = {r.ticks, r.missed, r.wake.quantile_us(0.5), r.wake.quantile_us(0.99), r.wake.quantile_us(0.999), r.wake.max_us(),
             r.body.quantile_us(0.5), r.body.quantile_us(0.99), r.body.quantile_us(0.999), r.body.max_us()};
}

const char* rr_missing_privileges(const rr_runtime* runtime) { return runtime->runtime.report().missing.c_str(); }

int rr_last_command(rr_runtime* runtime, rr_status* status, double* target, double* effort) {
  const bool fresh = runtime->last.update();
  copy(runtime->last.front(), status, target, effort);
  return fresh ? 1 : 0;
}

int rr_log(rr_runtime* runtime, const char* path) {
  return guarded([&] { runtime->runtime.log(path == nullptr ? "" : path); });
}

void rr_get_log_status(const rr_runtime* runtime, rr_log_status* status) {
  const LogStatus s = runtime->runtime.log_status();
  *status = {s.written, s.dropped, s.error, 0};
}

}  // extern "C"
