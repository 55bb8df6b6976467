"""The pose command and the spring that follows it."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robo_rlft import envs
from robo_rlft.envs.mujoco.task import State
from robo_rlft.envs.mujoco.tasks.arm.control import CONTROL_PARAMS, command_lead, moved_command

LEAD = np.repeat([CONTROL_PARAMS["lead_m"], CONTROL_PARAMS["lead_rad"]], 3)
STEP = np.repeat([CONTROL_PARAMS["step_m"], CONTROL_PARAMS["step_rad"]], 3)
LOW, HIGH = np.array(CONTROL_PARAMS["workspace_low"]), np.array(CONTROL_PARAMS["workspace_high"])


def state_of(measured: np.ndarray, command: np.ndarray) -> State:
    data = {"actuator_length": measured}
    return State(data, data, {"command": command})


def rows(low: float, high: float) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, (3, 6), elements=st.floats(low, high))


@given(rows(-1.0, 1.0), rows(-0.05, 0.05), rows(0.0, 1.0))
def test_command_stays_within_its_lead_and_its_step(action: np.ndarray, ahead: np.ndarray, where: np.ndarray) -> None:
    measured = LOW + where * (HIGH - LOW)
    ahead = np.clip(ahead, -LEAD, LEAD)
    new = moved_command(np, state_of(measured, measured + ahead), action, CONTROL_PARAMS)
    assert (np.abs(new - measured) <= LEAD + 1e-12).all()
    inside = ((measured + ahead >= LOW) & (measured + ahead <= HIGH)).all(1)
    assert (np.abs(new - measured - ahead)[inside] <= STEP * np.abs(action)[inside] + 1e-12).all()
    assert (new >= LOW - 1e-12).all()
    assert (new <= HIGH + 1e-12).all()


def test_in_the_open_the_command_moves_by_the_action_exactly() -> None:
    measured = np.array([[0.5, 0.0, 0.15, 0.0, 0.0, 0.0]])
    action = np.array([[0.5, -0.25, 1.0, 0.1, -0.1, 0.3]])
    new = moved_command(np, state_of(measured, measured), action, CONTROL_PARAMS)
    np.testing.assert_allclose(new - measured, [[0.005, -0.0025, 0.01, 0.005, -0.005, 0.015]], atol=1e-15)


def test_same_text_for_torch() -> None:
    rng = np.random.default_rng(0)
    measured, action = rng.uniform(LOW, HIGH, (5, 6)), rng.uniform(-1, 1, (5, 6))
    with_numpy = moved_command(np, state_of(measured, measured + 0.01), action, CONTROL_PARAMS)
    tensors = state_of(torch.from_numpy(measured), torch.from_numpy(measured + 0.01))
    with_torch = moved_command(torch, tensors, torch.from_numpy(action), CONTROL_PARAMS)
    np.testing.assert_allclose(with_torch.numpy(), with_numpy, atol=1e-15)
    np.testing.assert_allclose(command_lead(torch, tensors, CONTROL_PARAMS).numpy(), 0.01, atol=1e-15)


def test_the_tool_arrives_at_its_command() -> None:
    """Without contact the spring settles at the command: 0.3 mm and 5 mrad after two seconds."""
    env = envs.make("ArmPegInsert", 8, seed=0)
    env.reset(seed=0)
    rng = torch.Generator().manual_seed(0)
    toward = torch.rand(8, 6, generator=rng) * 2 - 1
    toward[:, 2] = toward[:, 2].abs()
    for _ in range(4):
        env.step(toward)
    for _ in range(40):
        obs, *_ = env.step(torch.zeros(8, 6))
    names = env.robot.observation["policy"].names
    lead = obs["policy"][:, [names.index(f"lead_{n}") for n in ("x", "y", "z", "rx", "ry", "rz")]]
    assert lead[:, :3].abs().max() < 3e-4
    assert lead[:, 3:].abs().max() < 5e-3
