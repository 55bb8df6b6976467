"""The `mani_skill` package: imported with care, asked for its tasks, never allowed to download or to prompt."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from robo_rlft.envs.maniskill import headless
from robo_rlft.errors import ConfigError, unknown_name

_UNDECLARED = {
    "OpenCabinetDoor-v1": ("partnet_mobility_cabinet",),
    "SceneManipulation-v1": ("ReplicaCAD",),
    "ArchitecTHOR_SceneManipulation-v1": ("AI2THOR",),
    "PickCubeWidowXAI-v1": ("widowxai",),
}
"""What tasks load without having declared it to ManiSkill's registry."""


def import_mani_skill() -> None:
    """Import the package, with the stand-ins of `headless` where there is no Vulkan driver."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mani_skill.envs  # noqa: F401
    headless.prepare()


def find(task: str) -> Any:
    """ManiSkill's own registration (`EnvSpec`) of a task.

    Raises:
        ConfigError: there is no such task.
    """
    known = _registered()
    if task not in known:
        raise ConfigError(unknown_name("ManiSkill task", task, known))
    return known[task]


def names() -> list[str]:
    """Every task's id, sorted."""
    return sorted(_registered())


def missing_assets(task: str, robot: str = "") -> list[str]:
    """Ids of the downloads a task needs and does not have, for `mani_skill.utils.download_asset`.

    Args:
        task: its id.
        robot: the robot that is chosen; empty takes the task's own.
    """
    spec = find(task)
    return [uid for uid in (*_task_assets(spec, task), *_robot_assets(spec, robot)) if not _is_there(uid)]


def download_command(assets: Sequence[str]) -> str:
    """The shell command that fetches assets."""
    return " && ".join(f"python -m mani_skill.utils.download_asset -y {uid}" for uid in dict.fromkeys(assets))


def reward_mode(task: str, wanted: str) -> str:
    """The reward to use: what is wanted, or by default the densest that the task has.

    Raises:
        ConfigError: the task has no such reward.
    """
    offered = list(find(task).cls.SUPPORTED_REWARD_MODES)
    if not wanted:
        return next(mode for mode in ("normalized_dense", "sparse", "none") if mode in offered)
    if wanted not in offered:
        raise ConfigError(f"ManiSkill's {task}: {unknown_name('reward_mode', wanted, offered)}")
    return wanted


def episode_steps(task: str, wanted: int | None) -> int:
    """Control steps before truncation: what is wanted, or what ManiSkill registered.

    Raises:
        ConfigError: neither says.
    """
    steps = wanted or find(task).max_episode_steps
    if not steps:
        raise ConfigError(f"ManiSkill's {task} has no length of an episode: set env.params.max_episode_steps")
    return int(steps)


def build(task: str, robot: str, arguments: Mapping[str, Any]) -> Any:
    """A `BaseEnv` of ManiSkill, without its wrappers.

    Args:
        task: its id.
        robot: one of the task's robots; empty takes its own.
        arguments: of the task's constructor.

    Raises:
        ConfigError: an asset or a driver is missing, or the task does not take an argument; each says what to do.
    """
    spec = find(task)
    if missing := missing_assets(task, robot):
        raise ConfigError(_needs_download(task, missing))
    chosen = {"robot_uids": robot} if robot else {}
    with _explained(task), _no_prompt(task):
        return spec.cls(**{**spec.default_kwargs, **chosen, **arguments})


def require_gpu_physics(device: str) -> None:
    """Raise `ConfigError` unless PhysX can run on a GPU without fetching anything."""
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"sim_backend=physx_cuda on device={device} needs an NVIDIA GPU and this torch sees none: "
            "use sim_backend=physx_cpu"
        )
    if not _gpu_library().exists():
        raise ConfigError(
            f"sim_backend=physx_cuda needs NVIDIA's PhysX library, and {_gpu_library()} is not there: fetch it once "
            'with python -c "import sapien; sapien.physx.enable_gpu()"'
        )


@cache
def _registered() -> dict[str, Any]:
    import_mani_skill()
    from mani_skill.utils.registration import REGISTERED_ENVS

    return REGISTERED_ENVS


def _gpu_library() -> Path:
    from sapien import physx

    return Path.home() / ".sapien" / "physx" / physx.version() / "libPhysXGpu_64.so"


def _task_assets(spec: Any, task: str) -> Sequence[str]:
    if "ReplicaCAD" in task:
        return ("ReplicaCAD", "ycb", "ReplicaCADRearrange") if "SceneManipulation" in task else ("ReplicaCAD",)
    return spec.asset_download_ids or _UNDECLARED.get(task, ())


def _robot_assets(spec: Any, robot: str) -> Sequence[str]:
    from mani_skill.agents.registration import REGISTERED_AGENTS

    default = inspect.signature(spec.cls.__init__).parameters.get("robot_uids")
    uids = robot or (default.default if default is not None else ())
    uids = (uids,) if isinstance(uids, str) else uids if isinstance(uids, tuple) else ()
    known = (REGISTERED_AGENTS[uid] for uid in uids if uid in REGISTERED_AGENTS)
    return [asset for agent in known for asset in agent.asset_download_ids]


def _is_there(uid: str) -> bool:
    from mani_skill.utils import assets

    parts = assets.expand_data_group_into_individual_data_source_ids(uid) if uid in assets.DATA_GROUPS else [uid]
    return all(assets.is_data_source_downloaded(part) for part in parts)


def _needs_download(task: str, assets: Sequence[str]) -> str:
    folder = os.environ.get("MS_ASSET_DIR", "~/.maniskill")
    return f"ManiSkill's {task} needs files that are not in {folder}: {download_command(assets)}"


@contextlib.contextmanager
def _no_prompt(task: str) -> Iterator[None]:
    """Let ManiSkill find a missing file without asking at the terminal, and without fetching it unasked."""
    from mani_skill.utils import assets, download_asset

    def refuse(message: str) -> bool:
        words = message.replace(",", " ").split()
        named = [word for word in words if word in assets.DATA_SOURCES or word in assets.DATA_GROUPS]
        raise ConfigError(_needs_download(task, named or [task]))

    asked, download_asset.prompt_yes_no = download_asset.prompt_yes_no, refuse
    try:
        yield
    finally:
        download_asset.prompt_yes_no = asked


@contextlib.contextmanager
def _explained(task: str) -> Iterator[None]:
    """Turn what ManiSkill raises over a setting, a file or a driver into one sentence."""
    try:
        yield
    except Exception as error:
        if sentence := _sentence(task, error):
            raise ConfigError(sentence) from error
        raise


def _sentence(task: str, error: Exception) -> str:
    """What the user can do about an error; empty where it is none of theirs."""
    said = str(error)
    if headless.NO_DEVICE in said or (not headless.can_draw() and _wanted_to_draw(error)):
        return headless.no_driver(f"ManiSkill's {task}")
    if isinstance(error, FileNotFoundError):
        return f"ManiSkill's {task} needs a file that is not there ({said}): {download_command([task])}"
    if isinstance(error, ImportError) and (match := re.search(r"pip install [\w.-]+", said)):
        return f"ManiSkill's {task} needs another package: {match.group()}"
    if isinstance(error, ConfigError) or not any(words in said for words in _OVER_SETTINGS):
        return ""
    return f"ManiSkill's {task} cannot be made so: {said}"


def _wanted_to_draw(error: Exception) -> bool:
    """Whether a task looked for what it would have drawn: a stand-in's own words, or a render component's attribute."""
    return isinstance(error, AttributeError) and ("nothing is drawn" in str(error) or "render_shapes" in str(error))


_OVER_SETTINGS = ("not in supported modes", "Unsupported obs mode", "unexpected keyword argument")
