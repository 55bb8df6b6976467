/* Control steps of many MuJoCo simulations on a pool of threads.

   Python (native.py) hands in everything by address: the functions of the libmujoco it has loaded, models, one mjData
   per thread, the simulations' state rows and where derived fields go. So this file needs neither MuJoCo's headers nor
   its library, and no floating point number is computed here: it copies, calls and compares. */

#define _DEFAULT_SOURCE 1 /* _setjmp: the one that leaves the signals alone, also on macOS */
#define _DARWIN_C_SOURCE 1

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INTERFACE 1 /* raise it with every change of a struct or a function below that native.py mirrors */
#define LOG_ERROR 3 /* mjLOG_ERROR */
#define SPIN_NS 20000

typedef void (*LogHandler)(const int* message); /* an mjLogMessage, whose first member is its level */

/* ---- what native.py mirrors ---- */

typedef struct { /* functions of libmujoco */
  void (*set_state)(const void* model, void* data, const double* row, int components);
  void (*step)(const void* model, void* data);
  void (*rne_post_constraint)(const void* model, void* data); /* NULL: not wanted */
  void (*get_state)(const void* model, const void* data, double* row, int components);
  void (*reset_data)(const void* model, void* data);
  LogHandler (*set_thread_handler)(LogHandler handler); /* returns the one before */
  LogHandler (*global_handler)(void);
} Engine;

typedef struct { /* one field of every simulation: simulation i's `bytes` bytes start at base + i * stride */
  char* base;
  size_t stride, bytes;
} Field;

typedef struct { /* entries of a state row that must lie between low and high, the bounds themselves only if closed */
  size_t at, count;
  double low, high;
  int closed;
} Range;

typedef struct { /* everything it points to stays in place */
  Engine engine;
  int sims, threads, frame_skip, components;
  double* rows; /* [sims][width] */
  size_t width;
  const void** models; /* [sims] */
  void** data;         /* [threads] */
  int** warnings;      /* [threads], the first counter of mjData.warning */
  size_t warning_stride; /* in ints */
  const int* kinds;      /* [nkinds], the warnings after which a state means nothing */
  int nkinds, nwarnings;
  int noutputs;
  const Field* outputs; /* [noutputs], filled from */
  const char** sources; /* [threads][noutputs] */
  uint8_t* status;      /* [sims], 0 where the last call went well */
  uint8_t* inside;      /* [sims], 1 where all watched ranges held after the simulation's last step */
} Setup;

typedef struct { /* a chunk of control steps */
  int steps;
  const double* control; /* [sims][steps][ncontrol] */
  size_t control_at, ncontrol;
  const int64_t* limits; /* [sims], steps to make at most, at least 1 */
  int nrecords;
  const Field* records; /* [nrecords], what to record after each step, */
  char** recordings;    /* [nrecords], and where to: [sims][steps][bytes] */
} Roll;

/* ---- the pool ---- */

typedef struct {
  Setup setup;
  const Range* ranges; /* [nranges], watched: a simulation's chunk ends in the step that leaves one */
  int nranges;
  pthread_t* workers; /* [threads - 1] */
  int nworkers;
  pthread_mutex_t call, sleep; /* one call at a time; guards falling asleep and waking */
  pthread_cond_t wake, done;
  atomic_ulong epoch; /* calls so far */
  atomic_int next, active, stop, broken;
  const int64_t* ids; /* of the present call: simulations, NULL for all, */
  int count, block;   /* how many, how many a thread takes at a time, */
  const Roll* roll;   /* and the chunk, NULL for one step */
} Stepper;

typedef struct {
  Stepper* stepper;
  int thread;
} Seat;

static _Thread_local jmp_buf* landing; /* where an error of the running simulation goes */
static _Thread_local LogHandler handler_before;
static _Thread_local LogHandler (*handler_of_all)(void);

static void on_message(const int* message) {
  if (*message == LOG_ERROR && landing) _longjmp(*landing, 1);
  LogHandler other = handler_before ? handler_before : handler_of_all();
  if (other) other(message);
}

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- one simulation ---- */

/* Whether a warning came up that leaves no meaningful state. Forgets all warnings. */
static int unstable(const Setup* s, int thread) {
  int* counters = s->warnings[thread];
  int any = 0, bad = 0;
  for (int k = 0; k < s->nwarnings; k++) any |= counters[k * s->warning_stride];
  if (!any) return 0;
  for (int k = 0; k < s->nkinds; k++) bad |= counters[s->kinds[k] * s->warning_stride];
  for (int k = 0; k < s->nwarnings; k++) counters[k * s->warning_stride] = 0;
  return bad != 0;
}

/* Not a number is inside of nothing. */
static uint8_t inside(const Stepper* p, const double* row) {
  for (int k = 0; k < p->nranges; k++) {
    const Range* range = p->ranges + k;
    for (size_t j = range->at; j < range->at + range->count; j++) {
      const int within = range->closed ? range->low <= row[j] && row[j] <= range->high
                                       : range->low < row[j] && row[j] < range->high;
      if (!within) return 0;
    }
  }
  return 1;
}

/* One control step; nonzero where it broke. After an error of MuJoCo the row and the outputs stay as they were. */
static int advance(const Stepper* p, int thread, int64_t sim) {
  const Setup* s = &p->setup;
  const Engine* mj = &s->engine;
  const void* model = s->models[sim];
  void* data = s->data[thread];
  double* row = s->rows + sim * s->width;
  jmp_buf here;
  landing = &here;
  if (_setjmp(here)) {
    landing = NULL;
    mj->reset_data(model, data);
    return 1;
  }
  mj->set_state(model, data, row, s->components);
  for (int k = 0; k < s->frame_skip; k++) mj->step(model, data);
  if (mj->rne_post_constraint) mj->rne_post_constraint(model, data);
  mj->get_state(model, data, row, s->components);
  landing = NULL;
  s->inside[sim] = inside(p, row);
  const char** sources = s->sources + (size_t)thread * s->noutputs;
  for (int k = 0; k < s->noutputs; k++)
    memcpy(s->outputs[k].base + sim * s->outputs[k].stride, sources[k], s->outputs[k].bytes);
  return unstable(s, thread);
}

static void record(const Roll* r, int64_t sim, int step) {
  for (int k = 0; k < r->nrecords; k++) {
    const Field* field = r->records + k;
    char* to = r->recordings[k] + ((size_t)sim * r->steps + step) * field->bytes;
    memcpy(to, field->base + sim * field->stride, field->bytes);
  }
}

/* Control steps up to the simulation's own end; what was recorded last is repeated from there on. */
static int roll_out(const Stepper* p, int thread, int64_t sim) {
  const Roll* r = p->roll;
  double* row = p->setup.rows + sim * p->setup.width;
  int step = 0, going = 1;
  for (; step < r->steps && going; step++) {
    memcpy(row + r->control_at, r->control + ((size_t)sim * r->steps + step) * r->ncontrol,
           r->ncontrol * sizeof(double));
    if (advance(p, thread, sim)) return 1;
    record(r, sim, step);
    going = step + 1 < r->limits[sim] && p->setup.inside[sim];
  }
  for (; step < r->steps; step++) record(r, sim, step);
  return 0;
}

/* ---- sharing the work ---- */

static void work(Stepper* p, int thread) {
  const Setup* s = &p->setup;
  LogHandler before = s->engine.set_thread_handler(on_message);
  handler_before = before;
  handler_of_all = s->engine.global_handler;
  for (int from; (from = atomic_fetch_add(&p->next, p->block)) < p->count;)
    for (int j = from; j < from + p->block && j < p->count; j++) {
      const int64_t sim = p->ids ? p->ids[j] : j;
      s->status[sim] = (uint8_t)(p->roll ? roll_out(p, thread, sim) : advance(p, thread, sim));
      if (s->status[sim]) atomic_fetch_add(&p->broken, 1);
    }
  s->engine.set_thread_handler(before);
}

static int called(Stepper* p, unsigned long seen) { return atomic_load(&p->stop) || atomic_load(&p->epoch) != seen; }

/* Calls often follow each other at once: look out for the next one a little before falling asleep. */
static void await_call(Stepper* p, unsigned long seen) {
  for (int64_t end = now_ns() + SPIN_NS; now_ns() < end; pause_briefly())
    if (called(p, seen)) return;
  pthread_mutex_lock(&p->sleep);
  while (!called(p, seen)) pthread_cond_wait(&p->wake, &p->sleep);
  pthread_mutex_unlock(&p->sleep);
}

static void* serve(void* argument) {
  Seat seat = *(Seat*)argument;
  free(argument);
  Stepper* p = seat.stepper;
  for (unsigned long seen = 0;; seen++) { /* no call begins before all workers are done with the last */
    await_call(p, seen);
    if (atomic_load(&p->stop)) return NULL;
    work(p, seat.thread);
    if (atomic_fetch_sub(&p->active, 1) == 1) {
      pthread_mutex_lock(&p->sleep);
      pthread_cond_signal(&p->done);
      pthread_mutex_unlock(&p->sleep);
    }
  }
}

static void await_workers(Stepper* p) {
  for (int64_t end = now_ns() + SPIN_NS; now_ns() < end; pause_briefly())
    if (!atomic_load(&p->active)) return;
  pthread_mutex_lock(&p->sleep);
  while (atomic_load(&p->active)) pthread_cond_wait(&p->done, &p->sleep);
  pthread_mutex_unlock(&p->sleep);
}

/* Number of simulations that broke. */
static int run(Stepper* p, const int64_t* ids, int count, const Roll* roll) {
  pthread_mutex_lock(&p->call);
  const int share = count / (16 * p->setup.threads);
  p->ids = ids, p->count = count, p->roll = roll;
  p->block = share < 1 ? 1 : share > 8 ? 8 : share;
  memset(p->setup.status, 0, (size_t)p->setup.sims);
  atomic_store(&p->next, 0);
  atomic_store(&p->broken, 0);
  const int others = p->nworkers && count > p->block;
  if (others) {
    atomic_store(&p->active, p->nworkers);
    pthread_mutex_lock(&p->sleep);
    atomic_fetch_add(&p->epoch, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->sleep);
  }
  work(p, 0);
  if (others) await_workers(p);
  const int broken = atomic_load(&p->broken);
  pthread_mutex_unlock(&p->call);
  return broken;
}

/* ---- what native.py calls ---- */

int stepper_interface(void) { return INTERFACE; }

/* Ends the threads. */
void stepper_delete(Stepper* p) {
  pthread_mutex_lock(&p->sleep);
  atomic_store(&p->stop, 1);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->sleep);
  for (int k = 0; k < p->nworkers; k++) pthread_join(p->workers[k], NULL);
  pthread_cond_destroy(&p->wake);
  pthread_cond_destroy(&p->done);
  pthread_mutex_destroy(&p->sleep);
  pthread_mutex_destroy(&p->call);
  free(p->workers);
  free(p);
}

/* NULL without memory. Where the system gives fewer threads than asked for, it works with those. */
Stepper* stepper_new(const Setup* setup) {
  Stepper* p = calloc(1, sizeof(Stepper));
  if (!p) return NULL;
  p->setup = *setup;
  pthread_mutex_init(&p->call, NULL);
  pthread_mutex_init(&p->sleep, NULL);
  pthread_cond_init(&p->wake, NULL);
  pthread_cond_init(&p->done, NULL);
  p->workers = calloc((size_t)setup->threads, sizeof(pthread_t));
  for (int thread = 1; p->workers && thread < setup->threads; thread++) {
    Seat* seat = malloc(sizeof(Seat));
    if (!seat) break;
    *seat = (Seat){p, thread};
    if (pthread_create(&p->workers[p->nworkers], NULL, serve, seat)) {
      free(seat);
      break;
    }
    p->nworkers++;
  }
  return p;
}

/* From now on watch these ranges, which stay in place; at first there are none. */
void stepper_watch(Stepper* p, const Range* ranges, int nranges) { p->ranges = ranges, p->nranges = nranges; }

/* One control step of all simulations, or of `count` of them by their ids; returns how many broke. */
int stepper_step(Stepper* p, const int64_t* ids, int count) {
  return run(p, ids, ids ? count : p->setup.sims, NULL);
}

/* A chunk of control steps of all simulations; returns how many broke, of whom records are incomplete. */
int stepper_roll(Stepper* p, const Roll* roll) { return run(p, NULL, p->setup.sims, roll); }
