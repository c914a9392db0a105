"""Training images that teach nothing, or what the test asks: which they are, and the split without them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.file_rows import Images, blocks_of
from cnnbp_cli.data.split import Split


def blank(images: Images) -> Array:
    """Return for each image whether all its pixels are equal."""
    flat = (block.reshape(len(block), -1) for block in blocks_of(images))
    return np.concatenate([pixels.max(1) == pixels.min(1) for pixels in flat])


def digests(images: Images) -> list[bytes]:
    """Return for each image what only an image with the same pixels has as well."""
    return [blake2b(image.tobytes(), digest_size=16).digest() for block in blocks_of(images) for image in block]


def sifted(train: Split, held_out: Sequence[Split], kinds: Sequence[str], origin: str) -> tuple[Split, list[str]]:
    """Return training images without some of them, and what was left out, in words.

    Parameters
    ----------
    train : Split
    held_out : sequence of Split
        What the network is validated and tested on.
    kinds : sequence of {"blank", "leaked"}
        What to leave out, as the config's `data.leave_out` names it.
    origin : str
        The source and where it lies, for people.

    Raises
    ------
    DataError
        When no image would be left.
    """
    left_out, told = np.zeros(len(train), bool), []
    for kind in kinds:
        found = blank(train.whole.images) if kind == "blank" else leaked(train, held_out)
        left_out |= found
        what = "have a single value in all pixels" if kind == "blank" else "are validation or test images as well"
        if found.any():
            told.append(f"{origin}: left out {found.sum():,} of {len(found):,} training images, which {what}")
    if left_out.all():
        raise DataError(f"{origin}: data.leave_out leaves no training image; look at the images themselves")
    return (train.take(~left_out) if left_out.any() else train), told


def leaked(train: Split, held_out: Sequence[Split]) -> Array:
    """Return for each training image whether a held-out image has the same pixels."""
    known = {digest for split in held_out for digest in digests(split.whole.images)}
    return np.array([digest in known for digest in digests(train.whole.images)])
