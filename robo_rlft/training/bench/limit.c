/* The limit of a simulator built on MuJoCo: mj_step alone, replaying recorded states and controls.

   Each thread replays all control steps of its own environments and never waits for another, as no simulator
   that hands observations to a policy after every step can. */

#include <mujoco/mujoco.h>
#include <pthread.h>
#include <time.h>

typedef struct {
  const mjModel* model;
  mjData* data;
  const mjtNum* states; /* [steps][envs][nstate], controls included */
  mjtNum* after;        /* [envs][nstate], the states the last step leads to */
  int first, last, envs, steps, frame_skip, nstate;
} Share;

static void* replay_share(void* argument) {
  const Share* s = argument;
  for (int t = 0; t < s->steps; t++)
    for (int i = s->first; i < s->last; i++) {
      mj_setState(s->model, s->data, s->states + ((size_t)t * s->envs + i) * s->nstate, mjSTATE_INTEGRATION);
      for (int k = 0; k < s->frame_skip; k++) mj_step(s->model, s->data);
      if (t == s->steps - 1)
        mj_getState(s->model, s->data, s->after + (size_t)i * s->nstate, mjSTATE_INTEGRATION);
    }
  return NULL;
}

/* Wall seconds for `steps` control steps of `envs` environments on `threads` threads, at most 64; negative on failure. */
double replay(const mjModel* model, const mjtNum* states, mjtNum* after, int envs, int steps, int frame_skip, int threads) {
  pthread_t handles[64];
  Share shares[64];
  const int nstate = mj_stateSize(model, mjSTATE_INTEGRATION);
  if (threads > 64) return -1;
  for (int k = 0; k < threads; k++) {
    shares[k] = (Share){model, mj_makeData(model), states, after, envs * k / threads, envs * (k + 1) / threads,
                        envs,  steps,              frame_skip, nstate};
    if (!shares[k].data) return -1;
  }
  struct timespec start, stop;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int k = 1; k < threads; k++)
    if (pthread_create(&handles[k], NULL, replay_share, &shares[k])) return -1;
  replay_share(&shares[0]);
  for (int k = 1; k < threads; k++) pthread_join(handles[k], NULL);
  clock_gettime(CLOCK_MONOTONIC, &stop);
  for (int k = 0; k < threads; k++) mj_deleteData(shares[k].data);
  return (stop.tv_sec - start.tv_sec) + 1e-9 * (stop.tv_nsec - start.tv_nsec);
}
