"""The parent's side of the policy process: start it, ask it, end it, and say clearly what became of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from robo_rlft.errors import BundleError, SpecError, UserError
from robo_rlft.export.manifest import (
    BASE_ACTION,
    DELAY,
    GUIDANCE,
    NO_PREFIX,
    OBSERVATION_PREFIX,
    PHASE,
    PREFIX,
    read_manifest,
)
from robo_rlft.export.runtime import as_input
from robo_rlft.export.wire import ClosedError, LateError, Message, receive, send

MODULE = "robo_rlft.export.server"
"""What the process runs."""
START_S = 60.0
"""Longest wait for the process to load the bundle."""


class PolicyProcess:
    """A controller that runs in a process of its own, which imports no torch. A context manager.

    Args:
        bundle: the bundle's folder.
        threads: threads of one inference.
        timeout_s: longest wait for one answer, in seconds.

    Attributes:
        manifest: what the bundle says about itself.
        golden_error: what the process found when it compared its golden actions.
        modules: packages of the training stack that are loaded in the process; normally none.
        inference_s: seconds the last answer took inside the process.
        reached: how it is asked.

    Raises:
        BundleError: the bundle was refused, or the process could not start.
    """

    reached = "between processes"

    def __init__(self, bundle: Path | str, threads: int = 1, timeout_s: float = 30.0) -> None:
        self.manifest = read_manifest(bundle)
        self.timeout_s = timeout_s
        self.inference_s = 0.0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        command = [sys.executable, "-m", MODULE, str(bundle), "--threads", str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
        )
        try:
            ready = self._receive(START_S)
        except BaseException:
            self.close()
            raise
        self.golden_error = float(ready.fields["golden_error"])
        self.modules: list[str] = ready.fields["modules"]

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def act(
        self,
        observation: Mapping[str, np.ndarray],
        noise: np.ndarray,
        guidance: float | None = None,
        *,
        prefix: np.ndarray | None = None,
        delay: int = NO_PREFIX,
    ) -> np.ndarray:
        """As `Controller.act`, in the other process.

        Raises:
            SpecError: the observation was refused.
            BundleError: the process ended or does not answer.
        """
        fields = {DELAY: delay} | ({} if guidance is None else {GUIDANCE: guidance})
        arrays = {"noise": noise} | ({} if prefix is None else {PREFIX: prefix})
        return self._ask("act", fields, observation, arrays)

    def correct(self, observation: Mapping[str, np.ndarray], base_action: np.ndarray, phase: np.ndarray) -> np.ndarray:
        """As `Controller.correct`, in the other process.

        Raises:
            SpecError: the input was refused.
            BundleError: the process ended or does not answer.
        """
        return self._ask("correct", {}, observation, {BASE_ACTION: base_action, PHASE: phase})

    def _ask(
        self,
        kind: str,
        fields: Mapping[str, Any],
        observation: Mapping[str, np.ndarray],
        others: Mapping[str, np.ndarray],
    ) -> np.ndarray:
        given = {**{OBSERVATION_PREFIX + key: value for key, value in observation.items()}, **others}
        self._send(Message(kind, fields, {name: as_input(name, value) for name, value in given.items()}))
        answer = self._receive(self.timeout_s)
        self.inference_s = float(answer.fields["seconds"])
        return answer.arrays["action"]

    def close(self) -> None:
        """End the process: by closing its input, and by force if it does not follow."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: Message) -> None:
        if self._errors.closed:
            raise BundleError("the policy process was closed: start another PolicyProcess")
        assert self._process.stdin is not None
        try:
            send(self._process.stdin.fileno(), message)
        except ClosedError as error:
            raise BundleError(self._obituary()) from error

    def _receive(self, timeout_s: float) -> Message:
        assert self._process.stdout is not None
        try:
            message = receive(self._process.stdout.fileno(), timeout_s)
        except ClosedError as error:
            raise BundleError(self._obituary()) from error
        except LateError as error:
            self._process.kill()
            raise BundleError(
                f"the policy process did not answer within {timeout_s:g} s and was ended: try fewer rows per call, "
                "or a machine with less other work"
            ) from error
        if message.kind == "error":
            raise _error(message.fields)
        return message

    def _obituary(self) -> str:
        """How the process ended, in one sentence, with the last line it wrote."""
        status = self._process.wait()
        how = f"was ended by signal {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        said = f" ({lines[-1].strip()})" if lines else ""
        return f"the policy process {how}{said}: stop the robot, then start the controller again"


def _error(fields: Mapping[str, Any]) -> UserError:
    kind = SpecError if fields["type"] == SpecError.__name__ else BundleError
    return kind(fields["text"])
