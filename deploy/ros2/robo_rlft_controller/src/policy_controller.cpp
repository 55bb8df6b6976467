#include "robo_rlft_controller/policy_controller.hpp"

#include <chrono>
#include <cmath>
#include <exception>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "pluginlib/class_list_macros.hpp"

namespace robo_rlft_controller {
namespace {

using controller_interface::CallbackReturn;
using controller_interface::InterfaceConfiguration;
using controller_interface::interface_configuration_type;
using controller_interface::return_type;

constexpr const char* kReferences[] = {"velocity_x", "velocity_y", "velocity_yaw"};
constexpr const char* kImu[] = {"orientation.x",      "orientation.y",      "orientation.z",     "orientation.w",
                                "angular_velocity.x", "angular_velocity.y", "angular_velocity.z"};
constexpr std::size_t kImuCount = 7;
constexpr auto kPolicyPause = std::chrono::microseconds(500);

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw std::runtime_error(path + " cannot be read: is `bundle` the folder of a controller bundle?");
  return text.str();
}

// Which command interface an action's meaning needs.
std::string interface_of(robo_rlft::Meaning meaning) {
  switch (meaning) {
    case robo_rlft::Meaning::JointPosition:
    case robo_rlft::Meaning::JointPositionOffset: return "position";
    case robo_rlft::Meaning::JointVelocity: return "velocity";
    case robo_rlft::Meaning::JointEffort: return "effort";
    default: throw std::runtime_error("the bundle's actions command no joints: use the policy's node");
  }
}

}  // namespace

CallbackReturn PolicyController::on_init() {
  auto_declare<std::string>("bundle", "");
  auto_declare<std::string>("imu", "imu");
  auto_declare<std::string>("onnx_library", "");
  auto_declare<bool>("inline_policy", true);
  return CallbackReturn::SUCCESS;
}

CallbackReturn PolicyController::on_configure(const rclcpp_lifecycle::State&) {
  try {
    load(get_node()->get_parameter("bundle").as_string());
  } catch (const std::exception& error) {
    RCLCPP_ERROR(get_node()->get_logger(), "%s", error.what());
    return CallbackReturn::FAILURE;
  }
  offer();
  return CallbackReturn::SUCCESS;
}

void PolicyController::load(const std::string& bundle) {
  robo_rlft::Options options;
  options.onnx_library = get_node()->get_parameter("onnx_library").as_string();
  options.control_hz = static_cast<double>(get_update_rate());
  options.inline_policy = inline_policy_ = get_node()->get_parameter("inline_policy").as_bool();
  imu_ = get_node()->get_parameter("imu").as_string();
  runtime_ = std::make_unique<robo_rlft::Runtime>(bundle, options);
  const auto& facts = runtime_->bundle();
  command_interface_ = interface_of(facts.action.meaning);
  const auto joints = static_cast<std::size_t>(facts.joints.size()), actions = static_cast<std::size_t>(facts.action.size());
  frame_ = std::make_unique<Frame>(text_of(bundle + "/runtime.json"), facts.joints.names, actions);
  readings_.position.assign(joints, 0.0);
  readings_.velocity.assign(joints, 0.0);
  readings_.last_action.assign(actions, 0.0);
  command_ = runtime_->empty_command();
  std::string line;
  for (const char c : runtime_->notes() + "\n") {
    if (c != '\n') { line += c; continue; }
    if (!line.empty()) RCLCPP_WARN(get_node()->get_logger(), "%s", line.c_str());
    line.clear();
  }
}

void PolicyController::offer() {
  asked_.writeFromNonRT({0.0, 0.0, 0.0});
  asking_ = get_node()->create_subscription<geometry_msgs::msg::Twist>(
      "~/reference", rclcpp::SystemDefaultsQoS(), [this](const std::shared_ptr<geometry_msgs::msg::Twist> message) {
        asked_.writeFromNonRT({message->linear.x, message->linear.y, message->angular.z});
      });
  using Request = std::shared_ptr<std_srvs::srv::Trigger::Request>;
  using Response = std::shared_ptr<std_srvs::srv::Trigger::Response>;
  stopping_ = get_node()->create_service<std_srvs::srv::Trigger>("~/emergency_stop", [this](Request, Response answer) {
    runtime_->estop();
    answer->success = true;
    answer->message = "stopped until a reset";
  });
  resetting_ = get_node()->create_service<std_srvs::srv::Trigger>("~/reset", [this](Request, Response answer) {
    runtime_->reset();
    answer->success = true;
    answer->message = "begun anew";
  });
}

InterfaceConfiguration PolicyController::command_interface_configuration() const {
  InterfaceConfiguration wanted{interface_configuration_type::INDIVIDUAL, {}};
  if (runtime_) {
    for (const auto& name : runtime_->bundle().action.names) wanted.names.push_back(name + "/" + command_interface_);
  }
  return wanted;
}

InterfaceConfiguration PolicyController::state_interface_configuration() const {
  InterfaceConfiguration wanted{interface_configuration_type::INDIVIDUAL, {}};
  if (!runtime_) return wanted;
  for (const char* kind : {"/position", "/velocity"}) {
    for (const auto& name : runtime_->bundle().joints.names) wanted.names.push_back(name + kind);
  }
  if (frame_->reads_imu()) {
    for (const char* entry : kImu) wanted.names.push_back(imu_ + "/" + entry);
  }
  return wanted;
}

CallbackReturn PolicyController::on_activate(const rclcpp_lifecycle::State&) {
  runtime_->reset();
  frame_->reset();
  std::fill(readings_.last_action.begin(), readings_.last_action.end(), 0.0);
  std::fill(reference_interfaces_.begin(), reference_interfaces_.end(), 0.0);
  if (!inline_policy_) start_policy();
  return CallbackReturn::SUCCESS;
}

CallbackReturn PolicyController::on_deactivate(const rclcpp_lifecycle::State&) {
  stop_policy();
  return CallbackReturn::SUCCESS;
}

CallbackReturn PolicyController::on_cleanup(const rclcpp_lifecycle::State&) {
  stop_policy();
  asking_.reset();
  stopping_.reset();
  resetting_.reset();
  frame_.reset();
  runtime_.reset();
  return CallbackReturn::SUCCESS;
}

std::vector<hardware_interface::CommandInterface> PolicyController::on_export_reference_interfaces() {
  std::vector<hardware_interface::CommandInterface> offered;
  reference_interfaces_.assign(std::size(kReferences), 0.0);
  for (std::size_t i = 0; i < std::size(kReferences); ++i) {
    offered.emplace_back(get_node()->get_name(), kReferences[i], &reference_interfaces_[i]);
  }
  return offered;
}

bool PolicyController::on_set_chained_mode(bool) { return true; }

return_type PolicyController::update_reference_from_subscribers(const rclcpp::Time&, const rclcpp::Duration&) {
  const auto& asked = *asked_.readFromRT();
  std::copy(asked.begin(), asked.end(), reference_interfaces_.begin());
  return return_type::OK;
}

return_type PolicyController::update_and_write_commands(const rclcpp::Time& time, const rclcpp::Duration&) {
  const std::int64_t now = time.nanoseconds();
  if (read_states()) {
    runtime_->joint_state(now, readings_.position.data(), readings_.velocity.data());
    if (frame_->build(readings_)) runtime_->observe(now, frame_->data().data());
  }
  now_ns_.store(now);
  runtime_->tick(now, command_);
  write(command_);
  return return_type::OK;
}

// False if a joint tells nothing yet: the watchdog then sees that nothing new came.
bool PolicyController::read_states() noexcept {
  const std::size_t joints = readings_.position.size();
  for (std::size_t i = 0; i < joints; ++i) {
    readings_.position[i] = state_interfaces_[i].get_value();
    readings_.velocity[i] = state_interfaces_[joints + i].get_value();
  }
  if (state_interfaces_.size() >= 2 * joints + kImuCount) {
    for (std::size_t i = 0; i < 4; ++i) readings_.orientation[i] = state_interfaces_[2 * joints + i].get_value();
    for (std::size_t i = 0; i < 3; ++i) readings_.angular_velocity[i] = state_interfaces_[2 * joints + 4 + i].get_value();
  }
  for (std::size_t i = 0; i < readings_.command.size(); ++i) {
    readings_.command[i] = std::isfinite(reference_interfaces_[i]) ? reference_interfaces_[i] : 0.0;
  }
  for (const double q : readings_.position) {
    if (!std::isfinite(q)) return false;
  }
  return true;
}

// Without kEnabled nobody moves the robot: the interfaces keep what they hold.
void PolicyController::write(const robo_rlft::Command& command) {
  if ((command.flags & robo_rlft::kEnabled) == 0) return;
  const auto& action = runtime_->bundle().action;
  for (std::size_t i = 0; i < command.target.size(); ++i) {
    command_interfaces_[i].set_value(command.target[i]);
    readings_.last_action[i] = (command.target[i] - action.offset[i]) / action.scale[i];
  }
}

void PolicyController::start_policy() {
  running_.store(true);
  policy_ = std::thread([this] {
    while (running_.load()) {
      if (!runtime_->policy_step(now_ns_.load())) std::this_thread::sleep_for(kPolicyPause);
    }
  });
}

void PolicyController::stop_policy() noexcept {
  running_.store(false);
  if (policy_.joinable()) policy_.join();
}

}  // namespace robo_rlft_controller

PLUGINLIB_EXPORT_CLASS(robo_rlft_controller::PolicyController, controller_interface::ChainableControllerInterface)
