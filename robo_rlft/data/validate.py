"""Check a whole data set and list everything that is wrong with it (`robo-rlft doctor data=PATH`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from robo_rlft.data.layout import HEADER_FILE, DamagedError, Header, columns_of, content_hash
from robo_rlft.data.shards import Frames
from robo_rlft.data.store import Dataset, check_episode_ends, observation_key, read_column, read_frames
from robo_rlft.errors import DataError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: an `error` stops training; a `warning` may be meant.
        path: the data set.
        key: the array, or the header's file.
        expected, found: what should be there and what is.
    """

    severity: Severity
    path: Path
    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}, '{self.key}': expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Report:
    """What `validate` found.

    Attributes:
        path: the data set.
        findings: errors and warnings; empty for a sound data set.
        header: what is committed; None where it cannot be read.
    """

    path: Path
    findings: tuple[Finding, ...]
    header: Header | None

    @property
    def ok(self) -> bool:
        """No errors; there may be warnings."""
        return all(finding.severity != "error" for finding in self.findings)

    def __str__(self) -> str:
        if self.header is None:
            return "\n".join(map(str, self.findings))
        verdict = "sound" if self.ok else "damaged"
        summary = f"{self.path}: {verdict}, {self.header.num_episodes} episodes, {self.header.num_steps} steps"
        return "\n".join([f"{summary}, content {self.header.content_hash[:16]}", *map(str, self.findings)])


def validate(path: str | Path) -> Report:
    """Read everything, images included, and compare it with the header, the spec and the stored digests.

    Never raises for what is wrong with the data.
    """
    folder = Path(path)
    try:
        header = Header.read(folder)
    except DamagedError as error:
        return Report(folder, (_finding(error),), None)
    except DataError as error:
        finding = Finding("error", folder, HEADER_FILE, "the header of a data set", str(error))
        return Report(folder, (finding,), None)
    return Report(folder, tuple(_findings(folder, header)), header)


def _findings(path: Path, header: Header) -> Iterator[Finding]:
    arrays: dict[str, np.ndarray] = {}
    images: dict[str, Frames] = {}
    errors: list[Finding] = []
    for name, column in columns_of(header.robot).items():
        if column.is_image:
            _collect(errors, lambda c=column, n=name: images.update({observation_key(n): read_frames(path, c, header)}))
        else:
            _collect(errors, lambda c=column, n=name: arrays.update({n: read_column(path, c, header)}))
    if "meta/episode_ends" in arrays:
        _collect(errors, lambda: check_episode_ends(path, header, arrays["meta/episode_ends"]))
    yield from errors
    if not errors:
        dataset = Dataset(path, header, arrays, images)
        yield from _content(dataset)
        yield from _flags(dataset)
    if header.num_episodes == 0:
        yield Finding("warning", path, "meta/episode_ends", "at least one episode", "none")


def _content(dataset: Dataset) -> Iterator[Finding]:
    """Compare every episode with its digest, and the digests with the data set's hash."""
    stored = dataset.arrays["meta/digest"]
    table = range(len(dataset.header.tasks))
    for number, task in enumerate(dataset.arrays["meta/task"].tolist()):
        if task not in table:
            yield Finding("error", dataset.path, "meta/task", f"a number below {len(table)}", f"{task} in row {number}")
        elif (digest := dataset.episode(number).digest()) != stored[number].tobytes():
            expected = f"content {stored[number].tobytes().hex()[:16]} in episode {number}"
            yield Finding("error", dataset.path, "meta/digest", expected, digest.hex()[:16])
    if (found := content_hash(dataset.robot, stored.tobytes())) != dataset.content_hash:
        yield Finding("error", dataset.path, "content_hash", dataset.content_hash[:16], found[:16])


def _flags(dataset: Dataset) -> Iterator[Finding]:
    """The end of an episode is the only place for its flags; an episode without any was cut off."""
    last = np.zeros(dataset.num_steps, bool)
    last[dataset.episode_ends - 1] = True
    for key in ("terminated", "truncated"):
        early = np.flatnonzero(dataset.arrays[key] & ~last)
        if early.size:
            yield Finding("error", dataset.path, key, "flags at episodes' last steps only", f"one at step {early[0]}")
    open_ended = int((~(dataset.terminated | dataset.truncated))[dataset.episode_ends - 1].sum())
    if open_ended:
        expected = "terminated or truncated at each episode's last step"
        yield Finding("warning", dataset.path, "terminated", expected, f"{open_ended} episodes with neither")


def _collect(findings: list[Finding], check: Callable[[], None]) -> None:
    try:
        check()
    except DamagedError as error:
        findings.append(_finding(error))


def _finding(error: DamagedError) -> Finding:
    return Finding("error", error.path, error.key, error.expected, error.found)
