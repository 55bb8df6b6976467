"""`robo-rlft list`: what there is, one line each, and whether what it needs is installed."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.training.configure import recipes
from robo_rlft.training.requirements import extras
from robo_rlft.training.rules import CHOICES
from robo_rlft.training.settings import settings
from robo_rlft.training.tables import default_console, literal, make_table

METHODS = {"bc": "pretrain", "ppo": "finetune", "awr": "finetune", "chunk_critic": "finetune"}
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
        part: `environments`, `policies`, `methods`, `recipes`, `extras` or `settings`; empty prints the first five.
        config_dir: a user's own folder of recipes, listed beside the packaged ones.
        console: where to print; standard output by default.

    Raises:
        ConfigError: an unknown part.
    """
    tables: dict[str, Callable[[], Table]] = {
        "environments": environments,
        "policies": policies,
        "methods": methods,
        "recipes": lambda: list_recipes(config_dir),
        "extras": list_extras,
        "settings": list_settings,
    }
    if part and part not in tables:
        raise ConfigError(unknown_name("part", part, tables))
    console = console or default_console()
    for name in [part] if part else [n for n in tables if n != "settings"]:
        console.print(tables[name]())


def environments() -> Table:
    """Environments by id, ours and those of installed projects."""
    from robo_rlft.envs import entries

    table = make_table("name", "", "needs", title="environments (env.id=NAME)")
    for entry in entries():
        table.add_row(entry.id, literal(entry.description), _need(entry.extra, entry.installed))
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
    from robo_rlft.envs import entries
    from robo_rlft.training.configure import compose

    known = {entry.id: entry for entry in entries()}
    table = make_table("name", "", "needs", title="recipes (recipe=NAME)")
    for name, text in recipes(config_dir).items():
        entry = known.get(compose([f"recipe={name}"], config_dir=config_dir).env.id)
        table.add_row(name, literal(text), _need(entry.extra, entry.installed) if entry else "[red]unknown env.id[/]")
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


def _need(extra: str, installed: bool) -> str:
    if not extra:
        return "[green]installed[/]"
    return f"\\[{extra}] " + ("[green]installed[/]" if installed else "[yellow]not installed[/]")
