"""The precision of matrix products by processor, and what it costs in exactness here."""

from __future__ import annotations

import pytest
import torch

from robo_rlft.errors import ConfigError
from robo_rlft.training import precision
from robo_rlft.training.precision import choose_matmul_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")
AMD, INTEL = "AuthenticAMD", "GenuineIntel"


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        (AMD, "fma avx2 avx512f avx512_bf16", "medium"),
        (AMD, "fma avx2", "highest"),
        (AMD, "avx512f amx_tile amx_bf16", "highest"),
        (INTEL, "avx512f avx512_bf16 amx_bf16", "highest"),
        (INTEL, "avx512f", "highest"),
        ("", "", "highest"),
    ],
)
def test_auto_by_processor(vendor: str, flags: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "processor", lambda: (vendor, frozenset(flags.split())))
    assert choose_matmul_precision("auto", CPU) == expected
    assert choose_matmul_precision("auto", GPU) == "high"
    assert choose_matmul_precision("high", CPU) == "high"


def test_auto_keeps_the_exactness_of_float32_on_this_processor() -> None:
    """bfloat16 products would be off by about 2^-9 of their size; float32 ones by 2^-24 and its sums."""
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator) for _ in range(2))
    try:
        torch.set_float32_matmul_precision(choose_matmul_precision("auto", CPU))
        product = a @ b
    finally:
        torch.set_float32_matmul_precision(before)
    exact = a.double() @ b.double()
    assert float((product - exact).norm() / exact.norm()) < 1e-5


def test_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'fast' is unknown: choose one of auto, highest"):
        choose_matmul_precision("fast", CPU)
