// The safety filter against its own promise, with whatever is thrown at it.
#include <limits>
#include <random>

#include "check.hpp"
#include "robo_rlft/safety.hpp"

using namespace robo_rlft;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

static double anything(std::mt19937_64& g) {
  std::uniform_real_distribution<double> unit(-2.0, 2.0);
  switch (g() % 12) {
    case 0: return std::numeric_limits<double>::quiet_NaN();
    case 1: return kInfinity;
    case 2: return -1e300;
    case 3: return 1e12 * unit(g);
    default: return unit(g);
  }
}

static double tick(std::mt19937_64& g) {
  const double periods[] = {0.0, 1e-9, 1e-4, 1e-3, 1e-3, 1e-3, 0.02};
  return periods[g() % 7];
}

// 20 000 scenarios of 200 ticks with changing periods: steps, accelerations, the range and the distance left to stop.
static void no_step_is_ever_too_large() {
  std::mt19937_64 g(1);
  std::uniform_real_distribution<double> unit(0.0, 1.0);
  for (int scenario = 0; scenario < 20000; ++scenario) {
    const double low = -unit(g) - 0.01, high = unit(g) + 0.01;
    const Limits limits{low, high, std::exp(4 * unit(g) - 2), g() % 4 == 0 ? kInfinity : std::exp(6 * unit(g) - 1), kInfinity};
    MotionChannel channel(limits);
    channel.start(low + unit(g) * (high - low));
    double position = channel.position(), velocity = 0.0;
    for (int i = 0; i < 200; ++i) {
      const double dt = tick(g);
      if (g() % 50 == 0) channel.brake(dt);
      else channel.follow(anything(g), dt);
      CHECK(std::isfinite(channel.position()));
      CHECK(std::fabs(channel.position() - position) <= limits.velocity * dt);
      CHECK(channel.position() >= low && channel.position() <= high);
      if (dt > 0) CHECK(std::fabs(channel.velocity() - velocity) <= limits.acceleration * dt * (1 + 1e-9) + 1e-12);
      const double left = channel.velocity() > 0 ? high - channel.position() : channel.position() - low;
      if (std::isfinite(limits.acceleration)) CHECK(channel.velocity() * channel.velocity() / (2 * limits.acceleration) <= left + 1e-9);
      position = channel.position(), velocity = channel.velocity();
    }
  }
}

static void a_start_outside_comes_back_at_the_speed_limit() {
  MotionChannel channel({-1, 1, 0.5, 10, kInfinity});
  channel.start(3.0);
  double before = 3.0;
  for (int i = 0; i < 10000; ++i) {
    channel.follow(5.0, 1e-3);
    CHECK(std::fabs(channel.position() - before) <= 0.5e-3);
    CHECK(channel.position() <= before);
    before = channel.position();
  }
  CHECK_NEAR(channel.position(), 1.0, 1e-6);
}

static void a_target_is_reached_without_overshoot_in_the_shortest_time() {
  // Bang-bang from 0 to 1 with v = 1, a = 2: 0.5 s up, 0.5 s flat, 0.5 s down.
  MotionChannel channel({-10, 10, 1, 2, kInfinity});
  channel.start(0.0);
  int ticks = 0;
  while (std::fabs(channel.position() - 1.0) > 1e-4 && ticks < 5000) {
    channel.follow(1.0, 1e-3);
    CHECK(channel.position() <= 1.0 + 1e-9);
    ++ticks;
  }
  CHECK_NEAR(ticks * 1e-3, 1.5, 0.02);
}

static void a_moving_target_is_followed_without_lag() {
  MotionChannel channel({-10, 10, 2, 5, kInfinity});
  channel.start(0.0);
  double worst = 0.0;
  for (int i = 1; i < 8000; ++i) {
    const double wanted = 0.5 * std::sin(2.0 * i * 1e-3);
    channel.follow(wanted, 1e-3);
    if (i > 2000) worst = std::max(worst, std::fabs(channel.position() - wanted));
  }
  CHECK(worst < 1e-9);
}

static void braking_stops_in_the_shortest_time() {
  MotionChannel channel({-10, 10, 1, 2, kInfinity});
  channel.start(0.0, 1.0);
  int ticks = 0;
  while (channel.velocity() != 0.0) channel.brake(1e-3), ++ticks;
  CHECK(ticks >= 500 && ticks <= 501);
  CHECK_NEAR(channel.position(), 0.25, 1e-3);
}

static void without_limits_the_target_is_met_exactly() {
  MotionChannel channel({-kInfinity, kInfinity, kInfinity, kInfinity, kInfinity});
  channel.start(0.0);
  for (const double wanted : {0.1, -7.3, 1e9, 0.3}) {
    CHECK(channel.follow(wanted, 0.02) == 0);
    CHECK(channel.position() == wanted);
  }
  CHECK((channel.follow(kInfinity, 0.02) & kClampNotFinite) != 0);
}

static void velocities_stop_before_the_end_of_the_range() {
  std::mt19937_64 g(2);
  for (int scenario = 0; scenario < 5000; ++scenario) {
    const Limits limits{-1, 1, 2, 8, kInfinity};
    VelocityChannel channel(limits);
    double position = 0.0, before = 0.0;
    for (int i = 0; i < 2000; ++i) {
      channel.follow(anything(g), position, 1e-3);
      CHECK(std::fabs(channel.velocity()) <= limits.velocity);
      CHECK(std::fabs(channel.velocity() - before) <= limits.acceleration * 1e-3 * (1 + 1e-9));
      before = channel.velocity();
      position += before * 1e-3;  // a robot that does what it is told
      CHECK(std::fabs(position) <= 1.0 + 1e-9);
    }
    if (scenario > 50) break;  // 100 000 ticks
  }
}

static void efforts_are_bounded_and_never_push_outwards() {
  const Limits limits{-1, 1, kInfinity, kInfinity, 3};
  double effort = 10;
  CHECK(clamp_effort(limits, 0.0, &effort) == kClampEffort && effort == 3);
  effort = 2;
  CHECK(clamp_effort(limits, 1.0, &effort) == kClampPosition && effort == 0);
  effort = -2;
  CHECK(clamp_effort(limits, 1.0, &effort) == 0 && effort == -2);
  effort = std::numeric_limits<double>::quiet_NaN();
  CHECK(clamp_effort(limits, 0.0, &effort) == kClampNotFinite && effort == 0);
  CHECK(joint_pd(10, 1, 100, 1.0, 0.5, 2.0) == 3.0);
  CHECK(joint_pd(10, 1, 2, 1.0, 0.5, 2.0) == 2.0);
  CHECK(joint_pd(10, 1, 2, std::numeric_limits<double>::quiet_NaN(), 0.5, 2.0) == 0.0);
}

int main() {
  no_step_is_ever_too_large();
  a_start_outside_comes_back_at_the_speed_limit();
  a_target_is_reached_without_overshoot_in_the_shortest_time();
  a_moving_target_is_followed_without_lag();
  braking_stops_in_the_shortest_time();
  without_limits_the_target_is_met_exactly();
  velocities_stop_before_the_end_of_the_range();
  efforts_are_bounded_and_never_push_outwards();
}
