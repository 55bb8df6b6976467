"""Checkpoints that are whole or not there, describe themselves, and cannot run code when they are read.

    checkpoints/last.json            the pointer: which folder is `last`
    checkpoints/last-00000012-9f3c/  weights.safetensors  state.pt  meta.json (with the hashes of both)

A new folder is written aside, synced and renamed; then the pointer is replaced; then the old folder goes. Whatever
moment a kill chooses, the pointer names a complete folder.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from robo_rlft.errors import CheckpointError
from robo_rlft.spec import RobotSpec
from robo_rlft.training.compare import check_contradictions, plain
from robo_rlft.training.files import TEMPORARY, atomic_write, make_folder, sync_folder, write_synced, writing
from robo_rlft.training.versions import package_versions

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "capture_rng",
    "check_contradictions",
    "describe",
    "load_for",
    "restore_rng",
]
FORMAT = 1
"""Layout of a checkpoint folder; a newer one is refused, an older one is read."""
Name = Literal["last", "best"]
Weights = dict[str, dict[str, Tensor]]
"""Weights by part (`policy`, `critic`), each a state dict."""
_WEIGHTS, _STATE, _META = "weights.safetensors", "state.pt", "meta.json"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        path: its folder.
        weights: state dict of every part, on the CPU.
        state: what resuming needs beyond the weights: optimiser, random generators, environment state, counters.
        meta: what it says about itself (`describe`).
    """

    path: Path
    weights: Weights
    state: dict[str, Any]
    meta: dict[str, Any]

    @property
    def robot(self) -> RobotSpec:
        """The robot and task it was trained on."""
        return RobotSpec.from_dict(self.meta["robot"])


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        run_path: the run folder; its `checkpoints` folder is made by the first `save`.
    """

    def __init__(self, run_path: Path) -> None:
        self.path = Path(run_path) / "checkpoints"

    def save(
        self, name: Name, weights: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> Path:
        """Write a checkpoint and make it the one called `name`.

        Args:
            name: `last` or `best`.
            weights: state dict of every part; tensors of any device.
            state: nested dicts, lists and tuples of tensors, numpy arrays, numbers, strings and bytes.
            meta: plain data (`describe`).

        Raises:
            RunError: the disk is full; the checkpoint before is intact.
            TypeError: `state` holds something that could not be read back without running code.
        """
        files = {_WEIGHTS: _pack_weights(weights), _STATE: _pack_state(state)}
        files[_META] = _pack_meta(files, list(weights), meta)
        make_folder(self.path)
        self._clean(name)
        folder = self._write_folder(name, files)
        atomic_write(self._pointer(name), json.dumps({"folder": folder.name}).encode())
        self._clean(name)
        return folder

    def load(self, name: Name = "last") -> Checkpoint:
        """Read the checkpoint called `name` and check its hashes.

        Raises:
            CheckpointError: there is none, or a file is missing or damaged.
        """
        for _ in range(_RACES):
            folder = self.folder(name)
            try:
                return load_folder(folder)
            except CheckpointError:
                if self.folder(name) == folder:
                    raise
        raise CheckpointError(f"{self._pointer(name)} changes faster than it can be read: copy the run and try again")

    def folder(self, name: Name) -> Path:
        """The folder of the checkpoint called `name`.

        Raises:
            CheckpointError: there is none.
        """
        pointer = self._pointer(name)
        if not pointer.is_file():
            have = ", ".join(self.names) or "no checkpoint yet"
            raise CheckpointError(f"no checkpoint '{name}' in {self.path}: it has {have}")
        return self.path / _read_json(pointer, "folder")["folder"]

    @property
    def names(self) -> list[str]:
        """Names of the checkpoints there are."""
        return sorted(p.stem for p in self.path.glob("*.json") if not p.name.startswith(TEMPORARY))

    def _pointer(self, name: Name) -> Path:
        return self.path / f"{name}.json"

    def _write_folder(self, name: Name, files: Mapping[str, bytes]) -> Path:
        temporary = self.path / f"{TEMPORARY}{name}-{uuid.uuid4().hex[:8]}"
        final = self.path / f"{name}-{self._serial(name) + 1:08d}-{uuid.uuid4().hex[:4]}"
        with writing(self.path / name):
            try:
                temporary.mkdir()
                for file, data in files.items():
                    write_synced(temporary / file, data)
                sync_folder(temporary)
                temporary.rename(final)
                sync_folder(self.path)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        return final

    def _serial(self, name: Name) -> int:
        return max((int(p.name.split("-")[1]) for p in self._folders(name)), default=0)

    def _folders(self, name: Name) -> list[Path]:
        return [p for p in self.path.glob(f"{name}-*") if re.fullmatch(rf"{name}-\d+-[0-9a-f]{{4}}", p.name)]

    def _clean(self, name: Name) -> None:
        """Remove what a kill left behind and the folders the pointer no longer names."""
        current = self.folder(name) if self._pointer(name).is_file() else None
        for stale in [*self.path.glob(f"{TEMPORARY}*"), *(p for p in self._folders(name) if p != current)]:
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink()


def load_for(path: Path | str, name: Name = "last") -> Checkpoint:
    """Read a checkpoint from whatever a user points at.

    Args:
        path: a run folder, its `checkpoints` folder, `checkpoints/last`, a checkpoint folder or a file inside one.
        name: which of a run's checkpoints, where the path does not say.

    Raises:
        CheckpointError: there is no checkpoint at the path, or it is damaged.
    """
    given = Path(path)
    folder = given.parent if given.name in (_WEIGHTS, _STATE, _META) else given
    if (folder / _META).is_file():
        return load_folder(folder)
    if folder.parent.name == "checkpoints" and folder.with_suffix(".json").is_file():
        return CheckpointStore(folder.parent.parent).load(cast(Name, folder.stem))
    run = folder.parent if folder.name == "checkpoints" else folder
    if (run / "checkpoints").is_dir():
        return CheckpointStore(run).load(name)
    raise CheckpointError(
        f"no checkpoint at {given}: give a run folder, e.g. runs/NAME, or a folder in its checkpoints"
    )


def load_folder(folder: Path) -> Checkpoint:
    """Read one checkpoint folder and check its hashes.

    Raises:
        CheckpointError: a file is missing, damaged, or of a newer format.
    """
    header = _read_meta(folder)
    weights_data, state_data = (_checked(folder / f, header["sha256"][f]) for f in (_WEIGHTS, _STATE))
    weights = _unpack_weights(weights_data, header["parts"])
    return Checkpoint(folder, weights, _unpack_state(state_data, folder / _STATE), header["meta"])


def describe(
    *,
    algorithm: str,
    robot: RobotSpec,
    policy: Any,
    normaliser: Mapping[str, Any],
    counters: Mapping[str, float],
    ema: bool,
    **more: Any,
) -> dict[str, Any]:
    """The `meta` of a checkpoint: everything a stranger needs to rebuild the policy and to judge it.

    Args:
        algorithm: how it was trained, `bc` or `ppo`.
        robot: what it sees and commands.
        policy: the policy's settings, a dataclass or a mapping.
        normaliser: kind and figures of the normaliser, plain lists.
        counters: training counters (`updates`, `env_steps`, `episodes`, `wall_seconds`).
        ema: the weights are the moving average.
        more: anything else that is plain data (seed, score, the checkpoint it started from).
    """
    settings = plain(policy)
    return {
        "algorithm": algorithm,
        "chain": settings["chain"]["name"],
        "denoising_steps": settings["chain"]["steps"],
        "chunk": settings["chunk"],
        "execute": settings["execute"],
        "ema": ema,
        "counters": dict(counters),
        "robot": robot.to_dict(),
        "policy": settings,
        "normaliser": dict(normaliser),
        "versions": package_versions(),
        **more,
    }


def capture_rng(generators: Mapping[str, torch.Generator | np.random.Generator] | None = None) -> dict[str, Any]:
    """States of Python's, numpy's and torch's global generators and of those given, as data `save` accepts."""
    own = {name: _generator_state(g) for name, g in (generators or {}).items()}
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "own": own,
    }


def restore_rng(
    state: Mapping[str, Any], generators: Mapping[str, torch.Generator | np.random.Generator] | None = None
) -> None:
    """Put the generators back to what `capture_rng` saw; draws go on bit for bit.

    Raises:
        CheckpointError: a generator in `generators` was not captured.
    """
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    for name, generator in (generators or {}).items():
        if name not in state["own"]:
            raise CheckpointError(
                f"the checkpoint has no state of the random generator '{name}': it has {list(state['own'])}"
            )
        _set_generator_state(generator, state["own"][name])


_RACES = 3
"""Times a reader looks again when a running trainer replaces the checkpoint under it."""


def _generator_state(generator: torch.Generator | np.random.Generator) -> Any:
    return generator.get_state() if isinstance(generator, torch.Generator) else dict(generator.bit_generator.state)


def _set_generator_state(generator: torch.Generator | np.random.Generator, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def _pack_weights(weights: Mapping[str, Mapping[str, Tensor]]) -> bytes:
    # Copies, because tied weights share memory, which the file format refuses.
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for part, named in weights.items()
        for name, tensor in named.items()
    }
    return safetensors.torch.save(tensors)


def _unpack_weights(data: bytes, parts: Sequence[str]) -> Weights:
    weights: Weights = {part: {} for part in parts}
    for key, tensor in safetensors.torch.load(data).items():
        part, name = key.split("/", 1)
        weights[part][name] = tensor
    return weights


def _pack_state(state: Mapping[str, Any]) -> bytes:
    buffer = BytesIO()
    torch.save(_encode(state, "state"), buffer)
    return buffer.getvalue()


def _unpack_state(data: bytes, path: Path) -> dict[str, Any]:
    try:
        return _decode(torch.load(BytesIO(data), map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} wants to run code when it is read: do not use this checkpoint") from error


_ARRAY = "__numpy__"
_PLAIN = (Tensor, int, float, str, bytes, type(None))


def _encode(value: Any, where: str) -> Any:
    """Nested plain containers in which numpy arrays are bytes with dtype and shape: readable without running code."""
    if isinstance(value, np.ndarray | np.generic):
        return _encode_array(np.asarray(value), where)
    if isinstance(value, Mapping):
        return {k: _encode(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = [_encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if type(value) in _PLAIN or isinstance(value, Tensor | bool):
        return value.detach().cpu() if isinstance(value, Tensor) else value
    raise TypeError(f"{where} is a {type(value).__name__}: a checkpoint holds tensors, arrays, numbers and strings")


def _encode_array(array: np.ndarray, where: str) -> dict[str, Any]:
    if array.dtype.hasobject:
        raise TypeError(f"{where} is an array of objects: a checkpoint holds tensors, arrays, numbers and strings")
    data = torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8) if array.nbytes else torch.zeros(0)
    return {_ARRAY: array.dtype.str, "shape": list(array.shape), "data": data}


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return np.frombuffer(value["data"].numpy().tobytes(), value[_ARRAY]).reshape(value["shape"]).copy()
        return {k: _decode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_decode(v) for v in value)
    return value


def _pack_meta(files: Mapping[str, bytes], parts: Sequence[str], meta: Mapping[str, Any]) -> bytes:
    header: dict[str, Any] = {
        "format": FORMAT,
        "sha256": {name: _digest(data) for name, data in files.items()},
        "parts": list(parts),
        "meta": dict(meta),
    }
    header["sha256"][_META] = _meta_digest(header)
    return json.dumps(header, indent=1).encode()


def _read_meta(folder: Path) -> dict[str, Any]:
    header = _read_json(folder / _META, "format")
    if header["format"] > FORMAT:
        raise CheckpointError(
            f"{folder} has checkpoint format {header['format']}, this robo_rlft reads up to {FORMAT}: update robo-rlft"
        )
    if _meta_digest(header) != header.get("sha256", {}).get(_META):
        raise CheckpointError(_damaged(folder / _META))
    return header


def _meta_digest(header: Mapping[str, Any]) -> str:
    hashes = {k: v for k, v in header.get("sha256", {}).items() if k != _META}
    return _digest(json.dumps({**header, "sha256": hashes}, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checked(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path} ({error.strerror}): use another checkpoint") from error
    if _digest(data) != digest:
        raise CheckpointError(_damaged(path))
    return data


def _read_json(path: Path, key: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict) or key not in value:
            raise ValueError
    except OSError as error:
        raise CheckpointError(f"cannot read {path} ({error.strerror}): use another checkpoint") from error
    except ValueError as error:
        raise CheckpointError(_damaged(path)) from error
    return value


def _damaged(path: Path) -> str:
    return f"{path} is damaged (its content does not match its hash): use another checkpoint or train again"
