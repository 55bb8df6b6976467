// rt_loop BUNDLE [--seconds S] [--hz HZ] [--fifo PRIORITY] [--cpu N] [--backend native|onnx] [--log FILE]: the control and the policy
// thread with an ideal robot, and what came of it as JSON: misses, wake latency, body time, the largest step beside its limit.
#include <atomic>
#include <cmath>
#include <thread>

#include "arguments.hpp"
#include "robo_rlft/runtime.hpp"

using namespace robo_rlft;

namespace {

// Takes commands for measurements; what it says goes through a triple buffer like that of any robot driver.
class IdealRobot {
 public:
  explicit IdealRobot(Runtime& runtime) : runtime_(runtime), joints_(static_cast<std::size_t>(runtime.bundle().joints.size())), buffer_(joints_), last_(0) {
    for (std::size_t j = 0; j < joints_.size(); ++j) {
      const JointSpec& spec = runtime.bundle().joints;
      joints_[j] = spec.default_pose.empty() ? 0.0 : spec.default_pose[j];
    }
    limits_ = runtime.commander().limits();
  }

  // In the control thread.
  void take(const Command& command) {
    ++modes[static_cast<std::size_t>(command.mode)];
    faults |= command.latched;
    if ((command.flags & kEnabled) == 0 || !is_position(runtime_.bundle().action.meaning)) return;
    for (std::size_t i = 0; i < command.target.size(); ++i) {
      const auto j = static_cast<std::size_t>(runtime_.bundle().action.joint[i]);
      if (last_ > 0 && std::isfinite(limits_[i].velocity)) {
        const double dt = static_cast<double>(command.now_ns - last_) * 1e-9;
        worst_step = std::max(worst_step, std::fabs(command.target[i] - joints_[j]) / (limits_[i].velocity * dt));
      }
      joints_[j] = command.target[i];
    }
    last_ = command.now_ns;
    buffer_.back() = joints_;
    buffer_.publish();
  }

  // In the sensor thread, until `stop`.
  void sense(double hz, const std::atomic<bool>& stop) {
    std::vector<float> frame(static_cast<std::size_t>(runtime_.bundle().policy.frame_width()));
    std::vector<double> q = joints_, dq(q.size());
    const auto period = static_cast<std::int64_t>(1e9 / hz);
    for (std::int64_t due = monotonic_ns(); !stop.load(); due += period) {
      sleep_until_ns(due);
      if (buffer_.update()) q = buffer_.front();
      const std::int64_t now = monotonic_ns();
      for (std::size_t i = 0; i < frame.size(); ++i) frame[i] = static_cast<float>(std::sin(1e-9 * static_cast<double>(now % 100'000'000'000) + static_cast<double>(i)));
      runtime_.observe(now, frame.data());
      if (!q.empty()) runtime_.joint_state(now, q.data(), dq.data());
    }
  }

  std::uint64_t modes[5] = {};
  std::uint32_t faults = 0;
  double worst_step = 0.0;  // as a share of velocity * dt

 private:
  Runtime& runtime_;
  std::vector<double> joints_;
  TripleBuffer<std::vector<double>> buffer_;
  std::vector<Limits> limits_;
  std::int64_t last_;
};

void print(const Runtime& runtime, const IdealRobot& robot, double seconds, double hz, bool fifo) {
  const ThreadReport& r = runtime.report();
  std::string missing;
  for (const char c : r.missing) missing += c == '\n' ? "; " : std::string(1, c);
  std::printf("{\"seconds\": %g, \"hz\": %g, \"fifo\": %s, \"backend\": \"%s\", \"ticks\": %llu, \"missed\": %llu,\n \"wake_us\": {\"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f},\n"
              " \"body_us\": {\"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f},\n \"ticks_by_mode\": {\"wait\": %llu, \"run\": %llu, \"hold\": %llu, \"ramp\": %llu, \"estop\": %llu},"
              " \"latched_faults\": %u,\n \"largest_step_over_limit\": %.9f, \"log_written\": %llu, \"log_dropped\": %llu, \"missing\": \"%s\"}\n",
              seconds, hz, fifo ? "true" : "false", runtime.policy().name(), static_cast<unsigned long long>(r.ticks), static_cast<unsigned long long>(r.missed), r.wake.quantile_us(0.5),
              r.wake.quantile_us(0.99), r.wake.quantile_us(0.999), r.wake.max_us(), r.body.quantile_us(0.5), r.body.quantile_us(0.99), r.body.quantile_us(0.999), r.body.max_us(),
              static_cast<unsigned long long>(robot.modes[0]), static_cast<unsigned long long>(robot.modes[1]), static_cast<unsigned long long>(robot.modes[2]),
              static_cast<unsigned long long>(robot.modes[3]), static_cast<unsigned long long>(robot.modes[4]), robot.faults, robot.worst_step,
              static_cast<unsigned long long>(runtime.log_status().written), static_cast<unsigned long long>(runtime.log_status().dropped), missing.c_str());
}

void loop(int count, char** words) {
  const Arguments arguments(count, words, {"seconds", "hz", "fifo", "cpu", "backend", "log"});
  if (arguments.positional.size() != 1) throw Error("usage: rt_loop BUNDLE [--seconds S] [--hz HZ] [--fifo PRIORITY] [--cpu N] [--backend native|onnx] [--log FILE]");
  const double seconds = arguments.number("seconds", 60), hz = arguments.number("hz", 1000);
  const int priority = static_cast<int>(arguments.number("fifo", 0));
  Options options;
  options.control_hz = hz;
  options.backend = arguments.text("backend", "native") == "onnx" ? Backend::Onnx : Backend::Native;
  options.interpolation = Interpolation::Linear;
  Runtime runtime(arguments.positional[0], options);
  std::fprintf(stderr, "%s", runtime.notes().c_str());
  runtime.log(arguments.text("log", ""));
  IdealRobot robot(runtime);
  std::atomic<bool> stop{false};
  std::thread sensor([&] {
    set_thread(priority > 0 ? priority - 1 : 0, -1);
    robot.sense(std::min(hz, 500.0), stop);
  });
  ThreadOptions threads;
  threads.control_priority = priority;
  threads.control_cpu = static_cast<int>(arguments.number("cpu", -1));
  threads.lock_memory = priority > 0;
  threads.on_command = [&](const Command& command) { robot.take(command); };
  runtime.start(threads);
  sleep_until_ns(monotonic_ns() + static_cast<std::int64_t>(seconds * 1e9));
  runtime.stop();
  stop = true;
  sensor.join();
  print(runtime, robot, seconds, hz, priority > 0 && runtime.report().missing.find("SCHED_FIFO") == std::string::npos);
}

}  // namespace

int main(int count, char** words) {
  return run_tool([&] { loop(count, words); });
}
