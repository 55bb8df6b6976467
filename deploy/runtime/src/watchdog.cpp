#include "robo_rlft/watchdog.hpp"

namespace robo_rlft {
namespace {

// Without these nobody knows where the robot is: no motion that needs to know may begin or go on.
constexpr std::uint32_t kBlind = kJointsStale | kJointsInvalid | kClockBackwards | kClockForwards;

}  // namespace

Mode Watchdog::update(const Situation& now, double dt) noexcept {
  if (mode_ != Mode::Wait) latched_ |= now.faults;
  switch (mode_) {
    case Mode::Wait:
      if (now.faults == 0) mode_ = Mode::Run;
      break;
    case Mode::Run:
      if (now.faults != 0) mode_ = Mode::Hold;
      break;
    case Mode::Hold: hold(now, dt); break;
    case Mode::Ramp:
      if (now.ramp_done || (now.faults & kBlind) != 0) mode_ = Mode::Estop;
      break;
    case Mode::Estop: break;
  }
  return mode_;
}

void Watchdog::hold(const Situation& now, double dt) noexcept {
  held_s_ += dt;
  if (held_s_ < config_.hold_s || !now.stopped) return;
  if (!config_.can_ramp) mode_ = Mode::Estop;
  else if ((now.faults & kBlind) == 0) mode_ = Mode::Ramp;
}

void Watchdog::emergency_stop() noexcept {
  latched_ |= kStopped;
  mode_ = Mode::Estop;
}

void Watchdog::reset() noexcept {
  mode_ = Mode::Wait;
  latched_ = 0;
  held_s_ = 0.0;
}

}  // namespace robo_rlft
