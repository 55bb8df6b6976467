"""docs/results/speed.md: the benches beside their limits, peers and goals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.markdown import NOT_MEASURED, Check, checks, circumstances, commands, page, section, table
from robo_rlft.training.bench.iteration import PARTS, against_dppo, share_of

Row = Mapping[str, Any]
Ratio = Callable[[Row], float | None]


@dataclass(frozen=True)
class Goal:
    """A ratio that every case of a bench shall reach.

    Attributes:
        words: the goal as a sentence.
        ratio: the ratio of a case, None where the case does not have it.
        at_least: the goal.
        num_envs: cases with fewer environments do not count.
    """

    words: str
    ratio: Ratio
    at_least: float
    num_envs: int = 0

    def check(self, rows: Sequence[Row]) -> Check:
        """The case that is furthest from the goal, and how many reach it."""
        counted = [row for row in rows if row["num_envs"] >= self.num_envs and self.ratio(row) is not None]
        if not counted:
            return Check(self.words, "", None)
        ratios = {_name(row): self.ratio(row) or 0.0 for row in counted}
        worst = min(ratios, key=lambda name: ratios[name])
        reached = sum(ratio >= self.at_least for ratio in ratios.values())
        measured = f"{reached} of {len(ratios)} cases; lowest {ratios[worst]:.2f} ({worst})"
        return Check(self.words, measured, reached == len(ratios))


def to_limit(row: Row) -> float | None:
    """Value over the limit."""
    return row["limit_ratio"]


def to_peer(name: str) -> Ratio:
    """Value over the peer's."""
    return lambda row: row["peer_ratios"].get(name)


def of_methods(*methods: str) -> Ratio:
    """Value over the limit of these methods."""
    return lambda row: row["limit_ratio"] if row["name"].split("/")[1] in methods else None


def rows_of(rows: Sequence[Row]) -> str:
    """Cases with their value, limit and peers."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row["peer_ratios"]))
    sizes = "envs" if all(row["name"].count("/") and row["unit"] == "env-steps/s" for row in rows) else "batch"
    columns = ["case", sizes, "value", "unit", "per CPU second", "of the limit", *(f"x {peer}" for peer in peers)]
    columns.append("gradients differ by")
    return table(columns, [_cells(row, peers) for row in rows])


def parts_of(rows: Sequence[Row]) -> str:
    """Iterations by their parts, with their floors, and ReinFlow beside DPPO."""
    columns = ["case", "iteration (s)", *PARTS, "floor (s)", "x floor", "network calls per chunk"]
    table_of_parts = table(
        columns, [_part_cells(row["name"].removeprefix("iteration/"), row["detail"]) for row in rows]
    )
    lines = [f"- {line}." for line in against_dppo({row["name"]: row["detail"] for row in rows})]
    return "\n\n".join(filter(None, [table_of_parts, "\n".join(lines)]))


@dataclass(frozen=True)
class Bench:
    """How a bench is shown.

    Attributes:
        title: of its section.
        what: what is compared.
        goals: what its cases shall reach.
        show: its rows as a table.
        settings: of the command that measures it.
    """

    title: str
    what: str
    goals: Sequence[Goal]
    show: Callable[[Sequence[Row]], str] = rows_of
    settings: str = ""


BENCHES: Mapping[str, Bench] = {
    "envs": Bench(
        "Environments",
        "Control steps per second of all environments together, observations, rewards and resets included. The limit "
        "is a compiled loop of `mj_step` alone over the same states and actions, on the same threads. Gymnasium's "
        "vector environments and envpool run the same tasks in turns with ours; the best of five rounds counts.",
        (
            Goal("at least 0.95 of the C limit from 64 environments on", to_limit, 0.95, num_envs=64),
            Goal("faster than envpool in every case", to_peer("envpool"), 1.0),
            Goal("at least 3 times Gymnasium's AsyncVectorEnv", to_peer("async"), 3.0),
        ),
    ),
    "data": Bench(
        "Training batches",
        "Windows per second out of a data set on disk, beside the same windows taken from arrays in memory (the limit) "
        "and from a memory map with indices known beforehand.",
        (Goal("at least 0.9 of a numpy memory map", to_peer("memmap"), 0.9),),
    ),
    "update": Bench(
        "Policy updates",
        "One step of policy and critic at the recipes' shapes, beside the plain loop over the denoising steps in eager "
        "float32, which must give the same gradients (largest relative difference in the table), and beside its "
        "matrix products alone (the limit). Ratios are of CPU time.",
        (Goal("at least twice as fast as the plain loop", to_peer("plain loop"), 2.0),),
    ),
    "iteration": Bench(
        "Iterations of PPO",
        "Rollout and update of every method at its recipe's shapes, and of ReinFlow's networks, eager and compiled, in "
        "processor seconds: medians of a few iterations of the fine-tuner from random weights. The floor is the "
        "simulation as measured plus the matrix products and convolutions of inference and update, each shape timed "
        "alone. Network calls per chunk are the denoising steps when acting and the scored steps times the epochs.",
        (Goal("ReinFlow and DPPO within 1.5 times their floor (0.67)", of_methods("reinflow", "dppo"), 1 / 1.5),),
        parts_of,
    ),
    "mjx": Bench(
        "MuJoCo tasks on a GPU",
        "Control steps per second of all environments together on JAX, whole chunks of random actions, observations, "
        "rewards and resets included, in turns with the CPU engine on all cores; the best of three rounds counts.",
        (),
        settings=" device=cuda",
    ),
}
"""The benches of the project; a record of another name has no goals."""


def speed_page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, from the records of benches by name."""
    others = {name: Bench(name, "", ()) for name in records if name not in BENCHES}
    return page("Speed", *(_section(name, bench, records.get(name)) for name, bench in {**BENCHES, **others}.items()))


def _section(name: str, bench: Bench, record: Mapping[str, Any] | None) -> str:
    command = f"robo-rlft bench {name}{bench.settings} --json build/bench/{name}.json"
    head = [bench.what, commands([command])] if bench.what else []
    if record is None:
        return section(bench.title, *head, NOT_MEASURED)
    rows = record["rows"]
    goals = checks([goal.check(rows) for goal in bench.goals]) if bench.goals else ""
    return section(bench.title, *head, circumstances(record), goals, bench.show(rows))


def _part_cells(name: str, detail: Mapping[str, float]) -> list[str]:
    shares = [share_of(detail, part) for part in PARTS]
    times = detail["seconds"] / detail["floor_seconds"]
    cells = [f"{detail['floor_seconds']:.2f}", f"{times:.2f}", f"{detail['network_calls']:.0f}"]
    return [name, f"{detail['seconds']:.2f}", *shares, *cells]


def _cells(row: Row, peers: Sequence[str]) -> list[str]:
    per_cpu, error = (row["detail"].get(name) for name in ("per_cpu_second", "gradient_error"))
    return [
        row["name"],
        str(row["num_envs"] or ""),
        _value(row["value"]),
        row["unit"],
        "" if per_cpu is None else _value(per_cpu),
        "" if row["limit_ratio"] is None else f"{row['limit_ratio']:.3f}",
        *(f"{row['peer_ratios'][peer]:.2f}" if peer in row["peer_ratios"] else "" for peer in peers),
        "" if error is None else f"{error:.0e}",
    ]


def _value(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _name(row: Row) -> str:
    return f"{row['name']}, {row['num_envs']}" if row["num_envs"] else row["name"]
