#include "robo_rlft/safety.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace robo_rlft {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
struct Interval {
  double low, high;

  // The part within `other`; where there is none, the end that is nearer to it.
  Interval within(const Interval& other) const noexcept {
    return {std::clamp(other.low, low, high), std::clamp(other.high, low, high)};
  }
};

// Largest v >= 0 with v dt + v^2 / (2 a) <= distance.
double stopping_speed(double distance, double acceleration, double dt) noexcept {
  if (distance <= 0.0) return 0.0;
  if (!std::isfinite(distance)) return kInfinity;
  if (!std::isfinite(acceleration)) return dt > 0.0 ? distance / dt : kInfinity;
  // The root -a dt + sqrt((a dt)^2 + 2 a d) in the form that does not cancel.
  const double step = acceleration * dt;
  return 2.0 * acceleration * distance / (step + std::sqrt(step * step + 2.0 * acceleration * distance));
}

// `position`, or the nearest number to it that is no further than `step` from `start`: the rounding of start + velocity * dt may
// lift a step above its limit.
double no_further(double start, double position, double step) noexcept {
  for (int i = 0; i < 4 && std::fabs(position - start) > step; ++i) position = std::nextafter(position, start);
  return std::fabs(position - start) > step ? start : position;
}

// Change of velocity in dt; infinity * 0 would be NaN.
double change(double acceleration, double dt) noexcept { return std::isfinite(acceleration) ? acceleration * dt : kInfinity; }

std::uint32_t flag(bool set, std::uint32_t bit) noexcept { return set ? bit : 0u; }

// Whether a bound changed a value by more than rounding.
bool differs(double a, double b) noexcept { return std::fabs(a - b) > 1e-9 * (1.0 + std::fabs(a)); }

}  // namespace

MotionChannel::MotionChannel(const Limits& limits) noexcept : limits_(limits) {}

void MotionChannel::start(double position, double velocity) noexcept {
  position_ = position;
  velocity_ = velocity;
  has_wanted_ = false;
}

double MotionChannel::braking_speed(double distance, double dt) const noexcept { return stopping_speed(distance, limits_.acceleration, dt); }

std::uint32_t MotionChannel::follow(double wanted, double dt) noexcept {
  if (!std::isfinite(wanted)) return kClampNotFinite | brake(dt);
  if (!(dt > 0.0)) return 0;
  const double bounded = std::clamp(wanted, limits_.low, limits_.high), start = position_;
  const double limit = limits_.velocity;
  const double speed = has_wanted_ ? std::clamp((bounded - wanted_) / dt, -limit, limit) : 0.0;
  wanted_ = bounded;
  has_wanted_ = true;
  // The velocity that arrives this step, but none faster than the target's by more than can be braked before it.
  const double arriving = (bounded - position_) / dt;
  const double excess = arriving - speed;
  const double allowed = braking_speed(std::fabs(excess) * dt, dt);
  const double velocity = std::fabs(excess) <= allowed ? arriving : speed + std::copysign(allowed, excess);
  const std::uint32_t changed = flag(bounded != wanted, kClampPosition) | drive(velocity, dt);
  // Without limits in the way, without the rounding of position + velocity * dt.
  if (velocity_ == arriving && std::fabs(bounded - start) <= limit * dt) position_ = bounded;
  return changed;
}

std::uint32_t MotionChannel::brake(double dt) noexcept {
  has_wanted_ = false;
  return dt > 0.0 ? drive(0.0, dt) : 0u;
}

std::uint32_t MotionChannel::drive(double velocity, double dt) noexcept {
  if (!(dt > 0.0)) return 0;
  if (!std::isfinite(velocity)) return kClampNotFinite | drive(0.0, dt);
  const double step = change(limits_.acceleration, dt), limit = limits_.velocity;
  const Interval speeds{-limit, limit};
  const Interval reachable = speeds.within({velocity_ - step, velocity_ + step});
  const Interval stoppable = reachable.within({-braking_speed(position_ - limits_.low, dt), braking_speed(limits_.high - position_, dt)});
  const double next = std::clamp(velocity, stoppable.low, stoppable.high);
  const double in_speed = std::clamp(velocity, speeds.low, speeds.high), in_reach = std::clamp(in_speed, reachable.low, reachable.high);
  const std::uint32_t changed = flag(differs(velocity, in_speed), kClampVelocity) | flag(differs(in_speed, in_reach), kClampAcceleration) |
                                flag(differs(in_reach, next), kClampPosition);
  const double start = position_;
  position_ += next * dt;
  // Rounding alone could leave the range by a bit of the last place.
  if (start >= limits_.low && start <= limits_.high) position_ = std::clamp(position_, limits_.low, limits_.high);
  if (std::isfinite(limit)) position_ = no_further(start, position_, limit * dt);
  velocity_ = next;
  return changed;
}

std::uint32_t VelocityChannel::follow(double wanted, double measured, double dt) noexcept {
  const bool finite = std::isfinite(wanted);
  const double asked = finite ? wanted : 0.0, limit = limits_.velocity;
  if (!(dt > 0.0)) return flag(!finite, kClampNotFinite);
  const double step = change(limits_.acceleration, dt);
  const Interval speeds{-limit, limit};
  const Interval reachable = speeds.within({velocity_ - step, velocity_ + step});
  Interval stoppable = reachable;
  if (std::isfinite(measured)) {
    stoppable = reachable.within({-stopping_speed(measured - limits_.low, limits_.acceleration, dt), stopping_speed(limits_.high - measured, limits_.acceleration, dt)});
  }
  const double in_speed = std::clamp(asked, speeds.low, speeds.high), in_reach = std::clamp(in_speed, reachable.low, reachable.high);
  velocity_ = std::clamp(in_reach, stoppable.low, stoppable.high);
  return flag(!finite, kClampNotFinite) | flag(differs(asked, in_speed), kClampVelocity) | flag(differs(in_speed, in_reach), kClampAcceleration) |
         flag(differs(in_reach, velocity_), kClampPosition);
}

std::uint32_t clamp_effort(const Limits& limits, double measured, double* effort) noexcept {
  if (!std::isfinite(*effort)) {
    *effort = 0.0;
    return kClampNotFinite;
  }
  const double bounded = std::clamp(*effort, -limits.effort, limits.effort);
  std::uint32_t changed = flag(bounded != *effort, kClampEffort);
  *effort = bounded;
  const bool outwards = (measured >= limits.high && bounded > 0.0) || (measured <= limits.low && bounded < 0.0);
  if (outwards) *effort = 0.0;
  return changed | flag(outwards, kClampPosition);
}

double joint_pd(double stiffness, double damping, double limit, double target, double position, double velocity) noexcept {
  const double effort = stiffness * (target - position) - damping * velocity;
  return std::isfinite(effort) ? std::clamp(effort, -limit, limit) : 0.0;
}

}  // namespace robo_rlft
