"""`robo-rlft list`: everything that exists has its line."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from robo_rlft.envs import entries
from robo_rlft.envs.registry import Entry
from robo_rlft.errors import ConfigError
from robo_rlft.training import catalogue, requirements
from robo_rlft.training.configure import recipes
from robo_rlft.training.requirements import Package
from robo_rlft.training.rules import CHOICES
from robo_rlft.training.settings import settings


def shown(part: str = "") -> str:
    page = io.StringIO()
    catalogue.show(part, console=Console(file=page, width=240))
    return page.getvalue()


def test_everything_has_its_line() -> None:
    page = shown()
    names = [entry.id for entry in entries()] + list(recipes()) + list(catalogue.METHODS) + ["wandb", "lerobot"]
    names += [f"{key}={name}" for key in catalogue.MODULES for name in CHOICES[key]]
    assert [name for name in names if f"\n {name} " not in page] == []


def test_settings_with_square_brackets_are_shown_as_they_are() -> None:
    page = shown("settings")
    assert [key for key in settings() if f"\n {key} " not in page] == []
    assert "[512, 512, 512]" in page


def test_an_environment_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Entry("Here", "an environment", lambda: None)
    missing = Entry("There", "another one", lambda: None, extra="far", package="a_package_that_is_nowhere")
    monkeypatch.setattr("robo_rlft.envs.entries", lambda: [there, missing])
    here, away = (line for line in shown("envs").splitlines() if "an environment " in line or "another" in line)
    assert here.split()[-1] == "installed"
    assert away.split()[-3:] == ["[far]", "not", "installed"]


def test_extras_name_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    members = (Package("there", ">=1", "2.0", "x"), Package("nowhere", ">=1", "", "x"))
    monkeypatch.setattr(catalogue, "extras", lambda: {"x": members})
    assert "no: nowhere" in shown("extras")


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(ConfigError, match="recipes"):
        shown("recipe")


def test_headlines_are_first_sentences() -> None:
    for key, folder in catalogue.MODULES.items():
        for name in CHOICES[key]:
            line = catalogue.headline(f"{folder}/{name}.py")
            assert 10 < len(line) < 140
            assert line.count("(") == line.count(")")


@pytest.mark.parametrize(
    ("line", "extra", "wanted", "counted"),
    [
        ("torch<3,>=2.6", "", "<3,>=2.6", True),
        ('pyarrow<27,>=17; extra == "lerobot"', "lerobot", "<27,>=17", True),
        ('colour; sys_platform == "nowhere" and extra == "x"', "x", "", False),
        ('robo-rlft[lerobot]; extra == "dev"', "", "", False),
    ],
)
def test_requirements_as_builds_write_them(
    line: str, extra: str, wanted: str, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "requires", lambda name: [line])
    requirements.packages.cache_clear()
    try:
        found = [(p.extra, p.wanted) for p in requirements.packages()]
    finally:
        requirements.packages.cache_clear()
    assert found == ([(extra, wanted)] if counted else [])


@pytest.mark.parametrize(
    ("found", "fits"), [("", False), ("1.25", False), ("1.26", True), ("2.0.0rc1", True), ("3.0", False)]
)
def test_versions_that_fit(found: str, fits: bool) -> None:
    assert Package("numpy", ">=1.26,<3", found).fits == fits
