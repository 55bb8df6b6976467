"""docs/results/demo.md: what `make demo` reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import NOT_MEASURED, Check, checks, circumstances, commands, interval, page, section, table
from robo_rlft.demo import MEANING
from robo_rlft.training.progress import duration
from robo_rlft.training.statistics import Interval

INTRODUCTION = (
    "An arm inserts a peg with a millimetre of clearance. It learns from demonstrations, is fine-tuned by "
    "reinforcement learning on a sparse reward, and runs from the exported controller."
)
IMITATION_AT_MOST, FINETUNED_AT_LEAST = 0.70, 0.95
"""Goals of the success rates: the task must be one that imitation alone does not solve."""
WALL_SECONDS = 480.0
"""Goal of the whole demo on two cores, after installation."""

Summary = Mapping[str, Any]


def demo_page(summary: Summary | None) -> str:
    """The page, from a demo's summary with its runs, or without one."""
    first = (INTRODUCTION, commands(["make demo"]))
    if summary is None:
        return page("The demo", *first, NOT_MEASURED)
    return page(
        "The demo",
        *first,
        *(circumstances(run.versions) for run in summary["runs"] if run.verb == "finetune"),
        section("Success", _policies(summary), _experience(summary)),
        section("Goals", checks(list(_goals(summary)))),
        section("Where the time went", _parts(summary)),
        section("How long the controller takes", _latency(summary)),
    )


def _policies(summary: Summary) -> str:
    rows = [[name.replace("_", " "), meaning, *_rate(summary, name)] for name, meaning in MEANING.items()]
    return table(["policy", "what it is", "success", "95 % interval"], rows)


def _rate(summary: Summary, name: str) -> list[str]:
    rate, limits = interval(_interval(summary, name), share=True).split(" [")
    return [rate, f"[{limits}"]


def _experience(summary: Summary) -> str:
    return (
        f"{summary['episodes']} episodes each, on the same seeds, none of which was used before. Intervals are "
        f"Wilson's. The policy was cloned from {summary['demonstrations']} demonstrations; fine-tuning took "
        f"{summary['env_steps']:,} environment steps."
    )


def _goals(summary: Summary) -> Iterator[Check]:
    rate = {name: _interval(summary, name) for name in MEANING}
    tuned, controller = rate["finetuned"], rate["controller"]
    for name in ("pretrained", "bc_longer"):
        goal = f"{MEANING[name]}: at most {100 * IMITATION_AT_MOST:.0f} %"
        yield Check(goal, _percent(rate[name].mean), rate[name].mean <= IMITATION_AT_MOST)
    goal = f"{MEANING['finetuned']}: at least {100 * FINETUNED_AT_LEAST:.0f} %"
    yield Check(goal, _percent(tuned.mean), tuned.mean >= FINETUNED_AT_LEAST)
    best = max(rate["pretrained"].high, rate["bc_longer"].high)
    apart = tuned.low > best
    yield Check(
        "fine-tuned above both others, intervals apart", f"{_percent(tuned.low)} against {_percent(best)}", apart
    )
    inside = tuned.low <= controller.mean <= tuned.high
    yield Check("controller within the policy's interval", _percent(controller.mean), inside)
    seconds = summary["wall_seconds"]
    yield Check(f"in all at most {duration(WALL_SECONDS)}", duration(seconds), seconds <= WALL_SECONDS)


def _parts(summary: Summary) -> str:
    rows = [[name, duration(seconds)] for name, seconds in summary["parts"].items()]
    return table(["part", "wall time"], [*rows, ["in all", duration(summary["wall_seconds"])]])


def _latency(summary: Summary) -> str:
    names = ("p50_us", "p99_us", "p99.9_us", "max_us")
    rows = [
        [row["call"], str(row["rows"]), f"{row['calls']:,}", *(f"{row[name]:,.0f}" for name in names)]
        for row in summary["latency"]
    ]
    return table(["call", "robots", "calls", *(f"{name.removesuffix('_us')} (µs)" for name in names)], rows)


def _interval(summary: Summary, name: str) -> Interval:
    low, high = summary[name]["ci95"]
    return Interval(summary[name]["success"], low, high)


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"
