#include "robo_rlft_controller/terms.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>

#include "robo_rlft/json.hpp"

namespace robo_rlft_controller {
namespace {

using robo_rlft::json::Value;

const std::map<std::string, Source>& sources() {
  static const std::map<std::string, Source> known{
      {"ang_vel", Source::AngularVelocity},  {"base_ang_vel", Source::AngularVelocity},
      {"gravity", Source::Gravity},          {"projected_gravity", Source::Gravity},
      {"command", Source::Command},          {"velocity_commands", Source::Command},
      {"joint_pos", Source::JointPosition},  {"joint_pos_rel", Source::JointPosition},
      {"joint_vel", Source::JointVelocity},  {"joint_vel_rel", Source::JointVelocity},
      {"last_action", Source::LastAction},   {"actions", Source::LastAction}};
  return known;
}

std::vector<double> numbers(const Value& term, const char* key, std::size_t width, double absent) {
  const Value* found = term.find(key);
  if (found == nullptr) return std::vector<double>(width, absent);
  auto values = found->as_numbers(key);
  if (values.size() != width) throw std::runtime_error(std::string("a term's ") + key + " has another length than its width");
  return values;
}

std::vector<std::size_t> places(const std::vector<std::string>& wanted, const std::vector<std::string>& joints) {
  std::vector<std::size_t> found;
  for (const auto& name : wanted) {
    const auto at = std::find(joints.begin(), joints.end(), name);
    if (at == joints.end()) throw std::runtime_error("an observation reads joint '" + name + "', which the bundle does not list");
    found.push_back(static_cast<std::size_t>(at - joints.begin()));
  }
  return found;
}

Term read(const Value& given, const std::vector<std::string>& joints, std::size_t actions) {
  Term term;
  term.name = given.at("name").as_string("name");
  const auto source = sources().find(term.name);
  if (source == sources().end()) {
    throw std::runtime_error("observation term '" + term.name + "' has no interface in ros2_control: use the policy's node");
  }
  term.source = source->second;
  term.width = static_cast<std::size_t>(given.at("width").as_integer("width"));
  term.history = static_cast<std::size_t>(given.at("history").as_integer("history"));
  term.scale = numbers(given, "scale", term.width, 1.0);
  term.offset = numbers(given, "offset", term.width, 0.0);
  const auto clip = numbers(given, "clip", 2, std::numeric_limits<double>::infinity());
  term.low = given.find("clip") != nullptr ? clip[0] : -clip[0];
  term.high = clip[1];
  const bool of_joints = term.source == Source::JointPosition || term.source == Source::JointVelocity;
  if (of_joints) term.joints = places(given.at("joints").as_strings("joints"), joints);
  const std::size_t expected = of_joints ? term.joints.size() : term.source == Source::LastAction ? actions : 3;
  if (term.width != expected) throw std::runtime_error("observation term '" + term.name + "' has another width than its source");
  return term;
}

// R^T (0, 0, -1) of a quaternion that need not be of length one; false if it has none.
bool gravity(const std::array<double, 4>& q, double* out) {
  const double norm = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  if (!(norm > 0.5 && norm < 2.0)) return false;
  const double x = q[0] / norm, y = q[1] / norm, z = q[2] / norm, w = q[3] / norm;
  out[0] = 2 * (w * y - x * z);
  out[1] = -2 * (y * z + w * x);
  out[2] = 2 * (x * x + y * y) - 1;
  return true;
}

}  // namespace

Frame::Frame(const std::string& runtime_json, const std::vector<std::string>& joints, std::size_t actions) {
  std::size_t total = 0, widest = 0;
  const Value facts = robo_rlft::json::parse(runtime_json);
  for (const auto& key : facts.at("policy").at("observation").array) {
    if (key.at("terms").array.empty()) throw std::runtime_error("the bundle does not say what its observations are made of");
    for (const auto& given : key.at("terms").array) {
      terms_.push_back(read(given, joints, actions));
      total += terms_.back().width * terms_.back().history;
      widest = std::max(widest, terms_.back().width);
    }
  }
  value_.resize(widest);
  data_.resize(total);
  next_.resize(total);
}

bool Frame::reads_imu() const noexcept {
  return std::any_of(terms_.begin(), terms_.end(), [](const Term& term) {
    return term.source == Source::AngularVelocity || term.source == Source::Gravity;
  });
}

bool Frame::build(const Readings& readings) noexcept {
  std::size_t at = 0;
  for (const Term& term : terms_) {
    if (!raw(term, readings)) return false;
    const std::size_t newest = at + term.width * (term.history - 1);
    // The oldest reading goes, the others move up; the first frame fills all of them.
    std::copy(data_.begin() + at + term.width, data_.begin() + newest + term.width, next_.begin() + at);
    for (std::size_t i = 0; i < term.width; ++i) {
      const double entry = std::clamp(term.scale[i] * (value_[i] - term.offset[i]), term.low, term.high);
      if (!std::isfinite(entry)) return false;
      next_[newest + i] = static_cast<float>(entry);
      for (std::size_t age = 1; empty_ && age < term.history; ++age) next_[newest - age * term.width + i] = next_[newest + i];
    }
    at += term.width * term.history;
  }
  std::swap(data_, next_);
  empty_ = false;
  return true;
}

bool Frame::raw(const Term& term, const Readings& readings) noexcept {
  const auto copy = [this](const auto& from) { std::copy(from.begin(), from.end(), value_.begin()); };
  switch (term.source) {
    case Source::AngularVelocity: copy(readings.angular_velocity); return true;
    case Source::Gravity: return gravity(readings.orientation, value_.data());
    case Source::Command: copy(readings.command); return true;
    case Source::LastAction: copy(readings.last_action); return true;
    case Source::JointPosition:
    case Source::JointVelocity: break;
  }
  const auto& from = term.source == Source::JointPosition ? readings.position : readings.velocity;
  for (std::size_t i = 0; i < term.width; ++i) value_[i] = from[term.joints[i]];
  return true;
}

}  // namespace robo_rlft_controller
