import numpy as np
import pytest
from demonstrations import CAMERA, ROBOT, SEEING, episode, write

from robo_rlft.data import Dataset, DatasetWriter, compute_stats, normaliser
from robo_rlft.errors import DataError


def test_statistics_equal_those_of_the_whole_array(tmp_path, monkeypatch):
    monkeypatch.setattr(normaliser, "_ROWS_AT_ONCE", 4)
    monkeypatch.setattr(normaliser, "_FRAMES_AT_ONCE", 3)
    episodes = write(tmp_path / "set", [5, 9, 1, 2], SEEING)
    stats = compute_stats(Dataset.open(tmp_path / "set"))
    whole = {
        "action": np.concatenate([e.action for e in episodes]),
        "policy": np.concatenate([e.observation["policy"] for e in episodes]),
        CAMERA: np.concatenate([e.observation[CAMERA] for e in episodes]).reshape(-1, 3),
    }
    assert stats.keys() == whole.keys()
    for key, rows in whole.items():
        wide = rows.astype(np.float64)
        np.testing.assert_allclose(stats[key].mean, wide.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(stats[key].std, wide.std(0), rtol=1e-12)
        np.testing.assert_array_equal(stats[key].min, wide.min(0))
        np.testing.assert_array_equal(stats[key].max, wide.max(0))


def test_a_large_mean_does_not_drown_a_small_deviation(tmp_path, monkeypatch):
    monkeypatch.setattr(normaliser, "_ROWS_AT_ONCE", 100)
    steps = 999
    action = np.full((steps, 2), 4e6, np.float32)
    action[::2] += 1
    with DatasetWriter(tmp_path / "set", ROBOT, {}) as writer:
        writer.append(episode(steps, 0, action=action))
    share = 500 / 999
    std = compute_stats(Dataset.open(tmp_path / "set"))["action"].std
    np.testing.assert_allclose(std, np.sqrt(share * (1 - share)), rtol=1e-9)


def test_a_constant_entry_has_deviation_zero(tmp_path):
    with DatasetWriter(tmp_path / "set", ROBOT, {}) as writer:
        writer.append(episode(20, 0, action=np.full((20, 2), 0.1, np.float32)))
    assert compute_stats(Dataset.open(tmp_path / "set"))["action"].std.tolist() == [0, 0]


def test_an_empty_set_has_no_statistics(tmp_path):
    DatasetWriter(tmp_path / "set", ROBOT, {}).close()
    with pytest.raises(DataError, match="is empty"):
        compute_stats(Dataset.open(tmp_path / "set"))
