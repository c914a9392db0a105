"""What lies in a file is read while the step before is computed, and is the same as without."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.build import build
from cnnbp_cli.config.load import config_from_dict
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.file_rows import FileRows
from cnnbp_cli.data.read_ahead import ReadAhead
from cnnbp_cli.data.split import Split

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 1, 3, 4), np.uint8)
LABELS = np.arange(40) % 7


@pytest.fixture
def split(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(IMAGES.tobytes())
    return Split(FileRows(path, 0, IMAGES.shape, np.uint8), LABELS)


@pytest.fixture
def readers(monkeypatch):
    """Return a list that grows by the name of the thread that reads rows."""
    names: list[str] = []
    read = FileRows._read_rows
    monkeypatch.setattr(
        FileRows, "_read_rows", lambda self, rows: (names.append(threading.current_thread().name), read(self, rows))[1]
    )
    return names


def taken(ahead, indices):
    split, chosen = ahead.take(indices)
    return split.images[chosen], split.labels[chosen]


@pytest.mark.parametrize("expected", [None, [3, 1, 39], [3, 1, 38]], ids=["nothing", "these", "others"])
def test_what_is_taken_is_what_is_asked_for(split, readers, expected):
    ahead, wanted = ReadAhead(split), np.array([3, 1, 39])
    if expected:
        ahead.expect(np.array(expected))
    images, labels = taken(ahead, wanted)
    np.testing.assert_array_equal(images, IMAGES[wanted])
    np.testing.assert_array_equal(labels, LABELS[wanted])
    assert [name.startswith("read-ahead") for name in readers] == {None: [False], 39: [True], 38: [True, False]}[
        expected and expected[-1]
    ]


def test_images_in_memory_are_not_read_ahead():
    before, ahead = threading.active_count(), ReadAhead(Split(IMAGES, LABELS))
    ahead.expect(np.array([1]))
    assert threading.active_count() == before
    assert ahead.take(np.array([1]))[0].images is IMAGES


def test_a_file_that_has_become_shorter_is_told_where_it_is_needed(split):
    ahead, wanted = ReadAhead(split), np.array([39])
    split.images.path.write_bytes(b"")
    ahead.expect(wanted)
    with pytest.raises(DataError, match="has become shorter"):
        ahead.take(wanted)


def test_no_thread_stays_behind(split):
    ahead = ReadAhead(split)
    ahead.expect(np.array([1]))
    ahead.take(np.array([1]))
    del ahead
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("read-ahead"):
            thread.join(5)
            assert not thread.is_alive()


def test_training_reads_all_batches_but_the_first_of_an_epoch_ahead(tmp_path, monkeypatch, readers):
    monkeypatch.setattr("cnnbp_cli.data.file_rows.IN_MEMORY", 0)
    for name, count in (("train", 40), ("test", 3)):
        np.save(tmp_path / f"x_{name}.npy", IMAGES[:count, 0])
        np.save(tmp_path / f"y_{name}.npy", LABELS[:count])
    config = {
        "data": {"source": "npy", "path": str(tmp_path)},
        "model": {"input": [1, 3, 4], "layers": ["flatten", {"type": "dense", "units": 7}]},
        "train": {"epochs": 2, "batch_size": 9, "workers": 1},
    }
    model = build(config_from_dict(config))
    data = cnnbp.load_data(model)
    readers.clear()
    list(cnnbp.fit(model, data, watch_every=0))
    ahead = [name.startswith("read-ahead") for name in readers]
    assert ahead.count(True) == 2 * 4
