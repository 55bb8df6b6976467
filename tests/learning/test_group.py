"""Group-relative advantages by hand."""

from __future__ import annotations

import pytest
import torch

from robo_rlft.learning.common.group import group_advantage


def test_by_hand() -> None:
    """Two groups of two: discounts of the steps before, an episode that ends, and futures that are alike."""
    reward = torch.tensor([[1.0, 0.0, 2.0, 2.0], [4.0, 8.0, 1.0, 1.0], [0.0, 100.0, 0.0, 0.0]])
    length = torch.tensor([[2, 2, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    done = torch.tensor([[False] * 4, [False, True, False, False], [False] * 4])
    advantage = group_advantage(reward, length, done, 0.5, 2)
    # Returns 1 + 4 / 4 = 2 and 0 + 8 / 4 = 2 of the first group are alike: the 100 is the next episode's.
    assert not advantage[:, :2].any()
    reward[0, 1] = 2.0
    advantage = group_advantage(reward, length, done, 0.5, 2)
    # 2 and 4: mean 3, standard deviation sqrt(2).
    assert advantage[:, 0].tolist() == pytest.approx([-(0.5**0.5)] * 3)
    assert advantage[:, 1].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.0])
    assert not advantage[:, 2:].any()


def test_neither_shift_nor_scale_of_the_rewards_matters() -> None:
    generator = torch.Generator().manual_seed(0)
    reward = torch.rand(3, 8, generator=generator, dtype=torch.float64)
    length, done = torch.full((3, 8), 4), torch.zeros(3, 8, dtype=torch.bool)
    one = group_advantage(reward, length, done, 0.99, 4)
    torch.testing.assert_close(group_advantage(5 * reward + 1, length, done, 0.99, 4), one)
    groups = one[0].view(2, 4)
    torch.testing.assert_close(groups.mean(1), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(groups.std(1), torch.ones(2, dtype=torch.float64))
