"""Weight files: what is written reads back, here and in PyTorch, and what does not fit is refused whole."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports.models import make_model, pixels, shuffle

import cnnbp_cli as cnnbp
from cnnbp_cli.core.layers import BatchNorm, Conv2d, Dense, Flatten, MaxPool2d, Relu
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.files import WriteError, replace_file
from cnnbp_cli.model import Model
from cnnbp_cli.weights import WeightsError, WeightsFrom, read_weights, save_weights, use_weights

Save = Callable[[dict[str, np.ndarray], Path], None]


def save_npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def save_safetensors(arrays: dict[str, np.ndarray], path: Path) -> None:
    pytest.importorskip("safetensors").numpy.save_file(arrays, path)


@pytest.fixture(params=["npz", "safetensors"])
def form(request: pytest.FixtureRequest) -> str:
    if request.param == "safetensors":
        pytest.importorskip("safetensors.numpy")
    return request.param


@pytest.fixture
def save(form: str) -> Save:
    return save_npz if form == "npz" else save_safetensors


@pytest.fixture
def model() -> Model:
    return make_model(
        (1, 8, 8),
        [
            ("conv1", Conv2d(3, 3), ("input",)),
            ("norm", BatchNorm(), ("conv1",)),
            ("relu", Relu(), ("norm",)),
            ("pool", MaxPool2d(2), ("relu",)),
            ("flat", Flatten(), ("pool",)),
            ("last", Dense(4, bias=False), ("flat",)),
        ],
        head="softmax",
    )


def twin(model: Model) -> Model:
    """Return a model of the same config with other values."""
    layers = [(spec.name, spec.layer, spec.inputs) for spec in model.config.model.layers]
    other = make_model(model.config.model.input, layers, head=model.config.model.head, dtype=model.dtype.name)
    other.set_parameters({name: value + 1 for name, value in other.parameters().items()})
    return other


def assert_same(left: Model, right: Model) -> None:
    theirs = right.parameters()
    for name, value in left.parameters().items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_what_is_written_reads_back(model: Model, form: str, tmp_path: Path) -> None:
    pixels(model, 1)
    path = tmp_path / f"weights.{form}"
    path.write_bytes(b"what was there before")
    cnnbp.export(model, path)
    other = twin(model)
    use_weights(other, path)
    assert_same(other, model)
    assert other.normalization == model.normalization
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


NAMES = ("cat", "dog", "hen", "Übung")


def test_names_of_classes_come_back(model: Model, form: str, tmp_path: Path) -> None:
    model.class_names = NAMES
    cnnbp.export(model, tmp_path / "weights", to=form)
    other = twin(model)
    use_weights(other, tmp_path / "weights")
    assert other.class_names == NAMES
    other.class_names = own = ("a", "b", "c", "d")
    use_weights(other, tmp_path / "weights")
    assert other.class_names == own
    partly = twin(model)
    use_weights(partly, WeightsFrom(tmp_path / "weights", partial=True))  # its last layer may be another
    assert partly.class_names is None


def test_names_of_classes_that_are_none_are_one_complaint(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    save_npz(model.parameters(), path)
    for classes in ("{", '{"a": 1}', "[1]", '["\\u0007"]'):
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = json.dumps({"classes": classes}).encode()
        with pytest.raises(WeightsError, match=f"^{path}: is damaged: "):
            use_weights(model, path)


def test_the_name_of_the_file_does_not_matter(model: Model, form: str, tmp_path: Path) -> None:
    cnnbp.export(model, tmp_path / "weights", to=form)
    other = twin(model)
    use_weights(other, tmp_path / "weights")
    assert_same(other, model)
    assert other.normalization is None


def test_npz_holds_the_parameters_alone_and_the_rest_in_its_comment(model: Model, tmp_path: Path) -> None:
    pixels(model, 1)
    cnnbp.export(model, tmp_path / "weights.npz")
    with np.load(tmp_path / "weights.npz") as arrays:
        assert arrays.files == list(model.parameters())
        assert arrays["conv1.weight"].shape == (3, 1, 3, 3)
    with zipfile.ZipFile(tmp_path / "weights.npz") as archive:
        notes = json.loads(archive.comment)
    assert json.loads(notes["normalization"]) == model.normalization.to_dict()
    assert notes["config"].startswith("name: one-layer\n")


def test_safetensors_say_the_same_in_their_metadata(model: Model, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    pixels(model, 1)
    cnnbp.export(model, tmp_path / "weights.safetensors")
    with safetensors.safe_open(tmp_path / "weights.safetensors", framework="numpy") as file:
        assert set(file.keys()) == set(model.parameters())
        notes = file.metadata()
    assert json.loads(notes["normalization"]) == model.normalization.to_dict()
    assert notes["config"].startswith("name: one-layer\n")


def test_a_checkpoint_is_a_weight_file(tmp_path: Path) -> None:
    config = tmp_path / "bars.yaml"
    config.write_text(
        "data: {source: synthetic, kind: bars, train: 24, test: 6, classes: [upright, level]}\n"
        "model: {input: [1, 6, 6], layers: [flatten, {type: dense, units: 2}]}\n"
        "train: {epochs: 1, workers: 1}\n",
        encoding="utf-8",
    )
    trained = cnnbp.load(config)
    for _ in cnnbp.fit(trained, cnnbp.load_data(trained), run=tmp_path / "run"):
        pass
    checkpoint = max((tmp_path / "run" / "checkpoints").glob("step-*.npz"))
    loaded = cnnbp.load(config, weights=checkpoint)
    assert_same(loaded, trained)
    assert loaded.normalization == trained.normalization
    config.write_text(config.read_text(encoding="utf-8").replace("[upright, level]", "2"), encoding="utf-8")
    assert cnnbp.load(config, weights=checkpoint).class_names == ("upright", "level")


@pytest.mark.parametrize(("stored", "wanted"), [("float64", "float32"), ("float32", "float64"), ("float16", "float32")])
def test_floats_of_another_width_are_converted(
    stored: str, wanted: str, model: Model, save: Save, tmp_path: Path
) -> None:
    arrays = {name: value.astype(stored) for name, value in model.parameters().items()}
    save(arrays, tmp_path / "weights")
    layers = [(spec.name, spec.layer, spec.inputs) for spec in model.config.model.layers]
    other = make_model((1, 8, 8), layers, dtype=wanted)
    use_weights(other, tmp_path / "weights")
    for name, value in other.parameters().items():
        assert value.dtype == wanted
        np.testing.assert_array_equal(value, arrays[name].astype(wanted))


def without(name: str) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda arrays: arrays.pop(name)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without("norm.running_var"), "does not fit the model: parameter norm.running_var is missing"),
        (
            lambda arrays: arrays.update({"extra.weight": np.ones(2, np.float32)}),
            "does not fit the model: there is no parameter 'extra.weight'; the model has conv1.weight, conv1.bias, "
            "norm.weight, norm.bias, norm.running_mean, norm.running_var, last.weight; --map auto matches layers "
            "by kind, shape and order",
        ),
        (
            lambda arrays: arrays.update({"conv1.weight": np.ones((3, 1, 5, 5), np.float32)}),
            "does not fit the model: parameter conv1.weight: expected shape (3, 1, 3, 3), got (3, 1, 5, 5)",
        ),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_what_does_not_fit_is_refused_whole(
    change: Callable[[dict[str, np.ndarray]], None], complaint: str, model: Model, save: Save, tmp_path: Path
) -> None:
    arrays = {name: value + 2 for name, value in model.parameters().items()}
    change(arrays)
    path = tmp_path / "weights"
    save(arrays, path)
    before = model.parameters()
    with pytest.raises(WeightsError) as error:
        use_weights(model, path)
    assert str(error.value) == f"{path}: {complaint}"
    assert all((value == before[name]).all() for name, value in model.parameters().items())


def test_whole_numbers_are_no_parameters(model: Model, form: str, save: Save, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save(model.parameters() | {"conv1.bias": np.zeros(3, np.int64)}, path)
    said = {
        "npz": "dtype int64, expected float32 or float64",
        "safetensors": "dtype I64, expected F32 or F64 (float32, float64)",
    }
    with pytest.raises(WeightsError) as error:
        use_weights(model, path)
    assert str(error.value) == f"{path}: conv1.bias has {said[form]}"


def test_a_damaged_file_is_one_complaint(model: Model, form: str, tmp_path: Path) -> None:
    cnnbp.export(model, tmp_path / "whole", to=form)
    content = (tmp_path / "whole").read_bytes()
    path = tmp_path / "damaged"
    for damaged in (
        content[: len(content) // 2],
        content[:9],
        content[:-1],
        content[:100] + b"\xff" * 40 + content[140:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=f"^{path}"):
            use_weights(model, path)


def test_whatever_the_damage_there_is_a_complaint_or_a_model(model: Model, form: str, tmp_path: Path) -> None:
    pixels(model, 1)
    path = tmp_path / "weights"
    cnnbp.export(model, path, to=form)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        start = int(rng.integers(len(whole) if rng.random() < 0.5 else 400))  # headers come first
        stop = start + int(rng.integers(1, 30))
        content[start:stop] = rng.bytes(int(rng.integers(30)))
        path.write_bytes(content)
        try:
            use_weights(model, path)
        except WeightsError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(40), b"not weights at all", bytes(64)])
def test_something_else_is_one_complaint(content: bytes, model: Model, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(WeightsError, match=f"^{tmp_path / 'weights'}: is (neither npz nor|not an npz)"):
        use_weights(model, tmp_path / "weights")


def test_a_place_without_a_file_is_one_complaint(model: Model, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(WeightsError, match=f"^{path}: "):
            use_weights(model, path)


@pytest.mark.parametrize("comment", [b"made elsewhere", b"[1]", b"{}", b"\xff"])
def test_the_comments_of_others_mean_nothing(comment: bytes, model: Model, tmp_path: Path) -> None:
    save_npz(model.parameters(), tmp_path / "weights.npz")
    with zipfile.ZipFile(tmp_path / "weights.npz", "a") as archive:
        archive.comment = comment
    assert read_weights(tmp_path / "weights.npz").normalization is None


def test_a_normalization_that_is_none_is_one_complaint(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    save_npz(model.parameters(), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = json.dumps({"normalization": '{"kind": "unit", "mean": [0], "std": [0]}'}).encode()
    with pytest.raises(WeightsError, match=f"^{path}: normalization: expected finite means"):
        use_weights(model, path)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match=f"^{tmp_path / 'folder'}: cannot be written: "):
        replace_file(tmp_path / "folder", b"content")
    with pytest.raises(WriteError, match=f"^{tmp_path / 'none' / 'file'}: cannot be written: No such file"):
        replace_file(tmp_path / "none" / "file", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# ---------------------------------------------------------------- PyTorch


def module(torch: Any) -> Any:
    """Return the equivalent of `model`, as anybody would write it."""
    layers = {
        "conv1": torch.nn.Conv2d(1, 3, 3),
        "norm": torch.nn.BatchNorm2d(3),
        "relu": torch.nn.ReLU(),
        "pool": torch.nn.MaxPool2d(2),
        "flat": torch.nn.Flatten(),
        "last": torch.nn.Linear(27, 4, bias=False),
        "head": torch.nn.Softmax(1),
    }
    net = torch.nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


def images() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(6, 1, 8, 8)).astype(np.float32)


def test_pytorch_loads_what_is_exported(model: Model, form: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / f"weights.{form}"
    cnnbp.export(model, path)
    if form == "npz":
        with np.load(path) as arrays:
            state = {name: torch.from_numpy(value) for name, value in arrays.items()}
    else:
        from safetensors.torch import load_file

        state = load_file(path)
    net = module(torch)
    net.load_state_dict(state)
    with torch.no_grad():
        theirs = net.eval()(torch.from_numpy(images())).numpy()
    np.testing.assert_allclose(model.predict(images()), theirs, rtol=0, atol=1e-6)


def test_what_pytorch_saves_is_loaded(model: Model, form: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = module(torch)
    net(torch.from_numpy(images()))  # in training mode: running statistics move
    state = net.state_dict()
    assert int(state["norm.num_batches_tracked"]) == 1
    path = tmp_path / "theirs"
    if form == "npz":
        save_npz({name: value.numpy() for name, value in state.items()}, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    use_weights(model, path)
    with torch.no_grad():
        theirs = net.eval()(torch.from_numpy(images())).numpy()
    np.testing.assert_allclose(model.predict(images()), theirs, rtol=0, atol=1e-6)


def test_half_precision_of_another_kind_is_refused_by_name(model: Model, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "weights"
    save_file(module(torch).bfloat16().state_dict(), path)
    with pytest.raises(WeightsError, match=f"^{path}: .* has dtype BF16, expected F32 or F64"):
        use_weights(model, path)


@pytest.mark.parametrize(
    "name", ["lenet5", "keras-mnist", "vgg-bn", "resnet-mini", "depthwise", "allconv", "autoencoder"]
)
def test_shipped_configs_agree_with_pytorch_on_the_exported_file(name: str, form: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from oracles.torch_model import TorchModel, one_thread

    model = cnnbp.load(Path(__file__).parents[2] / "configs" / f"{name}.yaml", overrides=["dtype=float64"])
    shuffle(model)
    cnnbp.export(model, tmp_path / "weights", to=form)
    net = TorchModel(model.config, read_weights(tmp_path / "weights").parameters)
    x = np.random.default_rng(5).normal(size=(2, *model.config.model.input))
    with torch.no_grad(), one_thread():
        theirs = net.logits(torch.from_numpy(x), {}, training=False).numpy()
    ours = np.moveaxis(model.logits(model.images_in(x)), -1, 0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(bad: float, model: Model, save: Save, form: str, tmp_path: Path) -> None:
    arrays, before = model.parameters(), model.parameters()
    arrays["last.weight"][1, 2] = bad
    save(arrays, path := tmp_path / f"weights.{form}")
    with pytest.raises(WeightsError) as caught:
        use_weights(model, path)
    assert str(caught.value) == (
        f"{path}: parameter last.weight has values that are not finite; export it before it diverges"
    )
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_normalization_for_other_channels(model: Model, form: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{form}"
    model.normalization = Normalization("standard", (1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    save_weights(model, path, form)
    with pytest.raises(WeightsError) as caught:
        use_weights(twin(model), path)
    assert str(caught.value) == (
        f"{path}: does not fit the model: normalization: has 3 means, but the model's images have 1 channel"
    )
