from __future__ import annotations

import errno
import json
import os
import pickle
import random
import re
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import robo_rlft.training.checkpoint as module
from robo_rlft.errors import CheckpointError, RunError
from robo_rlft.policies.config import PolicyConfig
from robo_rlft.spec import ArraySpec, RobotSpec
from robo_rlft.training.checkpoint import (
    CheckpointStore,
    capture_rng,
    check_contradictions,
    describe,
    load_for,
    restore_rng,
)

FILES = ["weights.safetensors", "state.pt", "meta.json"]


def save(run: Path, value: float, name: Any = "last") -> Path:
    """A checkpoint in which every part holds `value`."""
    weights = {"policy": {"net.weight": torch.full((3, 2), value)}, "critic": {}}
    return CheckpointStore(run).save(name, weights, {"step": value, "env": np.full(4, value)}, {"step": value})


def value_of(run: Path, name: Any = "last") -> float:
    """The value of a checkpoint, checked to be the same in every part."""
    checkpoint = CheckpointStore(run).load(name)
    parts = [checkpoint.weights["policy"]["net.weight"].unique().tolist(), np.unique(checkpoint.state["env"]).tolist()]
    assert parts == [[checkpoint.meta["step"]]] * 2 == [[checkpoint.state["step"]]] * 2
    return checkpoint.meta["step"]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    shared = torch.randn(4, 3)
    weights = {
        "policy": {"a": shared, "tied": shared, "t": shared.T, "scalar": torch.tensor(2.5, dtype=torch.float64)},
        "critic": {"flag": torch.tensor([True]), "n": torch.tensor(7)},
        "empty": {},
    }
    state = {"nested": [(1, 2.5, None, "x", b"y", True)], 3: {"big": 1 << 127}, "t": torch.arange(3)}
    CheckpointStore(tmp_path).save("best", weights, state, {"algorithm": "bc"})
    back = CheckpointStore(tmp_path).load("best")
    assert {part: set(named) for part, named in back.weights.items()} == {p: set(n) for p, n in weights.items()}
    for part, named in weights.items():
        for name, tensor in named.items():
            assert torch.equal(back.weights[part][name], tensor)
            assert back.weights[part][name].dtype == tensor.dtype
    assert torch.equal(back.state.pop("t"), state.pop("t"))
    assert back.state == state
    assert back.meta == {"algorithm": "bc"}


@settings(max_examples=60, deadline=None)
@given(
    npst.arrays(
        st.one_of(npst.integer_dtypes(), npst.unsigned_integer_dtypes(), npst.floating_dtypes(), npst.boolean_dtypes()),
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    )
)
def test_arrays_of_every_kind_come_back_bit_for_bit(array: np.ndarray) -> None:
    back = module._unpack_state(module._pack_state({"a": array}), Path("state.pt"))["a"]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert back.flags.writeable


def test_an_optimiser_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def fresh() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        net = torch.nn.Linear(3, 1)
        return net, torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)

    def step(net: torch.nn.Linear, optimiser: torch.optim.AdamW) -> None:
        optimiser.zero_grad()
        net(torch.randn(8, 3)).square().mean().backward()
        optimiser.step()

    net, optimiser = fresh()
    for _ in range(3):
        step(net, optimiser)
    state = {"optimiser": optimiser.state_dict(), "rng": capture_rng()}
    CheckpointStore(tmp_path).save("last", {"net": net.state_dict()}, state, {})
    step(net, optimiser)

    again, resumed = fresh()
    checkpoint = load_for(tmp_path)
    again.load_state_dict(checkpoint.weights["net"])
    resumed.load_state_dict(checkpoint.state["optimiser"])
    restore_rng(checkpoint.state["rng"])
    step(again, resumed)
    assert torch.equal(again.weight, net.weight)


def test_every_random_generator_goes_on_bit_for_bit(tmp_path: Path) -> None:
    own: dict[str, Any] = {
        "torch": torch.Generator().manual_seed(1),
        "pcg": np.random.default_rng(2),
        "mt": np.random.Generator(np.random.MT19937(3)),
    }

    def draw() -> list[float]:
        numpy_draws = [float(g.normal()) for g in (own["pcg"], own["mt"])]
        own_torch = float(torch.randn((), generator=own["torch"]))
        return [random.random(), float(np.random.rand()), float(torch.randn(())), own_torch, *numpy_draws]

    draw()
    CheckpointStore(tmp_path).save("last", {}, {"rng": capture_rng(own)}, {})
    expected = draw()
    draw()
    restore_rng(load_for(tmp_path).state["rng"], own)
    assert draw() == expected
    with pytest.raises(CheckpointError, match="no state of the random generator 'other'"):
        restore_rng(load_for(tmp_path).state["rng"], {"other": own["torch"]})


def test_state_that_would_need_code_to_read_is_refused_when_saved(tmp_path: Path) -> None:
    for bad in (object(), {1, 2}, np.array([None]), lambda: 0):
        with pytest.raises(TypeError, match=re.escape("state['deep'][1] is a")):
            CheckpointStore(tmp_path).save("last", {}, {"deep": [0, bad]}, {})
    assert CheckpointStore(tmp_path).names == []


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    buffer = BytesIO()
    torch.save({"a": Attack()}, buffer)
    for data in (buffer.getvalue(), pickle.dumps(Attack(), protocol=2)):
        with pytest.raises(CheckpointError, match=r"state\.pt wants to run code"):
            module._unpack_state(data, Path("state.pt"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("file", FILES)
def test_a_changed_byte_anywhere_is_found_and_the_file_named(tmp_path: Path, file: str) -> None:
    path = save(tmp_path, 1.0) / file
    data = path.read_bytes()
    rng = random.Random(0)
    for position in [0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(30))]:
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        if same_meaning(data, damaged):
            load_for(tmp_path)
        else:
            with pytest.raises(CheckpointError, match=re.escape(file)):
                load_for(tmp_path)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_or_cut_file_is_named(tmp_path: Path, file: str) -> None:
    path = save(tmp_path, 1.0) / file
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=re.escape(f"{path} is damaged")):
        load_for(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"cannot read {path}")):
        load_for(tmp_path)


def test_a_newer_format_asks_for_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMAT", 2)
    save(tmp_path, 1.0)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2, this robo_rlft reads up to 1: update"):
        load_for(tmp_path)


def test_whatever_a_user_points_at_is_found(tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = save(run, 1.0)
    save(run, 2.0, "best")
    places = [run, run / "checkpoints", run / "checkpoints/last", run / "checkpoints/last.json", folder]
    for place in [*places, *(folder / file for file in FILES)]:
        assert load_for(place).meta["step"] == 1.0
    assert load_for(str(run), "best").meta["step"] == load_for(run / "checkpoints/best").meta["step"] == 2.0


def test_where_there_is_no_checkpoint_the_message_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*: give a run folder"):
        load_for(tmp_path)
    save(tmp_path, 1.0, "best")
    with pytest.raises(CheckpointError, match=r"no checkpoint 'last' in .*: it has best"):
        load_for(tmp_path)


def test_a_run_that_was_moved_keeps_its_checkpoints(tmp_path: Path) -> None:
    save(tmp_path / "a", 3.0)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert value_of(tmp_path / "b") == 3.0


def test_a_kill_at_any_line_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path: Path, killed_at_line: Callable[..., bool]
) -> None:
    seen = []
    line = 0
    save(tmp_path, 1.0)
    files = ("training/files.py", "training/checkpoint.py")
    while killed_at_line(lambda: void(save(tmp_path, 2.0)), files, line, after="_write_folder"):
        seen.append(value_of(tmp_path))
        if seen[-1] == 2.0:
            save(tmp_path, 1.0)
        line += 1
    assert set(seen) == {1.0, 2.0}
    assert value_of(tmp_path) == 2.0
    leftovers = sorted(p.name.split("-")[0] for p in (tmp_path / "checkpoints").iterdir())
    assert leftovers == ["last", "last.json"]


def test_kills_at_random_times_never_lose_what_was_confirmed(tmp_path: Path, spawn: Any) -> None:
    def train(say: Callable[[str], None]) -> None:
        value = value_of(tmp_path)
        while True:
            value += 1
            save(tmp_path, value)
            say(str(value))

    save(tmp_path, 0.0)
    rng = random.Random(0)
    confirmed = 0.0
    for _ in range(15):
        child = spawn(train)
        lines = [child.heard()]
        time.sleep(rng.uniform(0, 0.1))
        lines += child.kill()
        confirmed = float(lines[-1])
        assert value_of(tmp_path) in (confirmed, confirmed + 1)
    assert confirmed > 15


def test_a_reader_beside_a_writer_always_gets_a_whole_checkpoint(tmp_path: Path, spawn: Any) -> None:
    def train(_: Callable[[str], None]) -> None:
        for value in range(1, 10_000):
            save(tmp_path, float(value))

    save(tmp_path, 0.0)
    child = spawn(train)
    values = [value_of(tmp_path) for _ in range(60)]
    child.kill()
    assert values == sorted(values)


@pytest.mark.parametrize("fail_at", range(8))
def test_a_disk_that_fills_up_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    save(tmp_path, 1.0)
    calls = 0

    def counted(name: str) -> None:
        real = getattr(os, name)

        def refuse(*args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > fail_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **named)

        monkeypatch.setattr(os, name, refuse)

    for name in ("mkdir", "fsync", "rename", "replace"):
        counted(name)
    with pytest.raises(RunError, match=r"the disk is full; free some space .* last checkpoint, which is intact"):
        save(tmp_path, 2.0)
    monkeypatch.undo()
    assert value_of(tmp_path) in (1.0, 2.0)
    save(tmp_path, 3.0)
    assert value_of(tmp_path) == 3.0


def test_a_checkpoint_describes_itself(tmp_path: Path) -> None:
    robot = RobotSpec("Hopper", {"policy": ArraySpec((11,))}, ArraySpec((3,), low=(-1.0,) * 3), 125.0, 1000)
    policy = PolicyConfig(chunk=8, execute=2)
    policy.chain.name, policy.chain.steps = "reinflow", 6
    meta = describe(
        algorithm="ppo",
        robot=robot,
        policy=policy,
        normaliser={"kind": "minmax"},
        counters={"updates": 5},
        ema=False,
        seed=3,
    )
    CheckpointStore(tmp_path).save("last", {}, {}, meta)
    back = load_for(tmp_path)
    assert back.robot == robot
    wanted = {"algorithm": "ppo", "chain": "reinflow", "denoising_steps": 6, "chunk": 8, "execute": 2, "seed": 3}
    assert wanted.items() <= back.meta.items()
    assert back.meta["policy"]["network"]["name"] == "mlp"
    assert back.meta["versions"]["torch"] == version("torch")


def test_a_contradicting_setting_is_named_with_both_values() -> None:
    meta = {"policy": {"chunk": 4, "network": {"name": "mlp", "hidden": [64, 64]}, "chain": {"steps": 4}}}
    check_contradictions(meta, {"policy.chunk": 4, "policy": {"network": {"hidden": (64, 64)}}, "seed": 9})
    with pytest.raises(
        CheckpointError, match=r"policy\.chunk=8 contradicts checkpoint runs/a, which was trained with policy\.chunk=4"
    ):
        check_contradictions(meta, {"policy.chunk": 8}, where="checkpoint runs/a")
    with pytest.raises(CheckpointError, match=r"policy\.network\.hidden=\[32\]"):
        check_contradictions(meta, {"policy": {"network": {"hidden": [32]}}})
    check_contradictions(meta, {"policy.chain.steps": 9}, free=["policy.chain"])
    with pytest.raises(CheckpointError):
        check_contradictions(meta, {"policy.chunk": 9}, free=["policy.chain", "policy.chun"])


def same_meaning(old: bytes, new: bytes) -> bool:
    """Both are JSON of one value: only white space differs."""
    try:
        return json.loads(old) == json.loads(new)
    except ValueError:
        return False


def void(_: object) -> None:
    """Drop a value."""
