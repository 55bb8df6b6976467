"""Logs of the C++ runtime as numpy arrays; their layout: `deploy/runtime/include/robo_rlft/log.hpp`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robo_rlft.errors import DataError

MAGIC, VERSION = b"RRLTLOG\0", 1
_HEADER = np.dtype(
    [
        ("magic", "S8"),
        *((name, "<u4") for name in ("version", "actions", "joints", "chunk", "observation", "prefix")),
        ("rate_hz", "<f8"),
        ("control_hz", "<f8"),
        ("digest", "S64"),
    ]
)
_CONTROL, _POLICY = 1, 2


@dataclass(frozen=True)
class Log:
    """One run.

    Attributes:
        control: a record per cycle: times, mode, faults, `target`, `action`, `effort` [A], `position`, `velocity` [J].
        policy: a record per policy call: times, `observation` [O], `noise`, `actions` [H, A], `prefix` [P, A].
        digest: SHA-256 of the bundle's runtime.json.
        rate_hz: of the robot.
        control_hz: of the cycles.
    """

    control: np.ndarray
    policy: np.ndarray
    digest: str
    rate_hz: float
    control_hz: float


def read_log(path: Path | str) -> Log:
    """Read a log; a record cut off by a dying machine is left out.

    Raises:
        DataError: the file is no log, of another version, or damaged.
    """
    data = Path(path).read_bytes()
    if len(data) < _HEADER.itemsize or not data.startswith(MAGIC):
        raise DataError(f"{path} is no log of the C++ runtime")
    header = np.frombuffer(data, _HEADER, 1)[0]
    if header["version"] != VERSION:
        raise DataError(f"{path} is a log of version {header['version']}, this package reads {VERSION}")
    kinds = {_CONTROL: _control_dtype(header), _POLICY: _policy_dtype(header)}
    found = _records(path, data[_HEADER.itemsize :], kinds)
    arrays = {kind: np.frombuffer(b"".join(found[kind]), dtype) for kind, dtype in kinds.items()}
    digest = header["digest"].decode("ascii", "replace")
    return Log(arrays[_CONTROL], arrays[_POLICY], digest, float(header["rate_hz"]), float(header["control_hz"]))


def _records(path: Path | str, data: bytes, kinds: dict[int, np.dtype]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {kind: [] for kind in kinds}
    at = 0
    while at + 8 <= len(data):
        kind, size = (int(n) for n in np.frombuffer(data, "<u4", 2, at))
        if kind not in kinds or size != kinds[kind].itemsize:
            raise DataError(f"{path} is damaged: an unknown record at byte {at + _HEADER.itemsize}")
        record = data[at + 8 : at + 8 + size]
        if len(record) == size:
            found[kind].append(record)
        at += 8 + size
    return found


def _control_dtype(header: np.void) -> np.dtype:
    actions, joints = int(header["actions"]), int(header["joints"])
    return np.dtype(
        [
            *((name, "<i8") for name in ("now_ns", "observation_ns", "joints_ns", "chunk_ns")),
            ("sequence", "<u8"),
            ("index", "<f8"),
            *((name, "<u4") for name in ("mode", "faults", "latched", "clamped", "flags", "body_ns")),
            *((name, "<f8", (actions,)) for name in ("target", "action", "effort")),
            *((name, "<f8", (joints,)) for name in ("position", "velocity")),
        ]
    )


def _policy_dtype(header: np.void) -> np.dtype:
    chunk, prefix = (int(header["chunk"]), int(header["actions"])), (int(header["prefix"]), int(header["actions"]))
    return np.dtype(
        [
            *((name, "<i8") for name in ("now_ns", "stamp_ns", "duration_ns")),
            ("sequence", "<u8"),
            ("status", "<u4"),
            *((name, "<f4") for name in ("delay", "guidance")),
            ("reserved", "<u4"),
            ("observation", "<f4", (int(header["observation"]),)),
            *((name, "<f4", shape) for name, shape in (("noise", chunk), ("prefix", prefix), ("actions", chunk))),
        ]
    )
