"""One setting of the acting policy at several values, each evaluated on the same episodes (`evaluate --sweep`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.training.config import Config
from robo_rlft.training.evaluate import describe_record, evaluate_policy
from robo_rlft.training.files import atomic_write, make_folder
from robo_rlft.training.paths import acting_path, run_folder
from robo_rlft.training.policies import adapted_policy
from robo_rlft.training.progress import summary_table
from robo_rlft.training.report import SWEEPS, report_for
from robo_rlft.training.rules import validate
from robo_rlft.training.setup import prepare

SETTINGS: Mapping[str, type[int] | type[float]] = {
    "evaluate.guidance": float,
    "evaluate.steps": int,
    "evaluate.candidates": int,
    "evaluate.alpha": float,
    "evaluate.best_of": int,
}
"""What can be swept: settings that change how a policy acts, not what it learned."""
RIVALS: Mapping[str, float | None] = {"guidance": None, "candidates": 0, "best_of": 0}
"""Ways of acting that exclude each other, switched off; a sweep of one of them takes no other with it."""


def parse(words: str) -> tuple[str, list[float]]:
    """`evaluate.guidance=0,1,1.5` as a setting and its values, in order.

    Raises:
        ConfigError: another setting, or values that are not numbers of its type.
    """
    key, _, listed = words.partition("=")
    if key not in SETTINGS:
        raise ConfigError(unknown_name("setting to sweep", key, SETTINGS))
    kind = SETTINGS[key]
    try:
        values = sorted({kind(value) for value in listed.split(",")})
    except ValueError as error:
        example = "0,0.5,1,1.5,2" if kind is float else "1,2,4,8"
        raise ConfigError(f"--sweep {words}: expected numbers with commas, e.g. {key}={example}") from error
    return key, [float(value) for value in values]


def sweep(config: Config, key: str, values: Sequence[float]) -> dict[str, Any]:
    """Evaluate a run at every value, on the same seeds and noise; no videos.

    Writes `sweeps/<setting>.json` into the run's folder and draws it in the report.

    Args:
        config: says which run and which episodes.
        key: one of `SETTINGS`.
        values: its values.

    Returns:
        What was written: `key`, `env_id`, `episodes` and one row per value with its `success`, `return` and
        `network_calls`.
    """
    prepare(config)
    source = acting_path(config)
    folder, name = run_folder(source), key.split(".")[1]
    rows, shown = [], []
    for value in values:
        given = replace(config, evaluate=replace(config.evaluate, **swept(name, SETTINGS[key](value))))
        validate(given)
        policy, _ = adapted_policy(given, source)
        record = evaluate_policy(given, policy, name=f"{name} {value:g}", folder=folder, videos=False)
        rows.append({"value": value} | {k: record[k] for k in ("success", "return", "network_calls")})
        shown.append(describe_record(record))
    table = {"key": key, "env_id": config.env.id, "episodes": config.evaluate.episodes, "rows": rows}
    atomic_write(make_folder(folder / SWEEPS) / f"{name}.json", json.dumps(table, indent=1).encode())
    report_for(folder)
    summary_table(f"{config.env.id}: {config.evaluate.episodes} episodes per value of {key}", shown)
    return table


def swept(name: str, value: float) -> dict[str, Any]:
    """Settings of the evaluation that give one value of what is swept."""
    off = RIVALS if name in RIVALS else {}
    return {**off, **({"alpha": 0.0} if name in ("guidance", "best_of") else {}), name: value}
