"""Batches: the right samples in the right layout, the same however they are cut."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from cnnbp_cli.data.batches import make_batch, order
from cnnbp_cli.data.dataset import Normalization, Split

RNG = np.random.default_rng(11)
SPLIT = Split(RNG.integers(0, 256, (90, 2, 7, 6), dtype=np.uint8), RNG.integers(0, 5, 90))
STANDARD = Normalization.fit("standard", SPLIT.images)
ALL = SimpleNamespace(shift=2, rotate=15, scale=0.2, flip=False, crop=None)


def test_order_visits_every_sample_once():
    assert sorted(order(0, 1, 90)) == list(range(90))


@pytest.mark.parametrize("augment", [None, ALL])
def test_a_batch_may_be_empty(augment):
    """As the slice of a worker is when a batch has fewer samples than there are workers."""
    x, labels = make_batch(SPLIT, np.empty(0, int), STANDARD, np.float32, augment=augment)
    assert (x.shape, labels.shape) == ((2, 7, 6, 0), (0,))


def test_order_depends_on_seed_and_epoch():
    first = order(0, 1, 90)
    np.testing.assert_array_equal(first, order(0, 1, 90))
    assert (first != order(0, 2, 90)).any()
    assert (first != order(1, 1, 90)).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["standard", "unit", "none"])
def test_batch_is_the_normalized_images_with_the_batch_last(dtype, kind):
    indices = np.array([5, 3, 3, 80])
    normalization = Normalization.fit(kind, SPLIT.images)
    x, labels = make_batch(SPLIT, indices, normalization, dtype)
    assert (x.shape, x.dtype) == ((2, 7, 6, 4), dtype)
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(x.transpose(3, 0, 1, 2), normalization.apply(SPLIT.images[indices], dtype))
    np.testing.assert_array_equal(labels, SPLIT.labels[indices])


@pytest.mark.parametrize("augment", [None, ALL])
def test_buffer_is_filled_and_returned(augment):
    out = np.full((2, 7, 6, 8), np.nan, np.float32)
    indices = np.arange(8)
    x, _ = make_batch(SPLIT, indices, STANDARD, np.float32, augment=augment, out=out)
    assert x is out
    np.testing.assert_array_equal(x, make_batch(SPLIT, indices, STANDARD, np.float32, augment=augment)[0])


def test_slice_of_a_split():
    x, labels = make_batch(SPLIT, slice(10, 20), STANDARD, np.float32)
    same, same_labels = make_batch(SPLIT, np.arange(10, 20), STANDARD, np.float32)
    np.testing.assert_array_equal(x, same)
    np.testing.assert_array_equal(labels, same_labels)


def test_float_images():
    split = Split(SPLIT.images.astype(np.float64) / 7, SPLIT.labels)
    normalization = Normalization.fit("standard", split.images)
    x, _ = make_batch(split, np.arange(9), normalization, np.float64)
    np.testing.assert_array_equal(x.transpose(3, 0, 1, 2), normalization.apply(split.images[:9], np.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("augment", [None, ALL, SimpleNamespace(shift=2, rotate=0, scale=0, flip=False, crop=None)])
def test_workers_that_cut_a_batch_see_what_one_sees(dtype, augment):
    indices = order(3, 0, 90)[:64]
    common = {"augment": augment, "seed": 3, "step": 17}
    whole, _ = make_batch(SPLIT, indices, STANDARD, dtype, **common)
    for cuts in ([0, 32, 64], [0, 1, 8, 64]):
        parts = [
            make_batch(SPLIT, indices[a:b], STANDARD, dtype, first_sample=a, **common)[0] for a, b in pairwise(cuts)
        ]
        np.testing.assert_array_equal(np.concatenate(parts, axis=3), whole)


def test_augmentation_depends_on_seed_and_step():
    def batch(seed, step):
        return make_batch(SPLIT, np.arange(20), STANDARD, np.float32, augment=ALL, seed=seed, step=step)[0]

    np.testing.assert_array_equal(batch(1, 2), batch(1, 2))
    assert (batch(1, 2) != batch(1, 3)).any()
    assert (batch(1, 2) != batch(2, 2)).any()


def test_background_is_zero_before_normalization():
    white = Split(np.full((50, 1, 5, 5), 255, np.uint8), np.zeros(50, np.int64))
    augment = SimpleNamespace(shift=1, rotate=0, scale=0, flip=False, crop=None)
    x, _ = make_batch(white, np.arange(50), Normalization("unit", (51.0,), (204.0,)), np.float64, augment=augment)
    assert set(np.unique(x)) == {-0.25, 1.0}
