"""Files that want to do harm, or are damaged: one message each, exit code 2, and nothing written.

`tests/fuzz` draws thousands more of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cnnbp_cli.cli.app import app

onnx = pytest.importorskip("onnx")
from fuzz.models import models  # noqa: E402 (onnx may be missing)


def outside(proto: Any, place: str) -> None:
    tensor = proto.graph.initializer[2]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place


def sized(proto: Any, *sizes: int) -> None:
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, sizes, strict=True):
        dim.dim_value = size


def cycle(proto: Any) -> None:
    proto.graph.node[2].input[0] = proto.graph.node[5].output[0]


def called(proto: Any, name: str) -> None:
    proto.graph.node[2].name = name
    proto.graph.node[2].op_type = "Nonsense"


ATTACKS = {
    "a file of the system": lambda proto: outside(proto, "/etc/passwd"),
    "a folder above": lambda proto: outside(proto, "../secret"),
    "a device": lambda proto: outside(proto, "/dev/zero"),
    "images beyond memory": lambda proto: sized(proto, 1, 2, 1 << 40, 1 << 40),
    "images of no size": lambda proto: sized(proto, 1, 2, -6, 6),
    "a cycle": cycle,
    "a name that a terminal obeys": lambda proto: called(proto, "\x1b[2J\x07"),
    "a name without end": lambda proto: called(proto, "x" * 100_000),
    "a weight that is not there": lambda proto: proto.graph.initializer.pop(2),
    "a tensor of another size": lambda proto: proto.graph.initializer[2].dims.extend([1 << 40]),
    "an infinite weight": lambda proto: setattr(proto.graph.initializer[2], "raw_data", b"\0\0\x80\x7f" * 72),
    "a division by 0": lambda proto: setattr(proto.graph.initializer[1], "raw_data", bytes(8)),
    "a version of the future": lambda proto: setattr(proto.opset_import[0], "version", 1 << 40),
}


def refusal(path: Path) -> str:
    done = CliRunner().invoke(app, ["import", str(path), str(path.with_suffix(".yaml"))])
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert not done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stderr.replace("\n", "").isprintable()
    assert len(done.stderr) < 3000
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return done.stderr


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack(attack: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"mine" * 100)
    (folder := tmp_path / "work").mkdir()
    proto = models()[0]
    ATTACKS[attack](proto)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    assert "mine" not in refusal(folder / "model.onnx")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_short(share: float, tmp_path: Path) -> None:
    content = models()[0].SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content[: int(share * len(content))])
    refusal(tmp_path / "model.onnx")


def test_a_kernel_that_is_larger_than_the_image_before_a_slice(tmp_path: Path) -> None:
    """Which would end the process: onnx's own inference does not survive sizes below 0."""
    proto = models()[1]
    sized(proto, 1, 1, 1, 6)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    assert "the image is too small: 'c' would have the shape [1, 4, -1, 4]" in refusal(tmp_path / "model.onnx")


@pytest.mark.parametrize("number", [0, 1])
def test_the_files_that_they_are_made_from_are_right(number: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models()[number].SerializeToString())
    assert CliRunner().invoke(app, ["import", str(path), str(path.with_suffix(".yaml"))]).exit_code == 0
