"""bfloat16 velocities: the same in rollout and update, densities still in float32."""

from __future__ import annotations

import pytest
import torch
from toys import CHAINS, NETWORKS, observe, policy, roll

from robo_rlft.errors import ConfigError
from robo_rlft.export.graph import DeterministicPolicy


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("network", NETWORKS)
def test_likelihood_is_that_of_the_rollout_and_in_float32(chain: str, network: str) -> None:
    made = policy(chain, network, precision="bfloat16")
    cond, path = roll(made, 64)
    with torch.no_grad():
        whole, plain = made.score(cond, path).log_prob, made.score(cond, path, fold_rows=1).log_prob
    assert whole.dtype == path.latents.dtype == torch.float32
    assert (whole - plain).mean(dim=(0, 2, 3)).exp().sub(1).abs().max() < 2e-3


def test_velocities_are_rounded_and_close() -> None:
    rounded, exact = policy(precision="bfloat16"), policy()
    rounded.load_state_dict(exact.state_dict())
    obs, noise = observe(exact, 64), exact.draw_noise(64)
    with torch.no_grad():
        a, b = (made.sample(made.encode(obs), noise, True).latents[-1] for made in (rounded, exact))
    assert 1e-5 < float((a - b).abs().max()) < 0.05


def test_exported_models_compute_in_float32() -> None:
    rounded, exact = policy(precision="bfloat16"), policy()
    rounded.load_state_dict(exact.state_dict())
    noise, obs = exact.draw_noise(8)[0], observe(exact, 8)["policy"]
    assert torch.equal(DeterministicPolicy(rounded)(noise, obs), DeterministicPolicy(exact)(noise, obs))
    assert rounded.chain.config.precision == "bfloat16", "the policy itself is left as it was"


def test_unknown_precision_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown policy.chain.precision 'bf16': .*bfloat16"):
        policy(precision="bf16")
