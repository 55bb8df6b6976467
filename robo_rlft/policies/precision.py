"""The precision networks are computed in: one switch for rollout and update; densities and values stay in float32."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Inside the block, matrix products and what follows them run in this precision (see `resolve`)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve(precision, device) == "bfloat16")


@torch.compiler.assume_constant_result
def resolve(precision: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the device multiplies it faster than float32, else float32; others are themselves."""
    if precision != "auto":
        return precision
    return "bfloat16" if _multiplies_bfloat16(device.type) else "float32"


@cache
def processor() -> tuple[str, frozenset[str]]:
    """Vendor and feature flags of the first core; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "", frozenset()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    return found.get("vendor_id", ""), frozenset(found.get("flags", "").split())


@cache
def _multiplies_bfloat16(device_type: str) -> bool:
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(processor()[1] & {"avx512_bf16", "amx_bf16"})
