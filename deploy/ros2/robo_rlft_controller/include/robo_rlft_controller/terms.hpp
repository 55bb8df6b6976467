// The observation of a bundle from what a robot's interfaces read: terms by name, scaled, clipped, with their history.
// The same table of names as robo_rlft/export/robot/observation.py.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

namespace robo_rlft_controller {

enum class Source { AngularVelocity, Gravity, Command, JointPosition, JointVelocity, LastAction };

struct Term {
  std::string name;
  Source source = Source::Gravity;
  std::vector<double> scale, offset;  // one per entry
  double low = 0, high = 0;           // clip, infinite without one
  std::size_t width = 0, history = 1;
  std::vector<std::size_t> joints;  // places in the bundle's joints
};

// What is measured now. Filled in place by the controller, so that building a frame allocates nothing.
struct Readings {
  std::array<double, 3> angular_velocity{}, command{};
  std::array<double, 4> orientation{{0, 0, 0, 1}};  // x y z w
  std::vector<double> position, velocity, last_action;
};

class Frame {
 public:
  // Reads `policy.observation` of a bundle's runtime.json. Throws std::runtime_error: a term is none of those above,
  // or names a joint that is not among `joints`.
  Frame(const std::string& runtime_json, const std::vector<std::string>& joints, std::size_t actions);

  const std::vector<float>& data() const noexcept { return data_; }
  bool reads_imu() const noexcept;
  // The frame of this control step. Returns false, and leaves the frame as it was, if a reading is not finite.
  bool build(const Readings& readings) noexcept;
  // The next frame begins a new history.
  void reset() noexcept { empty_ = true; }

 private:
  bool raw(const Term& term, const Readings& readings) noexcept;

  std::vector<Term> terms_;
  std::vector<double> value_;
  std::vector<float> data_, next_;
  bool empty_ = true;
};

}  // namespace robo_rlft_controller
