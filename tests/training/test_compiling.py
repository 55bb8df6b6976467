"""`compile=true` changes how fast the networks are computed, not what, and nothing that is saved."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch

from robo_rlft.envs import make
from robo_rlft.errors import ConfigError
from robo_rlft.learning import ppo
from robo_rlft.training.compiling import compile_networks
from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose
from robo_rlft.training.finetune import make_learner

SMALL = (
    "run.checkpoint=none",
    "env.id=Hopper",
    "policy.action_normaliser=bounds",
    "policy.obs_normaliser=none",
    "policy.network.hidden=[16,16]",
    "policy.network.width=8",
    "policy.network.depth=1",
    "policy.chain.noise_hidden=[8]",
    "ppo.critic_hidden=[8]",
    "ppo.bc_coef=0.1",
)


def learner_of(chain: str, network: str, compiled: bool) -> tuple[ppo.Learner, Config]:
    words = [f"policy.chain.name={chain}", f"policy.network.name={network}", f"compile={str(compiled).lower()}"]
    config = compose([*SMALL, *words])
    env = make("Hopper", 1)
    robot = env.robot
    env.close()
    torch.manual_seed(0)
    return make_learner(config, robot), config


def batch_of(learner: ppo.Learner, config: Config, rows: int) -> ppo.PPOBatch:
    policy, critic = learner.policy, learner.critic
    generator = torch.Generator().manual_seed(1)
    obs = {"policy": torch.randn(rows, 1, policy.robot.observation["policy"].shape[0], generator=generator)}
    with torch.no_grad():
        path = policy.sample(policy.encode(obs), policy.draw_noise(rows, generator))
    executed = torch.full((rows,), policy.config.execute)
    newest = {critic.key: obs["policy"][:, 0]}
    advantage, target, value = torch.randn(3, rows, generator=generator)
    log_prob = ppo.old_log_prob(policy, obs, path, executed, config.ppo)
    return ppo.PPOBatch(obs, newest, path, executed, log_prob, advantage, target, value)


@pytest.mark.slow
@pytest.mark.parametrize(("chain", "network"), [("reinflow", "mlp"), ("flow_noise", "transformer")])
def test_losses_and_gradients_are_those_of_the_eager_networks(chain: str, network: str) -> None:
    gradients, names = [], []
    for compiled in (False, True):
        learner, config = learner_of(chain, network, compiled)
        names.append((list(learner.policy.state_dict()), list(learner.critic.state_dict())))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            batch = batch_of(learner, config, 6)
            loss, info = ppo.actor_loss(learner.policy, batch, config.ppo)
            value_loss, _ = ppo.critic_loss(learner.critic, batch, config.ppo)
            (loss + value_loss).backward()
        assert info["ratio_error"] < 1e-5, "the ratio of an unchanged policy"
        parameters = [*learner.policy.parameters(), *learner.critic.parameters()]
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    assert names[0] == names[1], "checkpoints do not see the compiler"
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_the_frozen_reference_is_a_policy_of_its_own() -> None:
    learner, _ = learner_of("flow_noise", "mlp", compiled=True)
    assert learner.reference is not None
    assert "velocity_and_features" in vars(learner.policy.network)
    assert "velocity_and_features" not in vars(learner.reference.network)


@pytest.mark.parametrize(("named", "told"), [("", "no g++ or clang++"), ("nowhere-c++", "no nowhere-c++")])
def test_a_missing_compiler_is_named(named: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, _ = learner_of("reinflow", "mlp", compiled=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", named)
    with pytest.raises(ConfigError, match="compile=true needs a C") as error:
        compile_networks(copy.deepcopy(learner.policy), learner.critic, torch.device("cpu"))
    assert told in str(error.value)
