"""The bench of the PPO step: both sides get the same gradients, and its rows say what they should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robo_rlft.training.bench import update
from robo_rlft.training.configure import compose

SMALL = ("recipe=reinflow/hopper", "ppo.minibatch=48", "ppo.fold_rows=64", "policy.network.hidden=[16,16]", "threads=1")


def test_rows(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    rows = update.run(tmp_path / "update.json", config=compose(SMALL), rounds=2)
    assert [row.name for row in rows] == ["update/reinflow/hopper", "update/reinflow/hopper bfloat16"]
    for row in rows:
        assert row.num_envs == 48
        assert row.value > 0
        assert row.limit_ratio is not None
        assert row.limit_ratio > 0
        assert row.peer_ratios[update.PEER] > 0
    assert rows[0].detail["gradient_error"] < 1e-5
    assert 1e-5 < rows[1].detail["gradient_error"] < 0.05
    assert json.loads((tmp_path / "update.json").read_text())[0]["unit"] == "steps/s"
    assert torch.get_num_threads() == threads
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_peer_is_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours calls the network once per piece with all K steps, the peer once per step with all rows."""
    ours, plain, batch = update.sides(compose(SMALL))
    for side, expected in ((ours, [64, 64, 64]), (plain, [48] * 4)):
        network, seen = side.learner.policy.network, []
        network.register_forward_hook(lambda _m, inputs, _out, seen=seen: seen.append(len(inputs[0])))
        side.step(batch)
        assert seen == expected


def test_differing_gradients_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "TOLERANCE", {"float32": 1e-12})
    with pytest.raises(RuntimeError, match="gradients in float32 differ by"):
        update.run(config=compose(SMALL), rounds=1)
