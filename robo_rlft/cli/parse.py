"""Words to `Arguments`. Flags, positionals and overrides may come in any order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robo_rlft.cli.help import verb_help
from robo_rlft.cli.verb import Arguments, Flag, Positional, Verb
from robo_rlft.errors import ConfigError, unknown_name

COMMON_FLAGS = (
    Flag("--config-dir", "folder with recipe/<method>/<task>.yaml files of your own", "DIR"),
    Flag("--show-config", "print the composed settings and stop"),
)


def parse(verb: Verb, words: Sequence[str]) -> Arguments | None:
    """The command line of one verb, or None after its help was printed.

    Raises:
        ConfigError: an unknown flag, a flag without its value, a missing or superfluous word.
    """
    if any(word in ("-h", "--help") for word in words):
        print(verb_help(verb, COMMON_FLAGS), end="")
        return None
    flags, rest = _take_flags(verb, list(words))
    overrides = tuple(w for w in rest if _is_override(w))
    positionals = _name_positionals(verb, [w for w in rest if not _is_override(w)])
    config_dir = flags.pop("--config-dir", None)
    return Arguments(verb.name, positionals, flags, overrides, Path(config_dir) if config_dir else None)


def _is_override(word: str) -> bool:
    """`key=value`; a path may hold `=` after a slash (`./runs/a=b`) and is no override."""
    return word.startswith("~") or ("=" in word and not word.partition("=")[0].startswith(("/", "./", "../")))


def _take_flags(verb: Verb, words: list[str]) -> tuple[dict[str, str], list[str]]:
    known = {f.name: f for f in (*verb.flags, *COMMON_FLAGS)}
    found: dict[str, str] = {}
    rest: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            rest.append(word)
            continue
        name, has_value, value = word.partition("=")
        if name not in known:
            raise ConfigError(f"{unknown_name('flag', name, known)} (robo-rlft {verb.name} --help)")
        found[name] = value if has_value else _value_of(known[name], words)
    return found, rest


def _value_of(flag: Flag, words: list[str]) -> str:
    if not flag.metavar:
        return "true"
    if not words or words[0].startswith("--"):
        raise ConfigError(f"{flag.name} needs a value: {flag.name} {flag.metavar}")
    return words.pop(0)


def _name_positionals(verb: Verb, words: list[str]) -> dict[str, str]:
    if len(words) > len(verb.positionals):
        raise ConfigError(_superfluous(verb, words[len(verb.positionals)]))
    named = {p.name: _choice(p, word) for p, word in zip(verb.positionals, words, strict=False)}
    for positional in verb.positionals:
        if positional.required and positional.name not in named:
            raise ConfigError(_missing(verb, positional))
    return named


def _choice(positional: Positional, word: str) -> str:
    if positional.choices and word not in positional.choices:
        raise ConfigError(unknown_name(positional.name, word, positional.choices))
    return word


def _missing(verb: Verb, positional: Positional) -> str:
    return f"robo-rlft {verb.name} needs {positional.name} ({positional.help}), e.g. {verb.examples[0][0]}"


def _superfluous(verb: Verb, word: str) -> str:
    takes = " ".join(p.name for p in verb.positionals) or "no words without '='"
    return (
        f"robo-rlft {verb.name} takes {takes}, not '{word}': settings are written key=value (robo-rlft list settings)"
    )
