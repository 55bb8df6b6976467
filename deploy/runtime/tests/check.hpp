// The smallest test harness: a failed check says where and what, and the program ends with 1.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "robo_rlft/error.hpp"

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);   \
      std::exit(1);                                                          \
    }                                                                        \
  } while (false)

#define CHECK_NEAR(a, b, tolerance)                                                                     \
  do {                                                                                                  \
    const double left = (a), right = (b);                                                               \
    if (!(std::fabs(left - right) <= (tolerance))) {                                                    \
      std::fprintf(stderr, "%s:%d: %s is %.17g, expected %.17g\n", __FILE__, __LINE__, #a, left, right); \
      std::exit(1);                                                                                     \
    }                                                                                                   \
  } while (false)

// The function raises robo_rlft::Error, and its sentence holds `part`.
template <typename Function>
void check_refused(Function&& function, const std::string& part, const char* file, int line) {
  try {
    function();
  } catch (const robo_rlft::Error& error) {
    if (std::string(error.what()).find(part) != std::string::npos) return;
    std::fprintf(stderr, "%s:%d: '%s' lacks '%s'\n", file, line, error.what(), part.c_str());
    std::exit(1);
  }
  std::fprintf(stderr, "%s:%d: nothing was refused, expected '%s'\n", file, line, part.c_str());
  std::exit(1);
}
#define CHECK_REFUSED(expression, part) check_refused([&] { (void)(expression); }, part, __FILE__, __LINE__)
