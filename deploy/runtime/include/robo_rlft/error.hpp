// What a user can put right: one sentence that names the thing, what was expected and what to do.
#pragma once

#include <stdexcept>
#include <string>

namespace robo_rlft {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace robo_rlft
