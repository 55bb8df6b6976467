"""Every way to damage a data set: `Dataset.open` says what and where in one sentence, and `validate` lists it."""

import json

import numpy as np
import pytest
import zarr
from demonstrations import CAMERA, ROBOT, SEEING, episode, write

from robo_rlft.data import Dataset, DatasetWriter
from robo_rlft.data.layout import Column
from robo_rlft.data.validate import validate
from robo_rlft.errors import DataError
from robo_rlft.spec import ArraySpec, RobotSpec

ACTION_CHUNK = "action/c/0/0"
SHARD = f"observation/{CAMERA}/c/0/0/0/0"


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "set", [5, 9, 1], SEEING)
    return tmp_path / "set"


def _cut(file):
    file.write_bytes(file.read_bytes()[:-10])


def _flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def _edit(file, change):
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def _set(path, name, index, value):
    zarr.open_group(str(path), mode="r+")[name][index] = value


def _header(change):
    return lambda path: _edit(path / "zarr.json", lambda d: change(d["attributes"]["robo_rlft"]))


DAMAGE = {
    "cut chunk": (lambda p: _cut(p / ACTION_CHUNK), "action", "unreadable chunk"),
    "flipped bit": (lambda p: _flip(p / ACTION_CHUNK, 40), "action", "unreadable chunk"),
    "lost chunk": (lambda p: (p / ACTION_CHUNK).unlink(), "action", "no file action/c/0/0"),
    "lost array": (lambda p: (p / "reward/zarr.json").unlink(), "reward", "no file reward/zarr.json"),
    "broken metadata": (lambda p: (p / "reward/zarr.json").write_text("{"), "reward", "cannot be read"),
    "cut shard": (lambda p: _cut(p / SHARD), f"observation/{CAMERA}", "do not end in a valid shard index"),
    "cut shard to nothing": (lambda p: (p / SHARD).write_bytes(b""), f"observation/{CAMERA}", "cannot be mapped"),
    "lost shard": (lambda p: (p / SHARD).unlink(), f"observation/{CAMERA}", "cannot be mapped"),
    "nan": (lambda p: _set(p, "action", (3, 1), np.nan), "action", "nan] in row 3"),
    "infinity": (lambda p: _set(p, "observation/policy", (7, 0), np.inf), "observation/policy", "in row 7"),
    "ends fall": (lambda p: _set(p, "meta/episode_ends", 1, 4), "meta/episode_ends", "[5, 4, 15]"),
    "ends too far": (lambda p: _set(p, "meta/episode_ends", 2, 16), "meta/episode_ends", "16"),
    "too few rows": (
        lambda p: _edit(p / "action/zarr.json", lambda d: d.update(shape=[11, 2])),
        "action",
        "11 rows of float32 (2,)",
    ),
    "other shape than the spec": (
        _header(lambda h: h["robot"]["action"].update(shape=[3])),
        "action",
        "15 rows of float32 (2,)",
    ),
    "other dtype than the spec": (
        _header(lambda h: h["robot"]["observation"]["policy"].update(dtype="float64")),
        "observation/policy",
        "18 rows of float32 (3,)",
    ),
    "key of the spec is missing": (
        _header(lambda h: h["robot"]["observation"].update(tactile={"shape": [2]})),
        "observation/tactile",
        "no file",
    ),
    "cut header": (lambda p: _cut(p / "zarr.json"), "zarr.json", ""),
    "header without counts": (_header(lambda h: h.pop("num_steps")), "zarr.json", "num_steps"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(case, path):
    damage, key, found = DAMAGE[case]
    damage(path)
    with pytest.raises(DataError) as error:
        Dataset.open(path)
    message = str(error.value)
    assert message.startswith(f"data set {path}, '{key}': expected ")
    assert found in message
    assert "\n" not in message
    report = validate(path)
    assert not report.ok
    assert key in [finding.key for finding in report.findings]
    assert found in str(report)


def test_a_sound_data_set_has_no_findings(path):
    report = validate(path)
    assert report.ok
    assert report.findings == ()
    assert "sound, 3 episodes, 15 steps" in str(report)


def test_a_spec_with_whole_numbers_and_tuples_is_sound(tmp_path):
    action = ArraySpec((2,), names=("x", "y"), low=(-1, -1), high=(1, 1))
    robot = RobotSpec("Toy", ROBOT.observation, action, 20, 50, {"hole": (0, 1), "clearance_m": 0.001})
    write(tmp_path / "set", [3], robot)
    assert validate(tmp_path / "set").findings == ()


@pytest.mark.parametrize(
    ("name", "index", "value", "number"),
    [("action", (6, 0), 0.5, 1), (f"observation/{CAMERA}", (8, 0, 0, 0), 7, 1), ("meta/success", 0, True, 0)],
)
def test_altered_content_is_found_by_its_digest(path, name, index, value, number):
    assert zarr.open_group(str(path), mode="r")[name][index] != value
    _set(path, name, index, value)
    report = validate(path)
    assert [f.key for f in report.findings if f.severity == "error"] == ["meta/digest"]
    assert f"in episode {number}" in report.findings[0].expected


def test_an_altered_header_hash_is_found(path):
    _header(lambda h: h.update(content_hash="0" * 64))(path)
    assert [f.key for f in validate(path).findings] == ["content_hash"]


def test_flags_in_mid_episode_and_open_ends_are_found(tmp_path):
    with DatasetWriter(tmp_path / "set", ROBOT, {}) as writer:
        writer.append(episode(4, 0, terminated=False, truncated=False))
    assert [(f.severity, f.key) for f in validate(tmp_path / "set").findings] == [("warning", "terminated")]
    _set(tmp_path / "set", "terminated", 1, True)
    assert ("error", "terminated") in [(f.severity, f.key) for f in validate(tmp_path / "set").findings]


def test_all_damage_is_listed_at_once(path):
    _cut(path / ACTION_CHUNK)
    (path / SHARD).unlink()
    _set(path, "reward", 0, np.nan)
    assert {f.key for f in validate(path).findings} == {"action", f"observation/{CAMERA}", "reward"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no data set at"),
        (lambda p: p.mkdir(), r"is not a robo_rlft data set \(no zarr.json\)"),
        (lambda p: zarr.open_group(str(p), mode="w"), "without the attribute 'robo_rlft'"),
    ],
)
def test_what_is_no_data_set_is_told(make, message, tmp_path):
    make(tmp_path / "x")
    with pytest.raises(DataError, match=message):
        Dataset.open(tmp_path / "x")
    assert not validate(tmp_path / "x").ok


def test_a_later_version_is_told(path):
    _header(lambda h: h.update(version=99))(path)
    with pytest.raises(DataError, match="format version 99, this robo_rlft reads 1"):
        Dataset.open(path)


def test_an_unknown_key_and_a_missing_episode_are_told(path):
    dataset = Dataset.open(path)
    with pytest.raises(DataError, match=r"has no observation 'tactile': it has \['image/front', 'policy'\]"):
        dataset.observation("tactile")
    with pytest.raises(DataError, match="has 3 episodes, number 3 was asked for"):
        dataset.episode(3)


def test_an_empty_set_opens_and_is_warned_about(tmp_path):
    DatasetWriter(tmp_path / "set", SEEING, {}).close()
    assert Dataset.open(tmp_path / "set").num_steps == 0
    report = validate(tmp_path / "set")
    assert report.ok
    assert [f.severity for f in report.findings] == ["warning"]


def test_files_are_sized_as_documented():
    image = Column("observation/image/a", (128, 128, 3), "uint8", "observation")
    assert 250 <= image.rows_per_file <= 2000
    assert Column("observation/image/a", (480, 640, 3), "uint8", "observation").rows_per_file == 256
    assert Column("observation/image/a", (8, 8, 3), "uint8", "observation").rows_per_file == 1984
    page = Column("observation/image/a", (84, 84, 3), "uint8", "observation")
    assert page.rows_per_file * page.row_bytes % 4096 == 0
    assert image.rows_per_file * image.row_bytes % 2**21 == 0
    odd = Column("observation/image/a", (85, 85, 3), "uint8", "observation")
    assert 250 <= odd.rows_per_file <= 2000
    low = Column("observation/policy", (30,), "float32", "observation")
    assert 2**19 < low.rows_per_file * low.row_bytes <= 2**20
