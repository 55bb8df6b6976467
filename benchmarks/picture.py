"""One picture of a demo for the README: the same episode before and after fine-tuning, with the success rates.

python -m benchmarks.picture runs/demo
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import FancyBboxPatch
from numpy import ndarray
from PIL import Image

from benchmarks.records import RESULTS
from robo_rlft.errors import RunError, UserError

Frames = UInt8[ndarray, "time height width 3"]

STRIPS = {
    "pretrained": ("pretrain", "Cloned from\n{demonstrations} demonstrations"),
    "bc_longer": ("bc_longer", "Cloned for as long\nas fine-tuning took"),
    "finetuned": ("finetune", "Fine-tuned\nwith ReinFlow"),
}
"""Evaluations from top to bottom: folder of the run and its caption."""
LIMIT_BYTES = 300_000
FRAMES = 4
"""Frames of each strip."""
HOLD_S = 0.5
"""Seconds that a video rests on its last frame."""
_DPI = (110, 100, 90, 80, 70, 60, 50)
_INK, _SOFT, _TRACK, _RATE, _GOOD, _BAD = "#1c2024", "#667079", "#eceeea", "#1f6f8b", "#2f8f6b", "#c8553d"


@dataclass(frozen=True)
class Strip:
    """One policy's episode.

    Attributes:
        caption: which policy.
        rate: its success rate over all episodes.
        low, high: 95 % interval of that.
        success: how the shown episode ended.
        frames: the episode.
        times: seconds of each frame.
    """

    caption: str
    rate: float
    low: float
    high: float
    success: bool
    frames: Frames
    times: Sequence[float]


def main(argv: Sequence[str] | None = None) -> int:
    """Draw a demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture", description=__doc__)
    parser.add_argument("demo", type=Path, help="folder of a finished demo")
    parser.add_argument("--to", type=Path, default=RESULTS / "demo.png", help="the PNG file")
    given = parser.parse_args(argv)
    try:
        given.to.write_bytes(draw(strips_of(given.demo)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {given.to}")
    return 0


def strips_of(demo: Path) -> list[Strip]:
    """The strips of a finished demo, all of one episode: where there is one, of an episode that fine-tuning saved.

    Raises:
        RunError: the demo is unfinished or made no videos.
    """
    summary = _read(demo / "summary.json")
    records = {name: _read(demo / folder / "evaluation" / f"{name}.json") for name, (folder, _) in STRIPS.items()}
    episode = _telling_episode(records)
    return [
        _strip(demo / folder, records[name], episode, caption.format(**summary))
        for name, (folder, caption) in STRIPS.items()
    ]


def draw(strips: Sequence[Strip]) -> bytes:
    """The strips under each other as PNG, as large as `LIMIT_BYTES` allow.

    Raises:
        RunError: even the smallest is too large.
    """
    shown = _squared(strips)
    made = (_png(_figure(shown, dpi)) for dpi in _DPI)
    fitting = next((data for data in made if len(data) <= LIMIT_BYTES), None)
    if fitting is None:
        raise RunError(
            f"the picture takes more than {LIMIT_BYTES:,} bytes even at {_DPI[-1]} dpi: film a plainer scene"
        )
    return fitting


def _telling_episode(records: Mapping[str, Mapping[str, Any]]) -> int:
    """The first filmed episode that the cloned policy fails and the fine-tuned one does, else the first."""
    filmed = min(len(record["videos"]) for record in records.values())
    if not filmed:
        raise RunError("the demo has no videos to draw: run it where rendering works, with evaluate.videos=2")
    before, after = (records[name]["per_seed"] for name in ("pretrained", "finetuned"))
    telling = (i for i in range(filmed) if after[i]["success"] and not before[i]["success"])
    return next(telling, 0)


def _strip(run: Path, record: Mapping[str, Any], episode: int, caption: str) -> Strip:
    frames, rate_hz = _video(run / record["videos"][episode])
    last = max(len(frames) - 1 - int(HOLD_S * rate_hz), 0)
    chosen = np.linspace(0, last, FRAMES).round().astype(int)
    success = record["success"]
    return Strip(
        caption,
        success["mean"],
        success["low"],
        success["high"],
        record["per_seed"][episode]["success"],
        frames[chosen],
        [float(i) / rate_hz for i in chosen],
    )


def _video(file: Path) -> tuple[Frames, float]:
    """Frames and frames per second."""
    if not file.is_file():
        raise RunError(f"{file} does not exist: run the demo again, or evaluate with evaluate.videos=2")
    with av.open(str(file)) as container:
        rate = container.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if rate is None:
        raise RunError(f"{file} does not say how fast it plays: evaluate again to film it anew")
    return np.stack(frames), float(rate)


def _squared(strips: Sequence[Strip]) -> list[Strip]:
    """The same square of every frame, full height, around what moves; frames that are not wide stay as they are."""
    frames = np.concatenate([strip.frames for strip in strips])
    height, width = frames.shape[1:3]
    motion = frames.astype(np.float64).std(axis=0).sum(axis=(0, 2)) ** 2
    left = int(np.clip(_centre(motion) - height / 2, 0, max(width - height, 0)))
    return [replace(s, frames=s.frames[:, :, left : left + height]) for s in strips]


def _centre(weights: Float[ndarray, " pixel"]) -> float:
    """Centre of gravity; the middle where nothing weighs anything."""
    places = np.arange(len(weights))
    return float(np.average(places, weights=weights + 1e-9))


def _figure(strips: Sequence[Strip], dpi: int) -> Figure:
    figure = Figure(figsize=(12, 2.42 * len(strips)), dpi=dpi, facecolor="white")
    rows = figure.subfigures(len(strips), 1, squeeze=False)[:, 0]
    for row, strip in zip(rows, strips, strict=True):
        _draw_caption(row, strip)
        _draw_frames(row, strip)
    return figure


def _draw_caption(row: SubFigure, strip: Strip) -> None:
    row.text(0.02, 0.64, f"{100 * strip.rate:.3g} %", size=28, weight="bold", color=_INK, va="center")
    row.text(0.02, 0.36, strip.caption, size=11, color=_SOFT, va="center", linespacing=1.35)
    bar = row.add_axes((0.02, 0.12, 0.145, 0.05))
    bar.set_xlim(0, 1)
    bar.set_axis_off()
    bar.barh(0, 1, color=_TRACK)
    bar.barh(0, strip.high - strip.low, left=strip.low, color=_RATE, alpha=0.45)
    bar.plot([strip.rate] * 2, [-0.4, 0.4], color=_RATE, linewidth=3)


def _draw_frames(row: SubFigure, strip: Strip) -> None:
    left, gap = 0.185, 0.006
    width = (0.99 - left - gap * (FRAMES - 1)) / FRAMES
    for i, (image, time) in enumerate(zip(strip.frames, strip.times, strict=True)):
        axes = row.add_axes((left + i * (width + gap), 0.03, width, 0.94))
        axes.imshow(image, interpolation="lanczos")
        axes.set_axis_off()
        label = {"size": 9, "color": "white", "transform": axes.transAxes}
        axes.text(0.035, 0.05, f"{time:.1f} s", **label, bbox={"fc": _INK, "ec": "none", "alpha": 0.55, "pad": 2.5})
        if i == FRAMES - 1:
            colour, word = (_GOOD, "succeeds") if strip.success else (_BAD, "fails")
            axes.text(
                0.965, 0.05, word, ha="right", weight="bold", **label, bbox={"fc": colour, "ec": "none", "pad": 3}
            )
            frame = FancyBboxPatch((0, 0), 1, 1, boxstyle="square,pad=0", fill=False, ec=colour, lw=4)
            axes.add_patch(frame).set_transform(axes.transAxes)


def _png(figure: Figure) -> bytes:
    """With a palette of 256 colours, a third of the size of full colour."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    data = io.BytesIO()
    # Without dithering: its noise would double the size.
    image.quantize(256, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return data.getvalue()


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise RunError(f"{file} does not exist: give the folder of a finished demo, e.g. runs/demo")
    return json.loads(file.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
