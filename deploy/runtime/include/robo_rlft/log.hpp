// Every cycle on disk, without the cycle ever waiting for the disk.
//
// File: LogHeader, then records, each a RecordHead and `size` bytes. A record is written whole or not at all, except that a
// machine that dies may leave a cut last one, which readers drop.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace robo_rlft {

constexpr std::uint32_t kLogVersion = 1;
enum class RecordKind : std::uint32_t { Control = 1, Policy = 2 };

struct LogHeader {
  char magic[8];  // "RRLTLOG\0"
  std::uint32_t version, actions, joints, chunk, observation, prefix;
  double rate_hz, control_hz;
  char digest[64];  // SHA-256 of the bundle's runtime.json
};
static_assert(sizeof(LogHeader) == 112, "the layout is part of the format");

struct RecordHead {
  std::uint32_t kind, size;
};

// Followed by double target[A], action[A], effort[A], position[J], velocity[J]. Zeros where something is not known.
struct ControlRecord {
  std::int64_t now_ns, observation_ns, joints_ns, chunk_ns;
  std::uint64_t sequence;
  double index;  // in the chunk, -1: none
  std::uint32_t mode, faults, latched, clamped, flags, body_ns;
};
static_assert(sizeof(ControlRecord) == 72, "the layout is part of the format");

// Followed by float observation[O], noise[H A], prefix[P A], actions[H A].
struct PolicyRecord {
  std::int64_t now_ns, stamp_ns, duration_ns;
  std::uint64_t sequence;
  std::uint32_t status;
  float delay, guidance;
  std::uint32_t reserved;
};
static_assert(sizeof(PolicyRecord) == 48, "the layout is part of the format");

// Records of one size between one thread that must not wait and the writer. Full: the record is dropped and counted.
class RecordRing {
 public:
  RecordRing(std::size_t record_bytes, std::size_t records);

  // Producer: where the next record goes, nullptr where the ring is full.
  unsigned char* claim() noexcept;
  void commit() noexcept { written_.store(written_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

  // Consumer: the oldest record, nullptr where there is none.
  const unsigned char* peek() const noexcept;
  void pop() noexcept { read_.store(read_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

  std::size_t record_bytes() const noexcept { return bytes_; }
  std::uint64_t dropped() const noexcept { return dropped_.load(std::memory_order_relaxed); }

 private:
  std::size_t bytes_, count_;
  std::vector<unsigned char> data_;
  alignas(64) std::atomic<std::uint64_t> written_{0};  // the producer's; release publishes the record's bytes
  alignas(64) std::atomic<std::uint64_t> read_{0};     // the consumer's; release gives the place back
  std::atomic<std::uint64_t> dropped_{0};
};

struct LogStatus {
  std::uint64_t written = 0, dropped = 0;
  int error = 0;  // errno of the failed write or open, 0: none; nothing is written after it
};

// The rings and the thread that empties them. Never raises for the disk's sake: what went wrong stands in status().
class LogWriter {
 public:
  LogWriter(const std::string& path, const LogHeader& header, std::size_t control_bytes, std::size_t policy_bytes);
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  RecordRing& control() noexcept { return control_; }
  RecordRing& policy() noexcept { return policy_; }
  LogStatus status() const noexcept;

 private:
  void loop() noexcept;
  void drain(RecordRing& ring) noexcept;
  bool put(const void* data, std::size_t size) noexcept;

  RecordRing control_, policy_;
  int file_ = -1;
  std::atomic<int> error_{0};
  std::atomic<std::uint64_t> written_{0}, lost_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// A log in memory. A cut last record is dropped.
struct Log {
  struct Control {
    ControlRecord record;
    std::vector<double> target, action, effort, position, velocity;
  };
  struct Policy {
    PolicyRecord record;
    std::vector<float> observation, noise, prefix, actions;
  };
  LogHeader header{};
  std::vector<Control> control;
  std::vector<Policy> policy;
};

// Raises Error: no log, another version, or sizes that do not fit its own header.
Log read_log(const std::string& path);

}  // namespace robo_rlft
