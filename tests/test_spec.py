"""Facts for controllers travel with a spec, and specs written before there were any still mean the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rlft.data.layout import content_hash
from robo_rlft.errors import SpecError
from robo_rlft.spec import MEANINGS, ActionMeaning, ArraySpec, JointSpec, RobotSpec, TermSpec

OLD: dict[str, Any] = {
    "env_id": "Toy",
    "observation": {
        "policy": {"shape": [2], "dtype": "float32", "names": ["x", "y"], "units": [], "low": [], "high": []}
    },
    "action": {"shape": [1], "dtype": "float32", "names": [], "units": [], "low": [-1.0], "high": [1.0]},
    "rate_hz": 20.0,
    "max_episode_steps": 100,
    "task": {},
}
"""What data sets and checkpoints of earlier versions hold."""
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.none() | st.floats(0, 1e6)


def test_an_old_spec_is_read_and_written_unchanged() -> None:
    robot = RobotSpec.from_dict(OLD)
    assert (robot.joints, robot.action_meaning, robot.observation["policy"].terms) == ((), None, ())
    assert json.loads(json.dumps(robot.to_dict())) == OLD


def test_the_hash_of_old_data_stays() -> None:
    """Made by the version before: SHA-256 of the spec as sorted JSON, then the digests."""
    import hashlib

    expected = hashlib.sha256(json.dumps(OLD, sort_keys=True).encode() + b"digests").hexdigest()
    assert content_hash(RobotSpec.from_dict(OLD), b"digests") == expected


@given(st.builds(JointSpec, st.text(min_size=1), velocity=POSITIVE, effort=POSITIVE, default=st.none() | FLOATS))
def test_joints_survive_json(joint: JointSpec) -> None:
    robot = RobotSpec("Toy", {}, ArraySpec((1,)), 1.0, 1, joints=(joint,))
    assert RobotSpec.from_dict(json.loads(json.dumps(robot.to_dict()))).joints == (joint,)


@given(st.sampled_from(MEANINGS), st.tuples(FLOATS, FLOATS), st.text(max_size=5))
def test_meanings_survive_json(kind: str, scale: tuple[float, ...], frame: str) -> None:
    robot = RobotSpec("Toy", {}, ArraySpec((2,)), 1.0, 1, action_meaning=ActionMeaning(kind, scale, (0.0, 1.0), frame))
    assert RobotSpec.from_dict(json.loads(json.dumps(robot.to_dict()))) == robot


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=4))
def test_terms_survive_json_and_fill_the_vector(sizes: list[tuple[int, int]]) -> None:
    terms = tuple(TermSpec(f"t{i}", w, scale=(2.0,) * w, history=h) for i, (w, h) in enumerate(sizes))
    width = sum(w * h for w, h in sizes)
    spec = ArraySpec((width,), terms=terms)
    assert ArraySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(SpecError, match=f"fill {width} of {width + 1} entries"):
        ArraySpec((width + 1,), terms=terms)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JointSpec("a", position_low=1.0, position_high=1.0), "must be below"),
        (lambda: JointSpec("a", "deg"), "must be rad"),
        (lambda: JointSpec("a", damping=-1.0), "damping -1 is negative"),
        (lambda: ActionMeaning("torque", (), ()), "choose one of"),
        (lambda: TermSpec("a", 2, scale=(1.0,)), "lists 1 scale, expected 2"),
        (lambda: TermSpec("a", 0), "at least 1"),
        (
            lambda: RobotSpec("T", {}, ArraySpec((1,)), 1.0, 1, joints=(JointSpec("a"), JointSpec("a"))),
            "stand once only",
        ),
        (
            lambda: RobotSpec(
                "T", {}, ArraySpec((1,)), 1.0, 1, action_meaning=ActionMeaning("cartesian", (1.0, 1.0), (0.0, 0.0))
            ),
            "2 scales and 2 offsets for 1 entries",
        ),
    ],
)
def test_contradictions_are_refused(make: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()
