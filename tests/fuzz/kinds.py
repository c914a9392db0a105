"""Every kind of input from outside: how hostile ones are made, and what the program does with them."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from cli.bars import BARS
from fuzz.models import onnx_files, read_model
from fuzz.mutations import VALUES, WORDS, byte_edits, contents, edited_bytes, places, replaced, texts
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from cnnbp_cli.analysis.compare import compare
from cnnbp_cli.analysis.gradnorms import recorded_norms
from cnnbp_cli.analysis.summary import summary
from cnnbp_cli.analysis.trained import load_trained
from cnnbp_cli.build import build
from cnnbp_cli.config.load import load_config, parse_config
from cnnbp_cli.config.schema import Csv, Idx, Limit, Npz, Pictures
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.data.dataset import load_dataset
from cnnbp_cli.data.pictures import read_pictures
from cnnbp_cli.errors import UserError
from cnnbp_cli.report import compare as report_compare
from cnnbp_cli.report import gradnorms as report_gradnorms
from cnnbp_cli.train.checkpoint import DIGEST, FORMAT, Checkpoint, digests
from cnnbp_cli.train.fit import fit

CONFIGS = Path(__file__).parents[2] / "configs"
MOST_STEPS = 7  # of a run that goes on from a hostile checkpoint


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of input.

    Attributes
    ----------
    name : str
    inputs : strategy
    feed : callable
        Given a folder to write in and an input, does what the program would do with it.
    share : int
        Its part of the inputs of a campaign.
    memory : int
        Bytes by which the process may grow, whatever the input.
    """

    name: str
    inputs: SearchStrategy[Any]
    feed: Callable[[Path, Any], object]
    share: int
    memory: int = 256 << 20


# ---------------------------------------------------------------- configs

EVERYTHING = """\
name: all
seed: 7
dtype: float64
data:
  source: synthetic
  kind: bars
  train: 30
  test: 12
  image: [1, 8, 8]
  classes: 3
  normalize: unit
  validation: 0.2
  augment: {shift: 1, rotate: 10, scale: 0.1}
  limit: {train: 20, test: 10}
model:
  input: [1, 8, 8]
  init: {type: normal, std: 0.1}
  head: softmax
  layers:
    - {type: conv2d, name: conv1, filters: 4, kernel_size: [3, 3], stride: 1, padding: same, dilation: 1, groups: 1,
       bias: true, init: {type: constant, value: 0.1}}
    - {type: batch_norm, momentum: 0.9, epsilon: 1e-5, affine: true}
    - &act {type: leaky_relu, name: act, slope: 0.01}
    - {type: conv2d, name: skip, filters: 4, kernel_size: 1, inputs: [input]}
    - {share: skip, name: again, inputs: [input]}
    - {type: add, inputs: [act, skip, again]}
    - {type: group_norm, groups: 2}
    - {type: avg_pool2d, pool_size: 2, stride: 2, padding: 0, count_include_pad: false}
    - {type: conv_transpose2d, filters: 2, kernel_size: 2, stride: 2, padding: valid, output_padding: 0}
    - {type: elu, alpha: 1.0}
    - {type: dropout, rate: 0.1}
    - flatten
    - {type: dense, units: 3, init: orthogonal}
train:
  loss: cross_entropy
  label_smoothing: 0.1
  epochs: 2
  max_steps: 3
  batch_size: 8
  optimizer: {type: adamw, learning_rate: 0.01, betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.01}
  schedule: {type: linear_warmup, steps: 2, start_factor: 0.3, then: {type: step, step_size: 1, gamma: 0.5}}
  clip_norm: 1.0
  early_stopping: {monitor: validation_loss, patience: 2, min_delta: 0.0}
  workers: 1
"""

_PIECES = (
    "&a0 [x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
    "%TAG !a! tag:a,2000:\n" * 50,
    "- " * 200 + "x",
    "? " * 200,
    "x: " * 200,
    "[" * 3000,
    '"' + "a" * 20_000,
    "#" * 20_000 + "\n",
    "a: 1\n" * 2000,
    "".join(f"k{i}: {i}\n" for i in range(2000)),
    "model: {layers: [" + "relu, " * 3000 + "]}\n",
)


def config_texts() -> list[str]:
    return [path.read_text("utf-8") for path in sorted(CONFIGS.glob("*.yaml"))] + [BARS, EVERYTHING, EVERYTHING]


def read_config(folder: Path, content: bytes) -> None:
    path = folder / "config.yaml"
    path.write_bytes(content)
    config = load_config(path)
    json.dumps(summary(config).to_dict())
    assert parse_config(to_yaml(config), folder=folder, name="config") == config


KEYS = [
    *(
        "name",
        "seed",
        "dtype",
        "data",
        "data.source",
        "data.path",
        "data.train",
        "data.image",
        "data.image.1",
        "data.limit",
    ),
    *(
        "data.augment.shift",
        "model.input",
        "model.input.0",
        "model.init",
        "model.init.std",
        "model.head",
        "model.layers",
    ),
    *("model.layers.0", "model.layers.conv1.filters", "model.layers.act", "model.layers.1.epsilon", "model.layers.99"),
    *("train", "train.loss", "train.epochs", "train.workers", "train.optimizer", "train.optimizer.learning_rate"),
    *(
        "train.optimizer.betas.1",
        "train.schedule.then",
        "train.schedule.then.gamma",
        "train.clip_norm",
        "x",
        "",
        ".",
        "a.b.c",
    ),
    *("model.layers.conv1.kernel_size.0", "model.layers.conv1.init.value", "train.early_stopping.patience"),
]


def override(key: str, value: str) -> str:
    return f"{key}={value}"


overrides = st.lists(
    st.builds(
        override,
        st.one_of(
            st.sampled_from(KEYS),
            st.sampled_from(KEYS),
            st.sampled_from(WORDS),
            st.lists(st.sampled_from([part for key in KEYS for part in key.split(".")]), max_size=5).map(".".join),
            st.integers(1, 60_000).map(lambda count: ".".join("a" * min(count, 20_000))),
        ),
        st.one_of(
            st.sampled_from(WORDS),
            st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join),
            st.lists(st.sampled_from(WORDS), max_size=4).map(lambda words: "[" + ", ".join(words) + "]"),
            st.tuples(st.sampled_from(("type", "units", "rate", "std")), st.sampled_from(WORDS)).map(
                lambda pair: f"{{{pair[0]}: {pair[1]}}}"
            ),
            st.text(max_size=12),
        ),
    ),
    min_size=1,
    max_size=3,
)


def read_overrides(folder: Path, texts: list[str]) -> None:
    config = parse_config(EVERYTHING, texts)
    json.dumps(summary(config).to_dict())
    assert parse_config(to_yaml(config), folder=folder) == config


# ---------------------------------------------------------------- data sets

INPUT = (1, 4, 6)
_RNG = np.random.default_rng(7)
_IMAGES = _RNG.integers(0, 256, (12, 4, 6), dtype=np.uint8)
_LABELS = np.arange(12, dtype=np.uint8) % 3


_HELD_OUT: dict[str, Any] = {"validation": 0.2, "limit": Limit(train=9, test=3)}


def _idx(array: Any) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


_IDX = {"images-idx3-ubyte": _idx(_IMAGES), "labels-idx1-ubyte": _idx(_LABELS)}
_NAMES = [f"{part}-{name}" for part in ("train", "t10k") for name in _IDX]


def idx_file(name: str, inner: list[Any], outer: list[Any], size: int, packed: bool) -> tuple[str, bytes]:
    content = edited_bytes(_IDX[name.partition("-")[2]], inner) if inner else _IDX[name.partition("-")[2]]
    content += bytes(size)
    if packed:
        content = gzip.compress(content, 1, mtime=0)
    return name + ".gz" * packed, edited_bytes(content, outer) if outer else content


def idx_files(packed: bool) -> SearchStrategy[tuple[str, bytes]]:
    nothing = st.just([])
    return st.builds(
        idx_file,
        st.sampled_from(_NAMES),
        byte_edits | nothing,
        byte_edits | nothing,
        st.sampled_from((0, 0, 0, 0, 0, 1, 100, 3_000_000)),
        st.just(packed),
    )


def read_idx(folder: Path, changed: tuple[str, bytes]) -> None:
    for name in _NAMES:
        (folder / name).write_bytes(_IDX[name.partition("-")[2]])
    name, content = changed
    (folder / name.removesuffix(".gz")).unlink()
    (folder / name).write_bytes(content)
    load_dataset(Idx(path=folder, **_HELD_OUT), INPUT, 0)


SIZES = (0, 1, 2, 4, 6, 12, 13, -1, 2**31, 2**63, 10**30, True, "x", None, 1.5)
DTYPES = ("|u1", "<f4", "<f8", ">i2", "<i8", "|b1", "<f2", "<c16", "|O", "<U3", "|S9", "<M8[s]", "V8", "f8,f8", "x", "")

headers = st.builds(
    lambda dtype, fortran, shape, wild: (
        f"{{'descr': {dtype!r}, 'fortran_order': {fortran!r}, 'shape': {wild or tuple(shape)}}}"
    ).encode(),
    st.sampled_from(DTYPES),
    st.sampled_from((False, False, True, 0, "no")),
    st.lists(st.sampled_from(SIZES), max_size=5) | st.sampled_from(([12, 4, 6], [12, 1, 4, 6], [12])),
    st.sampled_from(
        ("", "", "", "(12L, 4L, 6L)", "0x" + "f" * 5000, "(" * 900, "'\\d'", "__import__('os')", "(12,4,6)" * 99)
    ),
)
bodies = st.sampled_from((_IMAGES.tobytes(), _LABELS.tobytes(), b"", bytes(1000), bytes(3_000_000), b"cos\nsystem\n"))


def npy(header: bytes, body: bytes, version: int, length: int | None) -> bytes:
    shown = len(header) if length is None else length
    size = struct.pack("<H", shown % (1 << 16)) if version == 1 else struct.pack("<I", shown % (1 << 32))
    return b"\x93NUMPY" + bytes([version % 256, 0]) + size + header + body


arrays = st.builds(
    npy,
    headers,
    bodies,
    st.sampled_from((1, 1, 1, 2, 3, 0)),
    st.sampled_from((None, None, None, 0, 5, 65535, 2**32 - 1)),
)


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


_MEMBERS = {"x_train.npy": saved(_IMAGES), "y_train.npy": saved(_LABELS), "x_test.npy": saved(_IMAGES)}
_MEMBERS["y_test.npy"] = saved(_LABELS)


def zipped(changes: list[tuple[str, bytes]], method: int, again: str, edits: list[Any]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in (_MEMBERS | dict(changes)).items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
        if again:
            archive.writestr(zipfile.ZipInfo(again), b"again", method)
    return edited_bytes(file.getvalue(), edits) if edits else file.getvalue()


archives = st.builds(
    zipped,
    st.lists(st.tuples(st.sampled_from([*_MEMBERS, "../../x.npy", "/etc/x.npy", "x_train"]), arrays), max_size=2),
    st.sampled_from((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2)),
    st.sampled_from(("", "", "", "../up.npy", "C:\\x.npy", "a\x1b[31m.npy")),
    st.just([]) | byte_edits,
)


def read_npz(folder: Path, content: bytes) -> None:
    path = folder / "set.npz"
    path.write_bytes(content)
    with suppress(UserError):
        read_pictures(path, INPUT)
    load_dataset(Npz(path=path, **_HELD_OUT), INPUT, 0)


_ROWS = "\n".join(",".join(map(str, [label, *image.ravel()])) for label, image in zip(_LABELS, _IMAGES, strict=True))
_TABLES = [
    _ROWS,
    "label," + ",".join(f"p{k}" for k in range(24)) + "\n" + _ROWS + "\n",
    _ROWS.replace("\n", "\r\n\r\n"),
]


def read_csv(folder: Path, content: bytes) -> None:
    path = folder / "set.csv"
    path.write_bytes(content)
    load_dataset(Csv(path=path, **_HELD_OUT), INPUT, 0)


# ---------------------------------------------------------------- runs and checkpoints


@cache
def trained() -> Path:
    """A run of `bars.yaml`, with all its statistics."""
    folder = Path(tempfile.mkdtemp(prefix="cnnbp-fuzz-"))
    config = parse_config(BARS)
    for _ in fit(build(config), load_dataset(config.data, config.model.input, 0), run=folder / "run", watch_every=2):
        pass
    return folder / "run"


@cache
def _checkpoint() -> Checkpoint:
    return Checkpoint.read(max((trained() / "checkpoints").glob("step-*.npz")))


@cache
def _bars() -> Any:
    return load_dataset(parse_config(BARS).data, (1, 6, 6), 0)


ARRAYS = (
    *(np.zeros(0), np.zeros(3), np.array(3.0), np.full((2, 1, 3, 3), np.nan), np.full((2, 1, 3, 3), np.inf)),
    *(np.full((2, 1, 3, 3), 1e308), np.full(2, -1e30, np.float32), np.zeros((2, 8), np.int64), np.ones(2, bool)),
)


def checkpoint_file(
    place: int, value: Any, name: str, array: Any, moved: str, resealed: bool, edits: list[Any]
) -> bytes:
    """Write a checkpoint with one value of its header exchanged, or one array, or some of its bytes."""
    whole = _checkpoint()
    members = {f"parameters/{key}": part for key, part in whole.parameters.items()}
    members |= {f"optimizer/{key}": part for key, part in whole.optimizer.items()}
    if array is not None:
        members[sorted(members)[place % len(members)] if name == "any" else name] = array
    if moved:
        members[moved] = members.pop(sorted(members)[place % len(members)])
    members |= {f"best/{key}": part for key, part in whole.best.items()}
    header = {"format": FORMAT, "config": whole.config, "progress": whole.progress}
    header["normalization"] = whole.normalization
    if array is None and not moved and not edits:
        header = replaced(header, place, value)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, header=np.frombuffer(text, np.uint8), **members)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = bytes(DIGEST)
    if resealed:
        computed, _ = digests(file)
        file.seek(-DIGEST, os.SEEK_END)
        file.write(computed)
    return edited_bytes(file.getvalue(), edits) if edits else file.getvalue()


_no, _none = st.just(""), st.just(None)
_config_values = texts([BARS]).map(lambda text: text.decode("utf-8", "replace"))
checkpoints = st.one_of(
    st.builds(checkpoint_file, places, st.sampled_from(VALUES), _no, _none, _no, st.just(True), st.just([])),
    st.builds(checkpoint_file, st.just(1), _config_values, _no, _none, _no, st.just(True), st.just([])),
    st.builds(
        checkpoint_file,
        places,
        _none,
        st.sampled_from(("any", "any", "any", "header2", "parameters/x.weight", "parameters/", "optimizer/../x", "x")),
        st.sampled_from(ARRAYS),
        _no,
        st.booleans() | st.just(True),
        st.just([]),
    ),
    st.builds(
        checkpoint_file,
        places,
        _none,
        _no,
        _none,
        st.sampled_from(("parameters/a.b", "other/x", "")),
        st.just(True),
        byte_edits,
    ),
)


def read_checkpoint(folder: Path, content: bytes) -> None:
    """Predict with it, and go on from it."""
    path = folder / "checkpoints" / "step-00000004.npz"
    path.parent.mkdir()
    path.write_bytes(content)
    model, _ = load_trained(path)
    model.predict(np.zeros((1, 1, 6, 6), np.uint8))
    (folder / "config.yaml").write_text(BARS, encoding="utf-8")
    config = parse_config(BARS, [f"train.max_steps={MOST_STEPS}"])
    for _ in fit(build(config), _bars(), run=folder, resume=True, watch_every=0):
        pass


@cache
def _events() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (trained() / "events.jsonl").read_text("utf-8").splitlines()]


def events_text(line: int, place: int, value: Any, times: int, edits: list[Any]) -> bytes:
    records = list(_events())
    at = line % len(records)
    records[at : at + 1] = [replaced(records[at], place, value)] * times
    text = "".join(json.dumps(record) + "\n" for record in records).encode("utf-8", "surrogatepass")
    return edited_bytes(text, edits) if edits else text


event_files = st.builds(
    events_text, places, places, st.sampled_from(VALUES), st.sampled_from((1, 1, 1, 0, 2)), st.just([]) | byte_edits
)
run_files = st.tuples(event_files, st.just(b"") | st.just(b"") | texts([BARS]))


def read_run(folder: Path, files: tuple[bytes, bytes]) -> None:
    """Compare it with a good one and read its statistics, reports included."""
    run = folder / "run"
    shutil.copytree(trained(), run, ignore=lambda *_: ["checkpoints"])
    events, config = files
    (run / "events.jsonl").write_bytes(events)
    if config:
        (run / "config.yaml").write_bytes(config)
    with redirect_stdout(io.StringIO()):
        for format in ("table", "json"):
            report_compare.render(compare([trained(), run]), format)
            report_gradnorms.render(recorded_norms(run, of="activation"), format, "activation")


# ---------------------------------------------------------------- pictures


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, color: int, extra: bytes, pixels: bytes) -> bytes:
    """Write a PNG with right checksums, whatever it declares."""
    head = struct.pack(">IIBBBBB", width % (1 << 32), height % (1 << 32), depth, color, 0, 0, 0)
    text = _chunk(b"zTXt", b"k\0\0" + zlib.compress(extra)) if extra else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + text
        + _chunk(b"IDAT", zlib.compress(pixels))
        + _chunk(b"IEND", b"")
    )


def pictures() -> list[bytes]:
    """Return small pictures of every format that is read; none without Pillow."""
    try:
        from PIL import Image
    except ImportError:
        return []
    pixels = Image.fromarray(_RNG.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    made = []
    for format, modes in {
        **{
            "PNG": ("1", "L", "P", "RGB", "RGBA", "I;16"),
            "JPEG": ("L", "RGB", "CMYK"),
            "GIF": ("L", "P"),
            "BMP": ("1", "L", "RGB"),
        },
        **{"PPM": ("1", "L", "RGB"), "WEBP": ("RGB", "RGBA")},
    }.items():
        for mode in modes:
            file = io.BytesIO()
            picture = pixels.convert("L").convert("I").convert(mode) if mode == "I;16" else pixels.convert(mode)
            picture.save(file, format)
            made.append(file.getvalue())
    return made


def image_files() -> SearchStrategy[tuple[str, bytes]]:
    whole = st.builds(
        png,
        st.sampled_from((6, 6, *NUMBERS_OF_PIXELS)),
        st.sampled_from((4, 4, *NUMBERS_OF_PIXELS)),
        st.sampled_from((8, 8, 1, 2, 4, 16, 3)),
        st.sampled_from((0, 2, 3, 4, 6, 1)),
        st.sampled_from((b"", b"", b"t", bytes(3_000_000))),
        st.sampled_from((bytes(200), bytes(3_000_000), b"")),
    )
    pictured = contents(made).map(lambda content: ("a.png", content)) if (made := pictures()) else st.nothing()
    return st.one_of(
        pictured,
        pictured,
        whole.map(lambda content: ("a.png", content)) if made else st.nothing(),
        (arrays | contents([saved(_IMAGES), saved(_IMAGES / 255)])).map(lambda content: ("a.npy", content)),
    )


def read_folder(folder: Path, files: tuple[tuple[str, bytes], str, str, float]) -> None:
    """Read a picture among good ones, in a class and a split of any name."""
    (name, content), split, label, share = files
    for place in (folder / "set" / "train" / "a", folder / "set" / "train" / "b"):
        place.mkdir(parents=True)
        for number in range(3):
            (place / f"{number}.png").write_bytes(png(6, 4, 8, 0, b"", bytes(28)))
    (place := folder / "set" / split / label).mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)
    config = Pictures(path=folder / "set", test=share, on_error="skip" if share else "stop")
    load_dataset(config, INPUT, 0)


def folders() -> SearchStrategy[Any]:
    return st.tuples(
        image_files(),
        st.sampled_from(("train", "test", "val", "c", "Train")),
        st.sampled_from(("a", "b", "c", "0", " ", ".hidden", "9" * 99)),
        st.sampled_from((0, 0, 0.3)),
    )


NUMBERS_OF_PIXELS = (0, 1, 3000, 9459, 9460, 50_000, (1 << 31) - 1, (1 << 32) - 1)


def read_image(folder: Path, file: tuple[str, bytes]) -> None:
    name, content = file
    (folder / name).write_bytes(content)
    read_pictures(folder / name, INPUT)


def kinds() -> list[Kind]:
    """Return every kind of input."""
    bases = config_texts()
    pieces = st.builds(
        lambda text, piece: (text + piece).encode(), st.sampled_from(["", *bases]), st.sampled_from(_PIECES)
    )
    spliced = texts(bases)
    return [
        Kind("configs", st.one_of(*[spliced] * 9, pieces), read_config, 28),
        Kind("overrides", overrides, read_overrides, 16),
        Kind("IDX", idx_files(False), read_idx, 8),
        Kind("IDX, gzip", idx_files(True), read_idx, 8),
        Kind("NPZ", archives, read_npz, 10),
        Kind("CSV", texts(_TABLES) | contents([table.encode() for table in _TABLES]), read_csv, 8),
        Kind("checkpoints", checkpoints, read_checkpoint, 6),
        Kind("runs", run_files, read_run, 6),
        Kind("images", image_files(), read_image, 10, memory=1 << 30),
        Kind("folders", folders(), read_folder, 4, memory=1 << 30),
        *([Kind("ONNX", onnx_files(), read_model, 6)] if find_spec("onnx") else []),
    ]
