// From wanted targets to commands, for every meaning an action can have: following, holding, moving to the default pose.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "robo_rlft/bundle.hpp"
#include "robo_rlft/safety.hpp"

namespace robo_rlft {

// What the robot measured, in the order of the bundle's joints.
struct JointState {
  std::int64_t stamp_ns = 0;
  bool finite = true;
  std::vector<double> position, velocity;
};

// One command, in the order of the bundle's actions.
struct Outputs {
  std::vector<double> target;  // [A] in the units of the action's meaning
  std::vector<double> effort;  // [A] joint PD on the target (position meanings with gains), or the effort itself
  std::uint32_t clamped = 0;   // Clamp bits
};

class Commander {
 public:
  Commander(const ActionSpec& action, const JointSpec& joints, double period_s, double ramp_s);

  bool can_ramp() const noexcept { return can_ramp_; }
  bool needs_joints() const noexcept { return is_joint(action_.meaning); }
  Outputs empty_outputs() const;

  // Cartesian actions: where the commanded pose starts, and the box it must not leave. Raises Error for other meanings, or a
  // pose outside the box.
  void set_workspace(const std::vector<double>& pose, const std::vector<double>& low, const std::vector<double>& high);
  // Lowers limits; raises Error where one is not above 0. Entries of infinity change nothing.
  void tighten(const std::vector<double>& velocity, const std::vector<double>& acceleration);
  // Limits of the entries, and a sentence for each that lacks one which its meaning needs.
  const std::vector<Limits>& limits() const noexcept { return action_.limits; }
  std::string missing_limits() const;

  // The command starts at the measured joints, at rest.
  void start(const JointState& joints) noexcept;

  // One step of dt seconds each. `action` is [A] as the policy gave it.
  void follow(const double* action, const JointState& joints, double dt, Outputs& out) noexcept;
  void hold(const JointState& joints, double dt, Outputs& out) noexcept;
  void begin_hold(const JointState& joints) noexcept;
  void begin_ramp(const JointState& joints) noexcept;
  // True once the default pose is reached.
  bool ramp(const JointState& joints, double dt, Outputs& out) noexcept;
  // No effort at all; a position target stays where it is.
  void cut(Outputs& out) noexcept;

  bool at_rest() const noexcept;

 private:
  std::size_t size() const noexcept { return action_.limits.size(); }
  double measured(const JointState& joints, std::size_t i) const noexcept;
  double pose_effort(const JointState& joints, std::size_t i, double target) const noexcept;
  void step(std::size_t i, double wanted, const JointState& joints, double dt, Outputs& out) noexcept;
  void finish(const JointState& joints, Outputs& out) noexcept;
  double ramp_duration(std::size_t i, double distance) const noexcept;

  ActionSpec action_;
  JointSpec joints_;
  double period_s_, ramp_s_;
  bool can_ramp_ = false, has_gains_ = false;
  std::vector<MotionChannel> motion_;
  std::vector<VelocityChannel> speed_;
  std::vector<double> from_;  // joint positions a hold or a ramp started at
  double ramp_time_ = 0.0, ramp_total_ = 0.0;
};

}  // namespace robo_rlft
