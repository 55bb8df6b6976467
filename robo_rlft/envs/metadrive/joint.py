"""A MetaDrive world that several learning cars share, as one `SingleEnv` for `AgentRows` to take apart.

A world of A cars is never over. Each of its A places holds a car, or waits for one: where a car's episode ends, the car
leaves the road, and another takes its place as soon as a spawn point is free and the action says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from robo_rlft.envs.metadrive.advisers import Adviser, make_adviser
from robo_rlft.envs.metadrive.episode import METRICS, Ledger
from robo_rlft.envs.metadrive.observations import policy_spec
from robo_rlft.envs.metadrive.render import topdown
from robo_rlft.envs.metadrive.tasks import RATE_HZ, find
from robo_rlft.envs.metadrive.world import open_world
from robo_rlft.envs.pool.single import Frame, Outcome, SingleEnv
from robo_rlft.spec import POLICY_KEY, ArraySpec, RobotSpec

FINAL = "final"
"""Observation group: what each place's car saw after the step, before another took its place."""
EVENTS = "events"
"""Observation group: what the step did to each place, `EVENT_NAMES`."""
EVENT_NAMES = ("reward", "terminated", "truncated", "success", *METRICS)
_FOREVER = 2**31 - 1


class JointWorld(SingleEnv):
    """A cars in one world.

    Its observation is `policy` [A, D], `final` [A, D] and `events` [A, F]; a waiting place sees zeros. Its action is
    steering and throttle of each place, then whether waiting places may be filled after the step (above 0).

    Args:
        task: a name of `tasks.TASKS`.
        params: settled parameters of the task.
    """

    has_expert = True
    survives_fork = True

    def __init__(self, task: str, params: Mapping[str, Any]) -> None:
        self._params, self.agents = dict(params), int(params["num_agents"])
        self._horizon = int(params["max_episode_steps"])
        config = find(task).config(params) | {"horizon": self._horizon}
        self.world = open_world(find(task).env, config)
        self.car = policy_spec(self.world.config["vehicle_config"], replays=False)
        width = len(self.car.names)
        observation = {
            POLICY_KEY: ArraySpec((self.agents, width), names=self.car.names),
            FINAL: ArraySpec((self.agents, width), names=self.car.names),
            EVENTS: ArraySpec((self.agents, len(EVENT_NAMES)), "float64", EVENT_NAMES),
        }
        low, high = (-1.0,) * (2 * self.agents + 1), (1.0,) * (2 * self.agents + 1)
        action = ArraySpec((2 * self.agents + 1,), low=low, high=high)
        self.robot = RobotSpec(f"metadrive:{task}", observation, action, RATE_HZ, _FOREVER, dict(params))
        self._places: list[str | None] = []
        self._ledgers = [Ledger(self._horizon) for _ in range(self.agents)]
        self._advisers: dict[str, Adviser] = {}
        self._frame: Frame = {}

    def reset(self, seed: int, variant: int) -> None:
        """See `SingleEnv.reset`."""
        self._draws = np.random.default_rng(seed)
        self.world.begin(seed, self.world.start_index, vary_traffic=True)
        self._places = sorted(self.world.agents, key=lambda name: int(name.removeprefix("agent")))
        self._advisers = {}
        for ledger in self._ledgers:
            ledger.begin()
        seen = self._look()
        self._frame = {POLICY_KEY: seen, FINAL: seen, EVENTS: np.zeros((self.agents, len(EVENT_NAMES)))}

    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """See `SingleEnv.step`. Nothing ends; `observe` tells what happened."""
        final = np.zeros((self.agents, len(self.car.names)), np.float32)
        events = np.zeros((self.agents, len(EVENT_NAMES)))
        if any(self._places):  # MetaDrive does not step an empty world, and nothing would move in it
            self._drive(action[:-1].reshape(self.agents, 2), final, events)
        fresh = final.copy()
        for i, obs in (self._fill() if action[-1] > 0 else {}).items():
            fresh[i] = obs
        self._frame = {POLICY_KEY: fresh, FINAL: final, EVENTS: events}
        return Outcome(float(events[:, 0].sum()))

    def observe(self) -> Frame:
        """See `SingleEnv.observe`."""
        return self._frame

    def expert_action(self) -> Float[np.ndarray, " action"]:
        """See `SingleEnv.expert_action`. Once a step: its drivers remember."""
        action = np.zeros(2 * self.agents + 1)
        for i, name in enumerate(self._places):
            if name and name not in self._advisers:
                seed = int(self._draws.integers(2**31))
                self._advisers[name] = make_adviser(self._params["expert"], self.world, self.world.agents[name], seed)
            if name:
                action[2 * i : 2 * i + 2] = np.clip(self._advisers[name].act(), -1.0, 1.0)
        return action

    def render(self, camera: str | None, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """See `SingleEnv.render`. The whole world from above."""
        return topdown(self.world, camera, size)

    def close(self) -> None:
        """See `SingleEnv.close`."""
        self.world.close()

    def _drive(
        self,
        commands: Float[np.ndarray, "agent 2"],
        final: Float[np.ndarray, "agent obs"],
        events: Float[np.ndarray, "agent event"],
    ) -> None:
        """One step of the world; fills in what each car saw and what happened to it."""
        self._tidy()
        orders = {name: commands[i] for i, name in enumerate(self._places) if name}
        seen, reward, terminated, truncated, info = self.world.step(orders)
        for i, name in enumerate(self._places):
            if not name:
                continue
            final[i] = seen[name]
            outcome = self._ledgers[i].enter(reward[name], terminated[name], truncated[name], info[name])
            events[i] = _as_row(outcome)
            if outcome.terminated or outcome.truncated:
                self._advisers.pop(name, None)
                self._places[i] = None

    def _look(self) -> Float[np.ndarray, "agent obs"]:
        cars = self.world.agents
        return np.stack([self.world.observations[name].observe(cars[name]) for name in self._places if name])

    def _fill(self) -> dict[int, np.ndarray]:
        """Cars for the places that wait, as far as spawn points are free; what they see first."""
        spawn, seen = self.world.engine.spawn_manager, {}
        # Its cars that ended are destroyed and have lost the names MetaDrive would look them up by.
        self.world.agent_manager._agents_finished_this_frame.clear()
        spawn.spawn_places_used = taken = []
        for i, name in enumerate(self._places):
            if name is not None:
                continue
            # MetaDrive counts every free point as used as soon as one of them is.
            spawn.spawn_places_used = list(taken)
            fresh, obs, _ = self.world._respawn_single_vehicle()
            if fresh is None:
                break
            lane = self.world.agents[fresh].config["spawn_lane_index"]
            taken += [
                key for key, point in spawn.safe_spawn_places.items() if point["config"]["spawn_lane_index"] == lane
            ]
            self._places[i], seen[i] = fresh, obs
            self._ledgers[i].begin()
            # MetaDrive counts a respawned car's steps from nothing.
            self.world.episode_lengths[fresh] = 0
        return seen

    def _tidy(self) -> None:
        """Forget cars that left: MetaDrive looks through all it ever had, and ends a world after five horizons."""
        manager, present = self.world.agent_manager, set(self.world.agent_manager._active_objects)
        for table in (manager.observations, manager.observation_spaces, manager.action_spaces):
            for name in table.keys() - present:
                del table[name]
        for table in (self.world.dones, self.world.episode_rewards, self.world.episode_lengths):
            for name in table.keys() - set(self.world.agents):
                del table[name]
        self.world.engine.episode_step = 0


def _as_row(outcome: Outcome) -> Float[np.ndarray, " event"]:
    ends = (float(outcome.terminated), float(outcome.truncated and not outcome.terminated), float(outcome.success))
    return np.array([outcome.reward, *ends, *(outcome.metrics[name] for name in METRICS)])
