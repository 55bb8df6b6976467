"""The precision of float32 matrix products: the faster safe one for this machine."""

from __future__ import annotations

import torch

from robo_rlft.errors import ConfigError
from robo_rlft.policies.precision import processor

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
    vendor, flags = processor()
    return "medium" if vendor == "AuthenticAMD" and "avx512f" in flags and "amx_bf16" not in flags else "highest"
