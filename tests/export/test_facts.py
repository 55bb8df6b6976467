"""`runtime.json` against the schema the runtimes are written to, for robots as the environments describe them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from robo_rlft.envs import make
from robo_rlft.export.bundle import Extras, write_bundle
from robo_rlft.export.facts import runtime_json
from robo_rlft.export.manifest import Manifest, Normaliser, Stage, sha256
from robo_rlft.export.timing import timing_of
from robo_rlft.spec import ArraySpec, RobotSpec

from .conftest import make_policy


def facts_of(robot: RobotSpec) -> dict:
    width = robot.action.shape[0]
    stage = Stage("policy", "policy.onnx", robot.rate_hz, ("policy",), 1, 1, 1, "gaussian", 1, "unused")
    normaliser = {"action": Normaliser((0.0,) * width, (1.0,) * width)}
    return json.loads(runtime_json(Manifest(robot, stage, normaliser, {}, {}, timing_of(robot.rate_hz, 1, 1))))


def test_a_legged_robot_is_described_by_its_model() -> None:
    """Gains of the maker's public policies, limits of its public description."""
    facts = facts_of(make("QuadrupedFlat", 1).robot)
    joints, action = facts["joints"], facts["action"]
    assert joints["names"][:3] == ["FL_hip_joint", "FL_thigh_joint", "FL_calf_joint"]
    assert action["names"] == joints["names"]
    assert action["meaning"] == "joint_position_offset"
    assert action["offset"] == joints["default"]
    assert (set(joints["stiffness"]), set(joints["damping"])) == ({20.0}, {0.5})
    assert joints["effort"][:3] == [23.7, 23.7, 35.55]
    assert joints["velocity"][:3] == [30.1, 30.1, 20.07]
    terms = {t["name"]: t for t in facts["policy"]["observation"][0]["terms"]}
    assert terms["joint_pos"]["offset"] == joints["default"]
    assert sum(t["width"] for t in terms.values()) == facts["policy"]["observation"][0]["width"] == 45


def test_a_changed_gain_reaches_the_controller() -> None:
    """Facts are read from the model, so that a setting of the task is not forgotten."""
    robot = make("QuadrupedFlat", 1, kp=(33.0,) * 12, action_scale=0.5).robot
    assert facts_of(robot)["joints"]["stiffness"] == [33.0] * 12
    assert facts_of(robot)["action"]["scale"] == [0.5] * 12


def test_motors_make_effort_by_their_gear() -> None:
    """Gymnasium's Hopper: gear 200, control within [-1, 1]."""
    facts = facts_of(make("Hopper", 1).robot)
    assert facts["action"]["meaning"] == "joint_effort"
    assert facts["action"]["scale"] == [200.0] * 3
    assert facts["joints"]["effort"] == [200.0] * 3
    assert facts["joints"]["position_low"][0] == pytest.approx(math.radians(-150))
    assert facts["joints"]["default"] is None, "no default pose is known, and none is guessed"


def test_the_arm_moves_its_commanded_pose() -> None:
    facts = facts_of(make("ArmPickPlace", 1).robot)
    assert facts["action"]["meaning"] == "cartesian"
    assert facts["action"]["frame"] == "base"
    assert facts["action"]["scale"] == [0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 0.02]
    assert facts["joints"] is None


def test_a_robot_nothing_is_known_of_has_no_invented_facts() -> None:
    robot = RobotSpec("Bare", {"policy": ArraySpec((3,))}, ArraySpec((2,), high=(math.inf, 1.0)), 10.0, 5)
    facts = facts_of(robot)
    assert facts["joints"] is None
    assert facts["action"]["meaning"] == "normalised"
    assert (facts["action"]["low"], facts["action"]["high"]) == (None, [None, 1.0])
    assert facts["policy"]["observation"][0]["terms"] == []


def test_every_digit_survives() -> None:
    rng = np.random.default_rng(0)
    low = tuple((-rng.random(2)).tolist())
    robot = RobotSpec("Bare", {"policy": ArraySpec((3,))}, ArraySpec((2,), low=low), 1000 / 3, 5)
    assert tuple(facts_of(robot)["action"]["low"]) == low
    assert facts_of(robot)["robot"]["rate_hz"] == 1000 / 3


@pytest.mark.parametrize(
    ("chunk", "execute", "budget", "patience"),
    [(1, 1, 0.02, 0.08), (8, 8, 0.02, 0.22), (16, 8, 0.16, 0.32), (16, 2, 0.04, 0.32)],
)
def test_the_budget_is_what_the_chunk_leaves(chunk: int, execute: int, budget: float, patience: float) -> None:
    """At 50 Hz: spare actions after those executed, at least one step, at most until the next call."""
    timing = timing_of(50.0, chunk, execute)
    assert timing.latency_budget_s == pytest.approx(budget)
    assert timing.policy_timeout_s == pytest.approx(patience)
    assert timing.observation_timeout_s == pytest.approx(0.06)


def test_both_files_name_the_same_hashes(exported: Path) -> None:
    facts = json.loads((exported / "runtime.json").read_text())
    for name, digest in facts["files"].items():
        assert sha256((exported / name).read_bytes()) == digest
    digest = sha256((exported / "runtime.json").read_bytes())
    assert f"runtime.json: {digest}" in (exported / "controller.yaml").read_text()


def test_the_card_tells_the_evaluation_with_its_interval(tmp_path: Path) -> None:
    record = {
        "name": "last",
        "env_id": "Toy",
        "episodes": 200,
        "success": {"mean": 0.9, "low": 0.85, "high": 0.934},
        "return": {"mean": 0.9, "low": 0.8, "high": 1.0},
    }
    bundle = write_bundle(
        make_policy(), tmp_path / "bundle", source={"run": "toy"}, extras=Extras({"hold_s": 9.0}, [record])
    )
    card = (bundle / "README.md").read_text()
    assert "| last | Toy | 200 | 0.9 [0.85, 0.934] |" in card
    assert json.loads((bundle / "runtime.json").read_text())["timing"]["hold_s"] == 9.0
