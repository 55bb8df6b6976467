"""The rules themselves. Each makes its own environments, and raises where they break it.

A rule returns a figure worth knowing (a drift, a limit) or nothing, and raises `CannotError` where the machine, not the
environment, is why it cannot be checked.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import numpy as np
import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, Obs
from robo_rlft.errors import UserError

Factory = Callable[[int], BatchEnv]
"""num_envs -> a new environment."""
Rule = Callable[[Factory], str | None]
LONGEST = 1000
"""Control steps that a rule waits for the end of an episode."""
DRIFT_STEPS = 40


class ConformanceError(AssertionError):
    """An environment breaks a rule of the interface; the message says which and how."""


class CannotError(Exception):
    """A rule cannot be checked here; the message says why."""


def describes_itself(factory: Factory) -> str | None:
    """Observations and actions have the shapes, dtypes and bounds of `robot`."""
    env = factory(2)
    obs, _ = env.reset(seed=0)
    _expect(obs.keys() == env.robot.observation.keys(), f"obs has {sorted(obs)}, robot {sorted(env.robot.observation)}")
    for key, spec in env.robot.observation.items():
        _expect(
            tuple(obs[key].shape) == (2, *spec.shape), f"obs['{key}'] is {tuple(obs[key].shape)}, spec {spec.shape}"
        )
        _expect(str(obs[key].dtype) == f"torch.{spec.dtype}", f"obs['{key}'] is {obs[key].dtype}, spec {spec.dtype}")
        _expect(obs[key].device == env.device, f"obs['{key}'] is on {obs[key].device}, env.device {env.device}")
    _expect(env.single_action_space.shape == env.robot.action.shape, "the action space differs from robot.action")
    _expect(env.robot.rate_hz > 0, "robot.rate_hz must be positive")
    _expect(len(env.instructions) == 2, f"instructions are {env.instructions}: expected one of each environment")
    env.close()
    return _sizes(env)


def steps_have_shapes(factory: Factory) -> str | None:
    """`step` gives one finite reward and one flag of each kind per environment."""
    env = factory(3)
    env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(_actions(env, np.random.default_rng(0)))
    for name, values in {"terminated": terminated, "truncated": truncated, "success": info["success"]}.items():
        _expect(values.shape == (3,) and values.dtype == torch.bool, f"{name} must be bool [3], got {values}")
    _expect(reward.shape == (3,) and bool(reward.isfinite().all()), f"the reward must be finite [3], got {reward}")
    _expect(obs.keys() == info["final_obs"].keys(), "info['final_obs'] must have the groups of obs")
    env.close()


def same_seed_same_episode(factory: Factory) -> str | None:
    """A seed decides the episode, and environment i of seed s is environment 0 of seed s + i."""
    env, other = factory(3), factory(1)
    first, again = _roll(env, 11, 20), _roll(env, 11, 20)
    _expect_equal(first, again, "two episodes of one seed")
    single, _ = other.reset(seed=13)
    batch, _ = env.reset(seed=11)
    _expect_equal({k: v[2:] for k, v in batch.items()}, single, "environment 2 of seed 11 and environment 0 of seed 13")
    env.close()
    other.close()


def resets_only_those_asked(factory: Factory) -> str | None:
    """`reset(options={"ids": ...})` leaves the other environments alone."""
    env = factory(3)
    _roll(env, 3, 2)
    before = _roll(env, None, 1)
    after, _ = env.reset(options={"ids": [1]})
    kept = [0, 2]
    _expect_equal({k: before[f"obs/{k}"][-1][kept] for k in after}, {k: v[kept] for k, v in after.items()}, "kept rows")
    env.close()


def returned_tensors_stay(factory: Factory) -> str | None:
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


def ended_episodes_restart(factory: Factory) -> str | None:
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


def chunk_equals_steps(factory: Factory) -> str | None:
    """`step_chunk` is its steps, up to the end of each episode, and resets once after the chunk."""
    chunked, stepped = factory(4), factory(4)
    start, _ = chunked.reset(seed=5)
    stepped.reset(seed=5)
    rng = np.random.default_rng(2)
    for _ in range(6):
        if chunked.fidelity == "exact":
            stepped.set_state(chunked.get_state())
            start = stepped.set_state(stepped.get_state())
        actions = torch.stack([_actions(chunked, rng) for _ in range(5)], 1)
        result = chunked.step_chunk(actions, record="all")
        _compare_chunk(result, stepped, actions, start)
        if chunked.fidelity != "exact" and bool(result.done.any()):
            break  # the steps after an end belong to another episode than the chunk's
        start = result.obs
    chunked.close()
    stepped.close()


def last_is_the_end_of_all(factory: Factory) -> str | None:
    """`record="last"` gives what `record="all"` gives, but for the trace."""
    watched, plain = factory(3), factory(3)
    watched.reset(seed=6)
    plain.reset(seed=6)
    actions = torch.stack([_actions(plain, rng) for rng in [np.random.default_rng(4)] for _ in range(4)], 1)
    traced, brief = watched.step_chunk(actions, "all"), plain.step_chunk(actions)
    _expect(traced.trace is not None and brief.trace is None, "only record='all' gives a trace")
    for name in ("reward", "terminated", "truncated", "length", "success", "obs", "final_obs", "metrics"):
        _expect_equal(getattr(traced, name), getattr(brief, name), f"{name} with record='all' and 'last'")
    _expect(set(brief.metrics) == set(plain.metrics), f"metrics are {sorted(brief.metrics)}, env {plain.metrics}")
    for name, values in brief.metrics.items():
        _expect(tuple(values.shape) == (3,), f"metric {name} has shape {tuple(values.shape)}: expected (3,)")
    watched.close()
    plain.close()


def truncates_at_the_limit(factory: Factory) -> str | None:
    """An episode is never longer than `robot.max_episode_steps`, and one that the clock cut is not terminated."""
    env = factory(2)
    limit, rng = env.robot.max_episode_steps, np.random.default_rng(5)
    env.reset(seed=2)
    steps = torch.zeros(2, dtype=torch.long, device=env.device)
    for _ in range(min(limit, LONGEST) // 10 + 1):
        result = env.step_chunk(torch.stack([_actions(env, rng) for _ in range(10)], 1))
        steps += result.length
        _expect(not bool((result.terminated & result.truncated).any()), "an episode both terminated and was truncated")
        _expect(bool((steps <= limit).all()), f"an episode has {steps.max().item()} steps, the limit is {limit}")
        reached = steps >= limit
        _expect(bool((result.done >= reached).all()), f"an episode went on after its {limit} steps")
        steps[result.done] = 0
    env.close()
    return f"{limit} steps"


def state_comes_back(factory: Factory) -> str | None:
    """A restored state has the same future: bit for bit, resets included, or as close as `drift` says."""
    env = factory(3)
    if env.fidelity == "none":
        env.close()
        raise CannotError("the simulator cannot save its state")
    _roll(env, 21, 7)
    saved = env.get_state()
    steps = DRIFT_STEPS
    first = _roll(env, None, steps)
    env.set_state(saved)
    again = _roll(env, None, steps)
    if env.fidelity == "drift":
        env.close()
        return _drift(first, again, env.drift)
    _expect_equal(first, again, "the future of a state and of its copy")
    copy = factory(3)
    copy.reset(seed=99)
    copy.set_state(saved)
    _expect_equal(first, _roll(copy, None, steps), "the future of a state in another environment")
    copy.close()
    env.close()
    return "exact"


def forks_are_equal(factory: Factory) -> str | None:
    """Forked environments go the same way under the same actions, as far as the fidelity goes."""
    env = factory(4)
    if env.fork_fidelity == "none":
        env.close()
        raise CannotError("the simulator can neither save its state nor be forked")
    _roll(env, 8, 5)
    env.fork(2, [0, 1, 3])
    rng, farthest = np.random.default_rng(3), 0.0
    for _ in range(25):
        action = _actions(env, rng)[:1].repeat(4, 1)
        obs, _, terminated, truncated, _ = env.step(action)
        if bool((terminated | truncated).any()) and env.fork_fidelity == "drift":
            break
        for key, values in obs.items():
            off = (values.double() - values[2].double()).abs().max().item()
            farthest = max(farthest, off)
            allowed = env.drift if env.fork_fidelity == "drift" else 0.0
            _expect(off <= allowed, f"forked environments differ by {off:.3g} in obs['{key}']")
    env.close()
    return "exact" if env.fork_fidelity == "exact" else f"within {farthest:.2g}"


def variants_are_chosen(factory: Factory) -> str | None:
    """`set_variants` decides the next episodes, and no episode that runs."""
    env = factory(2)
    count = len(env.variants)
    if count > 1:
        env.reset(seed=3)
        before, wanted = env.variant.tolist(), [count - 1, 0]
        env.set_variants(wanted)
        _expect(env.variant.tolist() == before, "set_variants changed an episode that runs")
        env.reset(seed=3)
        _expect(env.variant.tolist() == wanted, f"variants are {env.variant.tolist()}: expected {wanted}")
    env.close()
    return f"{count}" if count > 1 else "one"


def renders(factory: Factory) -> str | None:
    """`render` gives an image of each environment asked for."""
    env = factory(2)
    env.reset(seed=0)
    try:
        images = env.render([1], size=(48, 64))
    except (UserError, TypeError) as error:
        raise CannotError(" ".join(str(error).split())) from error
    finally:
        env.close()
    _expect(images.shape == (1, 48, 64, 3), f"images have shape {images.shape}: expected (1, 48, 64, 3)")
    _expect(images.dtype == np.uint8, f"images are {images.dtype}: expected uint8")
    _expect(int(images.max()) > int(images.min()), "the image has one colour")


def closes(factory: Factory) -> str | None:
    """`close` leaves no process and no open file, and may be called twice."""
    _used(factory)  # what a simulator keeps for the life of the process is there from the first time on
    before = _held()
    _used(factory)
    gc.collect()
    after = _held()
    _expect(after[0] <= before[0], f"{len(after[0] - before[0])} processes are left after close")
    _expect(after[1] <= before[1], f"{after[1] - before[1]} open files are left after close")


def refuses_bad_actions(factory: Factory) -> str | None:
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
    truncates_at_the_limit,
    chunk_equals_steps,
    last_is_the_end_of_all,
    state_comes_back,
    forks_are_equal,
    variants_are_chosen,
    refuses_bad_actions,
    renders,
    closes,
)


def _compare_chunk(result: ChunkResult, env: BatchEnv, actions: Float[Tensor, "env chunk action"], start: Obs) -> None:
    n, steps = actions.shape[:2]
    over = torch.zeros(n, dtype=torch.bool, device=env.device)
    success, seen = over.clone(), start
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


def _drift(first: dict[str, list[Tensor]], again: dict[str, list[Tensor]], allowed: float) -> str:
    """How far apart two futures are before the first end of an episode."""
    ends = [bool((a | b).any()) for a, b in zip(first["terminated"], first["truncated"], strict=True)]
    until = ends.index(True) if True in ends else len(ends)
    keys = [key for key in first if key.startswith("obs/") and first[key][0].is_floating_point()]
    pairs = [(a, b) for key in keys for a, b in zip(first[key][:until], again[key][:until], strict=True)]
    off = max([(a.double() - b.double()).abs().max().item() for a, b in pairs], default=0.0)
    _expect(off <= allowed, f"a restored state drifts by {off:.3g} in {until} steps, declared are {allowed:.3g}")
    return f"within {off:.2g} after {until} steps"


def _sizes(env: BatchEnv) -> str:
    shapes = [f"{key} {'x'.join(map(str, spec.shape))}" for key, spec in env.robot.observation.items()]
    return f"{', '.join(shapes)}; action {env.robot.action.shape[0]} at {env.robot.rate_hz:g} Hz"


def _used(factory: Factory) -> None:
    env = factory(1)
    env.reset(seed=0)
    env.step(_actions(env, np.random.default_rng(0)))
    env.close()
    env.close()


def _held() -> tuple[set[int], int]:
    """Living child processes and the number of open files."""
    process = psutil.Process()
    alive = {p.pid for p in process.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE}
    return alive, process.num_fds()


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
