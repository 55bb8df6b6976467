// Words of a command line: positional ones, and `--name value`.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "robo_rlft/error.hpp"

class Arguments {
 public:
  // Raises Error for an option that is not among `known`, or has no value.
  Arguments(int count, char** words, const std::set<std::string>& known) {
    for (int i = 1; i < count; ++i) {
      const std::string word = words[i];
      if (word.rfind("--", 0) != 0) {
        positional.push_back(word);
        continue;
      }
      if (known.count(word.substr(2)) == 0) throw robo_rlft::Error("unknown option " + word);
      if (++i == count) throw robo_rlft::Error(word + " needs a value");
      options_[word.substr(2)] = words[i];
    }
  }

  std::string text(const std::string& name, const std::string& otherwise) const {
    const auto found = options_.find(name);
    return found == options_.end() ? otherwise : found->second;
  }

  double number(const std::string& name, double otherwise) const {
    const std::string given = text(name, "");
    if (given.empty()) return otherwise;
    char* end = nullptr;
    const double value = std::strtod(given.c_str(), &end);
    if (*end != '\0') throw robo_rlft::Error("--" + name + " " + given + " is no number");
    return value;
  }

  std::vector<std::string> positional;

 private:
  std::map<std::string, std::string> options_;
};

// Runs `function` and turns a sentence into exit status 2.
template <typename Function>
int run_tool(Function&& function) {
  try {
    function();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
