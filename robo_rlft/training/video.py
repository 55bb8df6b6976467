"""Videos small enough to sit inside a web page: H.264 in MP4, playable in every browser."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robo_rlft.training.files import TEMPORARY, make_folder, writing

Frames = UInt8[ndarray, "time height width 3"]


def write_mp4(path: Path, frames: Frames, fps: float, quality: int = 26) -> Path:
    """Write RGB frames as an MP4 that starts playing before it is loaded.

    Odd sizes grow by one repeated row or column, which the codec needs.

    Args:
        path: the file; it appears when it is complete.
        frames: uint8 [T, H, W, 3], T >= 1.
        fps: frames per second.
        quality: x264's constant rate factor; lower is better and larger.

    Raises:
        RunError: the disk is full.
        ValueError: the frames are not uint8 [T, H, W, 3].
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with writing(path):
        try:
            _encode(temporary, _even(frames), fps, quality)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return path


def grid(videos: Sequence[Frames], columns: int = 0, gap: int = 4) -> Frames:
    """Several videos of one frame size as one, row by row; shorter ones rest on their last frame.

    Args:
        videos: uint8 [T_i, H, W, 3] each.
        columns: videos in a row; 0 makes the grid as square as it can be.
        gap: black pixels between them.

    Raises:
        ValueError: there are no videos, or their frames differ in size.
    """
    sizes = {video.shape[1:] for video in videos}
    if len(sizes) != 1:
        raise ValueError(f"a grid needs videos of one frame size, got {sorted(sizes)}")
    length = max(len(video) for video in videos)
    height, width, _ = sizes.pop()
    columns = columns or int(np.ceil(np.sqrt(len(videos))))
    rows = -(-len(videos) // columns)
    canvas = np.zeros((length, rows * (height + gap) - gap, columns * (width + gap) - gap, 3), np.uint8)
    for i, video in enumerate(videos):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = _held(video, length)
    return canvas


def data_uri(path: Path) -> str:
    """The whole MP4 as a `data:` address, for a page that needs no other file."""
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def _encode(path: Path, frames: Frames, fps: float, quality: int) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(quality), "preset": "medium", "tune": "animation"}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))


def _even(frames: Frames) -> Frames:
    return np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")


def _held(video: Frames, length: int) -> Frames:
    return video[np.minimum(np.arange(length), len(video) - 1)]
