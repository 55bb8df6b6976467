#include "robo_rlft/realtime.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

namespace robo_rlft {

std::int64_t monotonic_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void sleep_until_ns(std::int64_t at_ns) noexcept {
  const timespec at{static_cast<time_t>(at_ns / 1'000'000'000), static_cast<long>(at_ns % 1'000'000'000)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
  }
}

std::string set_thread(int priority, int cpu) {
  std::string missing;
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(cpu), &set);
    const int error = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    if (error != 0) missing += "cannot pin a thread to processor " + std::to_string(cpu) + " (" + std::strerror(error) + "): it runs on any\n";
  }
  if (priority > 0) {
    sched_param parameters{};
    parameters.sched_priority = priority;
    const int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameters);
    if (error != 0) {
      missing += "cannot use SCHED_FIFO with priority " + std::to_string(priority) + " (" + std::strerror(error) +
                 "): ordinary scheduling, late cycles under load; run as root or give the program CAP_SYS_NICE\n";
    }
  }
  return missing;
}

std::string lock_memory() {
  // Under a limit, locking the future too would make later allocations fail instead of being slow.
  rlimit limit{};
  const bool unlimited = geteuid() == 0 || (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY);
  if (mlockall(unlimited ? MCL_CURRENT | MCL_FUTURE : MCL_CURRENT) == 0) return {};
  return "cannot lock memory (" + std::string(std::strerror(errno)) + "): page faults may delay a cycle; raise the limit memlock\n";
}

void DurationHistogram::add(std::int64_t ns) noexcept {
  ns = std::max<std::int64_t>(ns, 0);
  max_ = std::max(max_, ns);
  ++count_;
  const auto bin = static_cast<std::size_t>(ns / 100);
  if (bin < kFine) ++fine_[bin];
  else ++coarse_[std::min(static_cast<std::size_t>(ns / 10'000), kCoarse - 1)];
}

double DurationHistogram::quantile_us(double share) const noexcept {
  if (count_ == 0) return 0.0;
  auto left = static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(count_)));
  left = std::max<std::uint64_t>(left, 1);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < kFine; ++i) {
    seen += fine_[i];
    if (seen >= left) return static_cast<double>(i + 1) * 0.1;
  }
  for (std::size_t i = 0; i < kCoarse; ++i) {
    seen += coarse_[i];
    if (seen >= left) return static_cast<double>(i + 1) * 10.0;
  }
  return max_us();
}

void DurationHistogram::clear() noexcept {
  std::fill(fine_.begin(), fine_.end(), 0u);
  std::fill(coarse_.begin(), coarse_.end(), 0u);
  count_ = 0;
  max_ = 0;
}

}  // namespace robo_rlft
