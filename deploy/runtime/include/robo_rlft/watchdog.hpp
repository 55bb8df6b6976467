// Whether the policy may move the robot. A latch: faults lead downwards only, a reset is what leads back.
#pragma once

#include <cstdint>

namespace robo_rlft {

enum class Mode : std::uint8_t { Wait = 0, Run = 1, Hold = 2, Ramp = 3, Estop = 4 };

// Why the policy may not move the robot, as bits.
enum Fault : std::uint32_t {
  kObservationStale = 1u << 0,
  kJointsStale = 1u << 1,
  kChunkSpent = 1u << 2,
  kPolicyLate = 1u << 3,      // no new chunk for policy_timeout_s
  kPolicyNotFinite = 1u << 4,
  kPolicyFailed = 1u << 5,    // the backend reported an error
  kClockBackwards = 1u << 6,  // ticks or stamps ran backwards, or a stamp lies in the future
  kClockForwards = 1u << 7,   // no tick for longer than observation_timeout_s
  kJointsInvalid = 1u << 8,   // measured joints are NaN or infinite
  kStopped = 1u << 9,         // by the operator
  kNotReady = 1u << 10,       // in WAIT: no observation, no joint state or no chunk yet
  kJointsOutside = 1u << 11,  // in WAIT: measured joints far outside their range: another order or unit than the bundle's?
};

struct WatchdogConfig {
  double hold_s;   // how long HOLD lasts before RAMP
  bool can_ramp;   // there is a default pose and a way to it
};

// What the watchdog needs to know in one tick.
struct Situation {
  std::uint32_t faults = 0;  // of this tick
  bool stopped = false;      // the command is at rest
  bool ramp_done = false;
};

class Watchdog {
 public:
  explicit Watchdog(const WatchdogConfig& config) noexcept : config_(config) {}

  // One tick of dt seconds. The transitions, all there are:
  //   WAIT -> RUN     no fault
  //   RUN  -> HOLD    any fault
  //   HOLD -> RAMP    hold_s over, at rest, joints fresh and finite, a default pose
  //   HOLD -> ESTOP   hold_s over, at rest, no default pose
  //   RAMP -> ESTOP   the default pose is reached, or joints stale or invalid, or the clock jumped
  //   any  -> ESTOP   emergency_stop()
  //   any  -> WAIT    reset()
  Mode update(const Situation& now, double dt) noexcept;

  void emergency_stop() noexcept;
  void reset() noexcept;

  Mode mode() const noexcept { return mode_; }
  // Faults since RUN was left; they stay until the reset.
  std::uint32_t latched() const noexcept { return latched_; }

 private:
  void hold(const Situation& now, double dt) noexcept;

  WatchdogConfig config_;
  Mode mode_ = Mode::Wait;
  std::uint32_t latched_ = 0;
  double held_s_ = 0.0;
};

}  // namespace robo_rlft
