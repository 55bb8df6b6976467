"""Conversion of small foreign data sets that the tests write themselves, following the published layouts."""

import json
import sys

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import zarr

from robo_rlft.data import Dataset
from robo_rlft.data import convert as convert_module
from robo_rlft.data.convert import FORMATS, convert
from robo_rlft.data.validate import validate
from robo_rlft.errors import ConfigError, DataError, MissingExtraError

LENGTHS = [4, 7, 1]
ENDS = np.cumsum(LENGTHS)
STARTS = ENDS - LENGTHS
STEPS = sum(LENGTHS)
RNG = np.random.default_rng(0)
STATE = RNG.normal(size=(STEPS, 5)).astype(np.float32)
KEYPOINT = RNG.normal(size=(STEPS, 2, 2))
ACTION = RNG.normal(size=(STEPS, 2)).astype(np.float32)
IMAGE = RNG.integers(0, 256, (STEPS, 6, 8, 3), np.uint8)


@pytest.fixture
def replay_buffer(tmp_path):
    """diffusion_policy: zarr v2 with compressed chunks that cross episodes."""
    group = zarr.open_group(str(tmp_path / "pusht.zarr"), mode="w", zarr_format=2)
    arrays = {"state": STATE, "keypoint": KEYPOINT, "action": ACTION, "img": IMAGE.astype(np.float32)}
    for key, values in arrays.items():
        group.create_array(f"data/{key}", data=values, chunks=(5, *values.shape[1:]))
    group.create_array("meta/episode_ends", data=ENDS)
    return tmp_path / "pusht.zarr"


def with_last(rows, i):
    part = rows[STARTS[i] : ENDS[i]]
    return np.concatenate([part, part[-1:]])


def test_diffusion_policy(replay_buffer, tmp_path):
    report = convert(replay_buffer, tmp_path / "ours")
    dataset = Dataset.open(tmp_path / "ours")
    assert validate(tmp_path / "ours").findings == ()
    assert report.format == "diffusion_policy"
    assert (report.num_episodes, report.num_steps) == (3, STEPS) == (dataset.num_episodes, dataset.num_steps)
    assert report.keys == {"policy": ["keypoint", "state"], "image/img": ["img"]}
    joined = np.concatenate([KEYPOINT.reshape(STEPS, 4).astype(np.float32), STATE], 1)
    for i in range(3):
        episode = dataset.episode(i)
        np.testing.assert_array_equal(episode.observation["policy"], with_last(joined, i))
        np.testing.assert_array_equal(episode.observation["image/img"], with_last(IMAGE, i))
        np.testing.assert_array_equal(episode.action, ACTION[STARTS[i] : ENDS[i]])
        assert (episode.terminated, episode.truncated, episode.success) == (False, True, True)
    assert dataset.robot.rate_hz == 10
    assert dataset.robot.max_episode_steps == 7
    text = str(report)
    for assumed in (
        "the last observation was repeated",
        "no rate: 10 Hz",
        "rounded to uint8",
        "no rewards: they are 0",
    ):
        assert assumed in text
    assert dataset.source["assumptions"] == list(report.assumptions)


def test_options_are_followed(replay_buffer, tmp_path):
    options = {
        "rate_hz": 25,
        "policy_keys": ["state", "keypoint"],
        "image_keys": [],
        "success": False,
        "env_id": "PushT",
    }
    report = convert(replay_buffer, tmp_path / "ours", **options)
    dataset = Dataset.open(tmp_path / "ours")
    assert (dataset.robot.rate_hz, dataset.robot.env_id) == (25, "PushT")
    assert not dataset.success.any()
    assert report.keys == {"policy": ["state", "keypoint"]}
    joined = np.concatenate([STATE, KEYPOINT.reshape(STEPS, 4).astype(np.float32)], 1)
    np.testing.assert_array_equal(dataset.episode(1).observation["policy"], with_last(joined, 1))


def test_an_episode_of_one_step_is_lost_with_its_last_action(replay_buffer, tmp_path):
    report = convert(replay_buffer, tmp_path / "ours", last_observation="drop")
    assert Dataset.open(tmp_path / "ours").episode_ends.tolist() == [3, 9]
    assert (report.num_episodes, report.num_steps) == (2, 9)
    assert "1 episodes of a single step had nothing left" in str(report)


def test_dropping_the_last_action(replay_buffer, tmp_path):
    group = zarr.open_group(str(replay_buffer), mode="r+", zarr_format=2)
    group["meta/episode_ends"][:] = [4, 7, 12]
    report = convert(
        replay_buffer, tmp_path / "ours", last_observation="drop", policy_keys=["state"], image_size=(3, 4)
    )
    dataset = Dataset.open(tmp_path / "ours")
    assert dataset.episode_ends.tolist() == [3, 5, 9]
    np.testing.assert_array_equal(dataset.episode(1).observation["policy"], STATE[4:7])
    np.testing.assert_array_equal(dataset.episode(1).action, ACTION[4:6])
    small = cv2.resize(IMAGE[4], (4, 3), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(dataset.episode(1).observation["image/img"][0], small)
    assert "the last action of each episode was dropped" in str(report)
    assert "images were resized to 3 x 4" in str(report)


def test_channels_first_and_unit_floats(tmp_path):
    group = zarr.open_group(str(tmp_path / "x"), mode="w", zarr_format=2)
    group.create_array("data/action", data=ACTION)
    group.create_array("data/cam", data=np.moveaxis(IMAGE / np.float32(255), -1, 1))
    group.create_array("data/depth", data=np.zeros((STEPS, 6, 8, 1)))
    group.create_array("data/reward", data=np.arange(STEPS, dtype=np.float64))
    group.create_array("meta/episode_ends", data=ENDS)
    report = convert(tmp_path / "x", tmp_path / "ours", rate_hz=30)
    dataset = Dataset.open(tmp_path / "ours")
    np.testing.assert_array_equal(dataset.episode(1).observation["image/cam"], with_last(IMAGE, 1))
    np.testing.assert_array_equal(dataset.reward, np.arange(STEPS))
    assert "'depth' of shape (6, 8, 1) is not a colour image and was left out" in str(report)
    assert "channels first" in str(report)
    assert "no rate" not in str(report)


def damage_ends(group, path):
    group["meta/episode_ends"][:] = [4, 3, 12]


def damage_rows(group, path):
    group["data/state"].resize((STEPS - 1, 5))


def damage_chunk(group, path):
    (path / "data/state/1.0").write_bytes(b"broken")


def damage_action(group, path):
    del group["data/action"]


def damage_nan(group, path):
    group["data/action"][6, 0] = np.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_ends, r"'meta/episode_ends': expected growing numbers, found \[4, 3, 12\]"),
        (damage_rows, r"'data/state': expected 12 rows \(the last episode end\), found 11"),
        (damage_chunk, r"'data/state': rows 4\.\.11 cannot be read"),
        (damage_action, r"has no 'data/action'"),
        (damage_nan, r"episode 1 for .*'action' holds NaN or infinity, first at step 2"),
    ],
)
def test_a_damaged_replay_buffer_is_told_and_leaves_no_target(damage, message, replay_buffer, tmp_path):
    damage(zarr.open_group(str(replay_buffer), mode="r+", zarr_format=2), replay_buffer)
    with pytest.raises(DataError, match=message):
        convert(replay_buffer, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_mistakes_are_told(replay_buffer, tmp_path):
    with pytest.raises(ConfigError, match="unknown conversion option 'rate': did you mean rate_hz"):
        convert(replay_buffer, tmp_path / "ours", rate=10)
    with pytest.raises(ConfigError, match="unknown format 'lerobt': did you mean lerobot"):
        convert(replay_buffer, tmp_path / "ours", format="lerobt")
    with pytest.raises(ConfigError, match="policy_keys: unknown source key 'stat': did you mean state"):
        convert(replay_buffer, tmp_path / "ours", policy_keys=["stat"])
    with pytest.raises(DataError, match="there is nothing at"):
        convert(tmp_path / "nowhere", tmp_path / "ours")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="none of the known formats"):
        convert(tmp_path / "folder", tmp_path / "ours")
    with pytest.raises(DataError, match="is not a complete diffusion_policy data set"):
        convert(tmp_path / "folder", tmp_path / "ours", format="diffusion_policy")


def test_a_target_that_exists_is_kept_unless_told(replay_buffer, tmp_path):
    convert(replay_buffer, tmp_path / "ours", rate_hz=10)
    with pytest.raises(DataError, match="exists: give another target, or overwrite=true"):
        convert(replay_buffer, tmp_path / "ours", rate_hz=20)
    convert(replay_buffer, tmp_path / "ours", rate_hz=20, overwrite=True)
    assert Dataset.open(tmp_path / "ours").robot.rate_hz == 20


FPS = 10
TASKS = ["push", "lift", "push"]


def smooth(step):
    """A frame that survives lossy compression: its brightness tells the step."""
    return np.full((64, 64, 3), 20 + 15 * step, np.uint8)


def write_video(file, steps):
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for step in steps:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(smooth(step), "rgb24")))
        container.mux(stream.encode())


def write_table(file, columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), file)


def lists(rows):
    return pa.array(rows.tolist(), pa.list_(pa.float32()))


@pytest.fixture
def lerobot(tmp_path):
    """LeRobot v3: episodes 0 and 1 share a data file and a video, episode 2 has its own."""
    root = tmp_path / "robot"
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "total_episodes": 3,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "observation.state": {"dtype": "float32", "shape": [5], "names": ["a", "b", "c", "d", "e"]},
            "observation.images.top": {
                "dtype": "video",
                "shape": [64, 64, 3],
                "names": ["height", "width", "channels"],
            },
            "observation.images.png": {"dtype": "image", "shape": [3, 6, 8], "names": ["c", "h", "w"]},
            "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
            "next.reward": {"dtype": "float32", "shape": [1], "names": None},
            "next.success": {"dtype": "bool", "shape": [1], "names": None},
            "comment": {"dtype": "string", "shape": [1], "names": None},
            **{k: {"dtype": "int64", "shape": [1], "names": None} for k in ("index", "episode_index", "task_index")},
        },
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    write_table(root / "meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": ["push", "lift"]})
    for number, episodes in enumerate(([0, 1], [2])):
        rows = slice(STARTS[episodes[0]], ENDS[episodes[-1]])
        steps = np.arange(STEPS)[rows]
        write_table(
            root / f"data/chunk-000/file-{number:03d}.parquet",
            {
                "observation.state": lists(STATE[rows]),
                "action": lists(ACTION[rows]),
                "observation.images.png": [{"bytes": png(IMAGE[s]), "path": None} for s in steps],
                "next.reward": (steps / 2).astype(np.float32),
                "next.success": steps == ENDS[1] - 1,
                "episode_index": np.repeat(episodes, np.array(LENGTHS)[episodes]),
                "index": steps,
            },
        )
        write_video(root / f"videos/observation.images.top/chunk-000/file-{number:03d}.mp4", steps)
    video = "videos/observation.images.top"
    write_table(
        root / "meta/episodes/chunk-000/file-000.parquet",
        {
            "episode_index": [0, 1, 2],
            "tasks": [[task] for task in TASKS],
            "length": LENGTHS,
            "data/chunk_index": [0, 0, 0],
            "data/file_index": [0, 0, 1],
            f"{video}/chunk_index": [0, 0, 0],
            f"{video}/file_index": [0, 0, 1],
            f"{video}/from_timestamp": [0.0, LENGTHS[0] / FPS, 0.0],
            f"{video}/to_timestamp": [LENGTHS[0] / FPS, ENDS[1] / FPS, LENGTHS[2] / FPS],
        },
    )
    return root


def png(frame):
    return cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.mark.parametrize("rows_at_once", [3, 4096])
def test_lerobot(lerobot, tmp_path, monkeypatch, rows_at_once):
    monkeypatch.setattr(convert_module.lerobot, "_ROWS_AT_ONCE", rows_at_once)
    report = convert(lerobot, tmp_path / "ours")
    dataset = Dataset.open(tmp_path / "ours")
    assert validate(tmp_path / "ours").findings == ()
    assert report.keys == {
        "policy": ["observation.state"],
        "image/top": ["observation.images.top"],
        "image/png": ["observation.images.png"],
    }
    for i in range(3):
        episode = dataset.episode(i)
        np.testing.assert_array_equal(episode.observation["policy"], with_last(STATE, i))
        np.testing.assert_array_equal(episode.observation["image/png"], with_last(IMAGE, i))
        expected = with_last(np.stack([smooth(s) for s in range(STEPS)]), i).astype(int)
        assert np.abs(episode.observation["image/top"] - expected).max() <= 4
        np.testing.assert_array_equal(episode.action, ACTION[STARTS[i] : ENDS[i]])
        np.testing.assert_array_equal(episode.reward, np.arange(STARTS[i], ENDS[i]) / 2)
        assert (episode.terminated, episode.success, episode.task) == (i == 1, i == 1, TASKS[i])
    assert dataset.robot.rate_hz == FPS
    assert dataset.robot.action.names == ("x", "y")
    assert dataset.robot.observation["policy"].names[0] == "observation.state/a"
    assert "feature 'comment' (string) was left out" in str(report)


def edit_info(root, **values):
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, **values}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: edit_info(r, codebase_version="v2.1"), "is a LeRobot v2.1 data set: bring it to v3.0"),
        (lambda r: edit_info(r, total_episodes=4), "'meta/episodes': expected 4 episodes, found 3"),
        (lambda r: (r / "meta/info.json").write_text("{"), "expected the files of LeRobot v3"),
        (lambda r: (r / "data/chunk-000/file-001.parquet").unlink(), "file-001.parquet cannot be read"),
        (
            lambda r: write_video(r / "videos/observation.images.top/chunk-000/file-000.mp4", range(6)),
            r"expected a frame at 0\.600 s, found none",
        ),
        (
            lambda r: (r / "videos/observation.images.top/chunk-000/file-001.mp4").write_bytes(b"no video"),
            "file-001.mp4 cannot be decoded",
        ),
    ],
)
def test_a_damaged_lerobot_set_is_told(damage, message, lerobot, tmp_path):
    damage(lerobot)
    with pytest.raises(DataError, match=message):
        convert(lerobot, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_rows_of_another_episode_are_told(lerobot, tmp_path):
    file = lerobot / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    parquet.write_table(table.slice(1), file)
    with pytest.raises(DataError, match="expected 4 rows of episode 0, found rows of another one"):
        convert(lerobot, tmp_path / "ours")


def test_a_missing_extra_says_what_to_install(lerobot, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'robo-rlft\[lerobot\]'"):
        convert(lerobot, tmp_path / "ours")


def test_every_format_is_recognised_by_itself(lerobot, replay_buffer):
    for path, name in ((lerobot, "lerobot"), (replay_buffer, "diffusion_policy")):
        assert [n for n, module in FORMATS.items() if module.matches(path)] == [name]
