from __future__ import annotations

import base64
import errno
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_rlft.errors import RunError
from robo_rlft.training import video
from robo_rlft.training.video import data_uri, grid, write_mp4


def gradient(length: int, height: int, width: int) -> np.ndarray:
    """A smooth picture that moves one level a frame."""
    rows, columns = np.mgrid[:height, :width]
    one = np.stack([60 + rows, 60 + columns, np.full_like(rows, 120)], -1)
    return np.stack([(one + t).clip(0, 255).astype(np.uint8) for t in range(length)])


def decoded(path: Path) -> tuple[np.ndarray, av.VideoStream]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]), stream


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(16, 61), st.integers(16, 61))
def test_any_size_comes_back_nearly_unchanged(
    tmp_path_factory: pytest.TempPathFactory, length: int, height: int, width: int
) -> None:
    frames = gradient(length, height, width)
    back, _ = decoded(write_mp4(tmp_path_factory.mktemp("v") / "a.mp4", frames, fps=20))
    assert back.shape == (length, height + height % 2, width + width % 2, 3)
    assert np.abs(back[:, :height, :width].astype(int) - frames).mean() < 4


def test_browsers_can_play_it_from_the_first_bytes(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "videos" / "a.mp4", gradient(10, 48, 64), fps=12.5)
    _, stream = decoded(path)
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert float(stream.average_rate or 0) == 12.5
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_the_address_holds_the_file(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "a.mp4", gradient(2, 16, 16), fps=5)
    head, _, body = data_uri(path).partition(",")
    assert head == "data:video/mp4;base64"
    assert base64.b64decode(body) == path.read_bytes()


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"frames must be uint8 \[T, H, W, 3\], got"):
        write_mp4(tmp_path / "a.mp4", frames, fps=5)


def test_a_full_disk_keeps_the_old_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mp4(tmp_path / "a.mp4", gradient(2, 16, 16), fps=5)
    old = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(video, "_encode", refuse)
    with pytest.raises(RunError, match=r"a\.mp4: the disk is full"):
        write_mp4(path, gradient(3, 16, 16), fps=5)
    assert path.read_bytes() == old


def test_a_grid_places_videos_row_by_row_and_holds_the_last_frame() -> None:
    videos = [np.full((length, 2, 3, 3), 10 * (i + 1), np.uint8) for i, length in enumerate((1, 3, 2))]
    videos[2][1] = 99
    tiled = grid(videos, gap=1)
    assert tiled.shape == (3, 5, 7, 3)
    assert (tiled[:, :2, :3] == 10).all()
    assert (tiled[:, :2, 4:] == 20).all()
    assert (tiled[0, 3:, :3] == 30).all()
    assert (tiled[1:, 3:, :3] == 99).all()
    assert (tiled[:, 2] == 0).all()
    assert (tiled[:, 3:, 4:] == 0).all()
    assert grid(videos, columns=3, gap=0).shape == (3, 2, 9, 3)


def test_a_grid_needs_one_size() -> None:
    with pytest.raises(ValueError, match="one frame size"):
        grid([np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 4, 3), np.uint8)])
    with pytest.raises(ValueError, match="one frame size"):
        grid([])
