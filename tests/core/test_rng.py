"""Random streams: each draw depends on its name alone."""

from __future__ import annotations

import numpy as np
import pytest

from cnnbp_cli.core.rng import generator, sample_uniforms, sample_words

DRAWS = [sample_words, sample_uniforms]


def test_a_stream_is_its_name():
    first = generator(0, "init", "conv1").normal(size=5)
    generator(0, "shuffle", 3).normal(size=100)
    np.testing.assert_array_equal(generator(0, "init", "conv1").normal(size=5), first)


def test_streams_of_different_names_differ():
    names = [
        (0, "init", "conv1"),
        (0, "init", "conv2"),
        (1, "init", "conv1"),
        (0, "shuffle", "conv1"),
        (0, "shuffle", 1),
        (0, "shuffle", 2),
        (0, "dropout", "a", 1),
        (0, "dropout", "b", 1),
        (0, "dropout", "a", 2),
        (2**40, "init", "conv1"),
    ]
    draws = {tuple(generator(*name).integers(0, 2**63, 4).tolist()) for name in names}
    assert len(draws) == len(names)


def test_the_global_generator_is_neither_read_nor_moved():
    state = np.random.get_state()[1].copy()
    first = generator(0, "init").normal(size=3)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.testing.assert_array_equal(generator(0, "init").normal(size=3), first)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8])
def test_a_samples_row_depends_on_its_position_alone(draw, size):
    whole = draw(3, "dropout", "here", 7, start=0, count=20, size=size)
    assert whole.shape == (20, size)
    for start, count in ((0, 20), (0, 3), (3, 10), (19, 1), (5, 0)):
        part = draw(3, "dropout", "here", 7, start=start, count=count, size=size)
        np.testing.assert_array_equal(part, whole[start : start + count])
    assert len({row.tobytes() for row in draw(3, "dropout", start=0, count=20, size=8)}) == 20


def test_uniforms_are_uniform_on_the_unit_interval():
    values = sample_uniforms(0, "augment", start=0, count=2000, size=50)
    assert values.dtype == np.float64
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, 20, (0, 1))
    expected = values.size / 20
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 43.8  # 19 degrees of freedom: one in a thousand
    np.testing.assert_allclose(np.corrcoef(values[:, 0], values[:, 1])[0, 1], 0, atol=0.1)


def test_all_bits_of_words_are_fair():
    words = sample_words(0, "dropout", start=0, count=1000, size=32)
    assert words.dtype.kind == "u"
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)
