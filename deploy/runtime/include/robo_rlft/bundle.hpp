// A controller bundle as runtime.json describes it, with every hash checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "robo_rlft/files.hpp"

namespace robo_rlft {

// What an action commands. A target is offset + scale * action; a cartesian target is the change of the commanded pose in one
// control step.
enum class Meaning { JointPosition, JointPositionOffset, JointVelocity, JointEffort, Cartesian, Normalised };

bool is_position(Meaning meaning);  // a joint position, with or without offset: a target that may be held
bool is_joint(Meaning meaning);     // one target per joint

// Limits of one entry of the command, in the target's units; infinite where there is none.
struct Limits {
  double low, high;     // of the position (cartesian: of the commanded pose), or of the value where there is no position
  double velocity;      // units per second; of a velocity command its largest magnitude
  double acceleration;  // units per second squared
  double effort;
};

struct ActionSpec {
  std::vector<std::string> names;
  Meaning meaning = Meaning::Normalised;
  std::vector<double> scale, offset;
  std::vector<int> joint;      // index into JointSpec of each entry; empty without joints
  std::vector<Limits> limits;  // one per entry
  int size() const { return static_cast<int>(names.size()); }
};

struct JointSpec {
  std::vector<std::string> names;  // empty: the bundle speaks of no joints
  std::vector<double> low, high, velocity, acceleration, effort;  // infinite where not given
  std::vector<double> default_pose, stiffness, damping;           // empty unless given for every joint
  int size() const { return static_cast<int>(names.size()); }
};

struct ObservationKey {
  std::string key;
  int width;
};

struct PolicySpec {
  std::string file;
  double rate_hz = 0;
  int chunk = 0, execute = 0, obs_horizon = 0, prefix = 0;
  std::vector<ObservationKey> observation;
  bool noise = false;  // standard normal; else any values do
  std::optional<double> guidance;
  int frame_width() const;  // entries of one observation, all keys together
};

struct Timing {
  std::int64_t latency_budget_ns, observation_timeout_ns, policy_timeout_ns;
  double ramp_s, hold_s;
};

struct NativeSpec {
  std::string file, kind, activation;
  int steps = 1;
  std::vector<double> observation_clip;  // per key, infinite: none
  double latent_clip = 0;                // infinite: none
  bool bounded = true;                   // the last point of the path is clipped to [-1, 1]
};

struct Bundle {
  std::string env_id;
  double rate_hz = 0;
  ActionSpec action;
  JointSpec joints;
  PolicySpec policy;
  Timing timing{};
  std::optional<NativeSpec> native;
  double tolerance = 0;              // largest accepted error of the golden actions
  std::vector<double> golden_scale;  // errors are measured in these units, one per action entry
  std::string model;                 // bytes of the ONNX file
  std::string weights;               // bytes of the native network, empty without one
  Tensors golden;
  std::string digest;  // SHA-256 of runtime.json: which bundle a log came from
};

// Reads and checks a bundle folder. Raises Error: damaged, altered, incomplete, or not for this runtime.
Bundle load_bundle(const std::string& folder);

}  // namespace robo_rlft
