"""LIBERO: a Panda arm and 130 household tasks told in words. `libero:libero_spatial/3` is one, `libero:libero_spatial`
a suite whose tasks are variants.

Physics, controller and success are LIBERO's own on robosuite 1.4. Its sensors and its renderer are not used: the state
is read from the simulation, and images are drawn the right way up, and only where somebody looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import mujoco
import numpy as np
import torch
from jaxtyping import Float

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.envs.pool.single import Frame, Outcome, SingleEnv
from robo_rlft.envs.suites.borrowed_random import drawing_from
from robo_rlft.envs.suites.bundle import Bundle
from robo_rlft.envs.suites.libero_expert import PickAndPlace
from robo_rlft.envs.suites.libero_tasks import LIMITS, Task, chosen, names, suite
from robo_rlft.envs.suites.libero_view import PROPRIOCEPTION, Privileged, proprioception
from robo_rlft.envs.suites.pictures import LOOKS, expect_one_of
from robo_rlft.envs.suites.quiet import quiet
from robo_rlft.envs.suites.simulated import SimulatedEnv
from robo_rlft.errors import ConfigError
from robo_rlft.spec import CRITIC_KEY, POLICY_KEY, ArraySpec, RobotSpec

RATE_HZ = 20.0
CAMERAS = {"eye_in_hand": "robot0_eye_in_hand"}
"""LIBERO observes through two cameras, this one and `agentview`."""
SETTLING = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
"""Standing still with the gripper open, while objects fall the last millimetres."""
_ACTION = ("move_x", "move_y", "move_z", "turn_x", "turn_y", "turn_z", "close")


def make_env(
    task: str,
    num_envs: int,
    *,
    seed: int | None,
    device: str | torch.device,
    threads: int,
    dtype: torch.dtype,
    images: ImagesConfig | None = None,
    workers: int | None = None,
    max_episode_steps: int = 0,
    start: str = "recorded",
    settling_steps: int = 10,
    objects: str = "",
    look: str = "full",
) -> BatchEnv:
    """N copies of a LIBERO task, or of a suite.

    Args:
        task: a suite, or a suite's task, as in `libero_object/0`.
        num_envs: see `envs.make`, as `seed`, `device`, `threads`, `dtype` and `images`.
        seed: as there.
        device: as there.
        threads: as there.
        dtype: as there.
        images: as there; cameras are `agentview` and `eye_in_hand`.
        workers: processes that share the environments; 0 steps them in this one, None chooses.
        max_episode_steps: 0: the suite's own.
        start: `recorded`: one of the task's fifty initial states, that of number seed modulo fifty; `drawn`: objects
            placed anew in the task's regions.
        settling_steps: with the arm standing still before an episode begins.
        objects: group that also gets where everything is: `policy`, `critic` (a group of its own), or empty. One
            task's only: another one's has other objects.
        look: of observed images: `full` as LIBERO draws them, to the last bit; `fast` without shadows and smooth edges.
    """
    env_id = f"libero:{task}"
    settings = {"max_episode_steps": max_episode_steps, "start": start, "settling_steps": settling_steps}
    settings["look"] = look
    make = partial(_made, task, env_id, images, objects=objects, **settings)
    pool = {"seed": seed, "device": device, "threads": threads, "dtype": dtype, "workers": workers}
    return PoolEnv(make, num_envs, env_id=env_id, **pool)


def tasks() -> Sequence[str]:
    """The five suites and their 130 tasks."""
    return names()


def _made(task: str, env_id: str, images: ImagesConfig | None, *, objects: str, **settings: Any) -> SingleEnv:
    name, numbers = chosen(task)
    makers = [partial(LiberoTask, name, i, env_id, images, objects=objects, **settings) for i in numbers]
    if len(makers) == 1:
        return makers[0]()
    if objects:
        raise ConfigError(
            f"{env_id} has tasks with different objects: choose one task, or leave env.params.objects empty"
        )
    return Bundle([f"{name}/{i}" for i in numbers], makers)


class LiberoTask(SimulatedEnv):
    """One task.

    Args:
        name: the suite.
        number: of the task.
        env_id: what the environment is called here.
        images: see `make_env`, as all others.
        max_episode_steps: as there.
        start: as there.
        settling_steps: as there.
        objects: as there.
        look: as there.

    Raises:
        ConfigError: an unknown `start`, `objects` or `look`.
    """

    has_success = True
    default_camera = "agentview"
    aliases = CAMERAS
    hidden = (0,)  # robosuite's geoms that only collide

    def __init__(
        self,
        name: str,
        number: int,
        env_id: str,
        images: ImagesConfig | None = None,
        *,
        max_episode_steps: int = 0,
        start: str = "recorded",
        settling_steps: int = 10,
        objects: str = "",
        look: str = "full",
    ) -> None:
        expect_one_of("look", look, tuple(LOOKS))
        self.look = LOOKS[look]
        expect_one_of("start", start, ("recorded", "drawn"))
        expect_one_of("objects", objects, ("", POLICY_KEY, CRITIC_KEY))
        self.task = suite(name)[number]
        self.instruction = self.task.instruction
        self._settling, self._objects = settling_steps, objects
        self._starts = self.task.states() if start == "recorded" else None
        self.env = _built(self.task)
        self._privileged = Privileged(self.env)
        self._expert = PickAndPlace.of(self.env)
        self.has_expert = self._expert is not None
        self.reset(0, 0)
        super().__init__(images, env_id)
        self.robot = RobotSpec(
            env_id=env_id,
            observation=self._specs(),
            action=ArraySpec((7,), names=_ACTION, low=(-1.0,) * 7, high=(1.0,) * 7),
            rate_hz=RATE_HZ,
            max_episode_steps=max_episode_steps or LIMITS[name],
            task={"task": self.task.name, "start": start, "settling_steps": settling_steps},
        )

    @property
    def physics(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The simulation."""
        return self.env.sim.model._model, self.env.sim.data._data

    @property
    def parts(self) -> Sequence[Any]:
        """The controller, which each episode makes anew."""
        return (lambda: self.env.robots[0].controller,)

    @property
    def constant(self) -> Sequence[type]:
        """The simulation, which is saved by itself."""
        return (type(self.env.sim),)

    def reset(self, seed: int, variant: int) -> None:
        """See `SingleEnv.reset`."""
        with drawing_from(seed):
            self.env.reset()
        gripper = self.env.robots[0].gripper
        gripper.current_action = np.zeros(gripper.dof)  # LIBERO makes a new one in each reset, with the whole model
        if self._starts is not None:
            self.env.set_init_state(self._starts[seed % len(self._starts)])
        for _ in range(self._settling):
            self.env.step(SETTLING)
        self._see()

    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """See `SingleEnv.step`."""
        _, reward, success, _ = self.env.step(np.array(action, np.float64))
        self._see()
        return Outcome(float(reward), terminated=bool(success), success=bool(success))

    def observe(self) -> Frame:
        """See `SingleEnv.observe`."""
        frame = super().observe()
        return {**frame, CRITIC_KEY: self._everything} if self._objects == CRITIC_KEY else frame

    def expert_action(self) -> Float[np.ndarray, " action"]:
        """What a scripted expert does, where the task is to put one thing on or into another."""
        assert self._expert is not None
        return self._expert.action()

    def get_state(self) -> Frame:
        """See `SingleEnv.get_state`. The gripper moves by what it was told in all steps so far."""
        told = self.env.robots[0].gripper.current_action
        return {**super().get_state(), "gripper": np.array(told, np.float64), "everything": self._everything}

    def set_state(self, state: Frame) -> None:
        """See `SingleEnv.set_state`."""
        super().set_state(state)
        self.env.robots[0].gripper.current_action = np.array(state["gripper"])
        self._everything = np.array(state["everything"])

    def close(self) -> None:
        """See `SingleEnv.close`."""
        super().close()
        self.env.close()

    def _see(self) -> None:
        own = proprioception(self.env)
        self._everything = np.concatenate([own, self._privileged.values()])
        self._vector = self._everything if self._objects == POLICY_KEY else own

    def _specs(self) -> dict[str, ArraySpec]:
        everything = (*PROPRIOCEPTION, *self._privileged.names)
        specs = self.observation(everything if self._objects == POLICY_KEY else PROPRIOCEPTION)
        if self._objects == CRITIC_KEY:
            specs[CRITIC_KEY] = ArraySpec((len(everything),), names=everything)
        return specs


def _built(task: Task) -> Any:
    """LIBERO's environment, without its renderer and sensors; its model is built once, not in every reset."""
    with quiet(), drawing_from(0):
        from libero.libero.envs.env_wrapper import ControlEnv

        env = ControlEnv(
            bddl_file_name=str(task.problem),
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            hard_reset=False,
            ignore_done=True,
        )
    env.env._observables = {}
    return env
