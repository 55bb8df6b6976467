// The last thing before the robot: whatever is asked for, what leaves here is finite and within every limit.
#pragma once

#include <cstdint>
#include <vector>

#include "robo_rlft/bundle.hpp"

namespace robo_rlft {

// What was changed, as bits.
enum Clamp : std::uint32_t {
  kClampPosition = 1u << 0,      // position range, or the braking distance before its end
  kClampVelocity = 1u << 1,
  kClampAcceleration = 1u << 2,
  kClampEffort = 1u << 3,
  kClampNotFinite = 1u << 4,     // NaN or infinity was asked for
};

// A channel's command as a position that moves within its limits.
//
// With v the velocity of the last step and dt the time of this one, the next velocity v' obeys
//   |v'| <= velocity,   |v' - v| <= acceleration dt,   v' dt + v'^2 / (2 acceleration) <= distance to the end of the range.
// The last is the braking distance after this step. It holds again one step later when braking fully, whatever the next dt is:
// with v'' = v' - a dt it follows v'' dt + v''^2 / 2a = v'^2 / 2a - a dt^2 / 2 <= v'^2 / 2a. So a start at rest inside the
// range never leaves it. Where limits contradict each other (a start outside the range, a velocity that was never allowed) the
// velocity limit comes first, then the acceleration, then the range.
class MotionChannel {
 public:
  explicit MotionChannel(const Limits& limits = {}) noexcept;

  void start(double position, double velocity = 0.0) noexcept;

  // Moves towards `wanted` (a position) for dt seconds; returns Clamp bits. A target that moves is followed without lag as
  // long as the limits allow.
  std::uint32_t follow(double wanted, double dt) noexcept;

  // Moves with a velocity for dt seconds, as far as the limits allow.
  std::uint32_t drive(double velocity, double dt) noexcept;

  // Brings the velocity to 0 within the limits.
  std::uint32_t brake(double dt) noexcept;

  double position() const noexcept { return position_; }
  double velocity() const noexcept { return velocity_; }

 private:
  double braking_speed(double distance, double dt) const noexcept;

  Limits limits_;
  double position_ = 0.0, velocity_ = 0.0;
  double wanted_ = 0.0;  // the last target, for its velocity
  bool has_wanted_ = false;
};

// A channel's command as a velocity: bounded, its change bounded, and slow enough to stop before the end of the range.
class VelocityChannel {
 public:
  explicit VelocityChannel(const Limits& limits = {}) noexcept : limits_(limits) {}
  void start(double velocity) noexcept { velocity_ = velocity; }
  // `measured` is the joint's position. Returns Clamp bits.
  std::uint32_t follow(double wanted, double measured, double dt) noexcept;
  double velocity() const noexcept { return velocity_; }

 private:
  Limits limits_;
  double velocity_ = 0.0;
};

// Effort within its limit; none that pushes a joint on beyond the end of its range. Changes `effort`, returns Clamp bits.
std::uint32_t clamp_effort(const Limits& limits, double measured, double* effort) noexcept;

// stiffness (target - position) - damping velocity, within +- limit. NaN anywhere gives 0.
double joint_pd(double stiffness, double damping, double limit, double target, double position, double velocity) noexcept;

}  // namespace robo_rlft
