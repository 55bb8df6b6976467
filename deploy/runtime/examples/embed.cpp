// How a program of your own uses the runtime: read sensors, tick, send. Here the robot is six lines that do what they are told.
//
// usage: embed BUNDLE
#include <cstdio>
#include <vector>

#include "robo_rlft/error.hpp"
#include "robo_rlft/runtime.hpp"

int main(int count, char** words) {
  if (count != 2) {
    std::fprintf(stderr, "usage: embed BUNDLE\n");
    return 2;
  }
  try {
    robo_rlft::Options options;
    options.inline_policy = true;  // one thread: tick() asks the native policy itself
    robo_rlft::Runtime runtime(words[1], options);
    std::printf("golden error %.2g\n%s", runtime.golden_error(), runtime.notes().c_str());

    const auto& bundle = runtime.bundle();
    runtime.bind_joints(bundle.joints.names);  // your robot's own names, in the order in which it reports them
    std::vector<double> position = bundle.joints.default_pose, velocity(position.size());
    std::vector<float> frame(static_cast<std::size_t>(bundle.policy.frame_width()));
    robo_rlft::Command command = runtime.empty_command();

    const auto period = static_cast<std::int64_t>(1e9 / runtime.control_hz());
    std::int64_t now = robo_rlft::monotonic_ns();
    for (int i = 0; i < 100; ++i, now += period) {
      robo_rlft::sleep_until_ns(now);
      runtime.observe(now, frame.data());
      runtime.joint_state(now, position.data(), velocity.data());
      runtime.tick(now, command);
      if ((command.flags & robo_rlft::kEnabled) == 0) continue;  // nobody moves the robot: send nothing
      for (std::size_t a = 0; a < command.target.size(); ++a) position[static_cast<std::size_t>(bundle.action.joint[a])] = command.target[a];
    }
    std::printf("mode %d after 100 cycles\n", static_cast<int>(command.mode));
    return command.mode == robo_rlft::Mode::Run ? 0 : 1;
  } catch (const robo_rlft::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
