"""Makes the data files that some of the faults read: `python tests/faults/make_data.py`, a second or two.

What is wrong with data cannot be said in a config that draws or ships its own. All files lie in `made/`, come from the
program's own digits and bars, and are the same each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cnnbp_cli.config.schema import Limit, MnistSubset, Synthetic
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.dataset import load_dataset

HERE = Path(__file__).parent
FOLDER = HERE / "made"
SEED = 0

Arrays = dict[str, Array]


def digits(train: int = 1500, test: int = 300, classes: int = 10) -> Arrays:
    """Draw digits of 16×16 pixels, as many of each class."""
    return _arrays(Synthetic(kind="digits", image=(1, 16, 16), classes=classes, train=train, test=test), (1, 16, 16))


def bars() -> Arrays:
    """Draw bars of four directions on 8×8 pixels."""
    return _arrays(Synthetic(kind="bars", image=(1, 8, 8), classes=4, train=800, test=200), (1, 8, 8))


def mnist(train: int = 1500, test: int = 500) -> Arrays:
    """Take the first digits of each class that come with the program."""
    return _arrays(MnistSubset(limit=Limit(train=train, test=test)), (1, 28, 28))


def _arrays(source: Synthetic | MnistSubset, shape: tuple[int, int, int]) -> Arrays:
    data = load_dataset(source, shape, SEED)
    assert data.test is not None
    train, test = data.train, data.test
    return {"x_train": train.images, "y_train": train.labels, "x_test": test.images, "y_test": test.labels}


def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def pixels(sets: Arrays, change: Callable[[Array], Array]) -> Arrays:
    """Change the images of both splits alike."""
    return {name: change(value) if name.startswith("x") else value for name, value in sets.items()}


def shuffled(sets: Arrays, share: float = 1.0) -> Arrays:
    """Shuffle this share of the training labels among themselves."""
    labels = sets["y_train"].copy()
    chosen = rng().random(len(labels)) < share
    labels[chosen] = rng().permutation(labels[chosen])
    return sets | {"y_train": labels}


def unbalanced(sets: Arrays, counts: Sequence[int]) -> Arrays:
    """Keep the first so many training images of each class."""
    order = np.argsort(sets["y_train"], kind="stable")
    labels = sets["y_train"][order]
    kept = np.concatenate([order[labels == label][:count] for label, count in enumerate(counts)])
    kept.sort()
    return sets | {"x_train": sets["x_train"][kept], "y_train": sets["y_train"][kept]}


def leaking(sets: Arrays, share: float) -> Arrays:
    """Put this share of the test images into the training split, in place of others."""
    count = round(share * len(sets["y_test"]))
    places = rng().permutation(len(sets["y_train"]))[:count]
    images, labels = sets["x_train"].copy(), sets["y_train"].copy()
    images[places], labels[places] = sets["x_test"][:count], sets["y_test"][:count]
    return sets | {"x_train": images, "y_train": labels}


def inverted(sets: Arrays) -> Arrays:
    """Turn half of the images into their negatives: the sign of a pixel then says nothing by itself."""

    def half(images: Array) -> Array:
        negative = rng().random(len(images)) < 0.5
        return np.where(negative[:, None, None, None], 255 - images, images)

    return pixels(sets, half)


def noise(sets: Arrays) -> Arrays:
    """Put noise in the place of all images, other noise in each split."""
    stream = rng()
    return pixels(sets, lambda images: stream.integers(0, 256, images.shape, np.uint8))


def blank(sets: Arrays, share: float, value: int) -> Arrays:
    """Put one value into all pixels of this share of the training images."""
    images = sets["x_train"].copy()
    images[rng().random(len(images)) < share] = value
    return sets | {"x_train": images}


def without(sets: Arrays, classes: Sequence[int], split: str = "train") -> Arrays:
    """Leave out all images of some classes in one split."""
    kept = ~np.isin(sets[f"y_{split}"], classes)
    return sets | {f"x_{split}": sets[f"x_{split}"][kept], f"y_{split}": sets[f"y_{split}"][kept]}


def from_one(sets: Arrays) -> Arrays:
    """Count classes from 1 instead of 0."""
    return {name: value + 1 if name.startswith("y") else value for name, value in sets.items()}


def test_images(sets: Arrays, change: Callable[[Array], Array]) -> Arrays:
    """Change the test images alone."""
    return sets | {"x_test": change(sets["x_test"])}


def relabeled(sets: Arrays, classes: Sequence[int], share: float, others: Sequence[int]) -> Arrays:
    """Give this share of the training images of some classes another label, drawn from `others`."""
    labels, stream = sets["y_train"].copy(), rng()
    chosen = np.isin(labels, classes) & (stream.random(len(labels)) < share)
    for k in np.flatnonzero(chosen):
        labels[k] = stream.choice([label for label in others if label != labels[k]])
    return sets | {"y_train": labels}


def copied(sets: Arrays, share: float, change: Callable[[Array], Array]) -> Arrays:
    """Put changed training images in the place of this share of the test images."""
    images, labels = sets["x_test"].copy(), sets["y_test"].copy()
    count = round(share * len(labels))
    chosen = rng().permutation(len(sets["y_train"]))[:count]
    images[:count], labels[:count] = change(sets["x_train"][chosen]), sets["y_train"][chosen]
    return sets | {"x_test": images, "y_test": labels}


def noisy(images: Array) -> Array:
    return np.clip(images + np.random.default_rng(1).normal(0, 8, images.shape), 0, 255).astype(np.uint8)


def contrast(images: Array) -> Array:
    return np.clip(images * 0.8 + 20, 0, 255).astype(np.uint8)


def repeated(sets: Arrays, times: int) -> Arrays:
    """Repeat the training images, with other noise each time."""
    stream = np.random.default_rng(2)
    parts = [sets["x_train"] + stream.normal(0, 8, sets["x_train"].shape) for _ in range(times)]
    images = np.clip(np.concatenate(parts), 0, 255).astype(np.uint8)
    return sets | {"x_train": images, "y_train": np.tile(sets["y_train"], times)}


def standardized(images: Array) -> Array:
    values = images.astype(np.float32)
    return (values - values.mean()) / values.std()


def floats(scale: float, offset: float = 0.0) -> Callable[[Array], Array]:
    """Return what turns pixels of 0 to 255 into floats from `offset` on."""
    return lambda images: images.astype(np.float32) * np.float32(scale) + np.float32(offset)


FILES: dict[str, Callable[[], Arrays]] = {
    "digits": digits,
    "bars": bars,
    "mnist": mnist,
    "blank": lambda: pixels(digits(), lambda images: np.full_like(images, 128)),
    "noise": lambda: noise(digits()),
    "pixels-1e36": lambda: pixels(digits(), floats(1e36)),
    "offset": lambda: pixels(digits(), floats(1 / 80, 1000)),
    "five-grays": lambda: pixels(digits(), lambda images: images // 60),
    "twice": lambda: pixels(digits(), floats(1 / 255**2)),
    "standard-then-unit": lambda: pixels(digits(), lambda images: standardized(images) / 255),
    "inverted": lambda: inverted(digits(2000, 400)),
    "inverted-bars": lambda: inverted(bars()),
    "shuffled": lambda: shuffled(digits()),
    "shuffled-most": lambda: shuffled(digits(), 0.75),
    "shuffled-mnist": lambda: shuffled(mnist()),
    "noisy-few": lambda: shuffled(digits(400), 0.4),
    "off-by-one": lambda: (sets := bars()) | {"y_train": np.roll(sets["y_train"], 1)},
    "balanced-two": lambda: digits(1000, 200, 2),
    "unbalanced-two": lambda: unbalanced(digits(1000 * 2, 200, 2), (980, 20)),
    "unbalanced-ten": lambda: unbalanced(digits(13_500), (1350, *[17] * 9)),
    "balanced-five": lambda: digits(1000, 250, 5),
    "unbalanced-five": lambda: unbalanced(digits(5000, 250, 5), (1000, 100, 20, 10, 5)),
    "mild": lambda: unbalanced(digits(2400), (240, 220, 200, 180, 160, 140, 120, 100, 90, 80)),
    "blank-half": lambda: blank(digits(), 0.5, 0),
    "blank-tenth": lambda: blank(digits(), 0.1, 128),
    "same-picture": lambda: (sets := digits()) | {"x_train": np.repeat(sets["x_train"][:1], 1500, 0)},
    "without-nine": lambda: without(digits(), [9]),
    "without-three": lambda: without(mnist(), [0, 3, 7]),
    "from-one": lambda: from_one(digits()),
    "untested": lambda: without(digits(), [2, 6], "test"),
    "test-inverted": lambda: test_images(digits(), lambda images: 255 - images),
    "test-range": lambda: test_images(pixels(mnist(), floats(1)), floats(1 / 255)),
    "test-standardized": lambda: test_images(pixels(digits(), floats(1)), standardized),
    "noisy-four": lambda: relabeled(digits(), [4], 0.7, range(10)),
    "noisy-pair": lambda: relabeled(mnist(), [3, 5], 0.5, [3, 5]),
    "ten-of-thousands": lambda: unbalanced(digits(4000, 200, 2), (2000, 10)),
    "four-to-one": lambda: unbalanced(digits(2000, 200, 2), (1000, 250)),
    "leak-noisy": lambda: copied(digits(), 1.0, noisy),
    "leak-brighter": lambda: copied(mnist(), 1 / 3, contrast),
    "augmented-on-disk": lambda: repeated(digits(400), 4),
    "leak-all": lambda: leaking(digits(), 1.0),
    "leak-half": lambda: leaking(digits(), 0.5),
    "leak-third": lambda: leaking(mnist(), 1 / 3),
}


def make() -> None:
    """Write the files that are missing, or older than this one."""
    FOLDER.mkdir(exist_ok=True)
    written = Path(__file__).stat().st_mtime
    for name, arrays in FILES.items():
        path = FOLDER / f"{name}.npz"
        if path.exists() and path.stat().st_mtime >= written:
            continue
        draft = FOLDER / f"{name}.{os.getpid()}.npz"
        np.savez_compressed(draft, **arrays())
        draft.replace(path)  # another process may be making the same file


if __name__ == "__main__":
    make()
