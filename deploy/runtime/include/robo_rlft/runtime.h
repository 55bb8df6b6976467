/* The runtime for C and for programs that load it. Every function is documented in runtime.hpp, where the threads' rules are.
 *
 * Times are nanoseconds of one clock (with rr_start: CLOCK_MONOTONIC, rr_now). Functions that return int give 0 where all went
 * well and -1 with a sentence in rr_error() where not; functions of the control path cannot fail. */
#ifndef ROBO_RLFT_RUNTIME_H
#define ROBO_RLFT_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RR_ABI_VERSION 1

typedef struct rr_runtime rr_runtime;

enum { RR_WAIT = 0, RR_RUN = 1, RR_HOLD = 2, RR_RAMP = 3, RR_ESTOP = 4 }; /* modes */

enum { /* faults, bits */
  RR_OBSERVATION_STALE = 1,
  RR_JOINTS_STALE = 2,
  RR_CHUNK_SPENT = 4,
  RR_POLICY_LATE = 8,
  RR_POLICY_NOT_FINITE = 16,
  RR_POLICY_FAILED = 32,
  RR_CLOCK_BACKWARDS = 64,
  RR_CLOCK_FORWARDS = 128,
  RR_JOINTS_INVALID = 256,
  RR_STOPPED = 512,
  RR_NOT_READY = 1024,
  RR_JOINTS_OUTSIDE = 2048
};

enum { /* what was clamped, bits */
  RR_CLAMP_POSITION = 1,
  RR_CLAMP_VELOCITY = 2,
  RR_CLAMP_ACCELERATION = 4,
  RR_CLAMP_EFFORT = 8,
  RR_CLAMP_NOT_FINITE = 16
};

enum { /* flags of a command, bits */
  RR_ENABLED = 1,
  RR_SPENT = 2,
  RR_EARLY = 4,
  RR_NEW_CHUNK = 8,
  RR_OVER_BUDGET = 16,
  RR_PREFIX_OVERRUN = 32,
  RR_EFFORT_CUT = 64
};

enum { RR_BACKEND_AUTOMATIC = 0, RR_BACKEND_NATIVE = 1, RR_BACKEND_ONNX = 2 };
enum { RR_INTERPOLATE_HOLD = 0, RR_INTERPOLATE_LINEAR = 1 };
enum { RR_STITCH_REPLACE = 0, RR_STITCH_ENSEMBLE = 1, RR_STITCH_CROSS_FADE = 2, RR_STITCH_REAL_TIME = 3 };
enum { RR_ESTOP_HOLD = 0, RR_ESTOP_CUT = 1 };

typedef struct rr_options {
  int32_t backend, interpolation, stitching, estop, inline_policy, reserved;
  double fade_s, decay, control_hz, simulated_latency_s;
  uint64_t seed;
  const char* onnx_library; /* NULL: the environment variable ROBO_RLFT_ONNXRUNTIME */
} rr_options;

typedef struct rr_sizes {
  int32_t actions, joints, given_joints, keys, frame_width, obs_horizon, chunk, execute, prefix, reserved;
  double rate_hz, control_hz, golden_error;
} rr_sizes;

typedef struct rr_status { /* of one command */
  int64_t now_ns, chunk_stamp_ns;
  double index;
  uint32_t mode, faults, latched, clamped, flags, reserved;
  uint64_t clamp_count;
} rr_status;

typedef struct rr_thread_options {
  int32_t control_priority, policy_priority, control_cpu, policy_cpu, lock_memory, reserved;
  /* In the control thread, every tick; may be NULL. */
  void (*on_command)(void* user, const rr_status* status, const double* target, const double* effort);
  void* user;
} rr_thread_options;

typedef struct rr_report { /* of the threads' last run; microseconds */
  uint64_t ticks, missed;
  double wake_p50, wake_p99, wake_p999, wake_max, body_p50, body_p99, body_p999, body_max;
} rr_report;

typedef struct rr_log_status {
  uint64_t written, dropped;
  int32_t error, reserved; /* errno, 0: none */
} rr_log_status;

int32_t rr_abi_version(void);
const char* rr_error(void); /* of this thread's last failed call */
int64_t rr_now(void);
void rr_default_options(rr_options* options);

rr_runtime* rr_create(const char* bundle, const rr_options* options); /* NULL: see rr_error() */
void rr_destroy(rr_runtime* runtime);
void rr_get_sizes(const rr_runtime* runtime, rr_sizes* sizes);
const char* rr_backend(const rr_runtime* runtime);
const char* rr_notes(rr_runtime* runtime); /* a line for each limit the bundle does not have; valid until the next call */
const char* rr_action_name(const rr_runtime* runtime, int32_t index); /* NULL beyond the last */
const char* rr_joint_name(const rr_runtime* runtime, int32_t index);
const char* rr_key(const rr_runtime* runtime, int32_t index, int32_t* width);

/* Before the first tick. */
int rr_bind_joints(rr_runtime* runtime, const char* const* names, int32_t count);
int rr_tighten(rr_runtime* runtime, const double* velocity, const double* acceleration);
int rr_set_workspace(rr_runtime* runtime, const double* pose, const double* low, const double* high);
/* Limits in force, [A] each, infinite where there is none. */
void rr_get_limits(rr_runtime* runtime, double* low, double* high, double* velocity, double* acceleration, double* effort);

/* 0: taken, 1: NaN or infinity, 2: not newer than the last one. */
int rr_observe(rr_runtime* runtime, int64_t stamp_ns, const float* frame);
int rr_joint_state(rr_runtime* runtime, int64_t stamp_ns, const double* position, const double* velocity);

void rr_tick(rr_runtime* runtime, int64_t now_ns, rr_status* status, double* target, double* effort);
int rr_policy_step(rr_runtime* runtime, int64_t now_ns); /* 1: the policy was asked, 0: nothing new */
void rr_set_noise(rr_runtime* runtime, const float* noise);
void rr_reset(rr_runtime* runtime);
void rr_estop(rr_runtime* runtime);

int rr_start(rr_runtime* runtime, const rr_thread_options* options);
void rr_stop(rr_runtime* runtime);
void rr_get_report(const rr_runtime* runtime, rr_report* report); /* while stopped */
const char* rr_missing_privileges(const rr_runtime* runtime);     /* while stopped */
/* The newest command of the threads; 1: there is one since the last call. One caller at a time. */
int rr_last_command(rr_runtime* runtime, rr_status* status, double* target, double* effort);

int rr_log(rr_runtime* runtime, const char* path); /* NULL or empty: ends the log */
void rr_get_log_status(const rr_runtime* runtime, rr_log_status* status);

#ifdef __cplusplus
}
#endif

#endif
