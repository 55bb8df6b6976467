"""Images to features, one module per encoder."""

from robo_rlft.policies.encoders.augment import random_shift
from robo_rlft.policies.encoders.build import ENCODERS, build_encoder
from robo_rlft.policies.encoders.image import ImageEncoder

__all__ = ["ENCODERS", "ImageEncoder", "build_encoder", "random_shift"]
