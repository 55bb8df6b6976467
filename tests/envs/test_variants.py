"""Variants of a task: the same as environments that were built with their parameters, one for each episode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from robo_rlft.envs import conformance, make
from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.mujoco.ranges import Outside, Range
from robo_rlft.envs.mujoco.task import MujocoTask, Observation, Reward
from robo_rlft.envs.mujoco.tasks.arm import peg_insert
from robo_rlft.errors import ConfigError, SpecError

CLEARANCES = {"loose": 0.006, "snug": 0.001}
DOWN = np.array([0.0, 0.0, 0.8, 0.0, 0.0, 0.0])
STRAIGHT = {"hole_range": 0.0, "hole_yaw_range": 0.0, "start_range": 0.1, "max_episode_steps": 25}
"""The peg starts above the hole and is at its rim in time."""
VARIANTS = {name: {"clearance": value} for name, value in CLEARANCES.items()}


def peg(num_envs: int, **params: Any) -> BatchEnv:
    return make("ArmPegInsert", num_envs, seed=0, threads=1, **{"max_episode_steps": 12, **params})


def rolled(env: BatchEnv, steps: int, seed: int) -> dict[str, torch.Tensor]:
    """What random actions give, mostly downwards; later episodes included."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[torch.Tensor]] = {}
    for _ in range(steps):
        actions = rng.uniform(-1, 1, (1, 6)) - DOWN
        obs, reward, terminated, truncated, info = env.step(torch.from_numpy(actions).float().repeat(env.num_envs, 1))
        for name, value in {
            **obs, "reward": reward, "ended": terminated | truncated, "success": info["success"],
        }.items():  # fmt: skip
            rows.setdefault(name, []).append(value)
    return {name: torch.stack(values) for name, values in rows.items()}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_variant_is_the_environment_with_its_parameters(order: list[int]) -> None:
    """Bit for bit, beside the other one, through the resets that follow."""
    mixed = peg(2, variants=VARIANTS, **STRAIGHT)
    mixed.set_variants(order)
    mixed.reset(seed=[5, 5])
    assert mixed.variant.tolist() == order
    together = rolled(mixed, 60, seed=1)
    for i, variant in enumerate(order):
        clearance = CLEARANCES[mixed.variants[variant]]
        alone = peg(1, clearance=clearance, **STRAIGHT)
        alone.reset(seed=[5])
        for name, values in rolled(alone, 60, seed=1).items():
            assert torch.equal(values[:, 0], together[name][:, i]), name
    assert not torch.equal(together["policy"][:, 0], together["policy"][:, 1]), "nothing touched the hole's walls"


def test_success_is_judged_with_each_ones_own_clearance() -> None:
    env = peg(2, variants=VARIANTS, hole_range=0.0, hole_yaw_range=0.0, start_range=0.0)
    assert isinstance(env, MujocoEnv)
    env.set_variants([0, 1])
    env.reset(seed=0)
    tip = np.tile([peg_insert.CENTRE[0] + peg_insert.PEG_SIDE / 2 + 0.003, 0.0, 0.0], (2, 1))
    state = env._episodes.now()
    state.data = {**state.data, "actuator_length": tip}  # type: ignore[dict-item]
    assert env._episodes.table.success(state, 2).tolist() == [True, False]


def test_the_variant_changes_at_the_next_reset_and_not_before() -> None:
    env = peg(3, variants=VARIANTS)
    env.reset(seed=0)
    env.set_variants([1], ids=[1])
    assert env.variant.tolist() == [0, 0, 0]
    rolled(env, 11, seed=0)
    assert env.variant.tolist() == [0, 0, 0]
    rolled(env, 1, seed=0)
    assert env.variant.tolist() == [0, 1, 0], "the time limit came"
    env.reset(options={"ids": [0]})
    assert env.variant.tolist() == [0, 1, 0]


def test_a_saved_state_keeps_its_variant_and_the_next_one() -> None:
    env, other = peg(2, variants=VARIANTS, start_range=0.2), peg(2, variants=VARIANTS, start_range=0.2)
    env.set_variants([0, 1])
    env.reset(seed=3)
    env.set_variants([1, 0])
    rolled(env, 5, seed=2)
    saved = env.get_state()
    assert not [name for name in saved if name.startswith("model/")], "what the variant decides is not stored"
    first = rolled(env, 30, seed=4)
    other.set_state(saved)
    assert other.variant.tolist() == [0, 1]
    for name, values in rolled(other, 30, seed=4).items():
        assert torch.equal(values, first[name]), name
    assert other.variant.tolist() == [1, 0]
    env.set_state({k: v[[0, 0]] for k, v in saved.items()})
    assert env.variant.tolist() == [0, 0]


def test_randomised_values_and_variants_travel_together() -> None:
    env, other = peg(2, variants=VARIANTS), peg(2, variants=VARIANTS)
    assert isinstance(env, MujocoEnv)
    env.randomise("pair_friction", env.simulation.model.pair_friction * 0.5, [1])
    env.set_variants([1, 1])
    env.reset(seed=3)
    saved = env.get_state()
    other.set_state(saved)
    first = rolled(env, 30, seed=4)
    for name, values in rolled(other, 30, seed=4).items():
        assert torch.equal(values, first[name]), name


def test_environments_without_variants_are_as_they_were() -> None:
    env = peg(1)
    assert env.variants == ("",)
    assert env.variant.tolist() == [0]
    env.set_variants([0])
    assert not [name for name in env.get_state() if "variant" in name]


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
def test_an_environment_with_variants_conforms(rule: conformance.Rule) -> None:
    rule(lambda num_envs: make("ArmPegInsert", num_envs, threads=1, variants=VARIANTS, max_episode_steps=20))


CART = """
<mujoco><option timestep="0.01" gravity="0 0 0"/><worldbody><body name="cart"{place}>
<joint name="slide" type="slide" axis="1 0 0"/><geom size="0.1" mass="{mass}"/></body></worldbody>
<actuator><motor joint="slide"/></actuator></mujoco>
"""


def cart_task(**changes: Any) -> MujocoTask:
    return replace(
        MujocoTask(
            id="Cart",
            model=lambda p: mujoco.MjModel.from_xml_string(CART.format(mass=p["mass"], place="")),
            frame_skip=1,
            max_episode_steps=10,
            observations=(Observation("x", lambda xp, s, p: (s.data["qpos"][:, 0] * p["gain"])[:, None], ("x",)),),
            rewards=(Reward("speed", lambda xp, s, a, p: s.data["qvel"][:, 0]),),
            reset=lambda rng, model, p: {"qpos": rng.uniform(-1, 1, 1) + p["place"], "qvel": np.zeros(1)},
            terminated=Outside((Range.at("qpos", 0, "bounds"),)),
            action_names=("push",),
            params={"mass": 1.0, "gain": 1.0, "place": 0.0, "bounds": (-50.0, 50.0), "word": "a"},
            variants={"light": {}, "heavy": {"mass": 4.0, "place": 10.0}},
        ),
        **changes,
    )


def test_a_task_declares_its_variants_and_compiled_chunks_follow_them() -> None:
    """F = m a, for the mass of each; the start is that of the variant, by the same draw."""
    env = MujocoEnv(cart_task(), 2, seed=0, threads=1, dtype=torch.float64)
    assert env.variants == ("light", "heavy")
    env.set_variants([0, 1])
    obs, _ = env.reset(seed=[7, 7])
    assert float(obs["policy"][1] - obs["policy"][0]) == pytest.approx(10.0)
    result = env.step_chunk(torch.ones(2, 4, 1, dtype=torch.float64))
    np.testing.assert_allclose(result.reward[:, -1], [0.04 / 1.0, 0.04 / 4.0], rtol=1e-9)
    env.set_variants([1, 0])
    env.reset(seed=[7, 7])
    result = env.step_chunk(torch.ones(2, 4, 1, dtype=torch.float64))
    np.testing.assert_allclose(result.reward[:, -1], [0.04 / 4.0, 0.04 / 1.0], rtol=1e-9)


def test_a_parameter_that_a_term_reads_differs_row_by_row_of_a_compiled_chunk() -> None:
    env = MujocoEnv(cart_task(), 2, seed=0, threads=1, variants={"a": {"gain": 1.0}, "b": {"gain": 3.0}})
    env.set_variants([0, 1])
    env.reset(seed=[7, 7])
    trace = env.step_chunk(torch.ones(2, 4, 1), record="all").trace
    assert trace is not None
    torch.testing.assert_close(trace["policy"][1], 3 * trace["policy"][0])


def test_the_defaults_of_a_variants_model_are_its_own() -> None:
    """A mocap body's place is part of the state, and each model begins with its own."""
    xml = CART.replace('<body name="cart"{place}>', '<body name="mark" mocap="true"{place}/><body name="cart">')
    task = cart_task(
        model=lambda p: mujoco.MjModel.from_xml_string(xml.format(mass=1.0, place=f' pos="0 0 {p["mass"]}"')),
        fields=("qpos", "qvel", "mocap_pos"),
    )
    env = MujocoEnv(task, 2, seed=0, threads=1)
    env.set_variants([1, 0])
    env.reset()
    assert env.simulation.data["mocap_pos"][:, 0, 2].tolist() == [4.0, 1.0]


@pytest.mark.parametrize(
    ("variants", "match"),
    [
        ({"a": {"mas": 2.0}}, "did you mean .*mass"),
        ({"a": {"mass": "x"}}, "parameter mass of Cart is 'x'"),
        ({"a": 2.0}, "variant a of Cart is 2.0: give parameters by name"),
        ({"a": {}, "b": {"bounds": (-1.0, 1.0)}}, "parameter bounds of Cart cannot differ between variants"),
    ],
)
def test_variants_that_cannot_be_are_refused(variants: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        MujocoEnv(cart_task(), 2, threads=1, variants=variants)


def test_terms_and_models_that_cannot_vary_are_refused() -> None:
    branching = (Reward("speed", lambda xp, s, a, p: s.data["qvel"][:, 0] if p["gain"] > 1 else 0.0),)
    with pytest.raises(ConfigError, match="reward 'speed' takes one value of a parameter for all"):
        MujocoEnv(cart_task(rewards=branching), 2, threads=1, variants={"a": {}, "b": {"gain": 2.0}})

    wide = (Observation("x", lambda xp, s, p: s.data["qpos"] * p["gain"], ("x",)),)
    for num_envs in (1, 2):
        with pytest.raises(ConfigError, match=r"observation 'x' returned shape \(\d+, \d+\)"):
            MujocoEnv(cart_task(observations=wide), num_envs, threads=1, variants={"a": {}, "b": {"gain": 2.0}})

    def rate(p: Any) -> mujoco.MjModel:
        return mujoco.MjModel.from_xml_string(CART.format(mass=1.0, place="").replace("0.01", f"{0.01 * p['mass']}"))

    with pytest.raises(ConfigError, match=r"differ in opt\.timestep"):
        MujocoEnv(cart_task(model=rate), 2, threads=1)


@pytest.mark.parametrize("chosen", [[0, 2], [0], [-1, 0], [0.5, 0.0]])
def test_a_variant_that_is_not_there_is_refused(chosen: list[Any]) -> None:
    env = MujocoEnv(cart_task(), 2, threads=1)
    with pytest.raises(SpecError, match="expected 2 integers from 0 to 1, numbers of light, heavy"):
        env.set_variants(chosen)


def test_a_state_of_more_variants_is_refused() -> None:
    env = MujocoEnv(cart_task(), 1, threads=1, variants={"a": {}, "b": {}, "c": {}})
    env.set_variants([2])
    env.reset()
    with pytest.raises(SpecError, match="variants up to 2 where Cart has 2"):
        MujocoEnv(cart_task(), 1, threads=1).set_state(env.get_state())
