"""Small runs of every verb on Hopper, shared by the tests of the loops."""

from __future__ import annotations

from pathlib import Path

from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose

SMALL = (
    "env.id=Hopper",
    "env.num_envs=4",
    "env.threads=1",
    "threads=1",
    "matmul=highest",
    "policy.network.hidden=[16]",
    "policy.chain.name=reinflow",
    "policy.chain.steps=2",
    "policy.chain.noise_hidden=[8]",
    "ppo.critic_hidden=[16]",
    "ppo.rollout=6",
    "ppo.minibatch=8",
    "ppo.epochs=2",
    "ppo.iterations=4",
    "bc.steps=60",
    "bc.batch_size=16",
    "bc.validation=0.2",
    "run.eval_every=0",
    "run.save_every=1",
    "run.tensorboard=false",
    "evaluate.episodes=5",
    "evaluate.num_envs=3",
    "evaluate.videos=0",
    "collect.num_envs=4",
    "collect.keep=all",
)


def settings(folder: Path, *words: str, verb: str = "") -> Config:
    """The small configuration with its data set in `folder`."""
    return compose((*SMALL, f"data.path={folder / 'demos.zarr'}", *words), verb=verb)
