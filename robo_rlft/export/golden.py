"""Golden pairs: inputs a runtime must answer exactly as torch did, ordinary ones and the corners of float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robo_rlft.export.manifest import (
    BASE_ACTION,
    DELAY,
    GUIDANCE,
    OBSERVATION_PREFIX,
    PHASE,
    PREFIX,
    Manifest,
    Normaliser,
)

SEED = 20_240_229
TYPICAL_ROWS = 8
"""Rows drawn like normalised data; the corners come after them."""
_FREE_CORNERS = (0.0, 1.0, -1.0, 3.0, -3.0)
"""Normalised magnitudes of the corner rows of a normaliser without a clip: beyond, float32 itself loses 1e-5."""


def golden_inputs(manifest: Manifest) -> dict[str, np.ndarray]:
    """Model inputs by name, all with the same rows.

    Rows 0..7 look like data: unit normal in normalised units. Then come the corners: zero, the ends of the
    normalised range, and, where the normaliser clips, values up to float32's largest, signs alternating along the
    entries. Images are random pixels, in the corners all black or all white in turn.
    """
    rng = np.random.default_rng(SEED)
    vectors = [key for key in manifest.stage.observation if key not in manifest.images]
    clipped = all(manifest.normalisation[key].clip > 0 for key in vectors)
    corners = _corner_rows(clipped)
    inputs = {OBSERVATION_PREFIX + key: _observations(rng, manifest, key, corners) for key in vectors}
    inputs["noise"] = _noise(rng, TYPICAL_ROWS + len(corners), manifest.event)
    for key in manifest.images:
        inputs[OBSERVATION_PREFIX + key] = _images(rng, manifest, key, len(corners))
    if manifest.stage.prefix:
        inputs |= _continuations(manifest, TYPICAL_ROWS + len(corners))
    if manifest.stage.guidance is not None:
        inputs[GUIDANCE] = _guidance(rng, TYPICAL_ROWS + len(corners))
    return inputs


def residual_inputs(manifest: Manifest) -> dict[str, np.ndarray]:
    """Inputs of the residual's model, as `golden_inputs`: newest observations, base actions within [-1, 1], phases."""
    newest = {k: v[:, -1] for k, v in golden_inputs(manifest).items() if k.startswith(OBSERVATION_PREFIX)}
    rows, rng = len(next(iter(newest.values()))), np.random.default_rng(SEED + 1)
    action = rng.uniform(-1.0, 1.0, (rows, *manifest.event[1:])).astype(np.float32)
    action[-2], action[-1] = 1.0, -1.0
    execute = manifest.stage.execute
    phase = (np.arange(rows, dtype=np.float32)[:, None] % execute) / np.float32(execute)
    return {**newest, BASE_ACTION: action, PHASE: phase}


def _corner_rows(clipped: bool) -> list[float]:
    largest = float(np.finfo(np.float32).max)
    return [*_FREE_CORNERS, *((1e6, -1e6, largest, -largest) if clipped else ())]


def _observations(rng: np.random.Generator, manifest: Manifest, key: str, corners: list[float]) -> np.ndarray:
    shape = manifest.input_shapes()[OBSERVATION_PREFIX + key]
    normaliser = manifest.normalisation[key]
    typical = _denormalise(rng.standard_normal((TYPICAL_ROWS, *shape)), normaliser)
    signs = 1.0 - 2.0 * (np.arange(shape[-1]) % 2)
    extreme = np.stack([_denormalise(np.broadcast_to(c * signs, shape), normaliser) for c in corners])
    largest = np.finfo(np.float32).max
    return np.concatenate([typical, extreme]).clip(-largest, largest).astype(np.float32)


def _images(rng: np.random.Generator, manifest: Manifest, key: str, corners: int) -> np.ndarray:
    shape = manifest.input_shapes()[OBSERVATION_PREFIX + key]
    images = rng.integers(0, 256, (TYPICAL_ROWS + corners, *shape), dtype=np.uint8)
    images[TYPICAL_ROWS::2], images[TYPICAL_ROWS + 1 :: 2] = 0, 255
    return images


def _denormalise(values: np.ndarray, normaliser: Normaliser) -> np.ndarray:
    return values * np.asarray(normaliser.scale) + np.asarray(normaliser.offset)


def _noise(rng: np.random.Generator, rows: int, event: tuple[int, int]) -> np.ndarray:
    """Normal draws, but the last two rows: no noise at all, and more than a normal ever gives."""
    noise = rng.standard_normal((rows, *event), dtype=np.float32)
    noise[-2], noise[-1] = 0.0, 6.0
    return noise


def _continuations(manifest: Manifest, rows: int) -> dict[str, np.ndarray]:
    """Previous chunks within the normalised range, and every delay in turn, from none (-1) to the whole prefix."""
    rng, length = np.random.default_rng(SEED + 2), manifest.stage.prefix
    normalised = rng.uniform(-1.0, 1.0, (rows, length, manifest.event[1]))
    prefix = _denormalise(normalised, manifest.normalisation["action"])
    delay = np.arange(rows) % (length + 2) - 1
    return {PREFIX: prefix.astype(np.float32), DELAY: delay.astype(np.float32)[:, None]}


def _guidance(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Weights between 0 and 3, both policies alone among them."""
    weights = rng.uniform(0.0, 3.0, (rows, 1)).astype(np.float32)
    weights[0], weights[1] = 0.0, 1.0
    return weights


def rows_like_data(golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The ordinary rows of golden arrays."""
    return {name: array[:TYPICAL_ROWS] for name, array in golden.items()}
