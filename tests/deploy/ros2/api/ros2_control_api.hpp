// NOT ros2_control. As little of the API of ros2_control, rclcpp and realtime_tools (Jazzy, Kilted) as the controller uses,
// written for its tests, so that it compiles and runs on a machine without ROS 2. Signatures follow the public
// documentation; whether a real controller manager loads the plugin, only a real one can tell.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace rclcpp {
struct Time {
  std::int64_t ns = 0;
  std::int64_t nanoseconds() const { return ns; }
};
struct Duration {};
struct SystemDefaultsQoS {};
struct Logger {};
struct Parameter {
  std::string text;
  bool flag = false;
  const std::string& as_string() const { return text; }
  bool as_bool() const { return flag; }
};
template <class Message>
struct Subscription {
  using SharedPtr = std::shared_ptr<Subscription>;
  std::function<void(std::shared_ptr<Message>)> call;
};
template <class Kind>
struct Service {
  using SharedPtr = std::shared_ptr<Service>;
  std::function<void(std::shared_ptr<typename Kind::Request>, std::shared_ptr<typename Kind::Response>)> call;
};
}  // namespace rclcpp

#define RCLCPP_ERROR(logger, ...) ((void)(logger), std::fprintf(stderr, "ERROR " __VA_ARGS__), std::fputc('\n', stderr))
#define RCLCPP_WARN(logger, ...) ((void)(logger), std::fprintf(stderr, "WARN " __VA_ARGS__), std::fputc('\n', stderr))

namespace geometry_msgs::msg {
struct Vector3 {
  double x = 0, y = 0, z = 0;
};
struct Twist {
  Vector3 linear, angular;
};
}  // namespace geometry_msgs::msg

namespace std_srvs::srv {
struct Trigger {
  struct Request {};
  struct Response {
    bool success = false;
    std::string message;
  };
};
}  // namespace std_srvs::srv

namespace realtime_tools {
template <class T>
class RealtimeBuffer {
 public:
  void writeFromNonRT(const T& value) { value_ = value; }
  T* readFromRT() { return &value_; }

 private:
  T value_{};
};
}  // namespace realtime_tools

namespace rclcpp_lifecycle {
struct State {};
class LifecycleNode {
 public:
  std::map<std::string, rclcpp::Parameter> parameters;
  std::map<std::string, std::function<void()>> services;
  rclcpp::Parameter get_parameter(const std::string& name) const { return parameters.at(name); }
  rclcpp::Logger get_logger() const { return {}; }
  const char* get_name() const { return "policy_controller"; }
  template <class Message, class Call>
  std::shared_ptr<rclcpp::Subscription<Message>> create_subscription(const std::string&, rclcpp::SystemDefaultsQoS, Call call) {
    auto made = std::make_shared<rclcpp::Subscription<Message>>();
    made->call = call;
    return made;
  }
  template <class Kind, class Call>
  std::shared_ptr<rclcpp::Service<Kind>> create_service(const std::string& name, Call call) {
    auto made = std::make_shared<rclcpp::Service<Kind>>();
    made->call = call;
    services[name] = [made] {
      made->call(std::make_shared<typename Kind::Request>(), std::make_shared<typename Kind::Response>());
    };
    return made;
  }
};
}  // namespace rclcpp_lifecycle

namespace hardware_interface {
class CommandInterface {
 public:
  CommandInterface(std::string prefix, std::string name, double* value)
      : name_(std::move(prefix) + "/" + std::move(name)), value_(value) {}
  const std::string& get_name() const { return name_; }
  double get_value() const { return *value_; }
  void set_value(double value) { *value_ = value; }

 private:
  std::string name_;
  double* value_;
};
}  // namespace hardware_interface

namespace controller_interface {
enum class CallbackReturn { SUCCESS, FAILURE, ERROR };
enum class return_type { OK, ERROR };
enum class interface_configuration_type { ALL, INDIVIDUAL, NONE };
struct InterfaceConfiguration {
  interface_configuration_type type = interface_configuration_type::NONE;
  std::vector<std::string> names;
};

class ChainableControllerInterface {
 public:
  virtual ~ChainableControllerInterface() = default;
  virtual CallbackReturn on_init() = 0;
  virtual InterfaceConfiguration command_interface_configuration() const = 0;
  virtual InterfaceConfiguration state_interface_configuration() const = 0;
  virtual CallbackReturn on_configure(const rclcpp_lifecycle::State&) { return CallbackReturn::SUCCESS; }
  virtual CallbackReturn on_activate(const rclcpp_lifecycle::State&) { return CallbackReturn::SUCCESS; }
  virtual CallbackReturn on_deactivate(const rclcpp_lifecycle::State&) { return CallbackReturn::SUCCESS; }
  virtual CallbackReturn on_cleanup(const rclcpp_lifecycle::State&) { return CallbackReturn::SUCCESS; }

  // For the tests, in the place of the controller manager.
  std::shared_ptr<rclcpp_lifecycle::LifecycleNode> node = std::make_shared<rclcpp_lifecycle::LifecycleNode>();
  unsigned rate = 50;
  std::vector<hardware_interface::CommandInterface> command_interfaces_, state_interfaces_;
  std::vector<double> reference_interfaces_;
  std::vector<hardware_interface::CommandInterface> references() { return on_export_reference_interfaces(); }
  void update(std::int64_t now_ns, bool chained) {
    if (!chained) update_reference_from_subscribers({now_ns}, {});
    update_and_write_commands({now_ns}, {});
  }

 protected:
  std::shared_ptr<rclcpp_lifecycle::LifecycleNode> get_node() const { return node; }
  unsigned get_update_rate() const { return rate; }
  template <class T>
  void auto_declare(const std::string& name, const T& value) {
    rclcpp::Parameter parameter;
    if constexpr (std::is_same_v<T, bool>) parameter.flag = value;
    else parameter.text = value;
    node->parameters.emplace(name, parameter);
  }
  virtual std::vector<hardware_interface::CommandInterface> on_export_reference_interfaces() = 0;
  virtual bool on_set_chained_mode(bool chained) = 0;
  virtual return_type update_reference_from_subscribers(const rclcpp::Time&, const rclcpp::Duration&) = 0;
  virtual return_type update_and_write_commands(const rclcpp::Time&, const rclcpp::Duration&) = 0;
};
}  // namespace controller_interface

#define PLUGINLIB_EXPORT_CLASS(Class, Base) static_assert(std::is_base_of_v<Base, Class>);
