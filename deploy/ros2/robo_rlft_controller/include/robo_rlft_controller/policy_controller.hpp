// A controller bundle as a chainable controller of ros2_control: joint states and an IMU in, joint targets out.
//
// update() never waits and never allocates. The policy runs in a thread of its own, or, with a native network and
// `inline_policy`, within update(). Limits, watchdog and stop are the runtime's (deploy/runtime).
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "controller_interface/chainable_controller_interface.hpp"
#include "geometry_msgs/msg/twist.hpp"
#include "rclcpp/subscription.hpp"
#include "rclcpp/service.hpp"
#include "realtime_tools/realtime_buffer.hpp"
#include "robo_rlft/runtime.hpp"
#include "robo_rlft_controller/terms.hpp"
#include "std_srvs/srv/trigger.hpp"

namespace robo_rlft_controller {

class PolicyController : public controller_interface::ChainableControllerInterface {
 public:
  controller_interface::CallbackReturn on_init() override;
  controller_interface::InterfaceConfiguration command_interface_configuration() const override;
  controller_interface::InterfaceConfiguration state_interface_configuration() const override;
  controller_interface::CallbackReturn on_configure(const rclcpp_lifecycle::State& previous) override;
  controller_interface::CallbackReturn on_activate(const rclcpp_lifecycle::State& previous) override;
  controller_interface::CallbackReturn on_deactivate(const rclcpp_lifecycle::State& previous) override;
  controller_interface::CallbackReturn on_cleanup(const rclcpp_lifecycle::State& previous) override;

 protected:
  std::vector<hardware_interface::CommandInterface> on_export_reference_interfaces() override;
  bool on_set_chained_mode(bool chained) override;
  controller_interface::return_type update_reference_from_subscribers(const rclcpp::Time& time,
                                                                      const rclcpp::Duration& period) override;
  controller_interface::return_type update_and_write_commands(const rclcpp::Time& time,
                                                              const rclcpp::Duration& period) override;

 private:
  void load(const std::string& bundle);
  void offer();
  bool read_states() noexcept;
  void write(const robo_rlft::Command& command);
  void start_policy();
  void stop_policy() noexcept;

  std::string imu_, command_interface_;
  bool inline_policy_ = true;
  std::unique_ptr<robo_rlft::Runtime> runtime_;
  std::unique_ptr<Frame> frame_;
  Readings readings_;
  robo_rlft::Command command_;
  std::thread policy_;
  std::atomic<bool> running_{false};
  std::atomic<std::int64_t> now_ns_{0};
  realtime_tools::RealtimeBuffer<std::array<double, 3>> asked_;
  rclcpp::Subscription<geometry_msgs::msg::Twist>::SharedPtr asking_;
  rclcpp::Service<std_srvs::srv::Trigger>::SharedPtr stopping_, resetting_;
};

}  // namespace robo_rlft_controller
