"""`cnnbp data fetch`: what it says while it works, and lines that really are a config's."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli.bars import Command

from cnnbp_cli.data import fetch as module
from cnnbp_cli.data.fetch import PublishedFile, PublishedSet
from cnnbp_cli.data.repacked import REPACKED_SETS


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def mirror(tmp_path_factory, monkeypatch):
    """Serve a small set that `fetch` takes for KMNIST."""
    folder, files = tmp_path_factory.mktemp("mirror"), []
    for split, count in (("train", 20), ("t10k", 10)):
        for kind, shape in (("images-idx3", (count, 6, 6)), ("labels-idx1", (count,))):
            name = f"{split}-{kind}-ubyte.gz"
            values = np.arange(np.prod(shape)).astype(np.uint8) % 2
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (folder / name).write_bytes(gzip.compress(header + values.tobytes()))
            files.append(PublishedFile(name, shape))
    monkeypatch.setitem(
        module.PUBLISHED_SETS, "kmnist", PublishedSet("kmnist", ("http://127.0.0.1:9",), 2, tuple(files))
    )
    with serving(folder, monkeypatch) as address:
        yield address


@pytest.fixture
def cifar10_mirror(tmp_path_factory, monkeypatch):
    """Serve 50 + 10 small pictures that `fetch` takes for CIFAR-10."""
    folder = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
            content = b"".join(bytes([label]) + bytes([20 * label]) * 3072 for label in range(10))
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    whole = REPACKED_SETS["cifar10"]
    md5 = hashlib.md5((folder / "cifar-10-binary.tar.gz").read_bytes(), usedforsecurity=False).hexdigest()
    originals = (replace(whole.originals[0], md5=md5),)
    monkeypatch.setitem(module.PUBLISHED_SETS, "cifar10", replace(whole, counts=(50, 10), originals=originals))
    with serving(folder, monkeypatch) as address:
        yield address


def test_the_lines_train(cnnbp: Command, mirror: str) -> None:
    done = cnnbp("data", "fetch", "kmnist", "--mirror", mirror)
    assert done.code == 0
    assert done.stdout == (
        "# 1×6×6 images of 2 classes; the path is relative to the config's folder\n"
        "data:\n  source: idx\n  path: kmnist\n"
    )
    assert len(done.stderr.splitlines()) == 8
    assert done.stderr.startswith("train-images-idx3-ubyte.gz: ")
    config = yaml.safe_load(Path("bars.yaml").read_text()) | yaml.safe_load(done.stdout)
    Path("fetched.yaml").write_text(yaml.safe_dump(config))
    assert json.loads(cnnbp("data", "info", "fetched.yaml", "--format", "json").stdout)["classes"] == 2
    again = cnnbp("data", "fetch", "kmnist", "--mirror", mirror)
    assert again.stdout == done.stdout
    assert all(": already there, " in line for line in again.stderr.splitlines())


def test_the_lines_for_pictures_in_color_train(cnnbp: Command, cifar10_mirror: str) -> None:
    done = cnnbp("data", "fetch", "cifar10", "--mirror", cifar10_mirror)
    assert done.code == 0
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert done.stdout == (
        "# 3×32×32 images of 10 classes; the path is relative to the config's folder\n"
        "data:\n  source: npz\n  path: cifar10/cifar10.npz\n  classes:\n" + "".join(f"  - {name}\n" for name in names)
    )
    assert done.stderr.endswith(", verified by md5 of what was published\n")
    config = yaml.safe_load(done.stdout) | {
        "model": {"input": [3, 32, 32], "layers": [{"type": "flatten"}, {"type": "dense", "units": 10}]},
        "train": {"epochs": 1, "batch_size": 10},
    }
    Path("fetched.yaml").write_text(yaml.safe_dump(config))
    trained = cnnbp("train", "fetched.yaml", "--out", "run")
    assert trained.code == 0, trained.stderr
    found = json.loads(cnnbp("data", "info", "fetched.yaml", "--format", "json").stdout)
    assert [split["count"] for split in found["splits"]] == [50, 10]
    again = cnnbp("data", "fetch", "cifar10", "--mirror", cifar10_mirror, "--format", "json")
    assert json.loads(again.stdout)["data"] == config["data"]
    assert ": already there, " in again.stderr


def test_for_programs(cnnbp: Command, mirror: str) -> None:
    arguments = ("data", "fetch", "kmnist", "sets/größe 1", "--mirror", mirror, "--format")
    found = json.loads(cnnbp(*arguments, "json").stdout)
    assert (found["name"], found["input"], found["classes"]) == ("kmnist", [1, 6, 6], 2)
    assert found["data"] == {"source": "idx", "path": "sets/größe 1"}
    assert [file["fetched"] for file in found["files"]] == [True] * 4
    rows = list(csv.DictReader(cnnbp(*arguments, "csv").stdout.splitlines()))
    assert {row["verified"] for row in rows} == {"header and size"}


def test_what_cannot_be_fetched(cnnbp: Command, mirror: str) -> None:
    done = cnnbp("data", "fetch", "kmnist", "--mirror", f"{mirror}/nowhere")
    assert (done.code, done.stdout) == (2, "")
    url = f"{mirror}/nowhere/train-images-idx3-ubyte.gz"
    assert done.stderr.startswith(f"error: {url}: the server answers 404 (")
    assert not Path("kmnist").exists()


def test_only_emnist_has_splits(cnnbp: Command) -> None:
    done = cnnbp("data", "fetch", "mnist", "--split", "letters")
    assert done.code == 2
    assert done.stderr == "error: --split: only emnist has several sets\n"
