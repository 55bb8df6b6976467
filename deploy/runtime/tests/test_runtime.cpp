// The whole runtime on a synthetic bundle: allocations, threads, the log, a refused bundle. Faults and limits under fuzzing
// are tested from Python, through the C interface.
#include <unistd.h>

#include <atomic>
#include <new>

#include "check.hpp"
#include "robo_rlft/runtime.hpp"
#include "synthetic.hpp"

using namespace robo_rlft;

static std::atomic<std::uint64_t> g_allocations{0};

// Every allocation of this program passes here: operator new by its replacement, the functions of C where the linker wraps them.
extern "C" {
void* __real_malloc(std::size_t);
void* __real_calloc(std::size_t, std::size_t);
void* __real_realloc(void*, std::size_t);
void* __real_aligned_alloc(std::size_t, std::size_t);
void* __wrap_malloc(std::size_t size) { return ++g_allocations, __real_malloc(size); }
void* __wrap_calloc(std::size_t n, std::size_t size) { return ++g_allocations, __real_calloc(n, size); }
void* __wrap_realloc(void* p, std::size_t size) { return ++g_allocations, __real_realloc(p, size); }
void* __wrap_aligned_alloc(std::size_t to, std::size_t size) { return ++g_allocations, __real_aligned_alloc(to, size); }
}
#ifndef ROBO_RLFT_SANITIZED
void* operator new(std::size_t size) {
  ++g_allocations;
  if (void* p = __real_malloc(size)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif

constexpr std::int64_t kMs = 1'000'000;
static const std::vector<float> kFrame(64, 0.5f);

struct Robot {
  std::vector<double> q, dq;
  explicit Robot(const Runtime& r) : q(static_cast<std::size_t>(r.bundle().joints.size())), dq(q.size()) {}
};

// One control step of an ideal robot.
static void step(Runtime& runtime, Robot& robot, Command& command, std::int64_t now, bool ask) {
  runtime.observe(now, kFrame.data());
  runtime.joint_state(now, robot.q.data(), robot.dq.data());
  if (ask) runtime.policy_step(now);
  runtime.tick(now, command);
  if ((command.flags & kEnabled) != 0) robot.q = command.target;
}

static void nothing_is_allocated_in_a_tick_or_a_native_policy_call() {
#ifndef ROBO_RLFT_SANITIZED
  const std::uint64_t before_any = g_allocations;
  int* volatile one = new int(1);  // volatile: an allocation that nobody needs may be left out otherwise
  delete one;
  void* volatile eight = std::malloc(8);
  std::free(eight);
  CHECK(g_allocations == before_any + 2);  // the counter counts
#endif
  for (const Stitching stitching : {Stitching::Replace, Stitching::Ensemble, Stitching::CrossFade}) {
    for (const bool inline_policy : {false, true}) {
      const std::string folder = synthetic::bundle("allocations");
      Options options;
      options.stitching = stitching;
      options.inline_policy = inline_policy;
      Runtime runtime(folder, options);
      runtime.log(folder + "/log.bin");
      Robot robot(runtime);
      Command command = runtime.empty_command();
      std::int64_t now = 1000 * kMs;
      const std::uint64_t before = g_allocations;
      for (int i = 0; i < 2000; ++i, now += 20 * kMs) {
        // All modes: a reset now and then, an emergency stop, a gap.
        if (i % 500 == 300) now += 200 * kMs;
        if (i % 500 == 450) runtime.estop();
        if (i % 500 == 490) runtime.reset();
        step(runtime, robot, command, now, !inline_policy && i % 4 == 0);
      }
      const std::uint64_t after = g_allocations;
      std::printf("allocations in 2000 ticks and 500 policy calls: %llu\n", static_cast<unsigned long long>(after - before));
      CHECK(after == before);
      std::filesystem::remove_all(folder);
    }
  }
}

static void a_wrong_network_is_refused() {
  const std::string folder = synthetic::bundle("wrong");
  synthetic::Shape other;
  synthetic::Network network(other);
  network.tensors["layers.0.bias"].data[0] += 0.1f;
  const std::string weights = synthetic::safetensors(network.tensors), old = read_file(folder + "/weights.safetensors");
  std::string text = read_file(folder + "/runtime.json");
  const std::string hash = sha256(old);
  text.replace(text.find(hash), hash.size(), sha256(weights));
  synthetic::write(folder + "/weights.safetensors", weights);
  synthetic::seal(folder, text);
  CHECK_REFUSED(Runtime(folder), "does not reproduce its golden actions");
  std::filesystem::remove_all(folder);
}

// Control, policy and sensor threads at once, with resets, an emergency stop and the log: for the thread sanitizer.
static void threads_share_nothing_by_accident() {
  synthetic::Shape shape;
  shape.rate_hz = 200;
  shape.chunk = 40;
  const std::string folder = synthetic::bundle("threads", shape);
  Options options;
  options.control_hz = 500;
  options.simulated_latency_ns = 5 * kMs;
  Runtime runtime(folder, options);
  runtime.log(folder + "/log.bin");
  std::vector<double> q(2, 0.25), dq(2, 0.0);
  const std::vector<float> frame(5, 0.5f);
  std::atomic<int> ran{0}, stopped{0};
  ThreadOptions threads;
  threads.on_command = [&](const Command& command) {
    if (command.mode == Mode::Run) ++ran;
    if (command.mode == Mode::Estop) ++stopped;
  };
  runtime.start(threads);
  CHECK_REFUSED(runtime.start({}), "running already");
  CHECK_REFUSED(runtime.log(""), "stopped");
  for (int i = 0; i < 600; ++i) {
    const std::int64_t now = monotonic_ns();
    runtime.observe(now, frame.data());
    runtime.joint_state(now, q.data(), dq.data());
    if (i == 300) runtime.estop();
    if (i == 400 || i % 100 == 50) runtime.reset();
    sleep_until_ns(now + 2 * kMs);
  }
  runtime.stop();
  CHECK(ran > 50 && stopped > 5);
  CHECK(runtime.report().ticks > 100);
  runtime.log("");
  CHECK(std::filesystem::file_size(folder + "/log.bin") > 10000);
  std::filesystem::remove_all(folder);
}

static void a_disk_that_fails_stops_the_log_alone() {
  const std::string folder = synthetic::bundle("disk");
  for (const std::string path : {"/dev/full", "/nowhere/at/all.log", "/"}) {
    Runtime runtime(folder);
    runtime.log(path);
    Robot robot(runtime);
    Command command = runtime.empty_command();
    for (int i = 0; i < 100; ++i) step(runtime, robot, command, (1000 + 20 * i) * kMs, i % 4 == 0);
    CHECK(command.mode == Mode::Run);
    LogStatus status = runtime.log_status();
    for (int i = 0; i < 100 && status.dropped < 125; ++i) {
      sleep_until_ns(monotonic_ns() + 50 * kMs);
      status = runtime.log_status();
    }
    CHECK(status.error != 0 && status.written == 0 && status.dropped == 125);
  }
  std::filesystem::remove_all(folder);
}

int main() {
  nothing_is_allocated_in_a_tick_or_a_native_policy_call();
  a_wrong_network_is_refused();
  threads_share_nothing_by_accident();
  a_disk_that_fails_stops_the_log_alone();
}
