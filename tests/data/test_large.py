"""Data that stay in their files train, resume and evaluate as data in memory do."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.analysis.trained import measured_by, split_for
from cnnbp_cli.build import build
from cnnbp_cli.config.load import config_from_dict
from cnnbp_cli.data import file_rows
from cnnbp_cli.data.batches import BLOCK_SAMPLES, order
from cnnbp_cli.data.dataset import DataError
from cnnbp_cli.data.file_rows import FileRows
from cnnbp_cli.data.fingerprint import fingerprint
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.run_directory import RunDirectory

RNG = np.random.default_rng(0)
COUNT = 60


@pytest.fixture
def on_disk(monkeypatch):
    """Let all plain files of images count as larger than memory."""
    monkeypatch.setattr(file_rows, "IN_MEMORY", 0)


def bars(count):
    """Return images of bars (N, 6, 6) and their labels."""
    labels = np.arange(count) % 2
    images = RNG.integers(0, 80, (count, 6, 6)).astype(np.uint8)
    for image, label, place in zip(images, labels, RNG.integers(0, 6, count), strict=True):
        image[(slice(None), place) if label else place] = 250
    return images, labels


def write_idx(folder):
    for name, count in (("train", COUNT), ("t10k", 20)):
        images, labels = bars(count)
        header = np.array([0x803, *images.shape], ">u4").tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = np.array([0x801, count], ">u4").tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())


def write_npy(folder, layout=lambda images: images):
    for name, count in (("train", COUNT), ("test", 20)):
        images, labels = bars(count)
        np.save(folder / f"x_{name}.npy", layout(images))
        np.save(folder / f"y_{name}.npy", labels)


def config(folder, source, **data):
    layers = [
        {"type": "conv2d", "filters": 2, "kernel_size": 3},
        "relu",
        "global_avg_pool2d",
        {"type": "dense", "units": 2},
    ]
    return config_from_dict(
        {
            "name": "large",
            "data": {"source": source, "path": str(folder), "validation": 0.2, **data},
            "model": {"input": [1, 6, 6], "layers": layers},
            "train": {"epochs": 2, "batch_size": 8, "workers": 1, "checkpoint_every": 3},
        }
    )


WRITERS = {
    "idx": write_idx,
    "npy": write_npy,
    "npy with channels last": lambda folder: write_npy(folder, lambda images: images[..., None]),
    "npy of floats": lambda folder: write_npy(folder, lambda images: (images / 255).astype(np.float32)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_everything_is_as_in_memory(kind, tmp_path, monkeypatch):
    WRITERS[kind](tmp_path)
    made = config(tmp_path, kind.split()[0])
    results = []
    for limit in (1 << 28, 0):
        monkeypatch.setattr(file_rows, "IN_MEMORY", limit)
        data = cnnbp.load_data(made)
        assert isinstance(data.train.images, FileRows) == (limit == 0)
        model = build(made)
        list(fit(model, data))
        results.append((data, model.parameters()))
    (memory, one), (disk, other) = results
    assert disk.normalization.low == memory.normalization.low
    np.testing.assert_allclose(disk.normalization.mean, memory.normalization.mean, rtol=1e-12)
    np.testing.assert_allclose(disk.normalization.std, memory.normalization.std, rtol=1e-12)
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(disk, name).images[:], getattr(memory, name).images)
        np.testing.assert_array_equal(getattr(disk, name).labels, getattr(memory, name).labels)
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-5, atol=1e-7)


def test_two_workers_read_their_shares(on_disk, tmp_path):
    write_npy(tmp_path)
    made = config(tmp_path, "npy")
    trained = []
    for workers in (1, 2):
        model = build(made)
        list(fit(model, cnnbp.load_data(made), config=with_workers(made, workers)))
        trained.append(model.parameters())
    for name, value in trained[0].items():
        np.testing.assert_allclose(trained[1][name], value, rtol=1e-4, atol=1e-6)


def with_workers(made, workers):
    from dataclasses import replace

    return replace(made, train=replace(made.train, workers=workers))


def test_what_was_measured_is_kept_beside_the_run_and_used_again(on_disk, tmp_path, monkeypatch):
    write_npy(tmp_path)
    made, run = config(tmp_path, "npy"), tmp_path / "run"
    stopped = iter([False] * 4 + [True] * 99)
    list(fit(build(made), cnnbp.load_data(made), run=run, stop=lambda: next(stopped)))
    kept = RunDirectory(run).measured
    assert {key for record in json.loads(kept.read_text()) for key in record["measured"]} == {"statistics", "sha256"}
    monkeypatch.setattr(FileRows, "blocks", None)  # no pass over a whole file any more
    data = cnnbp.load_data(made, kept)
    straight = fingerprint(data, data.kept)
    events = list(fit(build(made), data, run=run, resume=True))
    assert events[-1].event == "finished"
    assert fingerprint(data, data.kept) == straight
    model = cnnbp.load(run)
    split, _ = split_for(model, "test", kept=measured_by(run))
    assert len(split) == 20


def test_what_was_measured_on_a_file_that_has_changed_is_not_used(on_disk, tmp_path):
    write_npy(tmp_path)
    made, run = config(tmp_path, "npy"), tmp_path / "run"
    data = cnnbp.load_data(made)
    list(fit(build(made), data, run=run))
    write_npy(tmp_path)  # other pixels
    again = cnnbp.load_data(made, RunDirectory(run).measured)
    assert again.normalization != data.normalization


def test_a_damaged_record_of_measurements_is_as_none(on_disk, tmp_path):
    write_npy(tmp_path)
    for text in ("", "{", "[1]", '[{"images": {}}]', "null"):
        (tmp_path / "data.json").write_text(text)
        assert len(cnnbp.load_data(config(tmp_path, "npy"), tmp_path / "data.json").train) == 48


@pytest.mark.parametrize("count", [1, 1000, BLOCK_SAMPLES * 40 + 17])
def test_blocks_are_a_permutation_that_keeps_neighbors_near(count):
    visit = order(0, 1, count, "blocks")
    np.testing.assert_array_equal(np.sort(visit), np.arange(count))
    np.testing.assert_array_equal(visit, order(0, 1, count, "blocks"))
    if count > BLOCK_SAMPLES:
        assert (visit != order(0, 2, count, "blocks")).mean() > 0.9
        first = visit[: 16 * BLOCK_SAMPLES] // BLOCK_SAMPLES
        assert len(np.unique(first)) <= 17  # of 41 blocks
        assert (np.diff(visit) == 1).mean() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images.astype(np.int64), "is too large for memory and <i8; store uint8, float32 or float64"),
        (np.asfortranarray, "is too large for memory and in Fortran order"),
        (lambda images: images.astype(">f4"), "is too large for memory and >f4"),
        (lambda images: np.where(images > 240, np.nan, images).astype(np.float32), "has a pixel that is not finite"),
        (lambda images: images[:, :5], r"images are \[1, 5, 6\], but the config says \[1, 6, 6\]"),
    ],
)
def test_large_files_that_cannot_stay_on_disk(change, message, on_disk, tmp_path):
    write_npy(tmp_path, change)
    with pytest.raises(DataError, match=message):
        cnnbp.load_data(config(tmp_path, "npy"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "y_train.npy").unlink(), "has no y_train"),
        (lambda folder: (folder / "x_test.npy").write_bytes(b"no array"), "x_test.npy: is not a NumPy array"),
        (
            lambda folder: np.save(folder / "y_train.npy", np.arange(7)),
            "x_train has 60 images, but y_train has 7 labels",
        ),
        (lambda folder: np.save(folder / "train_images.npy", np.zeros((60, 6, 6))), None),
    ],
)
def test_folders_of_npy_files_that_do_not_fit(spoil, message, tmp_path):
    write_npy(tmp_path)
    spoil(tmp_path)
    if message is None:  # the name as it should be goes first
        assert len(cnnbp.load_data(config(tmp_path, "npy")).train) == 48
        return
    with pytest.raises(DataError, match=message):
        cnnbp.load_data(config(tmp_path, "npy"))


def test_a_plain_idx_file_that_is_cut_short_is_complained_about(on_disk, tmp_path):
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"more than a file of its size can hold|contains"):
        cnnbp.load_data(config(tmp_path, "idx"))


@pytest.fixture
def hinted(monkeypatch):
    """Return a list that grows by the place and the size of what the system is told to fetch."""
    told = []
    monkeypatch.setattr(file_rows.os, "posix_fadvise", lambda file, at, size, advice: told.append((at, size)))
    return told


def rows_of(tmp_path, order=None):
    (tmp_path / "rows").write_bytes(bytes(8) + np.arange(40, dtype=np.uint8).repeat(6).tobytes())
    return FileRows(tmp_path / "rows", 8, (40, 1, 2, 3), np.uint8, order)


@pytest.mark.skipif(not hasattr(file_rows.os, "posix_fadvise"), reason="the system takes no hints")
def test_the_system_is_told_what_comes_next_where_the_disk_has_made_a_batch_wait(tmp_path, monkeypatch, hinted):
    rows = rows_of(tmp_path, np.arange(40)[::-1].copy())
    monkeypatch.setattr(file_rows, "DISK_SECONDS", 1e9)
    rows[np.array([3, 1])]
    rows.expect(np.array([0, 5]))
    assert hinted == []
    monkeypatch.setattr(file_rows, "DISK_SECONDS", 0.0)
    assert rows[np.array([3, 2, 9])][:, 0, 0, 0].tolist() == [36, 37, 30]
    rows.expect(np.array([0, 6, 5]))
    assert hinted == [(8 + 39 * 6, 6), (8 + 33 * 6, 12)]
    monkeypatch.setattr(file_rows, "DISK_SECONDS", 1e9)
    for _ in range(2 * file_rows.HINTED_BATCHES):
        rows.expect(np.array([0]))
    assert len(hinted) == 2 + file_rows.HINTED_BATCHES - 1


@pytest.mark.skipif(not hasattr(file_rows.os, "posix_fadvise"), reason="the system takes no hints")
def test_a_system_that_refuses_a_hint_is_not_complained_about(tmp_path, monkeypatch):
    def refused(file, at, size, advice):
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr(file_rows.os, "posix_fadvise", refused)
    monkeypatch.setattr(file_rows, "DISK_SECONDS", 0.0)
    rows = rows_of(tmp_path)
    rows[np.array([3])]
    rows.expect(np.array([0]))
    assert rows[np.array([5])][0, 0, 0, 0] == 5


@pytest.mark.parametrize("workers", [1, 2])
def test_training_tells_all_batches_but_the_first_of_an_epoch(workers, on_disk, tmp_path, monkeypatch):
    """Each worker those of its own share."""
    told = tmp_path / "told"

    def note(self, rows):
        with told.open("a") as file:
            file.write(f"{len(rows)}\n")

    monkeypatch.setattr(FileRows, "expect", note)
    write_npy(tmp_path)
    made = with_workers(config(tmp_path, "npy", validation=0), workers)  # 60 images: seven batches of 8, and one of 4
    list(fit(build(made), cnnbp.load_data(made)))
    found = sorted(map(int, told.read_text().split()))
    assert found == [4 // workers] * 2 * workers + [8 // workers] * 12 * workers
