"""Names of environments. Only the chosen one's module and back end are imported.

A project adds its own by an entry point of the group `robo_rlft.envs`, or by `register`:

    [project.entry-points."robo_rlft.envs"]
    MyTask = "my_project.my_task:TASK"

The value is a `MujocoTask`, or a callable `(num_envs, *, seed, device, threads, dtype, **params) -> BatchEnv`; one that
also takes `images` gives image observations, and one that takes `randomise` varies its episodes, after it has called
`randomise.require_supported`. A simulator with tasks of its own is a `Family`: its environments are called
`family:task`, as in `maniskill:PickCube-v1`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.randomise import RandomiseConfig, require_supported
from robo_rlft.errors import ConfigError, MissingExtraError, UserError, unknown_name

ENTRY_POINT_GROUP = "robo_rlft.envs"


@dataclass(frozen=True)
class Entry:
    """One environment that `make` knows.

    Attributes:
        id: the name.
        description: one line.
        extra: the optional dependency group it needs, or empty.
        package: the module whose presence shows that the extra is installed, or empty.
        load: imports and returns the task, or the callable that makes the environment.
        too_new: first Python that the extra has no release for, or empty.
    """

    id: str
    description: str
    load: Callable[[], Any]
    extra: str = ""
    package: str = ""
    too_new: tuple[int, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether the package of its extra is there."""
        return _found(self.package)


@dataclass(frozen=True)
class Family:
    """A simulator that brings its own tasks.

    Attributes:
        name: what stands before the colon.
        description: one line.
        load: imports and returns the maker: a callable `(task, num_envs, *, seed, device, threads, dtype, **params)`.
        tasks: lists the tasks' names, or what can be said of them; imports the simulator.
        example: one task that runs as installed.
        extra: the optional dependency group it needs, or empty.
        package: the module whose presence shows that the extra is installed, or empty.
        too_new: first Python that the extra has no release for, or empty.
    """

    name: str
    description: str
    load: Callable[[], Callable[..., BatchEnv]]
    tasks: Callable[[], Sequence[str]]
    example: str
    extra: str = ""
    package: str = ""
    too_new: tuple[int, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether the package of its extra is there."""
        return _found(self.package)


def register(
    env_id: str, loader: Callable[[], Any] | str, description: str, extra: str = "", package: str = ""
) -> None:
    """Add an environment, or replace the one of that name.

    Args:
        env_id: the name for `make`.
        loader: "module:attribute", or a callable that returns what such an attribute would hold.
        description: one line for `robo-rlft list`.
        extra: optional dependency group, if it needs one.
        package: module that the extra installs.
    """
    load = _importer(loader) if isinstance(loader, str) else loader
    _ENTRIES[env_id] = Entry(env_id, description, load, extra, package)


def register_family(
    name: str,
    module: str,
    description: str,
    example: str,
    extra: str = "",
    package: str = "",
    too_new: tuple[int, ...] = (),
) -> None:
    """Add a simulator whose module has `make_env(task, num_envs, ...)` and `tasks()`.

    Args:
        name: what stands before the colon in `make`.
        module: where the two functions are.
        description: one line for `robo-rlft list`.
        example: one task that runs as installed.
        extra: optional dependency group, if it needs one.
        package: module that the extra installs.
        too_new: first Python that the extra has no release for.
    """

    def tasks() -> Sequence[str]:
        return _importer(f"{module}:tasks")()()

    load = _importer(f"{module}:make_env")
    _FAMILIES[name] = Family(name, description, load, tasks, example, extra, package, too_new)


def families() -> list[Family]:
    """All simulators that bring their own tasks, by name."""
    return sorted(_FAMILIES.values(), key=lambda family: family.name)


def entries() -> list[Entry]:
    """All environments by name: ours, registered ones, and those of installed packages' entry points."""
    return sorted(_known().values(), key=lambda e: e.id)


def make(
    env_id: str,
    num_envs: int = 1,
    *,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    threads: int = 0,
    dtype: torch.dtype = torch.float32,
    images: ImagesConfig | None = None,
    randomise: RandomiseConfig | None = None,
    **params: Any,
) -> BatchEnv:
    """N copies of one environment.

    >>> env = make("Hopper", 2, seed=0)
    >>> obs, info = env.reset()
    >>> obs["policy"].shape
    torch.Size([2, 11])

    Args:
        env_id: a name of `entries()`.
        num_envs: environments.
        seed: environment i gets seed + i; None draws from the operating system.
        device: where the returned tensors live.
        threads: of the simulation; 0 takes all CPUs.
        dtype: of observations and rewards.
        images: cameras to observe through; None gives no images.
        randomise: how episodes differ from each other; None: not at all.
        params: the task's parameters by name.

    Raises:
        ConfigError: unknown environment, parameter or camera, or images or randomisation that the environment does
            not have.
        MissingExtraError: the environment's extra is not installed.
    """
    entry = find(env_id)
    if not entry.installed:
        raise _missing(entry)
    found = entry.load()
    settings = {"seed": seed, "device": device, "threads": threads, "dtype": dtype}
    if callable(found):
        return _make_other(entry, found, num_envs, images, randomise, **settings, **params)
    return _make_mujoco(entry, found, num_envs, **settings, images=images, randomise=randomise, **params)


def _make_other(
    entry: Entry,
    maker: Any,
    num_envs: int,
    images: ImagesConfig | None,
    randomise: RandomiseConfig | None,
    **kwargs: Any,
) -> BatchEnv:
    accepts = inspect.signature(maker).parameters
    if "randomise" in accepts:
        kwargs["randomise"] = randomise
    else:
        require_supported(randomise, (), entry.id)
    if images is not None and images.cameras:
        if "images" not in accepts:
            raise ConfigError(f"environment {entry.id} gives no images: leave env.images.cameras empty")
        kwargs["images"] = images
    if not any(p.kind is p.VAR_KEYWORD for p in accepts.values()):
        for name in kwargs.keys() - accepts.keys():
            known = accepts.keys() - {"num_envs", *_COMMON}
            raise ConfigError(f"environment {entry.id}: {unknown_name('parameter', name, known)}")
    return cast("BatchEnv", maker(num_envs, **kwargs))


def _make_mujoco(entry: Entry, found: Any, num_envs: int, **kwargs: Any) -> BatchEnv:
    from robo_rlft.envs.mujoco.engine import MujocoEnv
    from robo_rlft.envs.mujoco.task import MujocoTask

    if not isinstance(found, MujocoTask):
        raise ConfigError(
            f"environment {entry.id} loads a {type(found).__name__}: its entry point must name a MujocoTask or a "
            "callable that returns a BatchEnv"
        )
    return MujocoEnv(found, num_envs, **kwargs)


def find(env_id: str) -> Entry:
    """What is known of one environment.

    Raises:
        ConfigError: there is none of that name.
    """
    name, colon, task = env_id.partition(":")
    if colon:
        return _task_of(name, task)
    known = _known()
    if env_id not in known:
        raise ConfigError(unknown_name("environment", env_id, known))
    return known[env_id]


def _task_of(name: str, task: str) -> Entry:
    if name not in _FAMILIES:
        raise ConfigError(unknown_name("simulator", name, _FAMILIES))
    family = _FAMILIES[name]
    if not task:
        raise ConfigError(
            f"'{name}:' names no task: for example {name}:{family.example}; robo-rlft list {name} has all"
        )
    load = partial(_bound, family, task)
    return Entry(f"{name}:{task}", family.description, load, family.extra, family.package, family.too_new)


def _missing(entry: Entry) -> UserError:
    if entry.too_new and sys.version_info >= entry.too_new:
        newest = f"{entry.too_new[0]}.{entry.too_new[1] - 1}"
        return ConfigError(
            f"environment {entry.id} needs '{entry.package}', which has no release for Python "
            f"{sys.version_info.major}.{sys.version_info.minor}: use Python {newest} and pip install "
            f"'robo-rlft[{entry.extra}]'"
        )
    return MissingExtraError(entry.package, entry.extra, f"environment {entry.id}")


def _bound(family: Family, task: str) -> Callable[..., BatchEnv]:
    return partial(family.load(), task)


def _found(package: str) -> bool:
    return not package or importlib.util.find_spec(package) is not None


def _known() -> dict[str, Entry]:
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    others = {p.name: Entry(p.name, f"{p.value} ({_owner(p)})", p.load) for p in points}
    return {**others, **_ENTRIES}


def _owner(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else "entry point"


def _importer(target: str) -> Callable[[], Any]:
    module, _, attribute = target.partition(":")
    return lambda: getattr(importlib.import_module(module), attribute)


_COMMON = ("seed", "device", "threads", "dtype", "images", "randomise")
_ENTRIES: dict[str, Entry] = {}
_FAMILIES: dict[str, Family] = {}
_TASKS = "robo_rlft.envs.mujoco.tasks"
register("Hopper", f"{_TASKS}.hopper:TASK", "one-legged robot hops forward in the plane (Gymnasium Hopper-v5)")
register("Walker2d", f"{_TASKS}.walker2d:TASK", "two-legged robot walks in the plane (Gymnasium Walker2d-v5)")
register("HalfCheetah", f"{_TASKS}.half_cheetah:TASK", "two-legged runner in the plane (Gymnasium HalfCheetah-v5)")
register("Ant", f"{_TASKS}.ant:TASK", "four-legged robot runs forward (Gymnasium Ant-v5)")
register("Humanoid", f"{_TASKS}.humanoid:TASK", "humanoid walks forward (Gymnasium Humanoid-v5)")
register("ArmPickPlace", f"{_TASKS}.arm.pick_place:TASK", "7-joint arm carries a cube to a target, sparse reward")
register(
    "ArmPegInsert", f"{_TASKS}.arm.peg_insert:TASK", "7-joint arm inserts a peg with 1 mm clearance, sparse reward"
)
register_family(
    "genesis",
    "robo_rlft.envs.genesis",
    "Genesis: Unitree Go2 and Franka Panda, many at a time on the CPU or a GPU",
    "PandaLift",
    extra="genesis",
    package="genesis",
)
_LEGGED = f"{_TASKS}.legged"
register("QuadrupedFlat", f"{_LEGGED}.quadruped:FLAT", "15 kg quadruped follows velocity commands on a plane")
register("QuadrupedRough", f"{_LEGGED}.quadruped:ROUGH", "15 kg quadruped follows velocity commands on rough ground")
register("HumanoidWalk", f"{_LEGGED}.humanoid:WALK", "33 kg humanoid follows velocity commands on a plane")
register_family(
    "maniskill",
    "robo_rlft.envs.maniskill",
    "ManiSkill 3: manipulation and control with PhysX, on CPU or GPU",
    example="PickCube-v1",
    extra="maniskill",
    package="mani_skill",
)
register_family(
    "metadrive",
    "robo_rlft.envs.metadrive",
    "driving in generated or recorded traffic (MetaDrive)",
    "Procedural",
    extra="metadrive",
    package="metadrive",
    too_new=(3, 12),
)
register_family(
    "mjx", "robo_rlft.envs.mjx.family", "any of the MuJoCo tasks above on a GPU, by JAX", "Hopper", "mjx", "jax"
)
_SUITES = "robo_rlft.envs.suites"
register_family("gymnasium", f"{_SUITES}.any_gymnasium", "any environment that Gymnasium knows", "Pendulum-v1")
register_family(
    "dm_control",
    f"{_SUITES}.control_suite",
    "DeepMind Control Suite: 30 bodies, rewards from 0 to 1",
    "cheetah-run",
    "dm-control",
    "dm_control",
)
register_family(
    "metaworld",
    f"{_SUITES}.meta_world",
    "Meta-World: a Sawyer arm and fifty tasks, alone or as MT10 and MT50",
    "reach-v3",
    "metaworld",
    "metaworld",
)
register_family(
    "libero",
    f"{_SUITES}.libero",
    "LIBERO: 130 household tasks told in words, five suites",
    "libero_object/0",
    "libero",
    "libero",
)
register_family(
    "ogbench",
    f"{_SUITES}.ogbench_tasks",
    "OGBench's manipulation: cubes, a scene with drawer and window, puzzles of buttons",
    "cube-single-v0",
    "ogbench",
    "ogbench",
)
