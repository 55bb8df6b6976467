#include "robo_rlft/runtime.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "robo_rlft/error.hpp"

namespace robo_rlft {
namespace {

constexpr int kWarmUpCalls = 20;
constexpr std::size_t kKeptDurations = 32;  // the slowest of them is the expected latency
constexpr double kOutside = 0.1;            // share of a joint's range that a start may lie outside of it

std::unique_ptr<Policy> make_policy(const Bundle& bundle, const Options& options) {
  const bool native = options.backend == Backend::Native || (options.backend == Backend::Automatic && bundle.native);
  if (native) return make_native_policy(bundle);
  const char* variable = std::getenv("ROBO_RLFT_ONNXRUNTIME");
  return make_onnx_policy(bundle, options.onnx_library.empty() && variable != nullptr ? variable : options.onnx_library);
}

PlayerConfig player_config(const Bundle& bundle, const Options& options) {
  return {bundle.policy.chunk, bundle.action.size(), bundle.rate_hz, options.interpolation, options.stitching, options.fade_s, options.decay};
}

Chunk empty_chunk(const Bundle& bundle) {
  Chunk chunk;
  chunk.actions.resize(static_cast<std::size_t>(bundle.policy.chunk * bundle.action.size()));
  return chunk;
}

JointState empty_joints(const Bundle& bundle) {
  const auto n = static_cast<std::size_t>(bundle.joints.size());
  return {0, true, std::vector<double>(n), std::vector<double>(n)};
}

bool finite(const float* values, std::size_t n) noexcept {
  return std::all_of(values, values + n, [](float v) { return std::isfinite(v); });
}

void check(const Bundle& bundle, const Options& options, const Policy& policy) {
  if (options.stitching == Stitching::RealTime && bundle.policy.prefix == 0) {
    throw Error("real-time chunking needs a model with the inputs prefix and delay: export it with them, or choose another stitching");
  }
  if (options.inline_policy && !policy.allocation_free()) throw Error("inline_policy needs the native backend: ONNX Runtime allocates");
  if (options.control_hz < 0 || !std::isfinite(options.control_hz)) throw Error("control_hz must be above 0");
  if (options.simulated_latency_ns < 0) throw Error("simulated_latency must be 0 or more");
  if (!std::isfinite(options.decay) || !(options.fade_s >= 0)) throw Error("fade_s must be 0 or more, decay finite");
  const bool per_step = bundle.action.meaning == Meaning::Cartesian;
  if (per_step && options.control_hz != 0 && options.control_hz != bundle.rate_hz) {
    throw Error("cartesian actions are changes per control step: control_hz must be the robot's rate");
  }
}

}  // namespace

Runtime::Runtime(const std::string& folder, const Options& options)
    : bundle_(load_bundle(folder)),
      options_(options),
      policy_(make_policy(bundle_, options)),
      control_hz_(options.control_hz > 0 ? options.control_hz : bundle_.rate_hz),
      period_s_(1.0 / control_hz_),
      commander_(bundle_.action, bundle_.joints, period_s_, bundle_.timing.ramp_s),
      frames_(Frames{0, std::vector<float>(static_cast<std::size_t>(bundle_.policy.obs_horizon * bundle_.policy.frame_width()))}),
      joints_buffer_(empty_joints(bundle_)),
      work_(empty_chunk(bundle_)),
      pending_(work_),
      noise_(work_.actions.size()),
      prefix_(static_cast<std::size_t>(bundle_.policy.prefix * bundle_.action.size())),
      previous_(work_.actions.size()),
      random_{options.seed + 0x9E3779B97F4A7C15u, options.seed ^ 0xD1B54A32D192ED03u},
      durations_(kKeptDurations),
      chunks_(work_),
      watchdog_({bundle_.timing.hold_s, commander_.can_ramp()}),
      player_(player_config(bundle_, options)),
      joints_(empty_joints(bundle_)),
      outputs_(commander_.empty_outputs()),
      action_(static_cast<std::size_t>(bundle_.action.size())) {
  check(bundle_, options_, *policy_);
  history_ = frames_.back().data;
  for (int j = 0; j < bundle_.joints.size(); ++j) joint_source_.push_back(j);
  given_joints_ = joint_source_.size();
  golden_error_ = check_golden(bundle_, *policy_);
  warm_up(kWarmUpCalls);
}

Runtime::~Runtime() { stop(); }

Command Runtime::empty_command() const {
  Command out;
  out.target.resize(action_.size());
  out.effort.resize(action_.size());
  return out;
}

void Runtime::bind_joints(const std::vector<std::string>& names) {
  std::vector<int> source;
  for (const std::string& joint : bundle_.joints.names) {
    const auto at = std::find(names.begin(), names.end(), joint);
    if (at == names.end()) throw Error("the robot gives no joint '" + joint + "', which the bundle commands or reads");
    if (std::count(names.begin(), names.end(), joint) > 1) throw Error("the robot gives the joint '" + joint + "' twice");
    source.push_back(static_cast<int>(at - names.begin()));
  }
  joint_source_ = source;
  given_joints_ = names.size();
}

// ---- sensor thread

Taken Runtime::observe(std::int64_t stamp_ns, const float* frame) noexcept {
  const auto width = static_cast<std::size_t>(bundle_.policy.frame_width());
  if (!finite(frame, width)) return Taken::NotFinite;
  const std::int64_t age = stamp_ns - last_observed_ns_, timeout = bundle_.timing.observation_timeout_ns;
  // A little back is a message overtaken by another; far back is a clock that was set, after which all is new.
  if (observed_any_ && age <= 0 && age > -timeout) return Taken::OutOfOrder;
  const bool fresh = !observed_any_ || age < 0 || age > timeout;
  float* block = history_.data();
  const auto horizon = static_cast<std::size_t>(bundle_.policy.obs_horizon);
  for (const auto& key : bundle_.policy.observation) {
    const auto w = static_cast<std::size_t>(key.width);
    if (fresh) {
      for (std::size_t t = 0; t + 1 < horizon; ++t) std::copy_n(frame, w, block + t * w);
    } else {
      std::copy(block + w, block + horizon * w, block);
    }
    std::copy_n(frame, w, block + (horizon - 1) * w);
    block += horizon * w;
    frame += w;
  }
  Frames& back = frames_.back();
  std::copy(history_.begin(), history_.end(), back.data.begin());
  back.stamp_ns = last_observed_ns_ = stamp_ns;
  observed_any_ = true;
  frames_.publish();
  observed_ns_.store(stamp_ns, std::memory_order_relaxed);
  has_observation_.store(true, std::memory_order_release);
  return Taken::Good;
}

Taken Runtime::joint_state(std::int64_t stamp_ns, const double* position, const double* velocity) noexcept {
  JointState& back = joints_buffer_.back();
  back.stamp_ns = stamp_ns;
  back.finite = true;
  for (std::size_t j = 0; j < joint_source_.size(); ++j) {
    const auto from = static_cast<std::size_t>(joint_source_[j]);
    back.position[j] = position[from];
    back.velocity[j] = velocity[from];
    back.finite = back.finite && std::isfinite(position[from]) && std::isfinite(velocity[from]);
  }
  const Taken taken = back.finite ? Taken::Good : Taken::NotFinite;
  joints_buffer_.publish();
  return taken;
}

// ---- policy thread

void Runtime::set_noise(const float* noise) noexcept {
  std::copy_n(noise, noise_.size(), noise_.begin());
  noise_given_ = true;
}

PolicyInput Runtime::input(const float* observation) noexcept {
  const float guidance = bundle_.policy.guidance ? static_cast<float>(*bundle_.policy.guidance) : 0.0f;
  return {observation, noise_.data(), prefix_.data(), delay_, guidance};
}

// The first calls of a backend are the slowest by far: they happen before anything waits for them.
void Runtime::warm_up(int calls) noexcept {
  for (int i = 0; i < calls; ++i) {
    const std::int64_t start = monotonic_ns();
    policy_->infer(input(frames_.front().data.data()), work_.actions.data());
    durations_[static_cast<std::size_t>(i) % kKeptDurations] = monotonic_ns() - start;
  }
  // Leave out the cold one.
  durations_[0] = 0;
}

// xoroshiro128+ (Blackman and Vigna 2018) and Box and Muller's method.
void Runtime::draw_noise() noexcept {
  const auto next = [this]() noexcept {
    const auto rotate = [](std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); };
    const std::uint64_t a = random_[0], b = random_[1] ^ random_[0], out = random_[0] + random_[1];
    random_[0] = rotate(a, 24) ^ b ^ (b << 16);
    random_[1] = rotate(b, 37);
    return (static_cast<double>(out >> 11) + 0.5) * 0x1.0p-53;
  };
  for (std::size_t i = 0; i < noise_.size(); i += 2) {
    const double radius = std::sqrt(-2.0 * std::log(next())), angle = 6.283185307179586 * next();
    noise_[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < noise_.size()) noise_[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

// What will have been executed when the new chunk arrives: the previous chunk's actions from the new observation on.
void Runtime::committed_prefix(std::int64_t now_ns, std::int64_t stamp_ns) noexcept {
  delay_ = -1.0f;
  std::fill(prefix_.begin(), prefix_.end(), 0.0f);
  if (options_.stitching != Stitching::RealTime || !has_previous_ || stamp_ns < previous_stamp_ns_) return;
  const auto width = static_cast<std::size_t>(bundle_.action.size()), chunk = static_cast<std::size_t>(bundle_.policy.chunk);
  const double passed = static_cast<double>(stamp_ns - previous_stamp_ns_) * 1e-9 * bundle_.rate_hz;
  if (passed >= static_cast<double>(chunk)) return;
  const auto first = static_cast<std::size_t>(std::lround(passed));
  for (std::size_t i = 0; i < static_cast<std::size_t>(bundle_.policy.prefix) && first + i < chunk; ++i) {
    std::copy_n(previous_.data() + (first + i) * width, width, prefix_.data() + i * width);
  }
  const std::int64_t expected = std::max(*std::max_element(durations_.begin(), durations_.end()), options_.simulated_latency_ns);
  const double steps = std::ceil(static_cast<double>(now_ns - stamp_ns + expected) * 1e-9 * bundle_.rate_hz - 1e-6);
  const double offered = std::min(static_cast<double>(bundle_.policy.prefix), static_cast<double>(chunk - std::min(first, chunk)));
  delay_ = static_cast<float>(std::clamp(steps, 0.0, offered));
}

bool Runtime::policy_step(std::int64_t now_ns) noexcept {
  publish_pending(now_ns);
  frames_.update();
  const Frames& seen = frames_.front();
  const bool any = has_observation_.load(std::memory_order_acquire);
  if (!any || has_pending_ || (asked_any_ && seen.stamp_ns == asked_stamp_ns_)) return false;
  asked_any_ = true;
  asked_stamp_ns_ = seen.stamp_ns;
  if (bundle_.policy.noise && !noise_given_) draw_noise();
  noise_given_ = false;
  committed_prefix(now_ns, seen.stamp_ns);
  const std::int64_t start = monotonic_ns();
  const bool good = policy_->infer(input(seen.data.data()), work_.actions.data());
  work_.duration_ns = monotonic_ns() - start;
  work_.stamp_ns = seen.stamp_ns;
  work_.sequence = ++sequence_;
  work_.status = !good ? ChunkStatus::Failed : finite(work_.actions.data(), work_.actions.size()) ? ChunkStatus::Good : ChunkStatus::NotFinite;
  durations_[sequence_ % kKeptDurations] = work_.duration_ns;
  if (work_.status == ChunkStatus::Good) {
    std::copy(work_.actions.begin(), work_.actions.end(), previous_.begin());
    previous_stamp_ns_ = seen.stamp_ns;
    has_previous_ = true;
  }
  log_policy(work_, now_ns);
  work_.available_ns = now_ns + options_.simulated_latency_ns;
  const std::int64_t late = now_ns - work_.stamp_ns + std::max(options_.simulated_latency_ns, work_.duration_ns);
  work_.overrun = delay_ >= 0 && static_cast<double>(late) * 1e-9 * bundle_.rate_hz > static_cast<double>(delay_) + 1e-6;
  std::swap(pending_, work_);
  has_pending_ = true;
  publish_pending(now_ns);
  return true;
}

void Runtime::publish_pending(std::int64_t now_ns) noexcept {
  if (!has_pending_) return;
  const std::int64_t left = pending_.available_ns - now_ns;
  if (left > options_.simulated_latency_ns) has_pending_ = false;  // the clock was set back: it would never come
  if (left > 0) return;
  std::swap(chunks_.back(), pending_);
  chunks_.publish();
  has_pending_ = false;
}

// ---- control thread

double Runtime::clock(std::int64_t now_ns) noexcept {
  const std::int64_t passed = has_tick_ ? now_ns - last_tick_ns_ : 0;
  if (passed < 0) situation_.faults |= kClockBackwards;
  if (passed > bundle_.timing.observation_timeout_ns) situation_.faults |= kClockForwards;
  const double dt = has_tick_ ? std::clamp(static_cast<double>(passed) * 1e-9, 0.0, period_s_) : period_s_;
  has_tick_ = true;
  last_tick_ns_ = now_ns;
  return dt;
}

void Runtime::obey_requests() noexcept {
  if (reset_requested_.exchange(false)) {
    // After a cut nobody held the robot: the next start is where it is then.
    if (watchdog_.mode() == Mode::Estop && options_.estop == EstopAction::Cut) has_command_ = false;
    watchdog_.reset();
    player_.clear();
    last_status_ = ChunkStatus::Empty;
    next_policy_ns_ = std::numeric_limits<std::int64_t>::min();  // the clock may be another one than before
  }
  if (estop_requested_.exchange(false)) watchdog_.emergency_stop();
}

void Runtime::take_joints() noexcept {
  if (!joints_buffer_.update()) return;
  const JointState& given = joints_buffer_.front();
  joints_.stamp_ns = given.stamp_ns;
  joints_.finite = given.finite;
  if (!given.finite) return;  // the last good values stay
  has_joints_ = true;
  std::copy(given.position.begin(), given.position.end(), joints_.position.begin());
  std::copy(given.velocity.begin(), given.velocity.end(), joints_.velocity.begin());
}

void Runtime::take_chunk(std::int64_t now_ns, Command& out) noexcept {
  if (options_.inline_policy && now_ns >= next_policy_ns_ && policy_step(now_ns)) {
    next_policy_ns_ = now_ns + static_cast<std::int64_t>(1e9 * (bundle_.policy.execute - 0.5) / bundle_.rate_hz);
  }
  if (!chunks_.update()) return;
  const Chunk& chunk = chunks_.front();
  out.flags |= kNewChunk | (chunk.overrun ? kPrefixOverrun : 0u);
  if (now_ns - chunk.stamp_ns > bundle_.timing.latency_budget_ns) out.flags |= kOverBudget;
  last_status_ = chunk.status;
  chunk_sequence_ = chunk.sequence;
  if (chunk.status != ChunkStatus::Good) return;
  player_.push(chunk, now_ns);
  last_chunk_ns_ = now_ns;
}

void Runtime::judge(std::int64_t now_ns, Sample sample) noexcept {
  const Timing& timing = bundle_.timing;
  std::uint32_t faults = situation_.faults;
  const std::int64_t age = now_ns - observed_ns_.load(std::memory_order_relaxed);
  if (!has_observation_.load(std::memory_order_acquire)) faults |= kNotReady;
  else if (age > timing.observation_timeout_ns) faults |= kObservationStale;
  else if (age < -timing.observation_timeout_ns) faults |= kClockBackwards;
  if (last_status_ == ChunkStatus::NotFinite) faults |= kPolicyNotFinite;
  if (last_status_ == ChunkStatus::Failed) faults |= kPolicyFailed;
  const bool waiting = watchdog_.mode() == Mode::Wait;
  if (sample == Sample::Empty) {
    faults |= kNotReady;
  } else {
    const auto length = static_cast<std::int64_t>(1e9 * bundle_.policy.chunk / bundle_.rate_hz);
    const bool over = now_ns - player_.stamp_ns() > std::max(length, timing.policy_timeout_ns);
    if (sample == Sample::Spent && (over || waiting)) faults |= kChunkSpent;
    if (now_ns - last_chunk_ns_ > timing.policy_timeout_ns) faults |= kPolicyLate;
    if (player_.stamp_ns() - now_ns > timing.observation_timeout_ns) faults |= kClockBackwards;
  }
  situation_.faults = faults;
  if (commander_.needs_joints()) judge_joints(now_ns);
}

void Runtime::judge_joints(std::int64_t now_ns) noexcept {
  const std::int64_t age = now_ns - joints_.stamp_ns, timeout = bundle_.timing.observation_timeout_ns;
  if (!joints_.finite) situation_.faults |= kJointsInvalid;
  if (!has_joints_) situation_.faults |= kNotReady;
  else if (age > timeout) situation_.faults |= kJointsStale;
  else if (age < -timeout) situation_.faults |= kClockBackwards;
  if (watchdog_.mode() == Mode::Wait && has_joints_ && joints_outside()) situation_.faults |= kJointsOutside;
}

bool Runtime::joints_outside() const noexcept {
  for (std::size_t j = 0; j < joints_.position.size(); ++j) {
    const double low = bundle_.joints.low[j], high = bundle_.joints.high[j], margin = kOutside * (high - low);
    if (std::isfinite(margin) && (joints_.position[j] < low - margin || joints_.position[j] > high + margin)) return true;
  }
  return false;
}

void Runtime::tick(std::int64_t now_ns, Command& out) noexcept {
  const std::int64_t started = monotonic_ns();
  situation_ = Situation{};
  out.flags = 0;
  const double dt = clock(now_ns);
  obey_requests();
  if (options_.simulated_latency_ns > 0 && !running()) publish_pending(now_ns);
  take_joints();
  take_chunk(now_ns, out);
  const Sample sample = player_.sample(now_ns, action_.data());
  judge(now_ns, sample);
  situation_.stopped = commander_.at_rest();
  situation_.ramp_done = ramp_done_;
  ramp_done_ = false;
  const Mode before = watchdog_.mode();
  watchdog_.update(situation_, dt);
  if (sample == Sample::Spent) out.flags |= kSpent;
  if (sample == Sample::Early) out.flags |= kEarly;
  act(before, dt, out);
  out.now_ns = now_ns;
  out.chunk_stamp_ns = player_.stamp_ns();
  out.index = player_.index(now_ns);
  log_tick(out, started);
}

void Runtime::act(Mode before, double dt, Command& out) noexcept {
  const Mode mode = watchdog_.mode();
  if (mode != before && (mode == Mode::Hold || (mode == Mode::Estop && before < Mode::Hold))) commander_.begin_hold(joints_);
  if (mode != before && mode == Mode::Ramp) commander_.begin_ramp(joints_);
  if (!has_command_) commander_.start(joints_);
  if (mode == Mode::Run) {
    has_command_ = true;
    commander_.follow(action_.data(), joints_, dt, outputs_);
  } else if (mode == Mode::Ramp) {
    // The next tick's update ends the ramp.
    if (commander_.ramp(joints_, dt, outputs_)) ramp_done_ = true;
  } else if (mode == Mode::Estop && options_.estop == EstopAction::Cut) {
    commander_.cut(outputs_);
    out.flags |= kEffortCut;
  } else {
    commander_.hold(joints_, dt, outputs_);
  }
  if (has_command_) out.flags |= kEnabled;
  clamp_count_ += outputs_.clamped != 0 ? 1 : 0;
  out.mode = mode;
  out.faults = situation_.faults;
  out.latched = watchdog_.latched();
  out.clamped = outputs_.clamped;
  out.clamp_count = clamp_count_;
  std::copy(outputs_.target.begin(), outputs_.target.end(), out.target.begin());
  std::copy(outputs_.effort.begin(), outputs_.effort.end(), out.effort.begin());
}

}  // namespace robo_rlft
