#include "robo_rlft/bundle.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "robo_rlft/error.hpp"
#include "robo_rlft/json.hpp"

namespace robo_rlft {
namespace {

using json::Value;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kLargest = 1 << 16;  // of any width or count: larger is a mistake, and products stay far from overflow

void require(bool good, const std::string& sentence) {
  if (!good) throw Error(sentence);
}

int count(const Value& object, const char* key, int lowest) {
  const long long n = object.at(key).as_integer(key);
  require(n >= lowest && n <= kLargest, "'" + std::string(key) + "' is " + std::to_string(n) + ": expected " + std::to_string(lowest) + " or more");
  return static_cast<int>(n);
}

double positive(const Value& object, const char* key) {
  const double n = object.at(key).as_number(key);
  require(n > 0, "'" + std::string(key) + "' must be above 0");
  return n;
}

// One entry per name, `unknown` where the list or the entry is null.
std::vector<double> numbers(const Value& object, const char* key, std::size_t size, double unknown) {
  const Value* found = object.find(key);
  if (found == nullptr) return std::vector<double>(size, unknown);
  require(found->type == Value::Type::Array, "'" + std::string(key) + "' must be a list of numbers");
  require(found->array.size() == size, "'" + std::string(key) + "' has " + std::to_string(found->array.size()) + " entries, expected " + std::to_string(size));
  std::vector<double> out;
  for (const Value& v : found->array) out.push_back(v.is_null() ? unknown : v.as_number(key));
  return out;
}

std::vector<double> needed_numbers(const Value& object, const char* key, std::size_t size) {
  auto list = numbers(object, key, size, kInfinity);
  for (const double n : list) require(std::isfinite(n), "'" + std::string(key) + "' lacks an entry");
  return list;
}

// The list where every entry is known, else an empty one.
std::vector<double> complete(const Value& object, const char* key, std::size_t size) {
  auto list = numbers(object, key, size, kInfinity);
  const bool known = std::all_of(list.begin(), list.end(), [](double n) { return std::isfinite(n); });
  return known ? list : std::vector<double>{};
}

// Upper limits: above 0, infinite where there is none.
std::vector<double> upper_limits(const Value& object, const char* key, std::size_t size) {
  auto list = numbers(object, key, size, kInfinity);
  for (const double n : list) require(n > 0, "'" + std::string(key) + "' holds " + std::to_string(n) + ": limits are above 0");
  return list;
}

void none_negative(const std::vector<double>& list, const char* key) {
  for (const double n : list) require(n >= 0, "'" + std::string(key) + "' is negative");
}

std::vector<std::string> names(const Value& object) {
  auto list = object.at("names").as_strings("names");
  require(!list.empty() && list.size() <= kLargest, "'names' is empty or too long");
  require(std::set<std::string>(list.begin(), list.end()).size() == list.size(), "'names' lists a name twice");
  return list;
}

Meaning meaning(const std::string& word) {
  if (word == "joint_position") return Meaning::JointPosition;
  if (word == "joint_position_offset") return Meaning::JointPositionOffset;
  if (word == "joint_velocity") return Meaning::JointVelocity;
  if (word == "joint_effort") return Meaning::JointEffort;
  if (word == "cartesian") return Meaning::Cartesian;
  if (word == "normalised") return Meaning::Normalised;
  throw Error("action.meaning '" + word + "' is unknown");
}

JointSpec joints(const Value& root) {
  JointSpec out;
  const Value* given = root.find("joints");
  if (given == nullptr) return out;
  out.names = names(*given);
  const std::size_t n = out.names.size();
  out.low = numbers(*given, "position_low", n, -kInfinity);
  out.high = numbers(*given, "position_high", n, kInfinity);
  out.velocity = upper_limits(*given, "velocity", n);
  out.acceleration = upper_limits(*given, "acceleration", n);
  out.effort = upper_limits(*given, "effort", n);
  out.default_pose = complete(*given, "default", n);
  out.stiffness = complete(*given, "stiffness", n);
  out.damping = complete(*given, "damping", n);
  none_negative(out.stiffness, "stiffness");
  none_negative(out.damping, "damping");
  for (std::size_t i = 0; i < n; ++i) {
    require(out.low[i] < out.high[i], "joint '" + out.names[i] + "': position_low is not below position_high");
    const bool inside = out.default_pose.empty() || (out.default_pose[i] >= out.low[i] && out.default_pose[i] <= out.high[i]);
    require(inside, "joint '" + out.names[i] + "': the default pose is outside the position limits");
  }
  return out;
}

int joint_of(const std::string& name, const JointSpec& joints) {
  const auto at = std::find(joints.names.begin(), joints.names.end(), name);
  require(at != joints.names.end(), "action '" + name + "' is none of the bundle's joints");
  return static_cast<int>(at - joints.names.begin());
}

// The action's own box in the target's units, as (low, high): a negative scale turns it round.
std::pair<double, double> box(const Value& action, const ActionSpec& spec, std::size_t i) {
  const double low = numbers(action, "low", spec.names.size(), -kInfinity)[i], high = numbers(action, "high", spec.names.size(), kInfinity)[i];
  const double a = spec.offset[i] + spec.scale[i] * low, b = spec.offset[i] + spec.scale[i] * high;
  if (std::isnan(a) || std::isnan(b)) return {-kInfinity, kInfinity};  // 0 * infinity: a scale of 0 bounds nothing
  return {std::min(a, b), std::max(a, b)};
}

Limits limits_of(const Value& action, const ActionSpec& spec, const JointSpec& joints, double rate_hz, std::size_t i) {
  Limits limits{-kInfinity, kInfinity, kInfinity, kInfinity, kInfinity};
  if (is_joint(spec.meaning)) {
    const auto j = static_cast<std::size_t>(spec.joint[i]);
    limits = {joints.low[j], joints.high[j], joints.velocity[j], joints.acceleration[j], joints.effort[j]};
  }
  const auto [low, high] = box(action, spec, i);
  const double largest = std::max(std::fabs(low), std::fabs(high));
  switch (spec.meaning) {
    case Meaning::JointVelocity: limits.velocity = std::min(limits.velocity, largest); break;
    case Meaning::JointEffort: limits.effort = std::min(limits.effort, largest); break;
    case Meaning::Cartesian: limits.velocity = largest * rate_hz; break;
    default: limits.low = std::max(limits.low, low), limits.high = std::min(limits.high, high);
  }
  limits.velocity = std::min(limits.velocity, upper_limits(action, "velocity", spec.names.size())[i]);
  limits.acceleration = std::min(limits.acceleration, upper_limits(action, "acceleration", spec.names.size())[i]);
  require(limits.low < limits.high, "action '" + spec.names[i] + "': its limits and those of the joint do not overlap");
  return limits;
}

ActionSpec action(const Value& root, const JointSpec& joints, double rate_hz) {
  const Value& given = root.at("action");
  ActionSpec out;
  out.names = names(given);
  out.meaning = meaning(given.at("meaning").as_string("meaning"));
  out.scale = needed_numbers(given, "scale", out.names.size());
  out.offset = needed_numbers(given, "offset", out.names.size());
  if (is_joint(out.meaning)) {
    require(joints.size() > 0, "the actions are joint targets, but 'joints' is null");
    for (const auto& name : out.names) out.joint.push_back(joint_of(name, joints));
  }
  for (std::size_t i = 0; i < out.names.size(); ++i) out.limits.push_back(limits_of(given, out, joints, rate_hz, i));
  return out;
}

PolicySpec policy(const Value& root) {
  const Value& given = root.at("policy");
  PolicySpec out;
  out.file = given.at("file").as_string("file");
  out.rate_hz = positive(given, "rate_hz");
  out.chunk = count(given, "chunk", 1);
  out.execute = count(given, "execute", 1);
  out.obs_horizon = count(given, "obs_horizon", 1);
  out.prefix = given.find("prefix") == nullptr ? 0 : count(given, "prefix", 0);
  require(out.execute <= out.chunk && out.prefix <= out.chunk, "'execute' and 'prefix' are at most 'chunk'");
  require(given.at("observation").type == Value::Type::Array, "'observation' must be a list");
  for (const Value& key : given.at("observation").array) {
    const std::string name = key.at("key").as_string("key");
    require(name.rfind("image/", 0) != 0, "the policy reads '" + name + "': this runtime takes no images, use the Python Controller");
    out.observation.push_back({name, count(key, "width", 1)});
  }
  require(!out.observation.empty(), "the policy reads no observation");
  const std::string noise = given.at("noise").as_string("noise");
  require(noise == "standard_normal" || noise == "unused", "policy.noise '" + noise + "' is unknown");
  out.noise = noise == "standard_normal";
  if (const Value* weight = given.find("guidance")) out.guidance = weight->as_number("guidance");
  return out;
}

std::int64_t nanoseconds(const Value& object, const char* key) {
  const double s = positive(object, key);
  require(s < 1e6, "'" + std::string(key) + "' is longer than a million seconds");
  return static_cast<std::int64_t>(s * 1e9);
}

Timing timing(const Value& root) {
  const Value& given = root.at("timing");
  Timing out{nanoseconds(given, "latency_budget_s"), nanoseconds(given, "observation_timeout_s"), nanoseconds(given, "policy_timeout_s"), 0, 0};
  out.ramp_s = positive(given, "ramp_s");
  out.hold_s = given.at("hold_s").as_number("hold_s");
  require(out.hold_s >= 0, "'hold_s' must be 0 or more");
  return out;
}

std::optional<NativeSpec> native(const Value& root, std::size_t keys) {
  const Value* given = root.find("native");
  if (given == nullptr) return std::nullopt;
  NativeSpec out;
  out.file = given->at("file").as_string("file");
  out.kind = given->at("kind").as_string("kind");
  out.activation = given->at("activation").as_string("activation");
  out.steps = count(*given, "steps", 1);
  // What this runtime does not compute natively it leaves to ONNX Runtime.
  if (given->find("layer_norm_eps") != nullptr || (given->find("prefix") != nullptr && count(*given, "prefix", 0) > 0)) return std::nullopt;
  const auto bound = [](const Value* v, const char* key) { return v == nullptr ? kInfinity : v->as_number(key); };
  out.latent_clip = bound(given->find("latent_clip"), "latent_clip");
  out.bounded = given->at("bounded").boolean;
  require(given->at("observation").type == Value::Type::Array && given->at("observation").array.size() == keys, "native.observation has another number of keys than the policy");
  for (const Value& key : given->at("observation").array) out.observation_clip.push_back(bound(key.find("clip"), "clip"));
  return out;
}

// A file that the bundle names, without a way out of its folder, and exactly as it was exported.
std::string verified(const std::string& folder, const std::string& name, const Value& hashes) {
  require(!name.empty() && name.find('/') == std::string::npos && name != "..", "'" + name + "' is no plain file name");
  const Value* wanted = hashes.find(name);
  require(wanted != nullptr, "'files' has no hash of " + name + ": export the bundle again");
  std::string data = read_file(folder + "/" + name);
  require(sha256(data) == wanted->as_string("files"), folder + "/" + name + " was altered or damaged (its SHA-256 is not the exported one): export it again");
  return data;
}

// controller.yaml as text: its last line seals the lines above, one of which seals runtime.json.
void check_seal(const std::string& folder, const std::string& description) {
  const std::string path = folder + "/controller.yaml", yaml = read_file(path);
  const std::size_t last = yaml.rfind("\ndigest: ");
  const bool sealed = last != std::string::npos && yaml.substr(last + 1) == "digest: " + sha256(std::string_view(yaml).substr(0, last + 1)) + "\n";
  require(sealed, path + " was altered after the export (its digest does not match): export the bundle again");
  const std::size_t at = yaml.find("runtime.json:");
  require(at != std::string::npos, path + " has no hash of runtime.json: export the bundle again");
  const std::size_t start = yaml.find_first_not_of(" \n", at + 13);  // long lines of YAML are folded
  require(start != std::string::npos && yaml.substr(start, 64) == sha256(description), folder + "/runtime.json was altered or damaged (its SHA-256 is not the one in controller.yaml): export it again");
}

void describe(Bundle& out, const Value& root) {
  require(root.at("format").as_string("format") == "robo_rlft.runtime", "'format' is not 'robo_rlft.runtime': it is not one of our bundles");
  require(root.at("version").as_integer("version") == 1, "'version' is another one than 1: export the bundle again with the robo-rlft that will run it");
  require(root.find("residual") == nullptr, "the bundle has a residual stage, which this runtime does not run: use the Python Controller");
  out.env_id = root.at("robot").at("env_id").as_string("env_id");
  out.rate_hz = positive(root.at("robot"), "rate_hz");
  out.joints = joints(root);
  out.action = action(root, out.joints, out.rate_hz);
  out.policy = policy(root);
  out.timing = timing(root);
  out.native = native(root, out.policy.observation.size());
  const Value& golden = root.at("golden");
  out.tolerance = positive(golden, "tolerance");
  out.golden_scale = numbers(golden, "action_scale", out.action.names.size(), 1.0);
}

}  // namespace

bool is_position(Meaning m) { return m == Meaning::JointPosition || m == Meaning::JointPositionOffset; }

bool is_joint(Meaning m) { return m != Meaning::Cartesian && m != Meaning::Normalised; }

int PolicySpec::frame_width() const {
  int width = 0;
  for (const auto& key : observation) width += key.width;
  return width;
}

Bundle load_bundle(const std::string& folder) {
  const std::string description = read_file(folder + "/runtime.json");
  check_seal(folder, description);
  try {
    Bundle out;
    const Value root = json::parse(description);
    describe(out, root);
    out.digest = sha256(description);
    const Value& hashes = root.at("files");
    out.model = verified(folder, out.policy.file, hashes);
    if (out.native) out.weights = verified(folder, out.native->file, hashes);
    out.golden = read_npz(verified(folder, root.at("golden").at("file").as_string("file"), hashes));
    return out;
  } catch (const Error& error) {
    throw Error("bundle " + folder + ": " + error.what());
  }
}

}  // namespace robo_rlft
