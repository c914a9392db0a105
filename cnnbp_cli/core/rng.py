"""Independent, reproducible random streams, so that no draw depends on the order of the others.

Every use of randomness names its purpose: `generator(seed, "init", "conv1")` gives the same numbers
whatever else was drawn before. Draws that belong to samples of a batch come from `sample_words`,
where row `i` depends on the sample's position alone; workers that each take a slice of a batch
therefore see exactly what one worker would have seen.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np

from cnnbp_cli.core.types import Array


def _bit_generator(seed: int, purpose: str, *key: int | str) -> np.random.PCG64:
    words = [part if isinstance(part, int) else crc32(part.encode()) for part in (seed, purpose, *key)]
    return np.random.PCG64(np.random.SeedSequence(words))


def generator(seed: int, purpose: str, *key: int | str) -> np.random.Generator:
    """Return the stream of `(seed, purpose, *key)`.

    Parameters
    ----------
    seed : int
        The config's seed, zero or more.
    purpose : str
        What the numbers are for, such as ``"init"`` or ``"shuffle"``.
    key : int or str
        What tells apart the uses of one purpose, such as a layer's name or an epoch.
    """
    return np.random.Generator(_bit_generator(seed, purpose, *key))


def sample_words(seed: int, purpose: str, *key: int | str, start: int, count: int, size: int) -> Array:
    """Draw `size` random 16-bit words for each of the samples `start … start + count - 1`.

    Returns
    -------
    Array of uint16, shape (count, size)
        Row `i` depends on `(seed, purpose, *key)` and on `start + i`, not on `start` or `count`.
    """
    draws = -(-size // 4)  # the generator steps in 64-bit draws: four words each
    bits = _bit_generator(seed, purpose, *key)
    bits.advance(start * draws)
    words = bits.random_raw(count * draws).reshape(count, draws)
    return words.view(np.uint16)[:, :size]


def sample_uniforms(seed: int, purpose: str, *key: int | str, start: int, count: int, size: int) -> Array:
    """Draw numbers uniform on [0, 1) in the same way: float64, shape (count, size)."""
    words = sample_words(seed, purpose, *key, start=start, count=count, size=4 * size)
    return (np.ascontiguousarray(words).view(np.uint64) >> np.uint64(11)) / 2.0**53
