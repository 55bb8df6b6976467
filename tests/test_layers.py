"""Imports run one way; the contracts stand in pyproject.toml."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from importlinter.api import read_configuration
from importlinter.cli import lint_imports

import robo_rlft

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "robo_rlft"


def test_imports_run_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


def test_every_part_of_the_package_has_its_layer() -> None:
    contract = next(
        c for c in read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"] if c["type"] == "layers"
    )
    layers = {name.strip().removeprefix("robo_rlft.") for line in contract["layers"] for name in line.split(":")}
    parts = {p.stem for p in PACKAGE.iterdir() if (p.is_dir() and (p / "__init__.py").exists()) or p.suffix == ".py"}
    # configs holds YAML only.
    assert parts - {"__init__", "configs"} == layers


def test_the_policy_process_of_a_bundle_needs_no_torch() -> None:
    """Whatever runs on a robot imports neither torch nor anything of ours that does."""
    tree = ast.parse((PACKAGE / "export/runtime.py").read_text())
    modules = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not {
        m for m in modules if m.split(".")[0] == "torch" or m.startswith(("robo_rlft.envs", "robo_rlft.policies"))
    }


@pytest.mark.parametrize("name", ["envs", "policies", "data", "configs"])
def test_links_in_the_root_lead_into_the_package(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == PACKAGE / name


def test_the_package_is_the_checkout() -> None:
    """Tests of another installation would tell nothing about this one."""
    assert Path(robo_rlft.__file__).resolve() == PACKAGE / "__init__.py"
