"""ManiSkill 3: its tasks by id (`maniskill:PickCube-v1`), on the CPU in worker processes or on the GPU as one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.errors import ConfigError, unknown_name

FAMILY = "maniskill"
SIM_BACKENDS = ("physx_cpu", "physx_cuda")


def make_env(
    task: str,
    num_envs: int,
    *,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    threads: int = 0,
    dtype: torch.dtype = torch.float32,
    images: ImagesConfig | None = None,
    control_mode: str = "",
    reward_mode: str = "",
    robot: str = "",
    state: str = "",
    max_episode_steps: int | None = None,
    ignore_terminations: bool = False,
    restore: str = "replay",
    sim_backend: str = "physx_cpu",
    workers: int | None = None,
    task_args: Mapping[str, Any] | None = None,
) -> BatchEnv:
    """N environments of one of ManiSkill's tasks.

    Args:
        task: ManiSkill's id, as `PickCube-v1`.
        num_envs: environments, N.
        seed: environment i gets seed + i; None draws from the operating system.
        device: where returned tensors live; with physx_cuda also where physics runs.
        threads: worker processes at most; 0 takes one per core.
        dtype: of vectors and rewards.
        images: cameras to observe through; None gives no images.
        control_mode: what an action means (`pd_joint_delta_pos`, `pd_joint_pos`, `pd_ee_delta_pose` ...); empty takes
            the robot's first.
        reward_mode: `normalized_dense`, `dense`, `sparse` or `none`; empty takes the first of normalized_dense, sparse
            and none that the task has.
        robot: the robot's uid; empty takes the task's own.
        state: what the group `policy` holds: `task` (all of ManiSkill's state), `visual` (what it gives beside images:
            the robot, and a goal that cannot be seen) or `robot` (the robot alone); empty takes `task` without images,
            `visual` with them. Where it is not everything, `critic` is.
        max_episode_steps: control steps before truncation; None takes ManiSkill's.
        ignore_terminations: success and failure do not end an episode.
        restore: how a saved state comes back on the CPU: `replay` (exact) or `physics` (at once, with a slow drift).
        sim_backend: `physx_cpu` or `physx_cuda`.
        workers: processes of physx_cpu; None takes one per core, 0 stays in this process.
        task_args: further arguments of the task's constructor.

    Raises:
        ConfigError: an unknown task or setting; a driver, a download or the GPU library is missing.
    """
    if sim_backend not in SIM_BACKENDS:
        raise ConfigError(unknown_name("sim_backend", sim_backend, SIM_BACKENDS))
    from robo_rlft.envs.maniskill.single import ManiSkillSingle, Settings

    cameras = tuple(images.cameras) if images is not None else ()
    settings = Settings(
        task=task,
        control_mode=control_mode,
        reward_mode=reward_mode,
        robot=robot,
        state=state or ("visual" if cameras else "task"),
        max_episode_steps=max_episode_steps,
        ignore_terminations=ignore_terminations,
        restore=restore,
        cameras=cameras,
        size=(images.size[0], images.size[1]) if images is not None else (128, 128),
        task_args=dict(task_args or {}),
    )
    if sim_backend == "physx_cuda":
        from robo_rlft.envs.maniskill.gpu import ManiSkillGpuEnv

        return ManiSkillGpuEnv(settings, num_envs, seed=seed, device=device, dtype=dtype)
    from robo_rlft.envs.pool.env import PoolEnv

    return PoolEnv(
        partial(ManiSkillSingle, settings),
        num_envs,
        env_id=f"{FAMILY}:{task}",
        seed=seed,
        device=device,
        threads=threads,
        dtype=dtype,
        workers=workers,
        preload=("robo_rlft.envs.maniskill.preload",),
    )


def tasks() -> Sequence[str]:
    """Every task's id; behind it, where it needs files that are not there, the command that fetches them."""
    from robo_rlft.envs.maniskill import library

    return [_line(task, library.missing_assets(task)) for task in library.names()]


def _line(task: str, missing: Sequence[str]) -> str:
    from robo_rlft.envs.maniskill import library

    return f"{task}  (first: {library.download_command(missing)})" if missing else task
