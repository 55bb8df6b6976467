"""`deploy/runtime/include/robo_rlft/runtime.h` in the words of ctypes: structures and signatures, nothing else."""

from __future__ import annotations

import ctypes as c
from pathlib import Path
from typing import Any

ABI_VERSION = 1
"""RR_ABI_VERSION of the header this file mirrors."""

_DOUBLES = c.POINTER(c.c_double)
_FLOATS = c.POINTER(c.c_float)


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class Options(c.Structure):
    """rr_options."""

    _fields_ = (
        *_fields(c.c_int32, "backend interpolation stitching estop inline_policy reserved"),
        *_fields(c.c_double, "fade_s decay control_hz simulated_latency_s"),
        ("seed", c.c_uint64),
        ("onnx_library", c.c_char_p),
    )


class Sizes(c.Structure):
    """rr_sizes."""

    _fields_ = (
        *_fields(c.c_int32, "actions joints given_joints keys frame_width obs_horizon chunk execute prefix reserved"),
        *_fields(c.c_double, "rate_hz control_hz golden_error"),
    )


class Status(c.Structure):
    """rr_status."""

    _fields_ = (
        *_fields(c.c_int64, "now_ns chunk_stamp_ns"),
        ("index", c.c_double),
        *_fields(c.c_uint32, "mode faults latched clamped flags reserved"),
        ("clamp_count", c.c_uint64),
    )


class ThreadOptions(c.Structure):
    """rr_thread_options."""

    _fields_ = (
        *_fields(c.c_int32, "control_priority policy_priority control_cpu policy_cpu lock_memory reserved"),
        ("on_command", c.c_void_p),
        ("user", c.c_void_p),
    )


class Report(c.Structure):
    """rr_report."""

    _fields_ = (
        *_fields(c.c_uint64, "ticks missed"),
        *_fields(c.c_double, "wake_p50 wake_p99 wake_p999 wake_max body_p50 body_p99 body_p999 body_max"),
    )


class LogState(c.Structure):
    """rr_log_status."""

    _fields_ = (*_fields(c.c_uint64, "written dropped"), *_fields(c.c_int32, "error reserved"))


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "rr_error": (c.c_char_p, ()),
    "rr_now": (c.c_int64, ()),
    "rr_create": (c.c_void_p, (c.c_char_p, c.POINTER(Options))),
    "rr_destroy": (None, (c.c_void_p,)),
    "rr_get_sizes": (None, (c.c_void_p, c.POINTER(Sizes))),
    "rr_backend": (c.c_char_p, (c.c_void_p,)),
    "rr_notes": (c.c_char_p, (c.c_void_p,)),
    "rr_action_name": (c.c_char_p, (c.c_void_p, c.c_int32)),
    "rr_joint_name": (c.c_char_p, (c.c_void_p, c.c_int32)),
    "rr_key": (c.c_char_p, (c.c_void_p, c.c_int32, c.POINTER(c.c_int32))),
    "rr_bind_joints": (c.c_int, (c.c_void_p, c.POINTER(c.c_char_p), c.c_int32)),
    "rr_tighten": (c.c_int, (c.c_void_p, _DOUBLES, _DOUBLES)),
    "rr_set_workspace": (c.c_int, (c.c_void_p, _DOUBLES, _DOUBLES, _DOUBLES)),
    "rr_get_limits": (None, (c.c_void_p, *(_DOUBLES,) * 5)),
    "rr_observe": (c.c_int, (c.c_void_p, c.c_int64, _FLOATS)),
    "rr_joint_state": (c.c_int, (c.c_void_p, c.c_int64, _DOUBLES, _DOUBLES)),
    "rr_tick": (None, (c.c_void_p, c.c_int64, c.POINTER(Status), _DOUBLES, _DOUBLES)),
    "rr_policy_step": (c.c_int, (c.c_void_p, c.c_int64)),
    "rr_set_noise": (None, (c.c_void_p, _FLOATS)),
    "rr_reset": (None, (c.c_void_p,)),
    "rr_estop": (None, (c.c_void_p,)),
    "rr_start": (c.c_int, (c.c_void_p, c.POINTER(ThreadOptions))),
    "rr_stop": (None, (c.c_void_p,)),
    "rr_get_report": (None, (c.c_void_p, c.POINTER(Report))),
    "rr_missing_privileges": (c.c_char_p, (c.c_void_p,)),
    "rr_last_command": (c.c_int, (c.c_void_p, c.POINTER(Status), _DOUBLES, _DOUBLES)),
    "rr_log": (c.c_int, (c.c_void_p, c.c_char_p)),
    "rr_get_log_status": (None, (c.c_void_p, c.POINTER(LogState))),
}


class Library:
    """The shared library, its version first: only with that one are the signatures below those of its functions.

    Attributes:
        version: RR_ABI_VERSION it was built with.
        functions: the library with the argument and result types of every function set.
    """

    def __init__(self, path: Path) -> None:
        self.functions = c.CDLL(str(path))
        self.version: int = self.functions.rr_abi_version()
        if self.version == ABI_VERSION:
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(self.functions, name)
                function.restype, function.argtypes = result, arguments
