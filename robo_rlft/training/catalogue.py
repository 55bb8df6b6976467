"""`robo-rlft list`: what there is, one line each, and whether what it needs is installed."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table

from robo_rlft.errors import ConfigError, MissingExtraError, unknown_name
from robo_rlft.training.capabilities import capability_table
from robo_rlft.training.configure import recipes
from robo_rlft.training.requirements import extras
from robo_rlft.training.rules import CHOICES
from robo_rlft.training.settings import settings
from robo_rlft.training.tables import default_console, literal, make_table

if TYPE_CHECKING:
    from robo_rlft.envs import Family

METHODS = {"bc": "pretrain", "ppo": "finetune", "awr": "finetune", "chunk_critic": "finetune", "curriculum": "finetune"}
"""Module of `robo_rlft.learning` and the verb that runs it."""

MODULES = {
    "policy.network.name": "policies/networks",
    "policy.encoder.name": "policies/encoders",
    "policy.chain.name": "policies/chains",
}
"""Where the parts of a policy live, one module per choice."""


def show(part: str = "", config_dir: Path | None = None, console: Console | None = None) -> None:
    """Print one part, or all but the settings.

    Args:
        part: `envs`, `policies`, `methods`, `recipes`, `extras`, `settings`, or a simulator's name for its tasks; empty
            prints the first five.
        config_dir: a user's own folder of recipes, listed beside the packaged ones.
        console: where to print; standard output by default.

    Raises:
        ConfigError: an unknown part.
    """
    from robo_rlft.envs import families

    tables: dict[str, Callable[[], Table | Group]] = {
        "envs": environments,
        "policies": policies,
        "methods": methods,
        "recipes": lambda: list_recipes(config_dir),
        "extras": list_extras,
        "settings": list_settings,
    }
    simulators = {family.name: family for family in families()}
    if part in simulators:
        tables[part] = lambda: tasks(simulators[part])
    if part and part not in tables:
        raise ConfigError(unknown_name("part", part, [*tables, *simulators]))
    console = console or default_console()
    for name in [part] if part else [n for n in tables if n != "settings"]:
        console.print(tables[name]())


def environments() -> Group:
    """Environments by id, simulators that bring their own tasks, and what each can do."""
    from robo_rlft.envs import entries, families

    own = make_table("name", "", "needs", title="environments (env.id=NAME)")
    for entry in entries():
        own.add_row(entry.id, literal(entry.description), _need(entry.extra, entry.installed))
    others = make_table("name", "", "for example", "needs", title="simulators (env.id=NAME:TASK)")
    for family in families():
        example = f"{family.name}:{family.example}"
        others.add_row(family.name, literal(family.description), example, _need(family.extra, family.installed))
    return Group(own, others, capability_table())


def tasks(family: Family) -> Table:
    """The tasks of one simulator.

    Raises:
        MissingExtraError: it is not installed.
    """
    if not family.installed:
        raise MissingExtraError(family.package, family.extra, f"the list of {family.name}'s tasks")
    table = make_table("name", title=f"tasks of {family.name} (env.id=NAME)")
    for task in family.tasks():
        table.add_row(f"{family.name}:{task}")
    return table


def policies() -> Table:
    """Networks, encoders and chains, with the first sentence of their modules."""
    table = make_table("setting", "", title="policies")
    for key, folder in MODULES.items():
        for name in CHOICES[key]:
            table.add_row(f"{key}={name}", literal(headline(f"{folder}/{name}.py")))
    return table


def methods() -> Table:
    """Learning methods, with the verb that runs each."""
    table = make_table("name", "", "verb", title="methods")
    for name, verb in METHODS.items():
        table.add_row(name, literal(headline(f"learning/{name}.py")), verb)
    return table


def list_recipes(config_dir: Path | None = None) -> Table:
    """Complete presets; each says whether its environment can run here."""
    from robo_rlft.training.configure import compose

    table = make_table("name", "", "needs", title="recipes (recipe=NAME)")
    for name, text in recipes(config_dir).items():
        table.add_row(name, literal(text), _needed(compose([f"recipe={name}"], config_dir=config_dir).env.id))
    return table


def list_extras() -> Table:
    """Optional extras, what they install and whether it is there."""
    table = make_table("name", "packages", "installed", title="extras (pip install 'robo-rlft[NAME]')")
    for name, packages in extras().items():
        missing = [p.name for p in packages if not p.fits]
        state = f"[yellow]no: {', '.join(missing)}[/]" if missing else "[green]yes[/]"
        table.add_row(name, ", ".join(p.name for p in packages), state)
    return table


def list_settings() -> Table:
    """Every setting with its default and its explanation."""
    table = make_table("key", "default", "", title="settings (key=value)")
    for setting in settings().values():
        table.add_row(setting.key, literal(setting.default), literal(setting.doc))
    return table


def headline(path: str) -> str:
    """First sentence of a module's docstring, read without importing it."""
    source = files("robo_rlft").joinpath(path).read_text(encoding="utf-8")
    paragraph = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    end = next(_sentence_ends(paragraph), len(paragraph))
    return paragraph[:end].rstrip(".:")


def _sentence_ends(text: str) -> Iterator[int]:
    """Ends of sentences; a point inside brackets or after `al` ends none."""
    depth = 0
    for i, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "." and depth == 0 and text[i + 1 : i + 2] in ("", " ") and not text[:i].endswith(" al"):
            yield i


def _needed(env_id: str) -> str:
    from robo_rlft.envs import find

    try:
        entry = find(env_id)
    except ConfigError:
        return "[red]unknown env.id[/]"
    return _need(entry.extra, entry.installed)


def _need(extra: str, installed: bool) -> str:
    if not extra:
        return "[green]installed[/]"
    return f"\\[{extra}] " + ("[green]installed[/]" if installed else "[yellow]not installed[/]")
