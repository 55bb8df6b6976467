"""Settings of image observations: which cameras are seen, and how large."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ImagesConfig:
    """Images as observations `image/<camera>`, uint8 [height, width, 3].

    Attributes:
        cameras: the task's cameras to observe through; none gives no images.
        size: height and width in pixels.
    """

    cameras: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=lambda: [96, 96])
