import gc

import numpy as np
import pytest
import torch
from demonstrations import CAMERA, ROBOT, SEEING, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robo_rlft.data import Dataset, DatasetWriter, Episode, Windows
from robo_rlft.data.layout import Column
from robo_rlft.errors import ConfigError, DataError
from robo_rlft.spec import ArraySpec, RobotSpec

COUNTING = RobotSpec("Count", {"policy": ArraySpec((1,))}, ArraySpec((1,)), 10, 10)


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr(Column, "rows_per_file", property(lambda self: 5))


@pytest.fixture
def counting(tmp_path):
    """Two episodes: observations 0 1 2 3 and 10 11 12, actions 100 101 102 and 110 111."""

    def counted(start, steps):
        policy = np.arange(start, start + steps + 1, dtype=np.float32)[:, None]
        action = 100 + np.arange(start, start + steps, dtype=np.float32)[:, None]
        return Episode({"policy": policy}, action, np.zeros(steps), False, True, False)

    with DatasetWriter(tmp_path / "set", COUNTING, {}) as writer:
        writer.append(counted(0, 3))
        writer.append(counted(10, 2))
    return Dataset.open(tmp_path / "set")


def by_step(windows):
    """The windows of one epoch, sorted by their step."""
    batches = list(windows)
    joined = {
        "policy": torch.cat([b.observation["policy"] for b in batches]),
        "action": torch.cat([b.action for b in batches]),
        "mask": torch.cat([b.mask for b in batches]),
    }
    index = torch.cat([b.index for b in batches])
    order = index.argsort()
    return {key: value[order] for key, value in joined.items()}, index[order]


def test_windows_by_hand(counting):
    found, index = by_step(Windows(counting, obs_horizon=2, chunk=3, batch_size=2, seed=0))
    assert index.tolist() == [0, 1, 2, 3, 4]
    assert found["policy"][..., 0].tolist() == [[0, 0], [0, 1], [1, 2], [10, 10], [10, 11]]
    assert found["action"][..., 0].tolist() == [
        [100, 101, 102],
        [101, 102, 102],
        [102, 102, 102],
        [110, 111, 111],
        [111, 111, 111],
    ]
    assert found["mask"].int().tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]


def test_held_out_episodes(counting):
    found, index = by_step(Windows(counting, 2, 2, 10, seed=0, episodes=[1]))
    assert index.tolist() == [3, 4]
    assert found["policy"][..., 0].tolist() == [[10, 10], [10, 11]]
    assert found["action"][..., 0].tolist() == [[110, 111], [111, 111]]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), horizon=st.integers(1, 6), chunk=st.integers(1, 12))
def test_windows_against_a_loop_over_episodes(lengths, horizon, chunk, tmp_path_factory, small_files):
    path = tmp_path_factory.mktemp("data") / "set"
    episodes = write(path, lengths, SEEING)
    windows = Windows(Dataset.open(path), horizon, chunk, batch_size=7, seed=1)
    place = [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    seen = []
    for batch in windows:
        for i, row in enumerate(batch.index.tolist()):
            e, t = place[row]
            back = [max(0, t - k) for k in reversed(range(horizon))]
            ahead = [min(lengths[e] - 1, t + k) for k in range(chunk)]
            for key in ("policy", CAMERA):
                np.testing.assert_array_equal(batch.observation[key][i].numpy(), episodes[e].observation[key][back])
            np.testing.assert_array_equal(batch.action[i].numpy(), episodes[e].action[ahead])
            assert batch.mask[i].tolist() == [t + k < lengths[e] for k in range(chunk)]
            seen.append(row)
    assert sorted(seen) == list(range(sum(lengths)))


def test_shapes_dtypes_and_batch_sizes(tmp_path):
    write(tmp_path / "set", [10, 7], ROBOT)
    windows = Windows(Dataset.open(tmp_path / "set"), 2, 4, batch_size=8, seed=0)
    batches = list(windows)
    assert [len(b.index) for b in batches] == [8, 8, 1]
    assert len(windows) == 3
    assert batches[0].observation["critic"].shape == (8, 2, 2, 2)
    assert batches[0].action.dtype == torch.float32
    assert batches[0].mask.dtype == torch.bool


def test_epochs_differ_and_seeds_repeat(tmp_path):
    write(tmp_path / "set", [30, 30])
    dataset = Dataset.open(tmp_path / "set")

    def epochs(seed):
        windows = Windows(dataset, 1, 1, 16, seed=seed)
        return [torch.cat([b.index for b in windows]).tolist() for _ in range(2)]

    first, second = epochs(3)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(60))
    assert epochs(3) == [first, second]
    assert epochs(4)[0] != first


@pytest.mark.parametrize("taken", range(0, 11))
def test_resuming_in_mid_epoch_gives_the_batches_that_were_to_come(taken, tmp_path):
    write(tmp_path / "set", [20, 17], SEEING)
    dataset = Dataset.open(tmp_path / "set")
    stream = (windows := Windows(dataset, 2, 3, 8, seed=5)).stream()
    for _ in range(taken):
        next(stream)
    state = windows.state_dict()
    expected = [next(stream) for _ in range(7)]
    resumed = Windows(dataset, 2, 3, 8, seed=99)
    resumed.load_state_dict(state)
    for want, found in zip(expected, resumed.stream(), strict=False):
        assert torch.equal(want.index, found.index)
        assert torch.equal(want.action, found.action)
        assert torch.equal(want.mask, found.mask)
        assert all(torch.equal(want.observation[k], found.observation[k]) for k in want.observation)


ODD = RobotSpec("Odd", {CAMERA: ArraySpec((5, 7, 3), "uint8")}, ArraySpec((1,)), 10, 10)
EVEN = RobotSpec("Even", {CAMERA: ArraySpec((32, 32, 3), "uint8")}, ArraySpec((1,)), 10, 10)


@pytest.mark.parametrize("robot", [ODD, EVEN], ids=["file by file", "files side by side"])
def test_frames_of_many_files(robot, tmp_path, monkeypatch):
    """Twelve frames of 32 x 32 end at a page, so that files are mapped side by side; those of 5 x 7 do not."""
    monkeypatch.setattr(Column, "rows_per_file", property(lambda self: 12))
    episodes = write(tmp_path / "set", [20, 3, 17], robot)
    dataset = Dataset.open(tmp_path / "set")
    whole = np.concatenate([e.observation[CAMERA] for e in episodes])
    np.testing.assert_array_equal(dataset.observation(CAMERA), whole)
    starts = np.repeat([0, 21, 25], [20, 3, 17])
    now = starts + np.concatenate([np.arange(n) for n in (20, 3, 17)])
    for batch in Windows(dataset, 3, 1, 7, seed=0):
        rows = np.maximum(now[batch.index][:, None] + [-2, -1, 0], starts[batch.index][:, None])
        np.testing.assert_array_equal(batch.observation[CAMERA].numpy(), whole[rows])


def test_frames_outlive_their_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(Column, "rows_per_file", property(lambda self: 12))
    episodes = write(tmp_path / "set", [30], EVEN)
    windows = Windows(Dataset.open(tmp_path / "set"), 1, 1, 30, seed=0)
    gc.collect()
    batch = next(iter(windows))
    expected = episodes[0].observation[CAMERA][batch.index.numpy()]
    np.testing.assert_array_equal(batch.observation[CAMERA][:, 0].numpy(), expected)


def test_memory_of_a_batch_is_not_reused_while_anything_of_it_is_held(tmp_path):
    write(tmp_path / "set", [40], SEEING)
    windows = Windows(Dataset.open(tmp_path / "set"), 1, 1, 4, seed=0)
    held, copies = [], []
    for number, batch in enumerate(windows):
        images = batch.observation[CAMERA]
        part = [images, images[1:], images.numpy(), images.view(-1), images[2, 0].permute(2, 1, 0)][number % 5]
        held.append(part)
        copies.append(torch.as_tensor(part).clone())
        del batch, images, part
    for part, copy in zip(held, copies, strict=True):
        assert torch.equal(torch.as_tensor(part), copy)


def test_memory_of_a_batch_is_reused_when_nothing_of_it_is_held(tmp_path):
    write(tmp_path / "set", [40], SEEING)
    places = [b.observation[CAMERA].data_ptr() for b in Windows(Dataset.open(tmp_path / "set"), 1, 1, 4, seed=0)]
    assert len(set(places)) <= 2


def test_batches_are_copies(counting):
    windows = Windows(counting, 2, 3, 5, seed=0)
    for batch in windows:
        batch.action.zero_()
        batch.observation["policy"].zero_()
    found, _ = by_step(windows)
    assert found["action"].min() == 100


def test_only_the_keys_that_are_asked_for(tmp_path):
    write(tmp_path / "set", [5], SEEING)
    batch = next(iter(Windows(Dataset.open(tmp_path / "set"), 1, 1, 2, seed=0, keys=["policy"])))
    assert list(batch.observation) == ["policy"]


def test_mistakes_are_told(counting, tmp_path):
    with pytest.raises(ConfigError, match="chunk is 0; it must be at least 1"):
        Windows(counting, 1, 0, 1, seed=0)
    with pytest.raises(ConfigError, match=r"episodes 1\.\.2 chosen; .* has 2"):
        Windows(counting, 1, 1, 1, seed=0, episodes=[1, 2])
    with pytest.raises(DataError, match="has no observation 'image/wrist'"):
        Windows(counting, 1, 1, 1, seed=0, keys=["image/wrist"])
    DatasetWriter(tmp_path / "empty", ROBOT, {}).close()
    with pytest.raises(DataError, match="gives no windows"):
        Windows(Dataset.open(tmp_path / "empty"), 1, 1, 1, seed=0)
    state = Windows(counting, 1, 1, 1, seed=0, episodes=[0]).state_dict()
    with pytest.raises(DataError, match="the saved loader had 3 windows, this data set gives 5"):
        Windows(counting, 1, 1, 1, seed=0).load_state_dict(state)
