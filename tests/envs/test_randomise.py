"""Domain randomisation: what it does to episodes, and that it does nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs import conformance, registry
from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.mujoco.task import MujocoTask, Observation
from robo_rlft.envs.mujoco.tasks.legged.quadruped import FLAT
from robo_rlft.envs.randomise import NoiseConfig, RandomiseConfig, normal, require_supported, uniform, wrong_ranges
from robo_rlft.errors import ConfigError, SpecError

ALL = RandomiseConfig(
    mass=[0.8, 1.2],
    friction=[0.5, 1.2],
    gains=[0.9, 1.1],
    latency_s=[0.0, 0.06],
    push_velocity=0.5,
    push_interval_s=0.3,
    noise=NoiseConfig(rad=0.01, rad_s=0.2, unitless=0.05),
)


CART = MujocoTask(
    id="Cart",
    model=lambda params: mujoco.MjModel.from_xml_string(
        """<mujoco><option timestep="0.01"/><worldbody><body><joint name="x" type="slide" axis="1 0 0"/>
        <geom size=".1" mass="2"/></body></worldbody><actuator><motor joint="x"/></actuator></mujoco>"""
    ),
    frame_skip=5,
    max_episode_steps=30,
    observations=(Observation("x", lambda xp, state, params: state.data["qpos"], ("x",), ("m",)),),
    rewards=(),
    reset=lambda rng, model, params: {"qpos": np.zeros(1)},
    action_names=("push",),
    action_low=-9.0,
    action_high=9.0,
)


def quadruped(
    num: int = 2, randomise: RandomiseConfig | None = None, env_id: str = "QuadrupedFlat", **params: Any
) -> MujocoEnv:
    kwargs = {"threads": 1, "seed": 0, "dtype": torch.float64, **params}
    env = envs.make(env_id, num, randomise=randomise, **kwargs)
    assert isinstance(env, MujocoEnv)
    return env


def acts(env: BatchEnv, steps: int, seed: int = 0) -> torch.Tensor:
    width = len(env.robot.action.names)
    return torch.randn(env.num_envs, steps, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def path(env: MujocoEnv, actions: torch.Tensor, seed: int = 5) -> np.ndarray:
    env.reset(seed=seed)
    states = []
    for h in range(actions.shape[1]):
        env.step(actions[:, h])
        states.append(env.simulation.state.copy())
    return np.stack(states)


def test_defaults_change_nothing() -> None:
    plain, off = quadruped(), quadruped(randomise=RandomiseConfig(push_interval_s=1.0))
    actions = acts(plain, 20)
    np.testing.assert_array_equal(path(plain, actions), path(off, actions))
    assert plain.get_state().keys() == off.get_state().keys()
    assert off._episodes.random is None


@pytest.mark.usefixtures("stepper")
@pytest.mark.parametrize(
    "part",
    [
        {"mass": [1.5, 1.5]},
        {"friction": [0.2, 0.2]},
        {"gains": [0.5, 0.5]},
        {"latency_s": [0.04, 0.04]},
        {"push_velocity": 1.0, "push_interval_s": 0.1},
    ],
    ids=lambda part: next(iter(part)),
)
def test_each_part_changes_the_motion_and_not_the_start(part: dict[str, Any]) -> None:
    plain, varied = quadruped(), quadruped(randomise=RandomiseConfig(**part))
    actions = acts(plain, 15)
    for env in (plain, varied):
        env.reset(seed=5)
    np.testing.assert_array_equal(plain.simulation.state, varied.simulation.state)
    assert np.abs(path(plain, actions) - path(varied, actions)).max() > 1e-3


@pytest.mark.usefixtures("stepper")
def test_twice_the_mass_takes_half_the_acceleration() -> None:
    """A 2 kg cart pushed with 4 N for five substeps of .01 s: x = F/m dt^2 (1 + 2 + ... + 5)."""
    moved = []
    for scale in (1.0, 2.0):
        env = MujocoEnv(CART, 2, seed=0, threads=1, randomise=RandomiseConfig(mass=[scale, scale]))
        moved.append(env.step(torch.full((2, 1), 4.0))[0]["policy"][:, 0])
    torch.testing.assert_close(moved[0], torch.full((2,), 4 / 2 * 0.01**2 * 15))
    torch.testing.assert_close(moved[1], moved[0] / 2)


@pytest.mark.usefixtures("stepper")
def test_weight_on_the_feet_follows_the_mass() -> None:
    env = quadruped(1, RandomiseConfig(mass=[1.4, 1.4]), start_velocity=0.0)
    for _ in range(50):
        env.step(torch.zeros(1, 12))
    assert env.simulation.data["sensordata"][0, :4].sum() == pytest.approx(1.4 * 15.019 * 9.81, rel=0.05)


@pytest.mark.usefixtures("stepper")
def test_without_friction_a_robot_slides() -> None:
    def speed(randomise: RandomiseConfig | None) -> float:
        """Of the base, a quarter of a second after a start at .5 m/s: momentum that only friction takes."""
        env = quadruped(1, randomise, start_velocity=0.0, start_joint_noise=0.0)
        env.simulation.field("qvel")[0, 0] = 0.5
        for _ in range(13):
            env.step(torch.zeros(1, 12))
        return float(env.simulation.field("qvel")[0, 0])

    assert speed(RandomiseConfig(friction=[0.0, 0.0])) == pytest.approx(0.5, abs=0.02)
    assert speed(None) < 0.4


@pytest.mark.usefixtures("stepper")
@pytest.mark.parametrize("env_id", ["QuadrupedFlat", "Hopper", "ArmPickPlace"])
@pytest.mark.parametrize("delay", [1, 3])
def test_latency_is_the_commands_of_some_steps_before(env_id: str, delay: int) -> None:
    """What reaches the actuators late is exactly what reached them without latency, steps earlier."""
    plain = quadruped(2, env_id=env_id)
    period = 1.0 / plain.robot.rate_hz
    late = quadruped(2, RandomiseConfig(latency_s=[delay * period] * 2), env_id=env_id)
    sent: dict[str, list[np.ndarray]] = {"plain": [], "late": []}
    begin = plain.reset(seed=1)[0], late.reset(seed=1)[0]
    assert torch.equal(begin[0]["policy"], begin[1]["policy"])
    first = plain.simulation.field("ctrl").copy()
    actions = acts(plain, 8) * 0.1
    for h in range(8):
        for name, env in (("plain", plain), ("late", late)):
            env.step(actions[:, h])
            sent[name].append(env.simulation.field("ctrl").copy())
    expected = [first] * delay + sent["plain"]
    # The arm's commands depend on what it measures, which latency changes from the first late command on.
    for h in range(8 if env_id != "ArmPickPlace" else delay + 1):
        np.testing.assert_array_equal(sent["late"][h], expected[h])


@pytest.mark.usefixtures("stepper")
@pytest.mark.parametrize("env_id", ["QuadrupedFlat", "Hopper"])
def test_everything_is_saved_with_the_state(env_id: str) -> None:
    env, other = (
        (quadruped(3, ALL, env_id, max_episode_steps=25) for _ in range(2))
        if env_id != "Hopper"
        else (quadruped(3, dataclasses.replace(ALL, push_velocity=0.0), env_id, max_episode_steps=25) for _ in range(2))
    )
    env.step_chunk(acts(env, 7))
    saved = env.get_state()
    first = [env.step_chunk(acts(env, 10, seed)) for seed in range(5)]
    other.reset(seed=99)
    other.set_state(saved)
    for seed, expected in enumerate(first):
        again = other.step_chunk(acts(other, 10, seed))
        assert torch.equal(expected.reward, again.reward)
        assert torch.equal(expected.obs["policy"], again.obs["policy"])
    with pytest.raises(SpecError, match="episode_draw"):
        other.set_state({k: v for k, v in saved.items() if k != "episode_draw"})


@pytest.mark.usefixtures("stepper")
@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("env_id", ["QuadrupedFlat", "Ant"])
def test_follows_the_rules(env_id: str, rule: conformance.Rule) -> None:
    conformance.follow(rule, lambda num: envs.make(env_id, num, threads=1, randomise=ALL))


@pytest.mark.usefixtures("stepper")
def test_compiled_and_stepped_chunks_are_bit_equal() -> None:
    """Latency, noise and models of their own in one compiled call, against single steps."""
    varied = dataclasses.replace(ALL, push_velocity=0.0)
    chunked, single = (quadruped(4, varied, "HalfCheetah", max_episode_steps=30) for _ in range(2))
    for chunk in range(5):
        actions = acts(chunked, 8, chunk).clamp(-1, 1)
        result = chunked.step_chunk(actions, "all")
        over, seen = torch.zeros(4, dtype=torch.bool), None
        for h in range(8):
            _, reward, terminated, truncated, info = single.step(actions[:, h])
            assert torch.equal(result.reward[:, h], torch.where(over, 0.0, reward))
            if not over.any():
                seen = info["final_obs"]["policy"]
                assert result.trace is not None
                assert torch.equal(result.trace["policy"][:, h + 1], seen)
            over |= terminated | truncated
        if over.any():
            single.set_state(chunked.get_state())


def test_pushes_kick_the_base_at_their_time() -> None:
    plain = quadruped(40)
    pushed = quadruped(40, RandomiseConfig(push_velocity=0.5, push_interval_s=0.2))
    for env in (plain, pushed):
        env.reset(seed=0)
    kicks = []
    for _ in range(20):
        # From the very same state, the difference of one step is the push.
        pushed.simulation.state[:] = plain.simulation.state
        for env in (plain, pushed):
            env.step(torch.zeros(40, 12))
        kicks.append(pushed.simulation.field("qvel")[:, :2] - plain.simulation.field("qvel")[:, :2])
    size = np.abs(kicks).max(-1)
    per_env = (size > 1e-6).sum(0)
    assert set(per_env) <= {1, 2}
    assert size.max() < 0.6
    assert size.max() > 0.35


def test_noise_has_the_stated_deviation_by_unit() -> None:
    noise = NoiseConfig(rad=0.02, rad_s=0.3, unitless=0.05)
    clean, noisy = quadruped(400), quadruped(400, RandomiseConfig(noise=noise))
    off = []
    for env in (clean, noisy):
        obs, _ = env.reset(seed=0)
        rows = [obs["policy"]]
        critics = [obs["critic"]]
        for _ in range(5):
            obs, *_ = env.step(torch.zeros(400, 12))
            rows.append(obs["policy"])
            critics.append(obs["critic"])
        off.append((torch.stack(rows), torch.stack(critics)))
    error = off[1][0] - off[0][0]
    assert torch.equal(off[0][1], off[1][1])
    spec = clean.robot.observation["policy"]
    known = ("command", "action")
    for column, (name, unit) in enumerate(zip(spec.names, spec.units, strict=True)):
        measured = not any(word in name for word in known)
        expected = noise.std(unit) if measured else 0.0
        assert float(error[..., column].std()) == pytest.approx(expected, rel=0.08)
        assert abs(float(error[..., column].mean())) < 0.1 * max(expected, 1e-12)
    steps = error[:, :, 0].flatten(1)
    assert abs(float(torch.corrcoef(steps[:2])[0, 1])) < 0.15


def test_hashed_numbers_are_normal_and_uniform() -> None:
    rng = np.random.default_rng(0)
    salt = rng.integers(2**64, size=2000, dtype=np.uint64)
    values = normal(salt, np.arange(2000), 7)
    assert abs(values.mean()) < 0.03
    assert values.std() == pytest.approx(1.0, abs=0.02)
    assert np.mean(np.abs(values) > 1.96) == pytest.approx(0.05, abs=0.006)
    assert np.abs(np.corrcoef(values.T) - np.eye(7)).max() < 0.08
    evenly = uniform(salt, np.zeros(2000, np.int64), 2)
    assert abs(evenly.mean()) < 0.05
    assert evenly.std() == pytest.approx(1 / np.sqrt(3), abs=0.02)
    np.testing.assert_array_equal(values[5:6], normal(salt[5:6], np.array([5]), 7))


def test_draws_belong_to_the_seed_and_stay_in_their_ranges() -> None:
    env = quadruped(3, ALL)

    def model_of(seed: int | list[int]) -> dict[str, np.ndarray]:
        env.reset(seed=seed)
        batch = env.simulation.batch
        return {n: batch.expand(n).copy() for n in ("body_mass", "geom_friction", "actuator_gainprm")}

    first, again, others = model_of([3, 4, 5]), model_of([5, 4, 3]), model_of([6, 7, 8])
    model = env.simulation.model
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name][::-1])
        assert (values != others[name]).any()
    mass = first["body_mass"][:, 1:] / model.body_mass[1:]
    assert 0.8 <= mass.min() < mass.max() <= 1.2
    assert np.ptp(mass, axis=1).min() > 0.05
    friction = first["geom_friction"][:, :, 0] / model.geom_friction[:, 0]
    assert np.ptp(friction, axis=1).max() < 1e-12
    assert 0.5 <= friction.min() < friction.max() <= 1.2


def test_one_setting_does_not_change_what_another_draws() -> None:
    alone, together = quadruped(2, RandomiseConfig(friction=[0.5, 1.2])), quadruped(2, ALL)
    values = []
    for env in (alone, together):
        env.reset(seed=1)
        values.append(env.simulation.batch.expand("geom_friction").copy())
    np.testing.assert_array_equal(*values)


def test_variants_keep_their_own_values_under_the_draw() -> None:
    task = dataclasses.replace(FLAT, variants={"strong": {}, "weak": {"kp": (10.0,) * 12}})
    env = MujocoEnv(task, 2, seed=0, threads=1, randomise=RandomiseConfig(gains=[1.1, 1.1]))
    env.set_variants([0, 1])
    env.reset(seed=0)
    np.testing.assert_allclose(env.simulation.batch.expand("actuator_gainprm")[:, 0, 0], [22.0, 11.0])


def test_what_is_not_supported_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"ArmPickPlace cannot vary env\.randomise\.push_velocity: it can vary mass, "
    ):
        envs.make("ArmPickPlace", randomise=RandomiseConfig(push_velocity=1.0))
    with pytest.raises(ConfigError, match=r"Hopper cannot vary env\.randomise\.colour"):
        envs.make("Hopper", randomise=RandomiseConfig(colour=0.5))
    with pytest.raises(ConfigError, match=r"env\.randomise\.mass is \[1\.2, 0\.8\]: give \[low, high\]"):
        envs.make("Hopper", randomise=RandomiseConfig(mass=[1.2, 0.8]))
    with pytest.raises(ConfigError, match="it can vary nothing"):
        require_supported(RandomiseConfig(friction=[0.0, 1.0]), (), "other:Task")
    require_supported(RandomiseConfig(push_interval_s=1.0), (), "other:Task")
    assert list(wrong_ranges(ALL)) == []
    assert any("without mass" in problem for problem in wrong_ranges(RandomiseConfig(mass=[0.0, 1.0])))


def test_makers_of_other_simulators_get_it_or_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RandomiseConfig | None] = []

    def willing(num_envs: int, *, randomise: RandomiseConfig | None = None, **common: Any) -> BatchEnv:
        require_supported(randomise, ("friction",), "Willing")
        seen.append(randomise)
        return quadruped(num_envs)

    def unwilling(num_envs: int, **common: Any) -> BatchEnv:
        return quadruped(num_envs)

    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    registry.register("Willing", lambda: willing, "for tests")
    registry.register("Unwilling", lambda: unwilling, "for tests")
    wish = RandomiseConfig(friction=[0.5, 1.0])
    envs.make("Willing", randomise=wish)
    assert seen == [wish]
    with pytest.raises(ConfigError, match=r"Willing cannot vary env\.randomise\.mass: it can vary friction"):
        envs.make("Willing", randomise=RandomiseConfig(mass=[0.5, 1.0]))
    with pytest.raises(ConfigError, match=r"Unwilling cannot vary env\.randomise\.friction: it can vary nothing"):
        envs.make("Unwilling", randomise=wish)
    envs.make("Unwilling", randomise=RandomiseConfig())


def test_known_values_are_never_noisy() -> None:
    known = [o for o in FLAT.observations if isinstance(o, Observation) and not o.measured]
    assert {o.name for o in known} == {"command", "last_action"}
