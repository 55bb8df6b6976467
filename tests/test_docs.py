"""What the documents tell people to type exists, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from robo_rlft.cli.parse import parse
from robo_rlft.cli.verb import Arguments
from robo_rlft.cli.verbs import VERBS
from robo_rlft.errors import ConfigError
from robo_rlft.training.configure import compose

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
)
OWN_WORDS = {"convert", "doctor", "import", "list"}
"""Verbs whose words with `=` are not settings."""


def code(page: Path) -> Iterator[str]:
    """Lines of fenced or indented blocks, and what stands in backquotes."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", text)


def commands(page: Path, program: str) -> list[list[str]]:
    """Words after `program` of every command, without prompt, comment, variables and redirections."""
    found = (re.match(rf"(?:\$ )?(?:\w+=\S+ )*(?:\.venv/bin/)?{program}\s+(.*)", line.strip()) for line in code(page))
    return [shlex.split(re.split(r"\s[|>&]|;", m[1])[0], comments=True) for m in found if m]


def settings_of(arguments: Arguments) -> list[str]:
    """Overrides without the placeholders that a document may hold (`recipe=<method>/<task>`, `seed=N`, `...`)."""
    return [w for w in arguments.overrides if not re.search(r"=(.*[<{]|[A-Z]+$|\.\.\.)", w)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_exist_and_their_settings_compose(page: Path) -> None:
    for words in commands(page, "robo-rlft"):
        if words[0].startswith("-") or words[0] == "VERB":
            continue
        assert words[0] in VERBS, f"{page.name}: robo-rlft {' '.join(words)}"
        rest = [
            word for word in words[1:] if word not in ("...", "[overrides]", "[key=value") and not word.startswith("[")
        ]
        verb = VERBS[words[0]]
        if not [w for w in rest if "=" not in w] and any(p.required for p in verb.positionals):
            continue  # the verb is named, not called
        if "--help" in rest:
            continue
        arguments = parse(verb, rest)
        assert arguments is not None
        if verb.name not in OWN_WORDS:
            compose(settings_of(arguments))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for words in commands(page, "make") for word in words if "=" not in word and word != "TARGET"}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_a_wrong_command_would_be_found(tmp_path: Path) -> None:
    """The checks above pass on pages without commands; they must not pass on wrong ones."""
    page = tmp_path / "page.md"
    page.write_text(
        "Type:\n\n    $ OMP_NUM_THREADS=1 robo-rlft colect seed=1  # record\n\nor `make tset` and `make lint`.\n"
    )
    assert commands(page, "robo-rlft") == [["colect", "seed=1"]]
    assert commands(page, "make") == [["tset"], ["lint"]]
    page.write_text("```bash\nrobo-rlft finetune recipe=reinflow/hoper \\\n  seed=1 > log.txt\n```\n")
    assert commands(page, "robo-rlft") == [["finetune", "recipe=reinflow/hoper", "seed=1"]]
    with pytest.raises(ConfigError):
        test_commands_exist_and_their_settings_compose(page)


def test_the_readme_names_the_two_commands_that_do_everything() -> None:
    named = [words for words in commands(ROOT / "README.md", "make") if words]
    assert ["demo"] in named
    assert ["test"] in named, "the public check runs the README's test command"
