"""Bundles with guidance: w is an input, for the model, the runtime and the policy process alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robo_rlft.errors import SpecError
from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.client import PolicyProcess
from robo_rlft.export.manifest import read_manifest
from robo_rlft.export.runtime import Controller
from robo_rlft.policies import Policy
from robo_rlft.policies.guidance import GuidedPolicy

from .conftest import ROBOT, make_policy


@pytest.fixture(scope="module")
def pair() -> tuple[Policy, Policy]:
    tuned = make_policy()
    reference = make_policy(chain="euler")
    with torch.no_grad():
        for parameter in reference.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return tuned, reference


@pytest.fixture(scope="module")
def guided(pair: tuple[Policy, Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(GuidedPolicy(*pair, 1.5), tmp_path_factory.mktemp("guided") / "bundle", source={})


def expected(policy: Policy, observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        cond = policy.encode({"policy": torch.from_numpy(observation)})
        action = policy.to_robot(policy.sample(cond, torch.from_numpy(noise)[None], deterministic=True).action)
    return action.numpy().clip(ROBOT.action.low, ROBOT.action.high)


def test_the_weight_is_set_at_every_call(pair: tuple[Policy, Policy], guided: Path, inputs) -> None:
    observation, noise = inputs(9)
    controller = Controller(guided)
    answers = {}
    for weight in (None, 0.0, 1.0, 1.5, 2.0):
        answers[weight] = controller.act(observation, noise, weight)
        wanted = expected(GuidedPolicy(*pair, 1.5 if weight is None else weight), observation["policy"], noise)
        assert np.abs(answers[weight] - wanted).max() < 8e-5
    assert np.array_equal(answers[None], answers[1.5])
    assert np.abs(answers[0.0] - answers[1.0]).max() > 0.1
    for weight, single in ((0.0, pair[1]), (1.0, pair[0])):
        assert np.abs(answers[weight] - expected(single, observation["policy"], noise)).max() < 8e-5


def test_the_process_passes_it_on(guided: Path, inputs) -> None:
    observation, noise = inputs(3)
    controller = Controller(guided)
    with PolicyProcess(guided) as policy:
        for weight in (None, 0.5):
            assert np.array_equal(policy.act(observation, noise, weight), controller.act(observation, noise, weight))


def test_the_manifest_says_so(guided: Path) -> None:
    manifest = read_manifest(guided)
    assert manifest.stage.guidance == 1.5
    assert manifest.input_shapes()["guidance"] == (1,)
    assert "guidance" not in replace(manifest, stage=replace(manifest.stage, guidance=None)).input_shapes()


def test_without_guidance_there_is_none_to_set(exported: Path, inputs) -> None:
    with pytest.raises(SpecError, match=r"no guidance: export it with export\.guidance=1"):
        Controller(exported).act(*inputs(2), 1.5)


def test_a_weight_that_is_not_finite_is_refused(guided: Path, inputs) -> None:
    with pytest.raises(SpecError, match="guidance is nan"):
        Controller(guided).act(*inputs(2), float("nan"))
