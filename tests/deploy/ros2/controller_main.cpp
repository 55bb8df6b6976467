// The controller under a stand-in for the controller manager: a level robot that goes where it is sent.
// Prints a line of commands per tick. Arguments: bundle, library of ONNX Runtime, ticks, tick of the emergency stop.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "robo_rlft_controller/policy_controller.hpp"

int main(int count, char** words) {
  using controller_interface::CallbackReturn;
  if (count < 5) return 2;
  robo_rlft_controller::PolicyController controller;
  controller.on_init();
  controller.node->parameters["bundle"].text = words[1];
  controller.node->parameters["onnx_library"].text = words[2];
  if (controller.on_configure({}) != CallbackReturn::SUCCESS) return 1;
  const auto commands = controller.command_interface_configuration().names;
  const auto states = controller.state_interface_configuration().names;
  const std::size_t joints = commands.size();
  std::vector<double> command(joints, std::nan("")), state(states.size(), 0.0);
  for (std::size_t i = 0; i < joints; ++i) controller.command_interfaces_.emplace_back(commands[i], "", &command[i]);
  for (std::size_t i = 0; i < states.size(); ++i) {
    controller.state_interfaces_.emplace_back(states[i], "", &state[i]);
    if (states[i] == "imu/orientation.w") state[i] = 1.0;
  }
  for (std::size_t i = 0; i < joints; ++i) state[i] = std::atof(words[5 + i]);
  const auto references = controller.references();
  controller.on_activate({});
  for (int tick = 1; tick <= std::atoi(words[3]); ++tick) {
    if (tick == std::atoi(words[4])) controller.node->services.at("~/emergency_stop")();
    controller.update(20'000'000LL * tick, false);
    for (std::size_t i = 0; i < joints; ++i) {
      std::printf("%.12g ", command[i]);
      if (std::isfinite(command[i])) state[i] = command[i];
    }
    std::printf("\n");
  }
  controller.on_deactivate({});
  controller.on_cleanup({});
  std::fprintf(stderr, "%zu references, first %s\n", references.size(), references[0].get_name().c_str());
}
