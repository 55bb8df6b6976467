"""MetaDrive's tasks as a table: which of its environments, which parameters, which settings. Imports no MetaDrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import ArraySpec

HORIZON = 1000
"""Control steps of an episode unless `max_episode_steps` says otherwise: 100 s at 10 Hz."""
SCENARIOS = 50_021
"""Generated roads. Seed s drives road s modulo this: so many that a training hardly meets an evaluation's, and no round
number, so that the blocks of seeds of demonstrations, training and evaluation fall on different ones."""
RATE_HZ = 10.0
"""Control rate: five physics steps of .02 s."""
CAR_ACTION = ArraySpec((2,), names=("steering", "throttle"), low=(-1.0, -1.0), high=(1.0, 1.0))
EXPERTS = ("ppo", "idm")
SUMMARY_FILE = "dataset_summary.pkl"
"""Marks a folder of scenario files."""
_OURS = ("max_episode_steps", "expert", "random_traffic", "config")
"""Parameters that are not MetaDrive settings of the same name."""


@dataclass(frozen=True)
class Task:
    """One kind of driving.

    Attributes:
        name: what follows `metadrive:`.
        description: one line.
        env: MetaDrive's class, "module:Class".
        params: the parameters it takes and their defaults. All but `max_episode_steps`, `expert`, `random_traffic` and
            `config` are MetaDrive settings of that name; `config` holds any others.
        fixed: MetaDrive settings that make the task what it is.
        experts: who can act in it for demonstrations.
    """

    name: str
    description: str
    env: str
    params: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    experts: tuple[str, ...] = EXPERTS

    @property
    def agents(self) -> bool:
        """Several agents of one world are learned, one per row."""
        return "num_agents" in self.params

    @property
    def replays(self) -> bool:
        """It takes its episodes from scenario files."""
        return "data_directory" in self.params

    def settled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters: the defaults and what is given instead.

        Raises:
            ConfigError: an unknown parameter, or a value it cannot have.
        """
        for name in given.keys() - self.params.keys():
            raise ConfigError(f"environment metadrive:{self.name}: {unknown_name('parameter', name, self.params)}")
        params = {**self.params, **given}
        if params["expert"] not in self.experts:
            raise ConfigError(
                f"environment metadrive:{self.name}: {unknown_name('expert', params['expert'], self.experts)}"
            )
        if int(params["max_episode_steps"]) < 1:
            raise ConfigError(f"max_episode_steps={params['max_episode_steps']}: an episode has at least one step")
        if self.replays:
            params["data_directory"] = str(_scenario_folder(params["data_directory"]))
        return params

    def config(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """MetaDrive's settings for settled parameters."""
        named = {k: v for k, v in params.items() if k not in _OURS and v is not None}
        return {**self.fixed, **named, **params["config"]}


def find(name: str) -> Task:
    """The task of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        raise ConfigError(unknown_name("task of metadrive", name, TASKS))
    return TASKS[name]


def _scenario_folder(given: str) -> Path:
    if not given:
        raise ConfigError(
            "environment metadrive:Scenario replays scenario files, and none come with MetaDrive: set "
            "env.params.data_directory, and make some with python -m robo_rlft.envs.metadrive.scenarios FOLDER"
        )
    folder = Path(given).expanduser().resolve()
    if not (folder / SUMMARY_FILE).is_file():
        raise ConfigError(f"data_directory={given} holds no {SUMMARY_FILE}: give a folder of ScenarioDescription files")
    return folder


_COMMON = {"max_episode_steps": HORIZON, "expert": "ppo", "random_traffic": False, "config": {}}
_ROAD = {"map": 3, "traffic_density": 0.1, "accident_prob": 0.0, "start_seed": 0, "num_scenarios": SCENARIOS}


def _agents(name: str, module: str, env: str, description: str, num_agents: int = 10) -> Task:
    params = {**_COMMON, "expert": "idm", "num_agents": num_agents, "random_traffic": True}
    fixed = {"allow_respawn": False, "delay_done": 0, "truncate_as_terminate": False, "force_seed_spawn_manager": True}
    target = f"metadrive.envs.marl_envs.{module}:{env}"
    return Task(name, description, target, params, fixed, experts=("idm",))


_ALL = (
    Task(
        "Procedural",
        "drive a generated road among traffic to its end",
        "metadrive.envs.metadrive_env:MetaDriveEnv",
        {**_COMMON, **_ROAD},
    ),
    Task(
        "Safe",
        "drive a generated road with obstacles; collisions cost, but end nothing",
        "metadrive.envs.safe_metadrive_env:SafeMetaDriveEnv",
        {**_COMMON, **_ROAD, "traffic_density": 0.05, "accident_prob": 0.8},
    ),
    Task(
        "Scenario",
        "drive the route of a recorded scenario among its traffic, replayed or reactive",
        "metadrive.envs.scenario_env:ScenarioEnv",
        {
            **_COMMON,
            "expert": "idm",
            "data_directory": "",
            "start_scenario_index": 0,
            "num_scenarios": None,
            "reactive_traffic": False,
            "no_traffic": False,
        },
        experts=("idm",),
    ),
    _agents("MultiAgentRoundabout", "marl_inout_roundabout", "MultiAgentRoundaboutEnv", "agents share a roundabout"),
    _agents("MultiAgentIntersection", "marl_intersection", "MultiAgentIntersectionEnv", "agents share a crossing"),
    _agents("MultiAgentBottleneck", "marl_bottleneck", "MultiAgentBottleneckEnv", "agents merge at a bottleneck"),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
