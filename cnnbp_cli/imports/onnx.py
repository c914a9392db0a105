"""`import`: an ONNX file becomes a config that people can read, and a file with its weights."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cnnbp_cli.build import build, require_target
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import config_from_dict, parse_config
from cnnbp_cli.config.schema import LOSSES, Config, LayerSpec, MeanStd
from cnnbp_cli.config.write import flow, plain
from cnnbp_cli.core.types import Operation, Shape
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.files import replace_file
from cnnbp_cli.imports.activations import recognize
from cnnbp_cli.imports.errors import ImportProblem
from cnnbp_cli.imports.graph import OnnxGraph, read_graph
from cnnbp_cli.imports.head import recognize_normalization
from cnnbp_cli.imports.operators import HANDLERS
from cnnbp_cli.imports.response_norm import recognize_response_norms
from cnnbp_cli.imports.translation import Imported, Translation
from cnnbp_cli.model import Model, ModelInputError, class_count
from cnnbp_cli.weights import first_non_finite, save_weights

SHOWN = 8
"""The most operators that a message lists."""

DRAWABLE = 8
"""Height and width from which synthetic digits can be drawn: what stands in for data until there are some."""
DIGITS = 10
"""The most classes that they have."""

Head = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came of a file.

    Attributes
    ----------
    config, weights : Path
        The files that were written.
    layers, parameters : int
    notes : tuple of str
        What is otherwise than in the file, or should be known about it.
    """

    config: Path
    weights: Path
    layers: int
    parameters: int
    notes: tuple[str, ...] = field(default=())


def import_onnx(
    source: Path,
    config: Path,
    *,
    weights: Path | None = None,
    size: Shape | None = None,
    head: Head | None = None,
    normalize: MeanStd | None = None,
    force: bool = False,
) -> ImportReport:
    """Write a config and weights that compute what an ONNX file computes.

    Parameters
    ----------
    source, config : Path
        The ONNX file, and the YAML file to write.
    weights : Path, optional
        Where the weights go, in the form that its name ends in; by default beside the config, as safetensors where
        that package is installed, else as npz.
    size : Shape, optional
        One image's (c, h, w), where the file leaves them open.
    head : {"softmax", "sigmoid", "none"}, optional
        Put on the output, where the file ends in logits; by default what the file ends in.
    normalize : MeanStd, optional
        What pixels are normalized with before the file gets them.
    force : bool
        Replace files that exist.

    Raises
    ------
    ImportProblem, WeightsError, WriteError
        When the file cannot be read, has operators that are no layers, each of which is named, or when something cannot
        be written. Then nothing is.
    """
    weights = weights or config.with_suffix(f".{_default_form()}")
    form = weights.suffix.removeprefix(".")
    if form not in ("safetensors", "npz"):
        raise ImportProblem(f"{weights}: expected a file name that ends in .safetensors or .npz")
    if config.suffix in (".onnx", ".safetensors", ".npz"):
        raise ImportProblem(
            f"{config}: is the name of a model; expected one for the config, such as {config.stem}.yaml"
        )
    for path in (config, weights):
        if path.exists() and not force:
            raise ImportProblem(f"{path}: exists already; name another file, or replace it with --force")
    model, text, notes = read_onnx(source, config.stem, weights.name, size=size, head=head, normalize=normalize)
    save_weights(model, weights, form)
    try:
        replace_file(config, text.encode())
    except BaseException:
        weights.unlink(missing_ok=True)
        raise
    count = sum(value.size for value in model.parameters().values())
    return ImportReport(config, weights, len(model.graph.nodes), count, notes)


def read_onnx(
    source: Path,
    name: str,
    weights: str = "",
    *,
    size: Shape | None = None,
    head: Head | None = None,
    normalize: MeanStd | None = None,
) -> tuple[Model, str, tuple[str, ...]]:
    """Return the model of an ONNX file, its config as text, and notes about it.

    Raises
    ------
    ImportProblem
        As `import_onnx` says.
    """
    with np.errstate(all="ignore"):  # of a file that may hold any numbers; those that matter are looked at in the end
        return _read(source, name, weights, size, head, normalize)


def _read(
    source: Path, name: str, weights: str, size: Shape | None, head: Head | None, normalize: MeanStd | None
) -> tuple[Model, str, tuple[str, ...]]:
    graph = read_graph(source, size)
    recognize_normalization(graph)
    recognize_response_norms(graph)
    recognize(graph)
    translation = Translation(graph, HANDLERS)
    translation.run()
    if translation.problems:
        more = len(translation.problems) - SHOWN
        listed = translation.problems[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise ImportProblem(f"{source}: cannot be imported:\n  " + "\n  ".join(listed))
    if not translation.layers:
        raise ImportProblem(f"{source}: has no layers")
    if head and head != translation.head and translation.head != "none":
        raise ImportProblem(f"{source}: ends in {translation.head}, not in logits for the head {head}")
    known = _config_within(graph)
    if normalize is not None:
        _put_before(source, translation, normalize, known)
    notes = list(translation.notes)
    wanted = _described(translation, name, known, head or translation.head)
    comment = f"# {source.name}, imported" + (f"; its weights: --weights {weights}" if weights else "") + "\n"
    try:
        config = config_from_dict(wanted, name)
        model = build(config, any_target=True)
    except ConfigError as error:
        raise ImportProblem(f"{source}: {error}") from None
    parameters = _parameters(translation.layers, model)
    if bad := first_non_finite(parameters):
        raise ImportProblem(f"{source}: parameter {bad} has values that are not finite")
    try:
        model.set_parameters(parameters, complete=True)
    except ModelInputError as error:
        asked = f"; --input {','.join(map(str, size))} is not the size that it was made for" if size else ""
        raise ImportProblem(f"{source}: {error}{asked}") from None
    model.normalization = _normalization(source, translation, known)
    text = comment + brief_yaml(config)
    if parse_config(text, label=str(source)) != config:  # the text is what counts
        raise ImportProblem(f"{source}: has names that YAML cannot hold")
    if translation.head == "none" and head is None and known is None and len(model.output_shape) == 1:
        notes.append("the file ends in logits; for classes: --head softmax")
    notes += _shared(translation.layers)
    if translation.normalization is None and known is None and translation.input_shape[0] == 3:
        notes.append(
            "the file takes its images as they are; for pixels that are normalized before it, as by torchvision: "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
        )
    try:
        require_target(config, model.graph)
    except ConfigError as error:
        notes.append(f"as it is, this network can predict and be summarized, not trained: {error.problems[0].message}")
    return model, text, tuple(notes)


def _default_form() -> str:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        return "npz"
    return "safetensors"


def _parameters(layers: list[Imported], model: Model) -> dict[str, Any]:
    wanted = model.parameters()
    found = {f"{one.name}.{key}": value for one in layers for key, value in one.parameters.items()}
    return {name: np.ascontiguousarray(value, model.dtype) for name, value in found.items() if name in wanted}


def _described(translation: Translation, name: str, known: Config | None, head: Head) -> dict[str, Any]:
    """Return the config as plain values."""
    specs = [LayerSpec(one.name, one.inputs, one.layer, shares=one.shares) for one in translation.layers]
    if known is not None:
        specs = _agreeing(specs, known, translation)
    dtype = "float64" if translation.graph.double else "float32"
    model: dict[str, Any] = {"input": list(translation.input_shape), "layers": [plain(spec) for spec in specs]}
    if known is not None:
        whole = plain(known)
        if not {one.layer for one in known.losses} <= {spec.name for spec in specs}:  # the file has no auxiliary layers
            whole["train"] |= {"loss": known.losses[0].loss, "losses": []}
        return whole | {"dtype": dtype, "model": whole["model"] | model | {"head": head}}
    _, h, w = translation.input_shape
    data: dict[str, Any] = {"source": "npz", "path": "data.npz"}
    output = translation.values[translation.graph.output].shape
    if min(h, w) >= DRAWABLE and (len(output) == 1 or (output == translation.input_shape and head != "softmax")):
        data = {"source": "synthetic", "image": list(translation.input_shape)}
        if len(output) == 1:
            data["classes"] = min(DIGITS, class_count(output))
    if translation.normalization is not None:
        mean, std = (list(map(_short, values)) for values in translation.normalization)
        data["normalize"] = {"mean": mean, "std": std}
    return {"name": name, "dtype": dtype, "data": data, "model": model | {"head": head}}


def _config_within(graph: OnnxGraph) -> Config | None:
    """Return the config that `cnnbp export` has written into the file."""
    text = graph.metadata.get("config")
    if graph.producer != "cnnbp" or text is None:
        return None
    try:
        return parse_config(text, label="config")
    except ConfigError:
        return None


def _agreeing(specs: list[LayerSpec], known: Config, translation: Translation) -> list[LayerSpec]:
    """Take layers from the config within the file where they are the same in ONNX: it also knows of training."""
    by_name = {spec.name: spec for spec in known.model.layers}
    shapes: dict[str, Shape] = {"input": translation.input_shape}
    chosen: list[LayerSpec] = []
    for spec in specs:
        of = [shapes[source] for source in spec.inputs]
        shapes[spec.name] = spec.layer.node_out_shape(of)
        other = by_name.get(spec.name)
        same = (
            other is not None
            and (other.inputs, other.shares) == (spec.inputs, spec.shares)
            and _as_onnx(other.layer, of) == _as_onnx(spec.layer, of)
        )
        chosen.append(other if same and other is not None else spec)
    if {spec.name for spec in chosen} == by_name.keys():  # in the order in which the config lists them
        order = {name: k for k, name in enumerate(by_name)}
        if all(order[spec.shares] < order[spec.name] for spec in chosen if spec.shares):
            chosen.sort(key=lambda spec: order[spec.name])
    return chosen


def _as_onnx(layer: Operation[Any], in_shapes: list[Shape]) -> list[Any]:
    """Return what a layer is in ONNX, in a form that can be compared; attributes there are float32."""

    def comparable(value: Any) -> Any:
        if isinstance(value, np.ndarray | list | tuple):
            return tuple(np.ravel(np.asarray(value)).tolist())
        return float(np.float32(value)) if isinstance(value, float) else value

    return [
        (one.operator, tuple(map(comparable, one.inputs)), {k: comparable(v) for k, v in one.attributes.items()})
        for one in layer.node_onnx(in_shapes)
    ]


def _short(value: Any) -> float:
    """Return the shortest decimal that is this number in float32, as a person writes it."""
    return float(str(np.float32(value)))


def _put_before(source: Path, translation: Translation, normalize: MeanStd, known: Config | None) -> None:
    """Let pixels be normalized before what the file does to its input."""
    channels = translation.input_shape[0]
    if known is not None:
        raise ImportProblem(
            f"{source}: is a file of cnnbp, which has its own normalization; leave out --mean and --std"
        )
    if len(normalize.mean) not in (1, channels):
        raise ImportProblem(
            f"{source}: takes images of {channels} channel{'s' * (channels != 1)}, but --mean has "
            f"{len(normalize.mean)} numbers"
        )
    before = Normalization.given(normalize, channels)
    mean, std = (np.array(values, np.float64) for values in (before.mean, before.std))
    if translation.normalization is not None:
        inner, scale = (np.asarray(values, np.float64) for values in translation.normalization)
        mean, std = mean + std * inner, std * scale
    translation.normalization = mean, std


def _normalization(source: Path, translation: Translation, known: Config | None) -> Normalization | None:
    """Return how raw pixels become inputs, where the file begins with it."""
    noted = translation.graph.metadata.get("normalization")
    if translation.normalization is None:
        return None
    mean, std = (tuple(map(float, np.asarray(values, np.float64))) for values in translation.normalization)
    try:
        if noted is not None and known is not None:
            told = Normalization.from_dict(json.loads(noted))
            if np.allclose(told.mean, mean, rtol=1e-6) and np.allclose(told.std, std, rtol=1e-6):
                return told
        return Normalization("standard", mean, std)
    except (DataError, ValueError) as error:
        raise ImportProblem(f"{source}: its normalization: {error}") from None


def _shared(layers: list[Imported]) -> list[str]:
    """Return a note where one tensor of the file is the weight of several layers that are not one layer."""
    users: dict[str, list[str]] = {}
    for one in layers:
        for weight in one.tensors[:1] if one.parameters and one.parameters["weight"].ndim > 1 else ():
            users.setdefault(weight, []).append(one.name)
    return [
        f"the layers {', '.join(names)} have one weight in the file, {weight}; here each has its own"
        for weight, names in users.items()
        if len(names) > 1
    ]


def brief_yaml(config: Config) -> str:
    """Return a config as YAML with what differs from the defaults, a line for each layer."""
    lines = [f"name: {flow(config.name)}"]
    lines += [
        f"{key}: {flow(value)}" for key in ("seed", "dtype") if (value := getattr(config, key)) != _default(Config, key)
    ]
    lines += [f"data: {flow(_differing(config.data))}", "model:", f"  input: {flow(list(config.model.input))}"]
    model = _differing(config.model)
    lines += [f"  {key}: {flow(value)}" for key, value in model.items() if key not in ("input", "layers", "head")]
    lines.append("  layers:")
    before = "input"
    for spec in config.model.layers:
        wiring: dict[str, Any] = {"share": spec.shares} if spec.shares else {"type": spec.layer.type}
        wiring["name"] = spec.name
        if spec.inputs != (before,):
            wiring["inputs"] = list(spec.inputs)
        if not spec.trainable and not spec.shares:
            wiring["trainable"] = False
        own = {} if spec.shares else {key: value for key, value in _differing(spec.layer).items() if key != "type"}
        if own.get("init") == plain(config.model.init):  # which the model says for all
            del own["init"]
        lines.append(f"    - {flow(wiring | own)}")
        before = spec.name
    lines.append(f"  head: {config.model.head}")
    train = _differing(config.train)
    if train.get("loss") == LOSSES[config.model.head][0]:  # as follows from the head
        del train["loss"]
    lines += [f"train: {flow(train)}"] if train else []
    return "\n".join(lines) + "\n"


def _differing(declaration: Any) -> dict[str, Any]:
    """Return the fields of a declaration that are not the defaults, what kind it is first."""
    found: dict[str, Any] = {}
    for f in sorted(fields(declaration), key=lambda f: f.name not in ("type", "source")):
        value = getattr(declaration, f.name)
        if f.compare and (f.name in ("type", "source") or value != _default(type(declaration), f.name)):
            found[f.name] = plain(value)
    return found


def _default(cls: type, name: str) -> Any:
    f = next(f for f in fields(cls) if f.name == name)
    return f.default_factory() if f.default_factory is not MISSING else f.default
