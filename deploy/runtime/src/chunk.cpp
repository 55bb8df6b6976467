#include "robo_rlft/chunk.hpp"

#include <algorithm>
#include <cmath>

namespace robo_rlft {
namespace {

// Stamps are whole nanoseconds, rates are not: 0.02 s at 50 Hz must be index 1, not 0.99999.
constexpr double kIndexTolerance = 1e-6;

}  // namespace

ChunkPlayer::ChunkPlayer(const PlayerConfig& config)
    : config_(config), kept_(kKept), last_(static_cast<std::size_t>(config.width)), jump_(last_.size()), scratch_(last_.size()) {
  for (Kept& k : kept_) k.actions.resize(static_cast<std::size_t>(config.chunk * config.width));
}

void ChunkPlayer::clear() noexcept {
  count_ = 0;
  played_ = measure_jump_ = false;
  std::fill(jump_.begin(), jump_.end(), 0.0);
}

void ChunkPlayer::push(const Chunk& chunk, std::int64_t now_ns) noexcept {
  if (count_ > 0 && chunk.stamp_ns < newest().stamp_ns) return;
  head_ = (head_ + 1) % kKept;
  count_ = std::min(count_ + 1, kKept);
  kept_[head_].stamp_ns = chunk.stamp_ns;
  std::copy(chunk.actions.begin(), chunk.actions.end(), kept_[head_].actions.begin());
  arrived_ns_ = now_ns;
  measure_jump_ = played_;
}

double ChunkPlayer::index_in(const Kept& chunk, std::int64_t now_ns) const noexcept {
  return static_cast<double>(now_ns - chunk.stamp_ns) * 1e-9 * config_.rate_hz;
}

double ChunkPlayer::index(std::int64_t now_ns) const noexcept { return count_ == 0 ? -1.0 : index_in(newest(), now_ns); }

void ChunkPlayer::read(const Kept& chunk, double index, double* action) const noexcept {
  const double bounded = std::clamp(index, 0.0, static_cast<double>(config_.chunk - 1));
  const auto first = static_cast<std::size_t>(bounded + kIndexTolerance);
  const std::size_t second = std::min(first + 1, static_cast<std::size_t>(config_.chunk - 1));
  const double part = config_.interpolation == Interpolation::Linear ? std::max(0.0, bounded - static_cast<double>(first)) : 0.0;
  const auto width = static_cast<std::size_t>(config_.width);
  for (std::size_t i = 0; i < width; ++i) {
    const double a = double{chunk.actions[first * width + i]}, b = double{chunk.actions[second * width + i]};
    action[i] = a + part * (b - a);
  }
}

Sample ChunkPlayer::sample(std::int64_t now_ns, double* action) noexcept {
  if (count_ == 0) return Sample::Empty;
  const double at = index_in(newest(), now_ns);
  read(newest(), at, action);
  if (config_.stitching == Stitching::Ensemble) ensemble(now_ns, action);
  if (config_.stitching == Stitching::CrossFade) fade(now_ns, action);
  std::copy_n(action, last_.size(), last_.begin());
  played_ = true;
  if (at < -kIndexTolerance) return Sample::Early;
  return at + kIndexTolerance < static_cast<double>(config_.chunk) ? Sample::Good : Sample::Spent;
}

void ChunkPlayer::ensemble(std::int64_t now_ns, double* action) noexcept {
  double total = 0.0;
  int rank = 0;
  for (std::size_t back = count_; back-- > 0;) {
    const Kept& chunk = kept_[(head_ + kKept - back) % kKept];
    const double at = index_in(chunk, now_ns);
    if (at < -kIndexTolerance || at + kIndexTolerance >= static_cast<double>(config_.chunk)) continue;
    if (rank == 0) std::fill_n(action, last_.size(), 0.0);
    const double weight = std::exp(-config_.decay * rank++);
    read(chunk, at, scratch_.data());
    for (std::size_t i = 0; i < last_.size(); ++i) action[i] += weight * scratch_[i];
    total += weight;
  }
  for (std::size_t i = 0; rank > 0 && i < last_.size(); ++i) action[i] /= total;
}

// Continuous at every arrival, also in the middle of a fade: the jump is measured from what was played last.
void ChunkPlayer::fade(std::int64_t now_ns, double* action) noexcept {
  if (measure_jump_) {
    for (std::size_t i = 0; i < last_.size(); ++i) jump_[i] = last_[i] - action[i];
    measure_jump_ = false;
  }
  const double elapsed = static_cast<double>(now_ns - arrived_ns_) * 1e-9;
  const double left = config_.fade_s > 0 ? std::clamp(1.0 - elapsed / config_.fade_s, 0.0, 1.0) : 0.0;
  for (std::size_t i = 0; i < last_.size(); ++i) action[i] += left * jump_[i];
}

}  // namespace robo_rlft
