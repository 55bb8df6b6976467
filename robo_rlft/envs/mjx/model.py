"""MuJoCo models as MJX has them, and what it does not have, named instead of left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
from mujoco import mjx

from robo_rlft.envs.mjx.devices import Place
from robo_rlft.errors import ConfigError, unknown_name

SUBSTITUTES: dict[str, tuple[Any, str]] = {
    "solver": (mujoco.mjtSolver, "mjSOL_"),
    "integrator": (mujoco.mjtIntegrator, "mjINT_"),
    "cone": (mujoco.mjtCone, "mjCONE_"),
}
"""Options of a model that are chosen by name, and how MuJoCo calls the choices."""
_NUMBERS = {"iterations": int, "ls_iterations": int, "tolerance": float, "ls_tolerance": float, "timestep": float}
_POSITION = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "xanchor", "xaxis", "geom_xpos", "geom_xmat", "site_xpos"),
    *("site_xmat", "cam_xpos", "cam_xmat", "subtree_com", "cdof", "cinert", "ten_length", "actuator_length"),
)
_VELOCITY = (
    *("cvel", "cdof_dot", "actuator_velocity", "ten_velocity"),
    *("qfrc_bias", "qfrc_passive", "qfrc_gravcomp", "qfrc_fluid"),
)
_FORCE = (
    *("actuator_force", "qfrc_actuator", "qfrc_smooth", "qacc_smooth", "qacc", "qfrc_constraint", "act_dot"),
    "sensordata",
)
FRESHENED = frozenset((*_POSITION, *_VELOCITY))
"""Derived fields that `fresh` tasks read at the state after the step; sensors belong partly to them."""
POST = frozenset({"cacc", "cfrc_ext", "cfrc_int"})
"""Forces on bodies, which MJX computes on request."""
DERIVED = FRESHENED | frozenset(_FORCE) | POST
"""Derived fields that mean the same in MJX as in MuJoCo."""


def substituted(model: mujoco.MjModel, physics: Mapping[str, Any]) -> mujoco.MjModel:
    """The model with the options of `physics` in place of its own.

    Args:
        model: is changed.
        physics: `solver`, `integrator` and `cone` by name (`Newton`, `implicitfast`, `pyramidal`), `iterations`,
            `ls_iterations`, `tolerance`, `ls_tolerance` and `timestep` by value.

    Raises:
        ConfigError: an unknown option or choice.
    """
    for option, value in physics.items():
        if option in SUBSTITUTES:
            setattr(model.opt, option, _choice(option, value))
        elif option in _NUMBERS:
            setattr(model.opt, option, _NUMBERS[option](value))
        else:
            raise ConfigError(unknown_name("option of env.params.physics", option, (*SUBSTITUTES, *_NUMBERS)))
    return model


def put_model(task_id: str, model: mujoco.MjModel, place: Place) -> tuple[mjx.Model, mjx.Data]:
    """The model and a template of its data, on the device.

    Raises:
        ConfigError: the model uses something that MJX lacks; the sentence says what, and what to put in its place.
    """
    lacking = _lacking(model)
    if lacking:
        raise ConfigError(f"{task_id} cannot run on MJX: {'; '.join(lacking)}")
    try:
        with place():
            return mjx.put_model(model, place.jax, impl="jax"), mjx.make_data(model, place.jax, impl="jax")
    except NotImplementedError as error:
        raise ConfigError(
            f"{task_id} cannot run on MJX: {error}; run it on the CPU engine, env.id={task_id}"
        ) from error


def check_fields(task_id: str, model: mujoco.MjModel, outputs: tuple[str, ...], fresh: bool) -> None:
    """See that MJX gives the derived fields a task reads.

    Raises:
        ConfigError: it does not; the sentence names the field.
    """
    for name in outputs:
        if name not in DERIVED:
            raise ConfigError(f"{task_id} reads '{name}', which MJX does not have: run it on the CPU, env.id={task_id}")
    acceleration = (model.sensor_needstage == mujoco.mjtStage.mjSTAGE_ACC).any()
    staged = model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4 and (acceleration or not fresh)
    if "sensordata" in outputs and staged:
        raise ConfigError(
            f"{task_id} reads 'sensordata', which MJX evaluates at another stage of RK4 than MuJoCo: choose "
            "env.params.physics.integrator=implicitfast or Euler, or run it on the CPU"
        )


def _lacking(model: mujoco.MjModel) -> list[str]:
    """What MJX would ignore or refuse, one phrase each."""
    opt, lacking = model.opt, []
    for option, (kind, prefix) in SUBSTITUTES.items():
        has = _MJX[option]
        if (value := kind(getattr(opt, option))) not in {kind(int(v)) for v in has}:
            names = ", ".join(kind(int(v)).name.removeprefix(prefix) for v in has)
            lacking.append(
                f"its {option} is {value.name.removeprefix(prefix)} and MJX has {names}: choose one with "
                f"env.params.physics.{option}=..., the physics then differs from the CPU engine's"
            )
    for flags, kind, known in (
        (opt.disableflags, mujoco.mjtDisableBit, mjx.DisableBit),
        (opt.enableflags, mujoco.mjtEnableBit, mjx.EnableBit),
    ):
        bits = [bit for bit in range(32) if flags >> bit & 1 and 1 << bit not in {int(k) for k in known}]
        lacking += [f"MJX ignores the flag {kind(1 << bit).name}" for bit in bits]
    counts = {"plugins": model.nplugin, "delayed actuators or sensors": model.nhistory, "flexes": model.nflex}
    lacking += [f"MJX has no {what}" for what, count in counts.items() if count]
    if opt.noslip_iterations:
        lacking.append("MJX ignores option noslip_iterations")
    return lacking


def _choice(option: str, value: Any) -> Any:
    kind, prefix = SUBSTITUTES[option]
    names = {name.removeprefix(prefix).lower(): member for name, member in kind.__members__.items()}
    if str(value).lower() not in names:
        raise ConfigError(unknown_name(option, str(value), names))
    return names[str(value).lower()]


_MJX = {"solver": mjx.SolverType, "integrator": mjx.IntegratorType, "cone": mjx.ConeType}
