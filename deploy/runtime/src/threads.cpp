// The threads of start(), and what the cycle leaves in the log.
#include <cstring>

#include "robo_rlft/error.hpp"
#include "robo_rlft/runtime.hpp"

namespace robo_rlft {
namespace {

constexpr int kThreadWarmUp = 5;

unsigned char* append(unsigned char* at, const void* data, std::size_t bytes) noexcept {
  if (bytes > 0) std::memcpy(at, data, bytes);
  return at + bytes;
}

template <typename T>
unsigned char* append(unsigned char* at, const std::vector<T>& values) noexcept {
  return append(at, values.data(), values.size() * sizeof(T));
}

std::size_t control_bytes(const LogHeader& h) { return sizeof(RecordHead) + sizeof(ControlRecord) + sizeof(double) * (3 * std::size_t{h.actions} + 2 * std::size_t{h.joints}); }

std::size_t policy_bytes(const LogHeader& h) {
  const std::size_t chunk = std::size_t{h.chunk} * h.actions, prefix = std::size_t{h.prefix} * h.actions;
  return sizeof(RecordHead) + sizeof(PolicyRecord) + sizeof(float) * (h.observation + 2 * chunk + prefix);
}

RecordHead head(RecordKind kind, const RecordRing& ring) noexcept {
  return {static_cast<std::uint32_t>(kind), static_cast<std::uint32_t>(ring.record_bytes() - sizeof(RecordHead))};
}

}  // namespace

void Runtime::start(ThreadOptions options) {
  if (running()) throw Error("the runtime is running already: stop it first");
  report_.ticks = report_.missed = 0;
  report_.wake.clear();
  report_.body.clear();
  report_.missing = options.lock_memory ? lock_memory() : std::string();
  stop_ = false;
  running_ = true;
  if (!options_.inline_policy) policy_thread_ = std::thread([this, options] { policy_loop(options); });
  control_thread_ = std::thread([this, options] { control_loop(options); });
}

void Runtime::stop() noexcept {
  stop_ = true;
  if (control_thread_.joinable()) control_thread_.join();
  if (policy_thread_.joinable()) policy_thread_.join();
  running_ = false;
}

void Runtime::note_missing(const std::string& sentences) {
  const std::lock_guard<std::mutex> lock(missing_mutex_);
  report_.missing += sentences;
}

void Runtime::control_loop(const ThreadOptions& options) {
  note_missing(set_thread(options.control_priority, options.control_cpu));
  const auto period = static_cast<std::int64_t>(1e9 / control_hz_);
  Command command = empty_command();
  std::int64_t due = monotonic_ns() + period;
  while (!stop_.load(std::memory_order_relaxed)) {
    sleep_until_ns(due);
    const std::int64_t now = monotonic_ns();
    tick(now, command);
    if (options.on_command) options.on_command(command);
    const std::int64_t end = monotonic_ns();
    report_.wake.add(now - due);
    report_.body.add(end - now);
    ++report_.ticks;
    // Cycles that were slept through are counted and left out: catching up in a burst would be worse than the gap.
    const std::int64_t lost = (now - due) / period;
    report_.missed += static_cast<std::uint64_t>(lost);
    due += (1 + lost) * period;
  }
}

void Runtime::policy_loop(const ThreadOptions& options) {
  note_missing(set_thread(options.policy_priority, options.policy_cpu));
  warm_up(kThreadWarmUp);
  const auto period = static_cast<std::int64_t>(1e9 * bundle_.policy.execute / bundle_.rate_hz);
  const std::int64_t pause = std::min<std::int64_t>(1'000'000, period / 10 + 1);
  std::int64_t due = monotonic_ns();
  while (!stop_.load(std::memory_order_relaxed)) {
    const std::int64_t now = monotonic_ns();
    if (!policy_step(now)) {
      sleep_until_ns(now + pause);  // nothing new to look at yet, or a chunk that waits for its simulated latency
      continue;
    }
    due = std::max(due + period, now);
    // In pieces, so that stop() never waits for a slow policy's whole period, and pending chunks come out in time.
    while (!stop_.load(std::memory_order_relaxed) && monotonic_ns() < due) {
      publish_pending(monotonic_ns());
      sleep_until_ns(std::min(due, monotonic_ns() + (options_.simulated_latency_ns > 0 ? pause : 10'000'000)));
    }
  }
}

void Runtime::log(const std::string& path) {
  if (running()) throw Error("a log begins and ends while the runtime is stopped");
  log_.reset();
  if (path.empty()) return;
  LogHeader header{};
  std::memcpy(header.magic, "RRLTLOG", 8);
  header.version = kLogVersion;
  header.actions = static_cast<std::uint32_t>(bundle_.action.size());
  header.joints = static_cast<std::uint32_t>(bundle_.joints.size());
  header.chunk = static_cast<std::uint32_t>(bundle_.policy.chunk);
  header.observation = static_cast<std::uint32_t>(history_.size());
  header.prefix = static_cast<std::uint32_t>(bundle_.policy.prefix);
  header.rate_hz = bundle_.rate_hz;
  header.control_hz = control_hz_;
  std::memcpy(header.digest, bundle_.digest.data(), sizeof header.digest);
  log_ = std::make_unique<LogWriter>(path, header, control_bytes(header), policy_bytes(header));
}

LogStatus Runtime::log_status() const noexcept { return log_ ? log_->status() : LogStatus{}; }

void Runtime::log_policy(const Chunk& chunk, std::int64_t now_ns) noexcept {
  unsigned char* at = log_ ? log_->policy().claim() : nullptr;
  if (at == nullptr) return;
  const RecordHead record = head(RecordKind::Policy, log_->policy());
  const float guidance = bundle_.policy.guidance ? static_cast<float>(*bundle_.policy.guidance) : 0.0f;
  const PolicyRecord what{now_ns, chunk.stamp_ns, chunk.duration_ns, chunk.sequence, static_cast<std::uint32_t>(chunk.status), delay_, guidance, 0};
  at = append(at, &record, sizeof record);
  at = append(at, &what, sizeof what);
  at = append(at, frames_.front().data);
  at = append(at, noise_);
  at = append(at, prefix_);
  append(at, chunk.actions);
  log_->policy().commit();
}

void Runtime::log_tick(const Command& out, std::int64_t started_ns) noexcept {
  unsigned char* at = log_ ? log_->control().claim() : nullptr;
  if (at == nullptr) return;
  const RecordHead record = head(RecordKind::Control, log_->control());
  const ControlRecord what{out.now_ns, observed_ns_.load(std::memory_order_relaxed), joints_.stamp_ns, out.chunk_stamp_ns, chunk_sequence_, out.index,
                           static_cast<std::uint32_t>(out.mode), out.faults, out.latched, out.clamped, out.flags,
                           static_cast<std::uint32_t>(monotonic_ns() - started_ns)};
  at = append(at, &record, sizeof record);
  at = append(at, &what, sizeof what);
  at = append(at, out.target);
  at = append(at, action_);
  at = append(at, out.effort);
  at = append(at, joints_.position);
  append(at, joints_.velocity);
  log_->control().commit();
}

}  // namespace robo_rlft
