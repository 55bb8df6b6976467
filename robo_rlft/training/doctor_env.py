"""`robo-rlft doctor env=ID`: does an environment keep the rules of `BatchEnv`?"""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Console

from robo_rlft.envs.conformance import Finding, examine
from robo_rlft.training.config import Config
from robo_rlft.training.progress import Progress
from robo_rlft.training.setup import make_env
from robo_rlft.training.tables import default_console, literal, make_table

COLOURS: dict[str, str] = {"pass": "green", "cannot": "yellow", "fail": "red"}


def doctor_env(config: Config, console: Console | None = None) -> int:
    """Print what came of every rule; returns the number of broken ones.

    Raises:
        UserError: the environment cannot be made.
    """
    console = console or default_console()
    findings = environment_findings(config)
    table = make_table("rule", "", "", title=config.env.id)
    for finding in findings:
        status = literal(finding.status, COLOURS[finding.status])
        table.add_row(finding.rule.replace("_", " "), status, literal(finding.detail))
    console.print(table)
    broken = sum(finding.status == "fail" for finding in findings)
    console.print(f"{broken} rules are broken" if broken else "it keeps every rule, or says why it cannot")
    return broken


def environment_findings(config: Config) -> list[Finding]:
    """Every rule on the configured environment, its parameters and cameras included."""
    from robo_rlft.envs.conformance import RULES

    factory: Any = partial(make_env, config)
    factory(1).close()  # an environment that cannot be made is one error, not fifteen
    findings: list[Finding] = []
    with Progress("rules", len(RULES), unit="rules") as progress:
        for finding in examine(factory):
            findings.append(finding)
            progress.update(len(findings), {})
    return findings
