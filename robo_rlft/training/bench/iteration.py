"""Whole iterations of PPO by method and network, beside the floor of their products (`robo-rlft bench iteration`).

Every case runs a few real iterations of the fine-tuner at its recipe's shapes and takes the median of each part. The
floor is the simulation as it was measured, plus the matrix products and convolutions of inference and update alone:
one iteration counts them, then every shape is timed by itself. All times are processor seconds, since other programs
on the machine disturb wall time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from robo_rlft.policies.chains import Chain
from robo_rlft.training.bench.products import CountProducts, Floor, floor_of
from robo_rlft.training.bench.rows import BenchRow, write_json
from robo_rlft.training.bench.update import threads_of
from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose
from robo_rlft.training.finetune import FineTuner
from robo_rlft.training.rollout import Stopwatch
from robo_rlft.training.run import Run
from robo_rlft.training.setup import prepare

PARTS = ("simulation", "inference", "update")
TASKS = ("hopper", "arm_peg_insert")
METHODS = ("reinflow", "dppo", "flow_sde", "flow_noise", "shortcut", "mean_flow", "fpo")
GAUSSIAN = {"hopper": "gaussian_ppo/hopper_cloned", "arm_peg_insert": "gaussian_ppo/arm_peg_insert"}
"""The recipes on the shapes of the other methods; `gaussian_ppo/hopper`, from scratch, has its own."""
NETWORKS = ("mlp", "unet1d", "transformer")
SCRATCH = ("run.checkpoint=none", "policy.obs_normaliser=none", "policy.action_normaliser=bounds")
"""Random weights cost what trained ones do; only episodes end earlier."""


@dataclass
class PartWatch(Stopwatch):
    """A stopwatch of processor time that says which part is running.

    Attributes:
        part: the running part.
    """

    part: str = ""

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the block's processor time to a part."""
        start, self.part = time.process_time(), part
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - start
        self.part = ""


def run(
    json_path: str | Path | None = None, *, config: Config | None = None, rounds: int = 3, warmup: int = 1
) -> list[BenchRow]:
    """Measure, print the tables and write the rows as JSON if a path is given.

    Args:
        json_path: where to write the rows.
        config: measure this configuration only, if it comes from a recipe; else `cases`.
        rounds: iterations of each case.
        warmup: iterations before them; compiling takes place there.
    """
    chosen = {config.recipe: config} if config and config.recipe else cases()
    rows = [measure(name, each, rounds, warmup) for name, each in chosen.items()]
    print_parts(rows)
    if json_path is not None:
        write_json(rows, json_path)
    return rows


def cases() -> dict[str, Config]:
    """Every method on both tasks, and ReinFlow's networks eager and compiled."""
    methods = {f"{method}/{task}": (f"recipe={method}/{task}",) for task in TASKS for method in METHODS}
    methods |= {f"gaussian_ppo/{task}": (f"recipe={GAUSSIAN[task]}",) for task in TASKS}
    networks = {
        f"{network}{', compiled' if compiled == 'true' else ''}": (
            "recipe=reinflow/hopper",
            f"policy.network.name={network}",
            f"compile={compiled}",
        )
        for network in NETWORKS
        for compiled in ("false", "true")
    }
    return {name: compose([*words, *SCRATCH]) for name, words in (methods | networks).items()}


def measure(name: str, config: Config, rounds: int, warmup: int) -> BenchRow:
    """One case: median iteration, its parts, its floor and its network calls."""
    with trainer_of(config) as trainer:
        for _ in range(warmup):
            trainer.iterate()
        turns = [timed(trainer) for _ in range(rounds)]
        calls = calls_of(trainer.learner.policy.chain, config)
    parts = {part: float(np.median([turn[part] for turn in turns])) for part in turns[0]}
    seconds, floor = sum(parts[part] for part in PARTS), floor_of_case(config)
    lowest = parts["simulation"] + sum(floor.seconds.values())
    return BenchRow(
        name=f"iteration/{name}",
        num_envs=config.env.num_envs,
        value=1 / seconds,
        unit="iterations/CPU s",
        limit_ratio=lowest / seconds,
        detail={f"{part}_seconds": parts[part] for part in (*PARTS, "wall")}
        | {f"{part}_floor_seconds": value for part, value in floor.seconds.items()}
        | {"seconds": seconds, "floor_seconds": lowest, "network_calls": calls}
        | {"gflops": sum(floor.flops.values()) / 1e9},
    )


def timed(trainer: FineTuner) -> dict[str, float]:
    """Processor seconds of each part of one iteration, and its wall seconds as `wall`."""
    start = time.perf_counter()
    trainer.iterate()
    return {**trainer.collector.watch.seconds, "wall": time.perf_counter() - start}


def floor_of_case(config: Config) -> Floor:
    """The products of one iteration of the configuration, which a compiled one computes as well."""
    with trainer_of(replace(config, compile=False)) as trainer:
        watch = trainer.collector.watch
        assert isinstance(watch, PartWatch)
        with CountProducts(lambda: watch.part) as counted:
            trainer.iterate()
    return floor_of(counted)


def calls_of(chain: Chain, config: Config) -> int:
    """Network calls per chunk: denoising steps when acting, scored steps times epochs when learning."""
    return chain.steps + chain.scored_steps * config.ppo.epochs


@contextmanager
def trainer_of(config: Config) -> Iterator[FineTuner]:
    """A fine-tuner in a temporary run that neither evaluates nor warms up its critic nor ends its epochs early."""
    quiet = replace(config.run, tensorboard=False, wandb="", eval_every=0, save_every=1_000_000)
    plain = replace(config, run=quiet, ppo=replace(config.ppo, critic_warmup=0, target_kl=0.0))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(threads_of(config))
        prepare(plain)
        run = stack.enter_context(Run.open(folder, plain, verb="finetune"))
        trainer = FineTuner(plain, run)
        stack.callback(trainer.env.close)
        trainer.collector.watch = PartWatch()
        yield trainer


def print_parts(rows: Sequence[BenchRow], console: Console | None = None) -> None:
    """Seconds of each case by part, network calls per chunk, and ReinFlow beside DPPO."""
    table = Table(title="Seconds per iteration of PPO (processor time), network calls per chunk")
    columns = ("case", "iteration", *PARTS, "floor", "x floor", "calls")
    for column in columns:
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        d = row.detail
        shares = [share_of(d, part) for part in PARTS]
        times = f"{d['seconds'] / d['floor_seconds']:.2f}"
        table.add_row(
            row.name.removeprefix("iteration/"),
            f"{d['seconds']:.2f}",
            *shares,
            f"{d['floor_seconds']:.2f}",
            times,
            f"{d['network_calls']:.0f}",
        )
    shown = console or Console()
    shown.print(table)
    for line in against_dppo({row.name: row.detail for row in rows}):
        shown.print(line)


def share_of(detail: Mapping[str, float], part: str) -> str:
    """A part's seconds and its share of the iteration."""
    seconds = detail[f"{part}_seconds"]
    return f"{seconds:.2f} ({seconds / detail['seconds']:.0%})"


def against_dppo(details: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """One sentence per task with ReinFlow and DPPO."""
    for task in TASKS:
        pair = [details.get(f"iteration/{method}/{task}") for method in ("reinflow", "dppo")]
        if pair[0] is None or pair[1] is None:
            continue
        ours, theirs = pair[0], pair[1]
        yield (
            f"{task}: ReinFlow {ours['seconds']:.2f} s, DPPO {theirs['seconds']:.2f} s per iteration, "
            f"{theirs['seconds'] / ours['seconds']:.2f} times as long for "
            f"{theirs['network_calls'] / ours['network_calls']:.2f} times the network calls"
        )


__all__ = ["METHODS", "NETWORKS", "PARTS", "TASKS", "against_dppo", "cases", "measure", "run", "share_of"]
