"""The precision of float32 matrix products: the faster safe one for this machine."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from robo_rlft.errors import ConfigError

SETTINGS = ("auto", "highest", "high", "medium")


def choose_matmul_precision(setting: str, device: torch.device) -> str:
    """The value for `torch.set_float32_matmul_precision`.

    `auto` takes TF32 (`high`) on a GPU. On a CPU it takes `medium` only on AMD processors with AVX-512 and without AMX:
    there it moves the products to a faster library and stays as exact, while AMX would really compute in bfloat16.

    Raises:
        ConfigError: an unknown setting.
    """
    if setting not in SETTINGS:
        raise ConfigError(f"matmul '{setting}' is unknown: choose one of {', '.join(SETTINGS)}")
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "high"
    vendor, flags = _processor()
    return "medium" if vendor == "AuthenticAMD" and "avx512f" in flags and "amx_bf16" not in flags else "highest"


@cache
def _processor() -> tuple[str, frozenset[str]]:
    """Vendor and feature flags of the first core; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "", frozenset()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    return found.get("vendor_id", ""), frozenset(found.get("flags", "").split())
