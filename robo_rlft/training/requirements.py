"""What the installed package itself says it needs: its requirements, by optional extra, and what is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

DISTRIBUTION = "robo-rlft"


@dataclass(frozen=True)
class Package:
    """One requirement.

    Attributes:
        name: of the package.
        wanted: versions that fit, as in `>=1.26,<3`.
        found: the installed version; empty when it is not installed.
        extra: the optional extra that asks for it; empty for what is always needed.
    """

    name: str
    wanted: str
    found: str
    extra: str = ""

    @property
    def fits(self) -> bool:
        """Installed, and in a version that fits."""
        return bool(self.found) and Requirement(f"x{self.wanted}").specifier.contains(self.found, prereleases=True)


@cache
def packages() -> tuple[Package, ...]:
    """Every requirement of the installed distribution, extras included; empty when it is not installed."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return ()
    return tuple(_packages(Requirement(line) for line in lines))


def extras() -> dict[str, tuple[Package, ...]]:
    """The optional extras by name, each with its packages."""
    names = dict.fromkeys(p.extra for p in packages() if p.extra)
    return {name: tuple(p for p in packages() if p.extra == name) for name in names}


def installed_version(package: str) -> str:
    """Its version, or empty."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _packages(requirements: Iterator[Requirement]) -> Iterator[Package]:
    for requirement in requirements:
        if requirement.name == DISTRIBUTION:  # an extra that includes another: listed there
            continue
        extra = _extra(requirement)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found = installed_version(requirement.name)
            yield Package(requirement.name, str(requirement.specifier), found, extra)


def _extra(requirement: Requirement) -> str:
    """The extra in a marker such as `extra == "wandb"`; the only form that builds write."""
    marker = str(requirement.marker or "")
    return marker.partition('extra == "')[2].partition('"')[0]
