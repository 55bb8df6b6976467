#include "robo_rlft/log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

namespace robo_rlft {
namespace {

constexpr std::size_t kControlRecords = 8192, kPolicyRecords = 256;  // 8 s at 1 kHz, 5 s at 50 Hz
constexpr auto kPause = std::chrono::milliseconds(20);

}  // namespace

RecordRing::RecordRing(std::size_t record_bytes, std::size_t records) : bytes_(record_bytes), count_(records), data_(record_bytes * records) {}

unsigned char* RecordRing::claim() noexcept {
  const std::uint64_t next = written_.load(std::memory_order_relaxed);
  if (next - read_.load(std::memory_order_acquire) >= count_) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
  }
  return data_.data() + (next % count_) * bytes_;
}

const unsigned char* RecordRing::peek() const noexcept {
  const std::uint64_t next = read_.load(std::memory_order_relaxed);
  return next == written_.load(std::memory_order_acquire) ? nullptr : data_.data() + (next % count_) * bytes_;
}

LogWriter::LogWriter(const std::string& path, const LogHeader& header, std::size_t control_bytes, std::size_t policy_bytes)
    : control_(control_bytes, kControlRecords), policy_(policy_bytes, kPolicyRecords) {
  // Not blocking: a pipe that nobody reads, given by mistake, would hang the caller.
  file_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);
  if (file_ < 0) error_ = errno;
  else put(&header, sizeof header);
  thread_ = std::thread([this] { loop(); });
}

LogWriter::~LogWriter() {
  stop_ = true;
  thread_.join();
  if (file_ >= 0) close(file_);
}

LogStatus LogWriter::status() const noexcept {
  return {written_.load(), control_.dropped() + policy_.dropped() + lost_.load(), error_.load()};
}

void LogWriter::loop() noexcept {
  while (true) {
    const bool last = stop_.load();  // before draining, so that what came before the stop is written
    drain(control_);
    drain(policy_);
    if (last) return;
    std::this_thread::sleep_for(kPause);
  }
}

void LogWriter::drain(RecordRing& ring) noexcept {
  while (const unsigned char* record = ring.peek()) {
    const bool good = error_.load() == 0 && put(record, ring.record_bytes());
    (good ? written_ : lost_).fetch_add(1);
    ring.pop();
  }
}

bool LogWriter::put(const void* data, std::size_t size) noexcept {
  const off_t start = lseek(file_, 0, SEEK_CUR);
  const char* at = static_cast<const char*>(data);
  for (std::size_t left = size; left > 0;) {
    const ssize_t done = write(file_, at, left);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      error_ = done < 0 ? errno : EIO;
      // A part of a record would make what follows unreadable.
      if (start >= 0 && ftruncate(file_, start) != 0) return false;
      return false;
    }
    at += done;
    left -= static_cast<std::size_t>(done);
  }
  return true;
}

}  // namespace robo_rlft
