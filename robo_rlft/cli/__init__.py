"""The command line: `robo-rlft VERB [overrides]`.

Only what a verb needs is imported, and only when it runs, so that help and errors come at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from robo_rlft.cli.help import overview
from robo_rlft.cli.parse import parse
from robo_rlft.cli.verbs import VERBS
from robo_rlft.errors import ConfigError, UserError, unknown_name

__all__ = ["main"]

USER_ERROR, MACHINE_ERROR, INTERRUPTED = 2, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status.

    0 done, 1 the machine gave out (memory, disk), 2 something the user can put right, 130 interrupted. With
    ROBO_RLFT_TRACEBACK=1 errors keep their traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except BrokenPipeError:
        return _reader_left()
    except (Exception, KeyboardInterrupt) as error:
        told = _told(error)
        if told is None or os.environ.get("ROBO_RLFT_TRACEBACK", "0") not in ("", "0"):
            raise
        sentence, status = told
        print(sentence, file=sys.stderr)
        return status


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return 0
    if words[0] == "--version":
        from robo_rlft import __version__

        print(f"robo-rlft {__version__}")
        return 0
    name, *rest = words
    if name not in VERBS:
        raise ConfigError(f"{unknown_name('verb', name, VERBS)} (robo-rlft --help shows what each does)")
    verb = VERBS[name]
    arguments = parse(verb, rest)
    return 0 if arguments is None else verb.run(arguments) or 0


def _told(error: BaseException) -> tuple[str, int] | None:
    """One sentence and the exit status, or None for a bug, which keeps its traceback."""
    if isinstance(error, UserError):
        return f"error: {error}", USER_ERROR
    if isinstance(error, KeyboardInterrupt):
        return "\ninterrupted: start the same command again to continue a run", INTERRUPTED
    if _out_of_memory(error):
        return (
            "error: out of memory; use fewer copies (env.num_envs, evaluate.num_envs), smaller batches (ppo.minibatch, "
            "bc.batch_size), or close other programs",
            MACHINE_ERROR,
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" writing {error.filename}" if error.filename else ""
        return f"error: the disk is full{where}; free some space and start the same command again", MACHINE_ERROR
    return None


def _out_of_memory(error: BaseException) -> bool:
    """Python's, torch's on the GPU (by name, torch may not be imported) and torch's on the CPU (by its text)."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def _reader_left() -> int:
    """`robo-rlft list | head`: nobody reads any more, which is no error. Keeps Python from complaining at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
