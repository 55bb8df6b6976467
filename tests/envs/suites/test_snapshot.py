"""Saving what an environment's objects hold."""

from __future__ import annotations

from collections import deque
from typing import Any

import mujoco
import numpy as np

from robo_rlft.envs.suites.snapshot import Snapshot

MODEL = "<mujoco><worldbody><body><joint type='slide' damping='1'/><geom size='.1'/></body></worldbody></mujoco>"


class Part:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.recent = rng, deque([1.0], maxlen=3)


class Task:
    """Of every kind of attribute that environments have."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.data = mujoco.MjData(self.model)
        self.view = self.data.qpos  # memory of the simulation
        self.rng = np.random.default_rng(0)
        self.part = Part(self.rng)
        self.parts = [Part(self.rng)]
        self.goal: np.ndarray | None = None
        self.done: set[str] = set()

    def act(self) -> None:
        self.goal = self.rng.random(2)
        self.part.recent.append(float(self.rng.random()))
        self.parts[0].recent.append(2.0)
        self.done.add(str(self.rng.integers(100)))
        self.model.dof_damping[0] += 0.5
        self.data.ctrl[:] = 0
        self.data.qvel[0] += self.rng.random()
        mujoco.mj_step(self.model, self.data)

    def seen(self) -> Any:
        recent = [list(p.recent) for p in (self.part, *self.parts)]
        numbers = [
            *self.data.qpos,
            *self.data.xpos.ravel(),
            *self.model.dof_damping,
            *(() if self.goal is None else self.goal),
        ]
        return recent, sorted(self.done), numbers


def test_the_future_comes_back() -> None:
    task = Task()
    task.act()
    snapshot = Snapshot(task)
    assert not snapshot.opaque
    saved = snapshot.save()
    first = [task.act() or task.seen() for _ in range(5)]
    snapshot.restore(saved)
    assert [task.act() or task.seen() for _ in range(5)] == first


def test_another_copy_goes_on_the_same_way() -> None:
    task, other = Task(), Task()
    task.act()
    other.act()
    other.act()
    Snapshot(other).restore(Snapshot(task).save())
    for _ in range(3):
        task.act()
        other.act()
        assert task.seen() == other.seen()


def test_objects_stay_and_share_what_they_share() -> None:
    task = Task()
    snapshot = Snapshot(task)
    part, rng = task.part, task.rng
    saved = snapshot.save()
    task.act()
    snapshot.restore(saved)
    assert task.part is part
    assert task.rng is rng is part.rng
    task.data.qpos[0] = 3.0
    assert task.view[0] == 3.0, "a view into the simulation must stay one"


def test_says_what_it_cannot_see_into() -> None:
    task = Task()
    task.handle = (n for n in range(3))  # pyright: ignore[reportAttributeAccessIssue]
    assert Snapshot(task).opaque == ["0.handle (generator)"]


def test_shapes_never_change() -> None:
    task = Task()
    snapshot = Snapshot(task)
    before = {k: v.shape for k, v in snapshot.save().items()}
    for _ in range(20):
        task.act()
    assert {k: v.shape for k, v in snapshot.save().items()} == before
