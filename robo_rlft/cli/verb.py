"""What a verb is: its words on the command line, its help and the function it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Positional:
    """A word without `=`: `robo-rlft convert SRC DST`.

    Attributes:
        name: as shown in the usage.
        help: one line.
        required: an error when missing.
        choices: the words that are allowed; empty allows any.
    """

    name: str
    help: str
    required: bool = True
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flag:
    """`--name VALUE`, or `--name` alone when `metavar` is empty."""

    name: str
    help: str
    metavar: str = ""


@dataclass(frozen=True)
class Arguments:
    """A parsed command line.

    Attributes:
        verb: name of the verb.
        positionals: words by name; those left out are missing.
        flags: values by name; a flag without a value is "true".
        overrides: `key=value` words.
        config_dir: `--config-dir`.
    """

    verb: str
    positionals: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    config_dir: Path | None = None


@dataclass(frozen=True)
class Verb:
    """One thing the program does.

    Attributes:
        name: the word.
        summary: one line for the overview.
        text: what it does, for its own help.
        examples: command and what it is for.
        run: does it; the exit status, or None for 0.
        positionals: its words without `=`.
        flags: its own flags.
        settings: groups of settings it reads, shown in its help.
    """

    name: str
    summary: str
    text: str
    examples: tuple[tuple[str, str], ...]
    run: Callable[[Arguments], int | None]
    positionals: tuple[Positional, ...] = ()
    flags: tuple[Flag, ...] = ()
    settings: tuple[str, ...] = ()
