import contextlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from demonstrations import CAMERA, ROBOT, SEEING, episode, same, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robo_rlft.data import Dataset, DatasetWriter, durable
from robo_rlft.data.layout import Column
from robo_rlft.errors import DataError, SpecError
from robo_rlft.spec import ArraySpec, RobotSpec

TINY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def small_files(monkeypatch):
    """Chunk files and shards of 7 rows, so that a few episodes fill several."""
    monkeypatch.setattr(Column, "rows_per_file", property(lambda self: 7))


@pytest.fixture
def no_fsync(monkeypatch):
    """Tests that only lose processes, not power, need not wait for the disk."""
    monkeypatch.setattr(durable.os, "fsync", lambda descriptor: None)


@TINY
@given(lengths=st.lists(st.integers(1, 20), max_size=6), split=st.integers(0, 6), every=st.integers(1, 4))
def test_what_was_written_is_read_back(lengths, split, every, tmp_path_factory, small_files, no_fsync):
    path = tmp_path_factory.mktemp("data") / "set"
    episodes = [episode(steps, i, SEEING) for i, steps in enumerate(lengths)]
    for part in (episodes[:split], episodes[split:]):
        with DatasetWriter(path, SEEING, {"a": 1}, resume=True, commit_every=every) as writer:
            for recorded in part:
                writer.append(recorded)
    dataset = Dataset.open(path)
    assert (dataset.num_episodes, dataset.num_steps) == (len(lengths), sum(lengths))
    assert dataset.robot == SEEING
    assert dataset.source == {"a": 1}
    assert all(same(dataset.episode(i), recorded) for i, recorded in enumerate(episodes))
    assert dataset.episode_ends.tolist() == np.cumsum(lengths).tolist()


def test_zarr_python_reads_the_same_arrays(tmp_path, small_files):
    episodes = write(tmp_path / "set", [5, 9, 1], SEEING)
    group = zarr.open_group(str(tmp_path / "set"), mode="r", zarr_format=3)
    for name in ("observation/policy", f"observation/{CAMERA}", "action", "reward", "terminated", "truncated"):
        expected = np.concatenate([e.columns()[name] for e in episodes])
        np.testing.assert_array_equal(np.asarray(group[name][:]), expected)
    assert group["meta/episode_ends"][:].tolist() == [5, 14, 15]


def test_a_shard_written_by_zarr_python_is_mapped(tmp_path, small_files):
    write(tmp_path / "set", [5, 9, 1], SEEING)
    array = zarr.open_group(str(tmp_path / "set"), mode="r+")[f"observation/{CAMERA}"]
    frames = np.random.default_rng(1).integers(1, 256, array.shape, np.uint8)
    array[:] = frames
    np.testing.assert_array_equal(Dataset.open(tmp_path / "set").observation(CAMERA), frames)


def test_episode_flags_and_offsets(tmp_path):
    write(tmp_path / "set", [2, 3])
    dataset = Dataset.open(tmp_path / "set")
    assert dataset.truncated.tolist() == [False, True, False, False, False]
    assert dataset.terminated.tolist() == [False, False, False, False, True]
    assert dataset.episode_starts.tolist() == [0, 2]
    assert len(dataset.observation("policy")) == 5 + 2


def test_the_hash_depends_on_content_alone(tmp_path):
    write(tmp_path / "a", [4, 5, 6], commit_every=1)
    write(tmp_path / "b", [4, 5, 6], commit_every=100)
    changed = episode(6, 2)
    changed.action[3, 1] = np.nextafter(changed.action[3, 1], np.float32(9))
    with DatasetWriter(tmp_path / "c", ROBOT, {}) as writer:
        for recorded in (episode(4, 0), episode(5, 1), changed):
            writer.append(recorded)
    a, b, c = (Dataset.open(tmp_path / name).content_hash for name in "abc")
    assert a == b != c


def test_nothing_is_overwritten_untold(tmp_path):
    path = tmp_path / "set"
    write(path, [3])
    with pytest.raises(DataError, match=r"holds a data set: go on with resume=true, replace it with overwrite=true"):
        DatasetWriter(path, ROBOT, {})
    assert Dataset.open(path).num_episodes == 1
    write(path, [2, 2], SEEING, overwrite=True)
    assert Dataset.open(path).robot == SEEING
    assert not (path / "observation" / "critic").exists()


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_with_other_things_is_left_alone(tmp_path, options):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match="not empty and not a data set"):
        DatasetWriter(tmp_path, ROBOT, {}, **options)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_one_writer_at_a_time(tmp_path):
    with (
        DatasetWriter(tmp_path / "set", ROBOT, {}),
        pytest.raises(DataError, match="another process is writing"),
    ):
        DatasetWriter(tmp_path / "set", ROBOT, {}, resume=True)
    DatasetWriter(tmp_path / "set", ROBOT, {}, resume=True).close()


def test_resuming_records_both_sources_and_refuses_another_spec(tmp_path):
    write(tmp_path / "set", [3])
    DatasetWriter(tmp_path / "set", ROBOT, {"made_by": "later"}, resume=True).close()
    assert Dataset.open(tmp_path / "set").source == {"made_by": "test", "resumed": [{"made_by": "later"}]}
    other = RobotSpec("Toy", ROBOT.observation, ArraySpec((7,)), 20.0, 50)
    with pytest.raises(SpecError, match=r"action: data set .* has shape \(2,\), the new episodes' spec has \(7,\)"):
        DatasetWriter(tmp_path / "set", other, {}, resume=True)


def _changed(key, change):
    recorded = episode(4)
    recorded.observation[key] = change(recorded.observation["policy"])
    return recorded


def _nan(rows):
    rows[2, 0] = np.nan
    return rows


BAD = {
    "too few observations": (lambda: _changed("policy", lambda v: v[:-1]), r"'observation/policy' has shape \(4, 3\)"),
    "wrong dtype": (lambda: _changed("policy", lambda v: v.astype("f8")), r"'observation/policy' is float64"),
    "nan": (lambda: _changed("policy", _nan), r"'observation/policy' holds NaN or infinity, first at step 2"),
    "unknown key": (lambda: _changed("extra", lambda v: v), r"observation keys are .*extra.*, the spec has"),
    "infinite action": (lambda: episode(4, action=np.full((4, 2), np.inf, "f4")), r"'action' holds NaN or infinity"),
    "no steps": (lambda: episode(0), r"'action' is empty"),
    "short reward": (lambda: episode(4, reward=np.zeros(3, "f4")), r"'reward' has shape \(3,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_episode_is_refused_and_leaves_no_trace(case, tmp_path):
    make, message = BAD[case]
    with DatasetWriter(tmp_path / "set", ROBOT, {}) as writer:
        writer.append(episode(5, 1))
        with pytest.raises(DataError, match=message):
            writer.append(make())
        writer.append(episode(6, 2))
    assert Dataset.open(tmp_path / "set").episode_ends.tolist() == [5, 11]


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


def _kill_at(monkeypatch, number: int, stage: str) -> None:
    """Die at the n-th file: before it is written, with half of it written, or before it has its name."""
    calls = iter(range(10**6))
    real_replace = Path.replace

    def fsync(descriptor):
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if stage == "half" and is_file and next(calls) == number:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            raise Killed

    def replace(self, target):
        if stage == "unnamed" and next(calls) == number:
            raise Killed
        done = real_replace(self, target)
        if stage == "named" and next(calls) == number:
            raise Killed
        return done

    monkeypatch.setattr(durable.os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize(("stage", "first"), [("half", 0), ("unnamed", 1), ("named", 2)])
def test_a_kill_at_any_file_leaves_whole_episodes_and_can_be_resumed(stage, first, tmp_path, small_files, no_fsync):
    lengths = [5, 9, 3]
    episodes = write(tmp_path / "whole", lengths, SEEING)
    wanted = Dataset.open(tmp_path / "whole").content_hash
    for number in range(first, 10**6, 3):
        path = tmp_path / f"{number}"
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(patch, number, stage)
            try:
                write(path, lengths, SEEING, commit_every=2)
                break
            except Killed:
                pass
        done = _resume(path, episodes)
        assert done in (0, 2, 3)
        assert Dataset.open(path).content_hash == wanted
        assert not list(path.rglob("*.partial"))
    assert number > 40


def _resume(path, episodes) -> int:
    if (path / "zarr.json").exists():
        found = Dataset.open(path)
        assert all(same(found.episode(i), episodes[i]) for i in range(found.num_episodes))
    with DatasetWriter(path, SEEING, {"made_by": "test"}, resume=True, commit_every=100) as writer:
        done = writer.num_episodes
        for recorded in episodes[done:]:
            writer.append(recorded)
    return done


def test_a_full_disk_ends_clearly_and_keeps_what_was_committed(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    writer = DatasetWriter(tmp_path / "set", ROBOT, {})
    writer.append(episode(5, 1))
    writer.commit()
    monkeypatch.setattr(durable.os, "fsync", full)
    writer.append(episode(6, 2))
    with pytest.raises(DataError, match=r"the disk is full at .* go on with resume=true"):
        writer.commit()
    writer.close()
    assert Dataset.open(tmp_path / "set").num_episodes == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_an_exception_in_the_recording_keeps_complete_episodes(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), DatasetWriter(tmp_path / "set", ROBOT, {}) as writer:
        writer.append(episode(5, 1))
        raise KeyboardInterrupt
    assert Dataset.open(tmp_path / "set").num_episodes == 1


ENDLESS = """
    import sys
    sys.path.insert(0, {tests!r})
    from demonstrations import SEEING, episode
    from robo_rlft.data import DatasetWriter
    with DatasetWriter({path!r}, SEEING, {{}}, resume=True, commit_every=3) as writer:
        while True:
            i = writer.num_episodes
            writer.append(episode(1 + i % 23, i, SEEING))
            print(i, flush=True)
"""


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path):
    path = tmp_path / "set"
    code = textwrap.dedent(ENDLESS.format(tests=str(Path(__file__).parent), path=str(path)))
    rng = np.random.default_rng(0)
    before = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(rng.integers(3, 40)):
            last = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        dataset = Dataset.open(path)
        assert last - 2 <= dataset.num_episodes  # at most the two episodes since the last commit are gone
        for i in range(before, dataset.num_episodes):
            assert same(dataset.episode(i), episode(1 + i % 23, i, SEEING))
        before = dataset.num_episodes
