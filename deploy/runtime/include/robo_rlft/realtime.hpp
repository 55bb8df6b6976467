// Scheduling, memory and time of the threads.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace robo_rlft {

// CLOCK_MONOTONIC in nanoseconds: the clock of every stamp that start() is used with.
std::int64_t monotonic_ns() noexcept;

// Sleeps until that time; returns at once where it is past.
void sleep_until_ns(std::int64_t at_ns) noexcept;

// The calling thread gets SCHED_FIFO with `priority` (0: left as it is) and the processor `cpu` (-1: any). Returns what could
// not be done, one sentence each, empty where all was.
std::string set_thread(int priority, int cpu);

// Locks present and future memory. Returns what could not be done, or nothing.
std::string lock_memory();

// Counts durations in bins of 100 ns up to 1 ms and of 10 us beyond, up to 1 s; no allocation after construction.
class DurationHistogram {
 public:
  DurationHistogram() : fine_(kFine), coarse_(kCoarse) {}
  void add(std::int64_t ns) noexcept;
  // The upper end of the bin that holds this share, in microseconds; 0 without entries.
  double quantile_us(double share) const noexcept;
  double max_us() const noexcept { return static_cast<double>(max_) * 1e-3; }
  std::uint64_t count() const noexcept { return count_; }
  void clear() noexcept;

 private:
  static constexpr std::size_t kFine = 10'000, kCoarse = 100'000;
  std::vector<std::uint32_t> fine_, coarse_;
  std::uint64_t count_ = 0;
  std::int64_t max_ = 0;
};

}  // namespace robo_rlft
