from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_rlft.errors import BundleError
from robo_rlft.export.manifest import Manifest, Normaliser, Stage, read_manifest, to_yaml
from robo_rlft.export.timing import timing_of
from robo_rlft.spec import ArraySpec, RobotSpec

WIDTH = 2
NAMES = st.tuples(
    *[st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)] * WIDTH
)
NUMBERS = st.tuples(*[st.floats(allow_nan=False, width=32)] * WIDTH)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=8,
)


def manifest(names: tuple[str, ...], low: tuple[float, ...], source: object, horizon: int, execute: int) -> Manifest:
    array = ArraySpec((WIDTH,), names=names, low=low)
    robot = RobotSpec("Toy", {"policy": array, "camera.state": array}, array, 20.0, 100, {"any": source})
    stage = Stage("policy", "policy.onnx", 20.0 / execute, ("policy",), horizon, 8, execute, "euler", 4, "unused")
    timing = timing_of(20.0, 8, execute)
    normal = Normaliser(low, (1.0, 2.0), 5.0)
    return Manifest(
        robot, stage, {"policy": normal, "action": normal}, {"any": source}, {"policy.onnx": "0" * 64}, timing
    )


@given(NAMES, NUMBERS, PLAIN, st.integers(1, 4), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_what_is_written_is_read(
    names: tuple[str, ...], low: tuple[float, ...], source: object, horizon: int, execute: int
) -> None:
    wanted = manifest(names, low, source, horizon, execute)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "controller.yaml").write_bytes(to_yaml(wanted))
        assert read_manifest(folder) == wanted


def test_the_digest_is_that_of_the_lines_above_it() -> None:
    above, last = to_yaml(manifest(("a", "b"), (0.0, 1.0), {}, 1, 2)).rsplit(b"digest: ", 1)
    assert last.decode() == hashlib.sha256(above).hexdigest() + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "holds NoneType"),
        (b"- 1", "holds list"),
        (b"a: [", "not readable as YAML"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (b"format: other\n", "format 'other', expected"),
        (b"format: robo_rlft.controller\nversion: 0\n", "format version 0, this runtime reads 2"),
        (b"format: robo_rlft.controller\nversion: 1\n", "format version 1, this runtime reads 2"),
        (b"format: robo_rlft.controller\nversion: 2\n", "digest does not match"),
    ],
)
def test_other_files_of_that_name_are_refused(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "controller.yaml").write_bytes(text)
    with pytest.raises(BundleError, match=message):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no controller bundle"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("missing", ["rate_hz", "observation", "chunk"])
def test_a_missing_entry_is_named(tmp_path: Path, missing: str) -> None:
    text = to_yaml(manifest(("a", "b"), (0.0, 1.0), {}, 1, 2)).rsplit(b"digest: ", 1)[0]
    head, stage = text.split(b"stages:", 1)
    cut = b"\n".join(line for line in stage.split(b"\n") if not line.startswith(f"  {missing}:".encode()))
    body = head + b"stages:" + cut
    (tmp_path / "controller.yaml").write_bytes(body + b"digest: " + hashlib.sha256(body).hexdigest().encode() + b"\n")
    with pytest.raises(BundleError, match=f"lacks or misstates .*{missing}"):
        read_manifest(tmp_path)
