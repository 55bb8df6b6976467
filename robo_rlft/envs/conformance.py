"""What every `BatchEnv` must do, as checks you can run on your own.

    from robo_rlft.envs import conformance, make
    conformance.check(lambda num_envs: make("MyTask", num_envs))

or one test each: `@pytest.mark.parametrize("rule", conformance.RULES)` and `rule(factory)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, Obs
from robo_rlft.errors import UserError

Factory = Callable[[int], BatchEnv]
"""num_envs -> a new environment."""
Rule = Callable[[Factory], None]


class ConformanceError(AssertionError):
    """An environment breaks a rule of the interface; the message says which and how."""


def check(factory: Factory) -> None:
    """Run every rule.

    Raises:
        ConformanceError: naming the first rule that is broken.
    """
    for rule in RULES:
        rule(factory)


def describes_itself(factory: Factory) -> None:
    """Observations and actions have the shapes, dtypes and bounds of `robot`."""
    env = factory(2)
    obs, _ = env.reset(seed=0)
    _expect(obs.keys() == env.robot.observation.keys(), f"obs has {sorted(obs)}, robot {sorted(env.robot.observation)}")
    for key, spec in env.robot.observation.items():
        _expect(
            tuple(obs[key].shape) == (2, *spec.shape), f"obs['{key}'] is {tuple(obs[key].shape)}, spec {spec.shape}"
        )
        _expect(str(obs[key].dtype) == f"torch.{spec.dtype}", f"obs['{key}'] is {obs[key].dtype}, spec {spec.dtype}")
    _expect(env.single_action_space.shape == env.robot.action.shape, "the action space differs from robot.action")
    _expect(env.robot.rate_hz > 0, "robot.rate_hz must be positive")
    env.close()


def steps_have_shapes(factory: Factory) -> None:
    """`step` gives one finite reward and one flag of each kind per environment."""
    env = factory(3)
    env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(_actions(env, np.random.default_rng(0)))
    for name, values in {"terminated": terminated, "truncated": truncated, "success": info["success"]}.items():
        _expect(values.shape == (3,) and values.dtype == torch.bool, f"{name} must be bool [3], got {values}")
    _expect(reward.shape == (3,) and bool(reward.isfinite().all()), f"the reward must be finite [3], got {reward}")
    _expect(obs.keys() == info["final_obs"].keys(), "info['final_obs'] must have the groups of obs")
    env.close()


def same_seed_same_episode(factory: Factory) -> None:
    """A seed decides the episode, and environment i of seed s is environment 0 of seed s + i."""
    env, other = factory(3), factory(1)
    first, again = _roll(env, 11, 20), _roll(env, 11, 20)
    _expect_equal(first, again, "two episodes of one seed")
    single, _ = other.reset(seed=13)
    batch, _ = env.reset(seed=11)
    _expect_equal({k: v[2:] for k, v in batch.items()}, single, "environment 2 of seed 11 and environment 0 of seed 13")
    env.close()
    other.close()


def resets_only_those_asked(factory: Factory) -> None:
    """`reset(options={"ids": ...})` leaves the other environments alone."""
    env = factory(3)
    _roll(env, 3, 2)
    before = _roll(env, None, 1)
    after, _ = env.reset(options={"ids": [1]})
    kept = [0, 2]
    _expect_equal({k: before[f"obs/{k}"][-1][kept] for k in after}, {k: v[kept] for k, v in after.items()}, "kept rows")
    env.close()


def returned_tensors_stay(factory: Factory) -> None:
    """What a step returned is not overwritten by the next."""
    env = factory(2)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    obs, reward, *_ = env.step(_actions(env, rng))
    kept = {**{k: v.clone() for k, v in obs.items()}, "reward": reward.clone()}
    for _ in range(3):
        env.step(_actions(env, rng))
    _expect_equal({**obs, "reward": reward}, kept, "a returned step after later steps")
    env.close()


def ended_episodes_restart(factory: Factory) -> None:
    """An ended environment gives the old episode's last observation apart from the new one's first."""
    env = factory(4)
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    for _ in range(min(env.robot.max_episode_steps + 1, 400)):
        obs, _, terminated, truncated, info = env.step(_actions(env, rng))
        ended = terminated | truncated
        for key in obs:
            same = (obs[key] == info["final_obs"][key]).flatten(1).all(1)
            _expect(bool(same[~ended].all()), f"final_obs['{key}'] differs from obs where nothing ended")
        if ended.any():
            differs = torch.stack([(obs[k] != info["final_obs"][k]).flatten(1).any(1) for k in obs]).any(0)
            _expect(bool(differs[ended].all()), "final_obs of an ended environment equals its new first observation")
            break
    env.close()


def chunk_equals_steps(factory: Factory) -> None:
    """`step_chunk` is its steps, up to the end of each episode, and resets once after the chunk."""
    chunked, stepped = factory(4), factory(4)
    chunked.reset(seed=5)
    rng = np.random.default_rng(2)
    for _ in range(6):
        if chunked.fidelity != "exact":
            break
        stepped.set_state(chunked.get_state())
        actions = torch.stack([_actions(chunked, rng) for _ in range(5)], 1)
        start = stepped.set_state(stepped.get_state())
        result = chunked.step_chunk(actions, record="all")
        _compare_chunk(result, stepped, actions, start)
    chunked.close()
    stepped.close()


def state_comes_back(factory: Factory) -> None:
    """With fidelity "exact", a restored state has the same future, resets included."""
    env = factory(3)
    if env.fidelity == "exact":
        _roll(env, 21, 7)
        saved = env.get_state()
        first = _roll(env, None, 40)
        env.set_state(saved)
        _expect_equal(first, _roll(env, None, 40), "the future of a state and of its copy")
        copy = factory(3)
        copy.reset(seed=99)
        copy.set_state(saved)
        _expect_equal(first, _roll(copy, None, 40), "the future of a state in another environment")
        copy.close()
    env.close()


def forks_are_equal(factory: Factory) -> None:
    """With fork_fidelity "exact", forked environments go the same way under the same actions."""
    env = factory(4)
    if env.fork_fidelity == "exact":
        _roll(env, 8, 5)
        env.fork(2, [0, 1, 3])
        rng = np.random.default_rng(3)
        for _ in range(25):
            action = _actions(env, rng)[:1].repeat(4, 1)
            obs, reward, *_ = env.step(action)
            _expect(bool((reward == reward[2]).all()), "forked environments got different rewards for the same actions")
            for key, values in obs.items():
                _expect(bool((values == values[2]).all()), f"forked environments differ in obs['{key}']")
    env.close()


def refuses_bad_actions(factory: Factory) -> None:
    """A NaN or a wrong shape is a `UserError`, and the environment goes on after it."""
    env = factory(2)
    env.reset(seed=0)
    good = _actions(env, np.random.default_rng(0))
    nan = good.clone()
    nan[1, 0] = math.nan
    for bad, what in ((nan, "a NaN"), (good[:1], "the wrong shape"), (good[:, :0], "no entries")):
        try:
            env.step(bad)
        except UserError:
            continue
        raise ConformanceError(f"an action with {what} was accepted instead of raising a UserError")
    env.step(good)
    env.close()


RULES: tuple[Rule, ...] = (
    describes_itself,
    steps_have_shapes,
    same_seed_same_episode,
    resets_only_those_asked,
    returned_tensors_stay,
    ended_episodes_restart,
    chunk_equals_steps,
    state_comes_back,
    forks_are_equal,
    refuses_bad_actions,
)


def _compare_chunk(result: ChunkResult, env: BatchEnv, actions: Float[Tensor, "env chunk action"], start: Obs) -> None:
    n, steps = actions.shape[:2]
    over, success, seen = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool), start
    for h in range(steps):
        _, reward, terminated, truncated, info = env.step(actions[:, h])
        seen = {k: torch.where(_like(over, v), seen[k], v) for k, v in info["final_obs"].items()}
        _expect(bool((result.reward[:, h] == torch.where(over, 0.0, reward)).all()), f"chunk reward {h} differs")
        assert result.trace is not None
        _expect_equal({k: v[:, h + 1] for k, v in result.trace.items()}, seen, f"chunk trace {h + 1}")
        success = success | (info["success"] & ~over)
        ends = (terminated | truncated) & ~over
        _expect(bool((result.length[ends] == h + 1).all()), "chunk length is not the step of the end")
        _expect(bool((result.terminated[ends] == terminated[ends]).all()), "chunk terminated differs")
        over = over | ends
    _expect_equal(result.success, success, "chunk success and that of its steps")
    _expect_equal(result.final_obs, seen, "chunk final_obs")
    _expect(bool((result.done == over).all()), "the chunk ended other episodes than its steps")
    _expect(bool((result.length[~over] == steps).all()), "a chunk without an end must have full length")


def _roll(env: BatchEnv, seed: int | None, steps: int) -> dict[str, list[Tensor]]:
    """Everything that random steps return, the same actions for the same number of steps."""
    if seed is not None:
        env.reset(seed=seed)
    rng = np.random.default_rng(0)
    seen: dict[str, list[Tensor]] = {}
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(_actions(env, rng))
        row = {**{f"obs/{k}": v for k, v in obs.items()}, "reward": reward, "terminated": terminated}
        row |= {"truncated": truncated, "success": info["success"]}
        for key, values in row.items():
            seen.setdefault(key, []).append(values)
    return seen


def _actions(env: BatchEnv, rng: np.random.Generator) -> Float[Tensor, "env action"]:
    spec = env.robot.action
    low = np.array(spec.low) if spec.low else -np.ones(spec.shape)
    high = np.array(spec.high) if spec.high else np.ones(spec.shape)
    values = rng.uniform(low, high, (env.num_envs, *spec.shape))
    return torch.as_tensor(values, dtype=getattr(torch, spec.dtype), device=env.device)


def _like(mask: Tensor, values: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (values.ndim - 1))


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise ConformanceError(message)


def _expect_equal(left: object, right: object, what: str) -> None:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in left:
            _expect_equal(left[key], right[key], f"{what}: {key}")
    elif isinstance(left, list) and isinstance(right, list):
        for step, (a, b) in enumerate(zip(left, right, strict=True)):
            _expect_equal(a, b, f"{what}, step {step}")
    else:
        assert isinstance(left, Tensor)
        assert isinstance(right, Tensor)
        _expect(torch.equal(left, right), f"{what} differ by {_difference(left, right)}")


def _difference(left: Tensor, right: Tensor) -> str:
    if left.shape != right.shape:
        return f"shape, {tuple(left.shape)} and {tuple(right.shape)}"
    return f"{(left.double() - right.double()).abs().max().item():.3g}"
