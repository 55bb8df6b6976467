"""Settings of image observations: which cameras are seen, how large, and how their world varies."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RandomiseConfig:
    """Domain randomisation of images, drawn anew for every episode; each figure is from 0 (none) to 1 (all).

    Physics never sees it: an episode's states are the same with and without.

    Attributes:
        colour: how far the colours of materials and geoms go to a random colour (1: all the way).
        light: lights move by up to .5 m along each axis and brighten or darken by up to a half.
        camera: cameras move by up to 2 cm along and turn by up to 3 degrees about each axis; the field of view changes
            by up to a tenth.
    """

    colour: float = 0.0
    light: float = 0.0
    camera: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything varies."""
        return self.colour > 0 or self.light > 0 or self.camera > 0


@dataclass
class ImagesConfig:
    """Images as observations `image/<camera>`, uint8 [height, width, 3].

    Attributes:
        cameras: the task's cameras to observe through; none gives no images.
        size: height and width in pixels.
        randomise: how the images of one episode differ from those of another.
    """

    cameras: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=lambda: [96, 96])
    randomise: RandomiseConfig = field(default_factory=RandomiseConfig)
