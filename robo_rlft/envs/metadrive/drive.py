"""One car of a MetaDrive world as a `SingleEnv`. Importing this module imports MetaDrive: workers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from metadrive.obs.state_obs import LidarStateObservation

from robo_rlft.envs.metadrive.advisers import Adviser, make_adviser
from robo_rlft.envs.metadrive.episode import METRICS, Ledger
from robo_rlft.envs.metadrive.observations import TopDown, image_specs, policy_spec
from robo_rlft.envs.metadrive.render import topdown
from robo_rlft.envs.metadrive.tasks import CAR_ACTION, RATE_HZ, find
from robo_rlft.envs.metadrive.world import Blank, open_world
from robo_rlft.envs.pool.single import Frame, Outcome, SingleEnv
from robo_rlft.spec import POLICY_KEY, RobotSpec


class Drive(SingleEnv):
    """A car that must reach the end of its route.

    Args:
        task: a name of `tasks.TASKS`.
        params: settled parameters of the task.
        cameras: top-down images to observe.
        size: their height and width in pixels.
    """

    has_success = True
    has_expert = True
    survives_fork = True
    metrics = METRICS

    def __init__(self, task: str, params: Mapping[str, Any], cameras: Sequence[str], size: Sequence[int]) -> None:
        self._task, self._params = find(task), dict(params)
        self.world = open_world(self._task.env, _settings(task, params))
        config = self.world.config
        self._images = image_specs(cameras, size)
        observation = {POLICY_KEY: policy_spec(config["vehicle_config"], self._task.replays), **self._images}
        horizon, shown = int(params["max_episode_steps"]), {k: v for k, v in params.items() if k != "config"}
        self.robot = RobotSpec(
            f"metadrive:{task}", observation, CAR_ACTION, RATE_HZ, horizon, shown | dict(params["config"])
        )
        self._state = LidarStateObservation(config)
        self._topdown = TopDown(config["vehicle_config"], cameras, size[0]) if self._images else None
        self._ledger = Ledger(horizon)
        self._adviser: Adviser | None = None
        self._advice: tuple[int, np.ndarray] | None = None

    def reset(self, seed: int, variant: int) -> None:
        """See `SingleEnv.reset`. Scenario `seed` modulo their number; the seed decides all that it leaves open."""
        self._seed = seed
        index = self.world.start_index + seed % self.world.num_scenarios
        self.world.begin(seed, index, self._params["random_traffic"])
        self._ledger.begin()
        self._adviser = self._advice = None
        if self._topdown:
            self._topdown.begin(self.world, self.world.agent)

    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """See `SingleEnv.step`."""
        _, reward, terminated, truncated, info = self.world.step(action)
        if self._topdown:
            self._topdown.see(self.world.agent)
        return self._ledger.enter(reward, terminated, truncated, info)

    def observe(self) -> Frame:
        """See `SingleEnv.observe`."""
        state = {POLICY_KEY: self._state.observe(self.world.agent)}
        return {**state, **self._topdown.images} if self._topdown else state

    def expert_action(self) -> Float[np.ndarray, " action"]:
        """See `SingleEnv.expert_action`. The same however often it is asked for in one state."""
        if self._adviser is None:
            self._adviser = make_adviser(self._params["expert"], self.world, self.world.agent, self._seed)
        step = self.world.episode_step
        if self._advice is None or self._advice[0] != step:
            self._advice = step, np.clip(self._adviser.act(), -1.0, 1.0)
        return self._advice[1]

    def render(self, camera: str | None, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """See `SingleEnv.render`. From above, `ego` turned so that the car drives up."""
        return topdown(self.world, camera, size)

    def close(self) -> None:
        """See `SingleEnv.close`."""
        self.world.close()


def _settings(task: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """MetaDrive's settings. Time limits are the pool's, and states are observed only where somebody looks."""
    settings = {"agent_observation": Blank, **find(task).config(params)}
    if find(task).replays and params["num_scenarios"] is None:
        from metadrive.scenario.utils import get_number_of_scenarios

        total = get_number_of_scenarios(params["data_directory"])
        settings["num_scenarios"] = total - params["start_scenario_index"]
    return settings
