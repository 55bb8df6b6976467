// Chunks, hand-over, matrix products, the watchdog's table and histograms.
#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"
#include "robo_rlft/chunk.hpp"
#include "robo_rlft/gemv.hpp"
#include "robo_rlft/realtime.hpp"
#include "robo_rlft/triple_buffer.hpp"
#include "robo_rlft/watchdog.hpp"

using namespace robo_rlft;

constexpr std::int64_t kMs = 1'000'000;

static Chunk chunk(std::int64_t stamp_ns, std::vector<float> actions) {
  Chunk out;
  out.stamp_ns = stamp_ns;
  out.status = ChunkStatus::Good;
  out.actions = std::move(actions);
  return out;
}

static void actions_are_indexed_by_the_observations_time() {
  ChunkPlayer player({4, 1, 50.0});
  double action = -1;
  CHECK(player.sample(0, &action) == Sample::Empty && action == -1);
  player.push(chunk(1000 * kMs, {0, 1, 2, 3}), 1030 * kMs);
  for (int ms = 0; ms < 80; ++ms) {
    CHECK(player.sample((1000 + ms) * kMs, &action) == Sample::Good);
    CHECK(action == ms / 20);
  }
  CHECK(player.sample(1080 * kMs, &action) == Sample::Spent && action == 3);
  CHECK(player.sample(990 * kMs, &action) == Sample::Early && action == 0);
  player.push(chunk(900 * kMs, {9, 9, 9, 9}), 1080 * kMs);  // an older observation than the present one's
  CHECK(player.sample(1020 * kMs, &action) == Sample::Good && action == 1);
}

static void linear_goes_from_action_to_action() {
  ChunkPlayer player({3, 1, 50.0, Interpolation::Linear});
  double action = 0;
  player.push(chunk(0, {0, 10, 30}), 0);
  player.sample(5 * kMs, &action);
  CHECK_NEAR(action, 2.5, 1e-9);
  player.sample(30 * kMs, &action);
  CHECK_NEAR(action, 20, 1e-9);
  CHECK(player.sample(59 * kMs, &action) == Sample::Good && action == 30);
}

static void an_ensemble_is_the_weighted_mean() {
  ChunkPlayer player({4, 1, 50.0, Interpolation::Hold, Stitching::Ensemble, 0.1, 0.5});
  double action = 0;
  player.push(chunk(0, {0, 1, 2, 3}), 0);
  player.push(chunk(20 * kMs, {10, 11, 12, 13}), 20 * kMs);
  player.push(chunk(40 * kMs, {20, 21, 22, 23}), 40 * kMs);
  player.sample(40 * kMs, &action);
  const double a = 1, b = std::exp(-0.5), c = std::exp(-1.0);
  CHECK_NEAR(action, (a * 2 + b * 11 + c * 20) / (a + b + c), 1e-12);
  player.sample(80 * kMs, &action);  // the first chunk is over
  CHECK_NEAR(action, (a * 13 + b * 22) / (a + b), 1e-12);
}

static void a_cross_fade_never_jumps() {
  ChunkPlayer player({50, 1, 50.0, Interpolation::Linear, Stitching::CrossFade, 0.1});
  std::mt19937 g(3);
  std::vector<float> flat(50);
  double before = 0, action = 0;
  for (int ms = 0; ms < 2000; ++ms) {
    if (ms % 37 == 0) {
      std::fill(flat.begin(), flat.end(), static_cast<float>(g() % 100));
      player.push(chunk(ms * kMs, flat), ms * kMs);
    }
    player.sample(ms * kMs, &action);
    if (ms > 0) CHECK(std::fabs(action - before) <= 100.0 * 0.0101 * 3);  // a jump of at most 100, plus fades under way, over 100 ms
    before = action;
  }
  player.sample(2150 * kMs, &action);
  CHECK(action == flat[0]);
}

struct Pair {
  std::uint64_t a[16] = {};
};

static void a_triple_buffer_gives_whole_values_in_order() {
  TripleBuffer<Pair> buffer;
  CHECK(!buffer.update());
  constexpr std::uint64_t kLast = 200'000;
  std::thread producer([&] {
    for (std::uint64_t i = 1; i <= kLast; ++i) {
      for (auto& v : buffer.back().a) v = i;
      buffer.publish();
    }
  });
  std::uint64_t seen = 0;
  while (seen < kLast) {
    if (!buffer.update()) continue;
    const Pair& value = buffer.front();
    CHECK(value.a[0] > seen);
    for (const auto v : value.a) CHECK(v == value.a[0]);
    seen = value.a[0];
  }
  producer.join();
  CHECK(!buffer.update() && buffer.front().a[0] == kLast);
}

static void products_are_those_of_plain_loops() {
  std::mt19937 g(4);
  std::normal_distribution<float> normal;
  for (const auto& [rows, columns] : {std::pair{1, 1}, {3, 0}, {16, 5}, {17, 33}, {63, 64}, {64, 7}, {130, 100}, {512, 300}}) {
    std::vector<float> w(static_cast<std::size_t>(rows * (columns + 2))), x(static_cast<std::size_t>(columns) + 1);
    for (float& v : w) v = normal(g);
    for (float& v : x) v = normal(g);
    const PackedMatrix matrix(w.data(), rows, columns, columns + 2);
    alignas(64) float bias[512 + 16] = {}, y[512 + 16];
    for (int r = 0; r < rows; ++r) bias[r] = normal(g);
    matrix.multiply(x.data(), bias, y);
    for (int r = 0; r < rows; ++r) {
      double sum = double{bias[r]}, size = 1;
      for (int c = 0; c < columns; ++c) {
        const double term = double{w[static_cast<std::size_t>(r * (columns + 2) + c)]} * double{x[static_cast<std::size_t>(c)]};
        sum += term, size += std::fabs(term);
      }
      CHECK_NEAR(double{y[r]}, sum, 1e-6 * size);
    }
  }
}

static double exact(Activation kind, double x) {
  switch (kind) {
    case Activation::Relu: return std::max(x, 0.0);
    case Activation::Elu: return x > 0 ? x : std::expm1(x);
    case Activation::Tanh: return std::tanh(x);
    case Activation::Silu: return x / (1 + std::exp(-x));
    case Activation::Gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::Mish: return x * std::tanh(std::log1p(std::exp(std::min(x, 500.0))));
    case Activation::None: return x;
  }
  return 0;
}

static void activations_are_exact_to_float32() {
  const Activation kinds[] = {Activation::None, Activation::Relu, Activation::Elu, Activation::Tanh, Activation::Silu, Activation::Gelu, Activation::Mish};
  alignas(64) float x[kLane], y[kLane];
  for (const Activation kind : kinds) {
    for (double at = -100; at < 100; at += 0.0037 * kLane) {
      for (int i = 0; i < kLane; ++i) x[i] = y[i] = static_cast<float>(at + 0.0037 * i);
      activate(kind, y, kLane);
      for (int i = 0; i < kLane; ++i) CHECK_NEAR(double{y[i]}, exact(kind, double{x[i]}), 3e-7 * std::max(1.0, std::fabs(double{x[i]})));
    }
    y[0] = std::nanf("");
    activate(kind, y, kLane);
    CHECK(std::isnan(y[0]));
  }
}

static void the_watchdog_follows_its_table() {
  const auto at = [](Mode mode, bool can_ramp = true) {
    Watchdog w({0.1, can_ramp});
    const Situation fault{kPolicyLate, true, false}, good{0, true, false};
    if (mode == Mode::Wait) return w;
    w.update(good, 0.01);
    if (mode == Mode::Run) return w;
    w.update(fault, 0.01);
    if (mode == Mode::Hold) return w;
    while (w.mode() == Mode::Hold) w.update(good, 0.01);
    return w;
  };
  const Situation good{0, true, false}, fault{kObservationStale, true, false}, blind{kJointsStale, true, false}, done{0, true, true}, moving{0, false, false};
  CHECK(at(Mode::Wait).update(fault, 0.01) == Mode::Wait && at(Mode::Wait).update(good, 0.01) == Mode::Run);
  CHECK(at(Mode::Run).update(good, 0.01) == Mode::Run);
  for (int bit = 0; bit < 12; ++bit) CHECK(at(Mode::Run).update({1u << bit, true, false}, 0.01) == Mode::Hold);
  Watchdog held = at(Mode::Hold);
  for (int i = 0; i < 100; ++i) CHECK(held.update(moving, 0.01) == Mode::Hold);  // not at rest
  for (int i = 0; i < 100; ++i) CHECK(held.update(blind, 0.01) == Mode::Hold);   // does not know where the robot is
  CHECK(held.update(good, 0.01) == Mode::Ramp);
  CHECK(held.latched() == (kPolicyLate | kJointsStale));
  CHECK(at(Mode::Hold, false).update(good, 0.2) == Mode::Estop);
  CHECK(at(Mode::Ramp).mode() == Mode::Ramp && at(Mode::Ramp).update(fault, 0.01) == Mode::Ramp);
  CHECK(at(Mode::Ramp).update(done, 0.01) == Mode::Estop && at(Mode::Ramp).update(blind, 0.01) == Mode::Estop);
  for (const Mode mode : {Mode::Wait, Mode::Run, Mode::Hold, Mode::Ramp}) {
    Watchdog w = at(mode);
    w.emergency_stop();
    for (int i = 0; i < 1000; ++i) CHECK(w.update(good, 0.01) == Mode::Estop);
    CHECK((w.latched() & kStopped) != 0);
    w.reset();
    CHECK(w.mode() == Mode::Wait && w.latched() == 0);
  }
}

static void quantiles_are_those_of_the_sorted_values() {
  DurationHistogram histogram;
  for (int i = 1; i <= 1000; ++i) histogram.add(i * 1000);
  CHECK_NEAR(histogram.quantile_us(0.5), 500, 0.2);
  CHECK_NEAR(histogram.quantile_us(0.999), 999, 0.2);
  histogram.add(50'000'000);
  CHECK_NEAR(histogram.quantile_us(1.0), 50'000, 20);
  CHECK_NEAR(histogram.max_us(), 50'000, 0);
}

int main() {
  actions_are_indexed_by_the_observations_time();
  linear_goes_from_action_to_action();
  an_ensemble_is_the_weighted_mean();
  a_cross_fade_never_jumps();
  a_triple_buffer_gives_whole_values_in_order();
  products_are_those_of_plain_loops();
  activations_are_exact_to_float32();
  the_watchdog_follows_its_table();
  quantiles_are_those_of_the_sorted_values();
}
