"""Finished runs and the pages made of them, for tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from robo_rlft.training.compare import plain
from robo_rlft.training.configure import compose

STEPS, ROUNDS = 409_600, 25
VERSIONS = {
    "opened": "2026-01-02 03:04:05",
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "machine": {"cpu": "a processor", "cores": 2},
    "git": {"commit": "0123456789abcdef", "changed_files": 0},
}


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def evaluation(name: str, mean: float, **more: Any) -> dict[str, Any]:
    rows = [{"seed": 1_000_000 + i, "return": mean, "length": 900, "success": False} for i in range(4)]
    value = {"mean": mean, "low": mean - 10, "high": mean + 10}
    base = {"name": name, "env_id": "Hopper", "episodes": 4, "success": None, "return": value, "per_seed": rows}
    return {**base, "wall_seconds": 2.0, "videos": [], **more}


@cache
def settings_text(recipe: str) -> str:
    return json.dumps(plain(compose([f"recipe={recipe}"])))


def settings(recipe: str) -> dict[str, Any]:
    return json.loads(settings_text(recipe))


def make_run(
    folder: Path, verb: str, score: float, seed: int = 0, checkpoint: str = "", recipe: str = "reinflow/hopper"
) -> Path:
    """A finished run as the trainers leave it; its update takes 3 s in the first half of the rounds, 1 s then."""
    config = settings(recipe)
    config["run"] |= {"dir": str(folder), "checkpoint": checkpoint or config["run"]["checkpoint"]}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"seed": seed}))
    dump(folder / "versions.json", {"verb": verb, **VERSIONS})
    dump(folder / "finished.json", {"env_steps": STEPS, "iterations": ROUNDS, "wall_seconds": 4000.0})
    rows: list[dict[str, Any]] = [
        {
            "step": STEPS // ROUNDS * (i + 1),
            "wall": 160.0 * (i + 1),
            "time/simulation": 0.5,
            "time/inference": 0.25,
            "time/update": 3.0 if 2 * i < ROUNDS else 1.0,
            "rollout/return": 1000.0 + i,
            "ppo/loss": 0.0,
        }
        for i in range(ROUNDS)
    ]
    first = {"step": 0, "wall": 0.0, "evaluation/score": 1111.0, "evaluation/low": 1100.0, "evaluation/high": 1122.0}
    lines = [json.dumps(row) + "\n" for row in ([first, *rows] if verb == "finetune" else rows)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    counted = {"env_steps": STEPS} if verb == "finetune" else {}
    dump(folder / "evaluation" / "final.json", evaluation("final", score, checkpoint=str(folder), **counted))
    dump(folder / "evaluation" / "training-000010.json", evaluation("training-000010", 5.0, env_steps=5))
    return folder


def cells(page: str, first: str) -> list[str]:
    """The row of a table that begins with `first`."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]
