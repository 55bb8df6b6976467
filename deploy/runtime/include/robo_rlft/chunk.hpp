// Which action is due now: chunks indexed by the time of the observation they were made of, stitched where they meet.
#pragma once

#include <cstdint>
#include <vector>

namespace robo_rlft {

enum class Interpolation { Hold, Linear };
enum class Stitching {
  Replace,    // the newest chunk alone
  Ensemble,   // mean of every chunk that covers the time, weight exp(-decay i), i = 0 the oldest (Zhao et al. 2023, ACT)
  CrossFade,  // the newest chunk plus the jump at its arrival, fading linearly to 0 over fade_s
  RealTime,   // as Replace; the model was told the actions that are committed (its inputs prefix and delay)
};

enum class ChunkStatus : std::uint8_t { Empty, Good, NotFinite, Failed };

struct Chunk {
  std::int64_t stamp_ns = 0;      // of the newest observation it was made of
  std::int64_t available_ns = 0;  // when it was published
  std::int64_t duration_ns = 0;   // of the inference
  std::uint64_t sequence = 0;
  ChunkStatus status = ChunkStatus::Empty;
  bool overrun = false;        // later than its committed prefix allowed for
  std::vector<float> actions;  // [H, A]
};

enum class Sample { Empty, Good, Spent, Early };

struct PlayerConfig {
  int chunk, width;  // H, A
  double rate_hz;    // of the actions in a chunk
  Interpolation interpolation = Interpolation::Hold;
  Stitching stitching = Stitching::Replace;
  double fade_s = 0.1;
  double decay = 0.01;
};

// Plays chunks in one thread. Allocates in the constructor only.
class ChunkPlayer {
 public:
  explicit ChunkPlayer(const PlayerConfig& config);

  // Takes a good chunk over at time `now`. One with an older observation than the present one's is left out.
  void push(const Chunk& chunk, std::int64_t now_ns) noexcept;

  // Writes the action [A] that is due. Good: within the chunk. Spent: past its end, the last action again. Early: the
  // observation lies in the future, the first action. Empty: there is no chunk and nothing was written.
  Sample sample(std::int64_t now_ns, double* action) noexcept;

  // (now - stamp) * rate of the newest chunk, -1 without one.
  double index(std::int64_t now_ns) const noexcept;
  std::int64_t stamp_ns() const noexcept { return count_ == 0 ? 0 : newest().stamp_ns; }
  bool empty() const noexcept { return count_ == 0; }
  void clear() noexcept;

 private:
  static constexpr std::size_t kKept = 8;  // chunks an ensemble reaches back to
  struct Kept {
    std::int64_t stamp_ns = 0;
    std::vector<float> actions;
  };

  const Kept& newest() const noexcept { return kept_[head_]; }
  double index_in(const Kept& chunk, std::int64_t now_ns) const noexcept;
  void read(const Kept& chunk, double index, double* action) const noexcept;
  void ensemble(std::int64_t now_ns, double* action) noexcept;
  void fade(std::int64_t now_ns, double* action) noexcept;

  PlayerConfig config_;
  std::vector<Kept> kept_;
  std::size_t head_ = 0, count_ = 0;
  std::vector<double> last_, jump_, scratch_;
  std::int64_t arrived_ns_ = 0;
  bool played_ = false, measure_jump_ = false;
};

}  // namespace robo_rlft
