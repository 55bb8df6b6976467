// A bundle as a controller: observations and joint states in, commands out, in three threads or step by step in one.
//
// Who may call what at the same time:
//   one sensor thread    observe(), joint_state()
//   one control thread   tick()          never waits, never allocates (with an allocation-free policy also if inline_policy)
//   one policy thread    policy_step()
//   any thread           reset(), estop()
// start() makes the control and the policy thread; without it the caller is both, in the same code.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "robo_rlft/bundle.hpp"
#include "robo_rlft/chunk.hpp"
#include "robo_rlft/commander.hpp"
#include "robo_rlft/log.hpp"
#include "robo_rlft/policy.hpp"
#include "robo_rlft/realtime.hpp"
#include "robo_rlft/triple_buffer.hpp"
#include "robo_rlft/watchdog.hpp"

namespace robo_rlft {

enum class Backend { Automatic, Native, Onnx };  // Automatic: native where the bundle has a native network
enum class EstopAction { Hold, Cut };            // hold the last position, or no effort at all

struct Options {
  Backend backend = Backend::Automatic;
  std::string onnx_library;  // empty: the environment variable ROBO_RLFT_ONNXRUNTIME
  Interpolation interpolation = Interpolation::Hold;
  Stitching stitching = Stitching::Replace;
  double fade_s = 0.1, decay = 0.01;
  double control_hz = 0;  // ticks per second, 0: the robot's rate
  EstopAction estop = EstopAction::Hold;
  bool inline_policy = false;             // tick() runs the policy itself; native backend only
  std::int64_t simulated_latency_ns = 0;  // a chunk is published this long after policy_step(now) began, in the ticks' time
  std::uint64_t seed = 0;                 // of the noise
};

// What the command is, as bits.
enum Flag : std::uint32_t {
  kEnabled = 1u << 0,        // to be sent to the robot; else the target is where the robot is, and nobody moves it
  kSpent = 1u << 1,          // the chunk is over: its last action again
  kEarly = 1u << 2,          // the observation's stamp lies in the future
  kNewChunk = 1u << 3,       // a chunk arrived in this tick
  kOverBudget = 1u << 4,     // that chunk took longer than latency_budget_s, from its observation on
  kPrefixOverrun = 1u << 5,  // it came later than its committed prefix allowed for
  kEffortCut = 1u << 6,      // ESTOP without effort
};

struct Command {
  std::int64_t now_ns = 0, chunk_stamp_ns = 0;
  double index = -1;  // in the chunk
  Mode mode = Mode::Wait;
  std::uint32_t faults = 0, latched = 0, clamped = 0, flags = 0;
  std::uint64_t clamp_count = 0;  // ticks in which something was clamped
  std::vector<double> target, effort;
};

enum class Taken { Good, NotFinite, OutOfOrder };

struct ThreadOptions {
  int control_priority = 0, policy_priority = 0;  // SCHED_FIFO, 0: ordinary scheduling
  int control_cpu = -1, policy_cpu = -1;
  bool lock_memory = false;
  std::function<void(const Command&)> on_command;  // in the control thread, each tick
};

struct ThreadReport {
  std::uint64_t ticks = 0, missed = 0;  // missed: wake-ups that came a whole period late or more
  DurationHistogram wake, body;
  std::string missing;  // privileges that were not there
};

class Runtime {
 public:
  // Loads, checks hashes and golden actions, warms the policy up. Raises Error.
  explicit Runtime(const std::string& folder, const Options& options = {});
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const Bundle& bundle() const noexcept { return bundle_; }
  const Policy& policy() const noexcept { return *policy_; }
  Commander& commander() noexcept { return commander_; }
  double golden_error() const noexcept { return golden_error_; }
  double control_hz() const noexcept { return control_hz_; }
  // Sentences about limits the bundle does not have.
  std::string notes() const { return commander_.missing_limits(); }
  Command empty_command() const;

  // Before the first tick: the order in which joint_state() will come. Joints beyond the bundle's are left out.
  // Raises Error: a joint of the bundle is missing or named twice.
  void bind_joints(const std::vector<std::string>& names);

  // The newest frame, key after key in the bundle's order, as the model reads it. NaN and infinity are not taken.
  Taken observe(std::int64_t stamp_ns, const float* frame) noexcept;
  // Measured joints in the order of bind_joints(), or of the bundle. NaN is taken as the fault that it is.
  Taken joint_state(std::int64_t stamp_ns, const double* position, const double* velocity) noexcept;
  std::size_t joint_count() const noexcept { return given_joints_; }

  void tick(std::int64_t now_ns, Command& out) noexcept;
  // True where there was a new observation and the policy was asked.
  bool policy_step(std::int64_t now_ns) noexcept;
  // The next policy_step starts from this noise [H, A] instead of a drawn one.
  void set_noise(const float* noise) noexcept;

  void reset() noexcept { reset_requested_.store(true); }
  void estop() noexcept { estop_requested_.store(true); }

  // Raises Error: already running.
  void start(ThreadOptions options);
  void stop() noexcept;
  bool running() const noexcept { return running_.load(); }
  // Only while not running.
  const ThreadReport& report() const noexcept { return report_; }

  // A log of every cycle from now on; an empty path ends it. Raises Error while running.
  void log(const std::string& path);
  LogStatus log_status() const noexcept;

 private:
  struct Frames {
    std::int64_t stamp_ns = 0;
    std::vector<float> data;  // per key [To, width]
  };

  void warm_up(int calls) noexcept;
  PolicyInput input(const float* observation) noexcept;
  void draw_noise() noexcept;
  void committed_prefix(std::int64_t now_ns, std::int64_t stamp_ns) noexcept;
  void publish_pending(std::int64_t now_ns) noexcept;
  void log_policy(const Chunk& chunk, std::int64_t now_ns) noexcept;

  double clock(std::int64_t now_ns) noexcept;
  void obey_requests() noexcept;
  void take_joints() noexcept;
  void take_chunk(std::int64_t now_ns, Command& out) noexcept;
  void judge(std::int64_t now_ns, Sample sample) noexcept;
  void judge_joints(std::int64_t now_ns) noexcept;
  bool joints_outside() const noexcept;
  void act(Mode before, double dt, Command& out) noexcept;
  void log_tick(const Command& out, std::int64_t started_ns) noexcept;

  void control_loop(const ThreadOptions& options);
  void policy_loop(const ThreadOptions& options);
  void note_missing(const std::string& sentences);

  Bundle bundle_;
  Options options_;
  std::unique_ptr<Policy> policy_;
  double golden_error_ = 0, control_hz_, period_s_;
  Commander commander_;

  // Sensor thread.
  std::vector<int> joint_source_;  // place of each of the bundle's joints in what the caller gives
  std::size_t given_joints_ = 0;
  std::int64_t last_observed_ns_ = 0;
  bool observed_any_ = false;
  std::vector<float> history_;
  TripleBuffer<Frames> frames_;
  TripleBuffer<JointState> joints_buffer_;
  std::atomic<std::int64_t> observed_ns_{0};
  std::atomic<bool> has_observation_{false};

  // Policy thread.
  Chunk work_, pending_;
  bool has_pending_ = false, noise_given_ = false, has_previous_ = false;
  std::vector<float> noise_, prefix_, previous_;
  float delay_ = -1;
  std::int64_t asked_stamp_ns_ = 0, previous_stamp_ns_ = 0, next_policy_ns_ = std::numeric_limits<std::int64_t>::min();
  bool asked_any_ = false;
  std::uint64_t sequence_ = 0, random_[2];
  std::vector<std::int64_t> durations_;
  TripleBuffer<Chunk> chunks_;

  // Control thread.
  Watchdog watchdog_;
  ChunkPlayer player_;
  JointState joints_;
  Outputs outputs_;
  std::vector<double> action_;
  Situation situation_;
  bool has_joints_ = false, has_tick_ = false, has_command_ = false, ramp_done_ = false;
  std::int64_t last_tick_ns_ = 0, last_chunk_ns_ = 0;
  ChunkStatus last_status_ = ChunkStatus::Empty;
  std::uint64_t clamp_count_ = 0, chunk_sequence_ = 0;

  std::atomic<bool> reset_requested_{false}, estop_requested_{false}, stop_{false}, running_{false};
  std::unique_ptr<LogWriter> log_;
  ThreadReport report_;
  std::thread control_thread_, policy_thread_;
  std::mutex missing_mutex_;  // guards report_.missing while the threads begin
};

}  // namespace robo_rlft
