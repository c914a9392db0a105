"""Event files say what the run recorded, read back by TensorBoard itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.analysis.history import read_history
from cnnbp_cli.exports.tensorboard import FILE, export_tensorboard
from cnnbp_cli.files import WriteError
from cnnbp_cli.train.run_directory import RunError

pytest.importorskip("tensorboard")

CONFIG = """\
data: {source: synthetic, kind: bars, train: 60, test: 20, validation: 0.2}
model: {input: [1, 6, 6], layers: [{type: conv2d, filters: 2, kernel_size: 3}, relu, flatten, {type: dense, units: 2}]}
train: {epochs: 2, batch_size: 12, workers: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "bars.yaml").write_text(CONFIG, encoding="utf-8")
    model = cnnbp.load(folder / "bars.yaml")
    for _ in cnnbp.fit(model, cnnbp.load_data(model), run=folder / "run", watch_every=2):
        pass
    return folder / "run"


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return every curve that TensorBoard finds in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder), size_guidance=STORE_EVERYTHING_SIZE_GUIDANCE)
    events.Reload()
    names = events.Tags()["tensors"]
    return {name: [(one.step, make_ndarray(one.tensor_proto).item()) for one in events.Tensors(name)] for name in names}


def test_every_figure_is_there(run: Path, tmp_path: Path) -> None:
    export_tensorboard(run, tmp_path / "new" / "board")
    found = curves(tmp_path / "new" / "board")
    history = read_history(run)

    def same(name: str, points: list[tuple[int, float]]) -> None:
        assert found[name] == [(step, float(np.float32(value))) for step, value in points], name

    same("loss/train", [(step.step, step.loss) for step in history.steps])
    same("accuracy/train", [(step.step, step.accuracy) for step in history.steps])
    same("learning_rate", [(step.step, step.learning_rate) for step in history.steps])
    same("grad_norm", [(step.step, step.grad_norm) for step in history.steps])
    same("loss/validation", [(epoch.step, epoch.validation_loss) for epoch in history.epochs])
    same("accuracy/validation", [(epoch.step, epoch.validation_accuracy) for epoch in history.epochs])
    same("loss/test", [(history.finished.step, history.finished.test_loss)])
    same("accuracy/test", [(history.finished.step, history.finished.test_accuracy)])
    assert len(history.watched) == 5
    for layer in ("conv2d_1", "dense_1"):
        same(f"gradient/{layer}", [(one.step, one.layers[layer].gradient) for one in history.watched])
    same("dead/relu_1", [(one.step, one.layers["relu_1"].dead) for one in history.watched])
    assert "gradient/relu_1" not in found


def test_a_newer_export_takes_the_place_of_the_older(run: Path, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"an older export")
    export_tensorboard(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert len(curves(tmp_path)["loss/train"]) == 8


def test_what_is_no_run_and_what_is_no_folder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run directory"):
        export_tensorboard(tmp_path, tmp_path / "board")
    assert not (tmp_path / "board").exists()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=f"^{tmp_path / 'file'}: cannot be made: File exists$"):
        export_tensorboard(run, tmp_path / "file")
