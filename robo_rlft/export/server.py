"""The policy in a process of its own: `python -m robo_rlft.export.server BUNDLE`. Imports no torch.

Messages (see `wire`) come on standard input and answers leave on standard output, one for one. Answered by `action`:
`act` with arrays `observation/<key>` and `noise`, for a bundle with guidance perhaps a field `guidance`, and for one
with real-time chunking perhaps an array `prefix` and a field `delay`; `correct`, for a bundle with a residual, with
`observation/<key>`, `base_action` and `phase`. Anything refused: `error`.
The end of the input ends the process, so that it never outlives its parent.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

import numpy as np

from robo_rlft.errors import UserError
from robo_rlft.export.manifest import BASE_ACTION, DELAY, GUIDANCE, OBSERVATION_PREFIX, PHASE, PREFIX
from robo_rlft.export.runtime import NO_PREFIX, Controller
from robo_rlft.export.wire import ClosedError, Message, receive, send


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one bundle until the input ends; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m robo_rlft.export.server", description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference")
    given = parser.parse_args(arguments)
    # Ctrl-C reaches the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = sys.stdin.fileno(), _private_stdout()
    try:
        return serve(source, sink, given.bundle, given.threads)
    except ClosedError:
        return 0


def serve(source: int, sink: int, bundle: str, threads: int) -> int:
    """Load the bundle, say so, then answer every message.

    Args:
        source: descriptor messages come from.
        sink: descriptor answers go to.
        bundle: folder of the bundle.
        threads: threads of one inference.
    """
    try:
        controller = Controller(bundle, threads)
    except UserError as error:
        send(sink, _refusal(error))
        return 2
    send(sink, Message("ready", {"golden_error": controller.golden_error, "modules": _heavy_modules()}))
    while True:
        send(sink, _answer(controller, receive(source)))


def _answer(controller: Controller, message: Message) -> Message:
    observation = {
        name.removeprefix(OBSERVATION_PREFIX): array
        for name, array in message.arrays.items()
        if name.startswith(OBSERVATION_PREFIX)
    }
    try:
        start = time.perf_counter()
        if message.kind == "correct":
            action = controller.correct(observation, _array(message, BASE_ACTION), _array(message, PHASE))
        else:
            action = controller.act(
                observation,
                _array(message, "noise"),
                message.fields.get(GUIDANCE),
                prefix=message.arrays.get(PREFIX),
                delay=message.fields.get(DELAY, NO_PREFIX),
            )
        seconds = time.perf_counter() - start
    except UserError as error:
        return _refusal(error)
    return Message("action", {"seconds": seconds}, {"action": action})


def _array(message: Message, name: str) -> np.ndarray:
    return message.arrays.get(name, np.zeros(0, np.float32))


def _refusal(error: UserError) -> Message:
    return Message("error", {"type": type(error).__name__, "text": str(error)})


def _heavy_modules() -> list[str]:
    """Which of the training stack's packages are loaded here: none, and the parent checks it."""
    return [name for name in ("torch", "mujoco", "gymnasium", "zarr") if name in sys.modules]


def _private_stdout() -> int:
    """Keep the answers' channel to ourselves; whatever prints goes to standard error."""
    channel = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


if __name__ == "__main__":
    sys.exit(main())
