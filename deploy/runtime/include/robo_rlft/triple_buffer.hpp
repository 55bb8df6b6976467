// Hand-over of the newest value from one thread to one other, without waiting on either side.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace robo_rlft {

// Three slots: the producer owns one, the consumer owns one, the third lies between them. `middle_` holds the number of the
// slot between, and a bit that says whether the producer put it there after the consumer last looked.
//
// Memory order. publish() and update() both swap `middle_` with one atomic exchange:
//   - release on the producer's exchange: what it wrote into its slot happens before the consumer, whose exchange acquires the
//     same value, reads it.
//   - acquire on the producer's exchange, release on the consumer's: the consumer's last reads of the slot it gives back happen
//     before the producer, which takes that slot, writes into it.
// Hence both are acq_rel. The relaxed peek in update() decides only whether to try; a stale answer delays by one call, and the
// exchange that follows orders the data. Each side does one exchange and no loop: wait-free.
template <typename T>
class TripleBuffer {
 public:
  explicit TripleBuffer(const T& initial = T()) : slots_{initial, initial, initial} {}

  // Producer: the slot to fill; its content is an old value.
  T& back() noexcept { return slots_[back_]; }

  // Producer: hand the filled slot over.
  void publish() noexcept { back_ = middle_.exchange(static_cast<std::uint8_t>(back_ | kFresh), std::memory_order_acq_rel) & kIndex; }

  // Consumer: take the newest value if there is one since the last call.
  bool update() noexcept {
    if ((middle_.load(std::memory_order_relaxed) & kFresh) == 0) return false;
    front_ = middle_.exchange(front_, std::memory_order_acq_rel) & kIndex;
    return true;
  }

  // Consumer: the value taken last.
  const T& front() const noexcept { return slots_[front_]; }

 private:
  static constexpr std::uint8_t kFresh = 4, kIndex = 3;

  std::array<T, 3> slots_;
  // On cache lines of their own, or the two sides would slow each other down.
  alignas(64) std::uint8_t back_ = 0;   // the producer's alone
  alignas(64) std::uint8_t front_ = 1;  // the consumer's alone
  alignas(64) std::atomic<std::uint8_t> middle_{2};
};

}  // namespace robo_rlft
