"""The result pages in docs/results, made from docs/results/records and nothing else.

python -m benchmarks.results            write them
python -m benchmarks.results --check    say which differ from what was recorded; exit 1 if any does
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.online import compared
from benchmarks.page_demo import demo_page
from benchmarks.page_learning import learning_page, read_published
from benchmarks.page_online import SEARCH, online_page
from benchmarks.page_residual import RECORD_NAMES
from benchmarks.page_simulators import PREFIX, simulators_page
from benchmarks.page_speed import speed_page
from benchmarks.records import RESULTS, Records
from robo_rlft.errors import UserError

CURVES = "curves"


def main(argv: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Write or check the pages; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is out of date")
    check = parser.parse_args(argv).check
    try:
        made = pages(Records.load(results / "records"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _check(results, made) if check else _write(results, made)


def pages(records: Records) -> dict[str, str]:
    """Every page and picture by its path below docs/results."""
    published = read_published()
    # Methods without published figures stand in the comparison only.
    elsewhere = {name for name in records.tasks if (compared(name) or name) not in {name, *published}}
    elsewhere |= {*RECORD_NAMES, SEARCH, *(name for name in records.tasks if name.startswith(PREFIX))}
    own = {name: runs for name, runs in records.tasks.items() if name not in elsewhere}
    learning, pictures = learning_page(own, published)
    online, more = online_page(records.tasks, published)
    simulators, curves = simulators_page(records.tasks)
    return {
        "demo.md": demo_page(records.demo),
        "learning.md": learning,
        "online.md": online,
        "simulators.md": simulators,
        "speed.md": speed_page(records.benches),
        **{f"{CURVES}/{name}": picture for name, picture in {**pictures, **more, **curves}.items()},
    }


def outdated(results: Path, made: Mapping[str, str]) -> list[str]:
    """Paths that are missing, differ, or should not be there."""
    differing = [path for path, text in made.items() if _text(results / path) != text]
    return sorted(differing + _leftover(results, made))


def _check(results: Path, made: Mapping[str, str]) -> int:
    found = outdated(results, made)
    for path in found:
        print(f"{path} is not what the records give: run python -m benchmarks.results")
    return 1 if found else 0


def _write(results: Path, made: Mapping[str, str]) -> int:
    for path in _leftover(results, made):
        (results / path).unlink()
    for path, text in made.items():
        (results / path).parent.mkdir(parents=True, exist_ok=True)
        (results / path).write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0


def _leftover(results: Path, made: Mapping[str, str]) -> list[str]:
    """Curves of records that are gone."""
    there = [path.relative_to(results).as_posix() for path in (results / CURVES).glob("*.svg")]
    return [path for path in there if path not in made]


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
