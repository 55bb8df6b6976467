"""Help that teaches: what each verb does, with commands that can be copied."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from robo_rlft.cli.verb import Flag, Verb

WIDTH = 100


def overview() -> str:
    """`robo-rlft --help`."""
    from robo_rlft.cli.verbs import VERBS

    lines = [
        "usage: robo-rlft VERB [key=value ...]",
        "",
        "From robot demonstrations to a fine-tuned policy to a controller on the robot.",
        "",
        "verbs:",
        *_table((v.name, v.summary) for v in VERBS.values()),
        "",
        "the whole way, on two CPU cores:",
        "  robo-rlft demo",
        "",
        "the same way, step by step:",
        *(f"  robo-rlft {verb} recipe=reinflow/arm_peg_insert" for verb in ("collect", "pretrain", "finetune")),
        "  robo-rlft evaluate runs/reinflow/arm_peg_insert/finetune-seed0",
        "  robo-rlft export   runs/reinflow/arm_peg_insert/finetune-seed0",
        "",
        "Every verb takes settings as key=value (Hydra's grammar); recipe=<method>/<task> picks a complete preset.",
        "`robo-rlft list` names environments, methods and recipes, `robo-rlft list settings` every setting,",
        "and `robo-rlft VERB --help` explains one verb.",
    ]
    return "\n".join(lines) + "\n"


def verb_help(verb: Verb, common: Sequence[Flag]) -> str:
    """`robo-rlft VERB --help`."""
    flags = [(f"{f.name} {f.metavar}".strip(), f.help) for f in (*verb.flags, *common)]
    sections = [
        [_usage(verb)],
        textwrap.wrap(verb.text, WIDTH),
        ["examples:", *_examples(verb)],
        ["words:", *_table((p.name, p.help) for p in verb.positionals)] if verb.positionals else [],
        ["flags:", *_table(flags)],
        ["settings it reads (key: default):", *_settings(verb)] if verb.settings else [],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _usage(verb: Verb) -> str:
    words = [p.name if p.required else f"[{p.name}]" for p in verb.positionals]
    return " ".join(["usage: robo-rlft", verb.name, *words, "[key=value ...]"])


def _examples(verb: Verb) -> list[str]:
    return [line for command, purpose in verb.examples for line in (f"  # {purpose}", f"  {command}")]


def _settings(verb: Verb) -> list[str]:
    from robo_rlft.training.settings import under

    rows = (s for group in verb.settings for s in under(group))
    return _table((f"{s.key}: {_shown(s.default)}", s.doc) for s in rows)


def _shown(default: object) -> str:
    return repr(default) if isinstance(default, str) else str(default)


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns; a long left side stands on its own line."""
    rows = list(rows)
    width = min(max((len(left) for left, _ in rows), default=0), 34)
    return [line for left, right in rows for line in _row(left, right, width)]


def _row(left: str, right: str, width: int) -> list[str]:
    wrapped = textwrap.wrap(right, WIDTH - width - 4) or [""]
    head = (
        [f"  {left:<{width}}  {wrapped[0]}"] if len(left) <= width else [f"  {left}", f"{'':{width + 4}}{wrapped[0]}"]
    )
    return [*head, *(f"{'':{width + 4}}{line}" for line in wrapped[1:])]
