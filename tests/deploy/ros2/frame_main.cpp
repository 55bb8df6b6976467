// Readings on standard input, frames on standard output, for the comparison with the package's own builder.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

#include "robo_rlft_controller/terms.hpp"

int main(int count, char** words) {
  if (count < 3) return 2;
  std::ifstream file(words[1]);
  std::ostringstream text;
  text << file.rdbuf();
  std::vector<std::string> joints(words + 2, words + count);
  const std::size_t n = joints.size();
  try {
    robo_rlft_controller::Frame frame(text.str(), joints, n);
    robo_rlft_controller::Readings r;
    r.position.resize(n), r.velocity.resize(n), r.last_action.resize(n);
    const auto take = [](auto& values) {
      for (double& v : values) std::cin >> v;
    };
    while (std::cin >> std::ws && !std::cin.eof()) {
      take(r.orientation), take(r.angular_velocity), take(r.command), take(r.position), take(r.velocity), take(r.last_action);
      if (!frame.build(r)) std::printf("refused ");
      for (const float value : frame.data()) std::printf("%.9g ", static_cast<double>(value));
      std::printf("\n");
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
