"""The bench of whole iterations: its floor counts the products that were computed; its rows say what they should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robo_rlft.training.bench import iteration
from robo_rlft.training.bench.products import CountProducts, floor_of
from robo_rlft.training.configure import compose

SMALL = (
    *iteration.SCRATCH,
    "env.num_envs=4",
    "ppo.rollout=3",
    "ppo.minibatch=6",
    "ppo.epochs=2",
    "ppo.critic_hidden=[8]",
    "policy.network.hidden=[16,16]",
    "threads=1",
)


def test_products_are_counted_by_part_forward_and_backward() -> None:
    """A layer [5, 3] -> [5, 7]: forward and the gradient of the weights, 2 * 5 * 3 * 7 operations each."""
    layer, part = nn.Linear(3, 7), "first"
    with CountProducts(lambda: part) as counted:
        layer(torch.randn(5, 3)).sum().backward()
        part = "second"
        layer(torch.randn(5, 3)).tanh()
    floor = floor_of(counted)
    assert floor.flops == {"first": 2 * 210, "second": 210}
    assert floor.seconds["first"] > floor.seconds["second"] > 0


def test_operations_are_those_of_the_flop_counter() -> None:
    config = compose(["recipe=reinflow/hopper", *SMALL])
    counts = []
    for mode in (FlopCounterMode(display=False), CountProducts(lambda: "all")):
        with iteration.trainer_of(config) as trainer, mode:
            trainer.iterate()
        counts.append(
            mode.get_total_flops() if isinstance(mode, FlopCounterMode) else sum(floor_of(mode).flops.values())
        )
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(("method", "calls"), [("reinflow", 4 + 4 * 2), ("dppo", 20 + 10 * 2), ("flow_sde", 4 + 1 * 2)])
def test_rows(method: str, calls: int, tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    config = compose([f"recipe={method}/hopper", *SMALL])
    (row,) = iteration.run(tmp_path / "rows.json", config=config, rounds=2, warmup=0)
    detail = json.loads((tmp_path / "rows.json").read_text())[0]["detail"]
    assert row.name == f"iteration/{method}/hopper"
    assert detail["network_calls"] == calls
    assert detail["seconds"] == pytest.approx(sum(detail[f"{part}_seconds"] for part in iteration.PARTS))
    floors = detail["inference_floor_seconds"] + detail["update_floor_seconds"]
    assert detail["floor_seconds"] == pytest.approx(detail["simulation_seconds"] + floors)
    assert row.limit_ratio == pytest.approx(detail["floor_seconds"] / detail["seconds"])
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


def test_every_case_composes_and_differs_from_the_others() -> None:
    cases = iteration.cases()
    assert {"reinflow/hopper", "gaussian_ppo/arm_peg_insert", "fpo/hopper", "unet1d", "transformer, compiled"} <= set(
        cases
    )
    assert [name for name, config in cases.items() if config.compile] == [f"{n}, compiled" for n in iteration.NETWORKS]
    assert cases["gaussian_ppo/hopper"].policy.chain.name == "gaussian"
    assert all(config.run.checkpoint == "none" for config in cases.values())


def test_reinflow_stands_beside_dppo() -> None:
    details = {
        "iteration/reinflow/hopper": {"seconds": 2.0, "network_calls": 36},
        "iteration/dppo/hopper": {"seconds": 5.0, "network_calls": 99},
        "iteration/dppo/arm_peg_insert": {"seconds": 5.0, "network_calls": 99},
    }
    assert list(iteration.against_dppo(details)) == [
        "hopper: ReinFlow 2.00 s, DPPO 5.00 s per iteration, 2.50 times as long for 2.75 times the network calls"
    ]
