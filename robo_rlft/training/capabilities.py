"""What each environment can do, as its conformance found: kept with the package, shown by `robo-rlft list envs`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml
from rich.table import Table

from robo_rlft.training.tables import literal, make_table

if TYPE_CHECKING:
    from robo_rlft.envs.conformance import Finding

FILE = "envs/capabilities.yaml"
COLUMNS = {
    "same_seed_same_episode": "same seed",
    "chunk_equals_steps": "chunks",
    "resets_only_those_asked": "partial reset",
    "state_comes_back": "state",
    "forks_are_equal": "fork",
    "variants_are_chosen": "variants",
    "renders": "renders",
    "closes": "closes",
}
"""Rules that tell one backend from another, with their heading."""
Records = Mapping[str, Mapping[str, Any]]
"""Environment -> `versions` and `rules`: rule -> {status, detail}."""


def recorded() -> Records:
    """The findings that this version came with."""
    return yaml.safe_load(files("robo_rlft").joinpath(FILE).read_text(encoding="utf-8")) or {}


def as_record(findings: Iterable[Finding], versions: Mapping[str, str]) -> dict[str, Any]:
    """The findings about one environment as plain data."""
    rules = {f.rule: {"status": f.status, "detail": f.detail} for f in findings}
    return {"versions": dict(versions), "rules": rules}


def cell(rule: Mapping[str, str] | None) -> str:
    """One finding in a word or two."""
    if rule is None:
        return "not checked"
    if rule["status"] == "pass":
        return rule["detail"] or "yes"
    return "no" if rule["status"] == "cannot" else "FAILS"


def capability_table() -> Table:
    """One row per recorded environment."""
    table = make_table(
        "environment", *COLUMNS.values(), title="what they can do (robo-rlft doctor env=ID checks it here)"
    )
    for env_id, record in recorded().items():
        table.add_row(env_id, *(literal(cell(record["rules"].get(rule))) for rule in COLUMNS))
    return table
