"""The shipped configs of published networks go out as ONNX and come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnbp_cli.build import build
from cnnbp_cli.config.load import load_config
from cnnbp_cli.config.write import to_dict
from cnnbp_cli.imports.onnx import read_onnx

pytest.importorskip("onnx")
from cnnbp_cli.exports.onnx import save_onnx

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "published").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_export_and_import_are_the_identity(path: Path, tmp_path: Path) -> None:
    model = build(load_config(path), any_target=True)
    save_onnx(model, tmp_path / "model.onnx")
    again, _, _ = read_onnx(tmp_path / "model.onnx", path.stem)
    assert to_dict(again.config) == to_dict(model.config)
    assert (again.vector == model.vector).all()
