"""What MJX lacks is said by name, and only the user puts something else in its place."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import mujoco
import pytest
import torch

pytest.importorskip("jax", reason="extra mjx")
pytest.importorskip("mujoco.mjx", reason="extra mjx")

from mjx_toys import BALL, BALL_TASK, CART_TASK

from robo_rlft import envs
from robo_rlft.envs.mjx.engine import MjxEnv
from robo_rlft.envs.mujoco.task import MujocoTask, Observation
from robo_rlft.errors import ConfigError


def with_option(words: str, task: MujocoTask = BALL_TASK, **kwargs: Any) -> MjxEnv:
    text = BALL.replace('<option timestep="0.005"', f"<option timestep='0.005' {words}")
    return MjxEnv(dataclasses.replace(task, model=lambda params: mujoco.MjModel.from_xml_string(text)), 1, **kwargs)


def reading(field: str, **kwargs: Any) -> MujocoTask:
    seen = Observation("seen", lambda xp, state, params: state.data[field].reshape(-1, 1)[:1], ("value",))
    return dataclasses.replace(BALL_TASK, observations=(seen,), fields=("qpos", field), **kwargs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("solver='PGS'", r"Ball cannot run on MJX: its solver is PGS and MJX has CG, NEWTON: .*physics\.solver="),
        ("integrator='implicit'", r"its integrator is IMPLICIT and MJX has EULER, RK4, IMPLICITFAST"),
        ("noslip_iterations='3'", "MJX ignores option noslip_iterations"),
        ("integrator='implicitfast' density='1.2'", "Ball cannot run on MJX: .*fluid drag.*env.id=Ball"),
    ],
)
def test_what_mjx_lacks_is_named(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_option(words)


def test_a_flag_that_mjx_ignores_is_named() -> None:
    text = BALL.replace("<option ", "<option><flag energy='enable'/></option><option ", 1)
    with pytest.raises(ConfigError, match="MJX ignores the flag mjENBL_ENERGY"):
        MjxEnv(dataclasses.replace(BALL_TASK, model=lambda params: mujoco.MjModel.from_xml_string(text)), 1)


def test_the_user_chooses_what_stands_in() -> None:
    env = with_option("solver='PGS'", physics={"solver": "Newton", "iterations": 4, "cone": "elliptic"})
    option = env._program.model.opt
    assert option.solver == mujoco.mjtSolver.mjSOL_NEWTON
    assert option.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
    assert option.iterations == 4
    with pytest.raises(ConfigError, match="did you mean newton"):
        with_option("solver='PGS'", physics={"solver": "Newtom"})
    with pytest.raises(ConfigError, match=r"physics 'iteration': did you mean .*iterations"):
        with_option("", physics={"iteration": 4})


def test_fields_that_mjx_does_not_have_are_named() -> None:
    with pytest.raises(ConfigError, match=r"Ball reads 'energy', which MJX does not have.*env.id=Ball"):
        MjxEnv(reading("energy"), 1)
    with pytest.raises(ConfigError, match="Ball reads 'sensordata', which MJX evaluates at another stage of RK4"):
        with_option("integrator='RK4'", reading("sensordata"))


def test_humanoid_asks_for_a_solver() -> None:
    with pytest.raises(ConfigError, match=r"Humanoid cannot run on MJX: its solver is PGS.*physics\.solver=\.\.\."):
        envs.make("mjx:Humanoid", 1)


def test_wrong_terms_are_named_as_on_the_cpu() -> None:
    short = dataclasses.replace(
        CART_TASK, observations=(Observation("x", lambda xp, s, p: s.data["qpos"], ("x", "y")),)
    )
    with pytest.raises(ConfigError, match=r"task Cart: observation 'x' returned shape \(1, 1\)"):
        MjxEnv(short, 1)
    with pytest.raises(ConfigError, match=r"unknown parameter of Cart 'spred': did you mean .*spread"):
        MjxEnv(CART_TASK, 1, spred=1.0)


def test_variants_must_share_their_model() -> None:
    def model(params: Any) -> mujoco.MjModel:
        made = CART_TASK.model(params)
        made.opt.gravity[2] = -params["pay"]
        return made

    task = dataclasses.replace(CART_TASK, model=model)
    with pytest.raises(
        ConfigError, match=r"the variants of Cart differ in opt\.gravity of their models.*variants=\{\}"
    ):
        MjxEnv(task, 1, variants={"light": {"pay": 1.0}, "heavy": {"pay": 10.0}})


def test_wrong_names_devices_and_types_are_explained() -> None:
    with pytest.raises(ConfigError, match="unknown MuJoCo task 'Hoper': did you mean Hopper"):
        envs.make("mjx:Hoper")
    with pytest.raises(ConfigError, match=r"expected torch\.float32 or torch.float64"):
        MjxEnv(CART_TASK, 1, dtype=torch.float16)
    with pytest.raises(ConfigError, match="MJX runs on 'cpu' or 'cuda'"):
        MjxEnv(CART_TASK, 1, device="meta")


def test_a_gpu_that_jax_does_not_see_is_explained() -> None:
    import jax

    if any(d.platform == "gpu" for d in jax.devices()):
        pytest.skip("this JAX sees a GPU")
    with pytest.raises(ConfigError, match=r"device=cuda: this JAX .* sees no GPU: pip install 'jax\[cuda12\]'"):
        MjxEnv(CART_TASK, 1, device="cuda")


def test_jax_leaves_the_gpus_memory_to_torch() -> None:
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
