#include "robo_rlft/commander.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "robo_rlft/error.hpp"

namespace robo_rlft {
namespace {

constexpr double kReached = 1e-6;       // of a position target at the end of a ramp
constexpr double kRampFeedback = 2.0;   // 1/s: how fast a velocity-controlled joint closes its distance to the ramp
constexpr double kSettle_s = 1.0;       // what joints under velocity or effort control get after the ramp's end

double smooth(double u) noexcept { return u * u * (3.0 - 2.0 * u); }

}  // namespace

Commander::Commander(const ActionSpec& action, const JointSpec& joints, double period_s, double ramp_s)
    : action_(action), joints_(joints), period_s_(period_s), ramp_s_(ramp_s), from_(action.names.size()) {
  has_gains_ = is_joint(action.meaning) && !joints.stiffness.empty() && !joints.damping.empty();
  can_ramp_ = is_joint(action.meaning) && !joints.default_pose.empty() && (action.meaning != Meaning::JointEffort || has_gains_);
  for (const Limits& limits : action.limits) {
    motion_.emplace_back(limits);
    speed_.emplace_back(limits);
  }
  start(JointState{});
}

Outputs Commander::empty_outputs() const { return {std::vector<double>(size()), std::vector<double>(size()), 0}; }

void Commander::set_workspace(const std::vector<double>& pose, const std::vector<double>& low, const std::vector<double>& high) {
  if (action_.meaning != Meaning::Cartesian) throw Error("a workspace belongs to cartesian actions");
  if (pose.size() != size() || low.size() != size() || high.size() != size()) throw Error("a workspace has one entry per action");
  for (std::size_t i = 0; i < size(); ++i) {
    if (!(low[i] <= pose[i] && pose[i] <= high[i])) throw Error("the pose of '" + action_.names[i] + "' is outside the workspace");
  }
  for (std::size_t i = 0; i < size(); ++i) {
    action_.limits[i].low = low[i];
    action_.limits[i].high = high[i];
    motion_[i] = MotionChannel(action_.limits[i]);
    motion_[i].start(pose[i]);
  }
}

void Commander::tighten(const std::vector<double>& velocity, const std::vector<double>& acceleration) {
  if (velocity.size() != size() || acceleration.size() != size()) throw Error("limits have one entry per action");
  for (std::size_t i = 0; i < size(); ++i) {
    if (!(velocity[i] > 0 && acceleration[i] > 0)) throw Error("limits of '" + action_.names[i] + "' must be above 0");
    Limits& limits = action_.limits[i];
    limits.velocity = std::min(limits.velocity, velocity[i]);
    limits.acceleration = std::min(limits.acceleration, acceleration[i]);
    const double position = motion_[i].position();
    motion_[i] = MotionChannel(limits);
    motion_[i].start(position);
    speed_[i] = VelocityChannel(limits);
  }
}

std::string Commander::missing_limits() const {
  std::string out;
  for (std::size_t i = 0; i < size(); ++i) {
    const Limits& l = action_.limits[i];
    const bool effort = action_.meaning == Meaning::JointEffort;
    if (effort ? !std::isfinite(l.effort) : !std::isfinite(l.velocity)) {
      out += "'" + action_.names[i] + "' has no " + (effort ? "effort" : "velocity") + " limit in the bundle: its commands are not bounded in that respect\n";
    }
  }
  return out;
}

double Commander::measured(const JointState& joints, std::size_t i) const noexcept {
  const bool known = !action_.joint.empty() && !joints.position.empty();
  return known ? joints.position[static_cast<std::size_t>(action_.joint[i])] : 0.0;
}

void Commander::start(const JointState& joints) noexcept {
  for (std::size_t i = 0; i < size(); ++i) {
    if (is_position(action_.meaning)) motion_[i].start(measured(joints, i));
    if (action_.meaning == Meaning::Cartesian) motion_[i].start(motion_[i].position());
    if (action_.meaning == Meaning::Normalised) motion_[i].start(std::clamp(0.0, action_.limits[i].low, action_.limits[i].high));
    speed_[i].start(0.0);
    from_[i] = measured(joints, i);
  }
}

double Commander::pose_effort(const JointState& joints, std::size_t i, double target) const noexcept {
  if (!has_gains_ || joints.position.empty()) return 0.0;
  const auto j = static_cast<std::size_t>(action_.joint[i]);
  return joint_pd(joints_.stiffness[j], joints_.damping[j], action_.limits[i].effort, target, joints.position[j], joints.velocity[j]);
}

// One entry towards `wanted`, in the target's own units.
void Commander::step(std::size_t i, double wanted, const JointState& joints, double dt, Outputs& out) noexcept {
  switch (action_.meaning) {
    case Meaning::JointPosition:
    case Meaning::JointPositionOffset:
    case Meaning::Normalised:
      out.clamped |= motion_[i].follow(wanted, dt);
      out.target[i] = motion_[i].position();
      break;
    case Meaning::Cartesian: {
      const double before = motion_[i].position();
      out.clamped |= motion_[i].drive(wanted / period_s_, period_s_);
      out.target[i] = motion_[i].position() - before;
      break;
    }
    case Meaning::JointVelocity:
      out.clamped |= speed_[i].follow(wanted, measured(joints, i), dt);
      out.target[i] = speed_[i].velocity();
      break;
    case Meaning::JointEffort:
      out.target[i] = wanted;
      out.clamped |= clamp_effort(action_.limits[i], measured(joints, i), &out.target[i]);
      break;
  }
}

void Commander::finish(const JointState& joints, Outputs& out) noexcept {
  for (std::size_t i = 0; i < size(); ++i) {
    const bool effort = action_.meaning == Meaning::JointEffort;
    out.effort[i] = effort ? out.target[i] : is_position(action_.meaning) ? pose_effort(joints, i, out.target[i]) : 0.0;
  }
}

void Commander::follow(const double* action, const JointState& joints, double dt, Outputs& out) noexcept {
  out.clamped = 0;
  for (std::size_t i = 0; i < size(); ++i) step(i, action_.offset[i] + action_.scale[i] * action[i], joints, dt, out);
  finish(joints, out);
}

void Commander::begin_hold(const JointState& joints) noexcept {
  for (std::size_t i = 0; i < size(); ++i) from_[i] = measured(joints, i);
}

void Commander::hold(const JointState& joints, double dt, Outputs& out) noexcept {
  out.clamped = 0;
  for (std::size_t i = 0; i < size(); ++i) {
    if (is_position(action_.meaning)) {
      out.clamped |= motion_[i].brake(dt);
      out.target[i] = motion_[i].position();
    } else {
      // A velocity, a change, a normalised value comes to 0; an effort keeps the joint where the hold began, with gains.
      step(i, action_.meaning == Meaning::JointEffort ? pose_effort(joints, i, from_[i]) : 0.0, joints, dt, out);
    }
  }
  finish(joints, out);
}

double Commander::ramp_duration(std::size_t i, double distance) const noexcept {
  // The profile u^2 (3 - 2 u) has the largest slope 1.5 and the largest curvature 6.
  const Limits& limits = action_.limits[i];
  return std::max({ramp_s_, 1.5 * distance / limits.velocity, std::sqrt(6.0 * distance / limits.acceleration)});
}

void Commander::begin_ramp(const JointState& joints) noexcept {
  ramp_time_ = 0.0;
  ramp_total_ = ramp_s_;
  for (std::size_t i = 0; i < size() && can_ramp_; ++i) {
    from_[i] = is_position(action_.meaning) ? motion_[i].position() : measured(joints, i);
    ramp_total_ = std::max(ramp_total_, ramp_duration(i, std::fabs(joints_.default_pose[static_cast<std::size_t>(action_.joint[i])] - from_[i])));
  }
}

bool Commander::ramp(const JointState& joints, double dt, Outputs& out) noexcept {
  out.clamped = 0;
  const double before = smooth(std::min(1.0, ramp_time_ / ramp_total_));
  ramp_time_ += dt;
  const double part = smooth(std::min(1.0, ramp_time_ / ramp_total_));
  bool reached = ramp_time_ >= ramp_total_;
  for (std::size_t i = 0; i < size(); ++i) {
    const double end = joints_.default_pose[static_cast<std::size_t>(action_.joint[i])], wanted = from_[i] + part * (end - from_[i]);
    if (is_position(action_.meaning)) {
      step(i, wanted, joints, dt, out);
      const double goal = std::clamp(end, action_.limits[i].low, action_.limits[i].high);
      reached = reached && std::fabs(out.target[i] - goal) < kReached;
    } else if (action_.meaning == Meaning::JointVelocity) {
      const double slope = dt > 0 ? (part - before) * (end - from_[i]) / dt : 0.0;
      step(i, slope + kRampFeedback * (wanted - measured(joints, i)), joints, dt, out);
    } else {
      step(i, pose_effort(joints, i, wanted), joints, dt, out);
    }
  }
  finish(joints, out);
  for (std::size_t i = 0; reached && i < size(); ++i) from_[i] = joints_.default_pose[static_cast<std::size_t>(action_.joint[i])];
  return reached && (is_position(action_.meaning) || ramp_time_ >= ramp_total_ + kSettle_s);
}

void Commander::cut(Outputs& out) noexcept {
  out.clamped = 0;
  for (std::size_t i = 0; i < size(); ++i) {
    if (is_position(action_.meaning)) motion_[i].start(motion_[i].position());
    speed_[i].start(0.0);
    out.target[i] = is_position(action_.meaning) ? motion_[i].position() : 0.0;
    out.effort[i] = 0.0;
  }
}

bool Commander::at_rest() const noexcept {
  const bool motion = is_position(action_.meaning) || action_.meaning == Meaning::Cartesian || action_.meaning == Meaning::Normalised;
  for (std::size_t i = 0; i < size(); ++i) {
    if (motion && motion_[i].velocity() != 0.0) return false;
    if (action_.meaning == Meaning::JointVelocity && speed_[i].velocity() != 0.0) return false;
  }
  return true;
}

}  // namespace robo_rlft
