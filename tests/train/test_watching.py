"""What every layer does at a watched step: each statistic against plain loops, on one worker and on several."""

from __future__ import annotations

import json
import math
from itertools import chain, pairwise

import numpy as np
import pytest

from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.core.types import Context
from cnnbp_cli.data.batches import make_batch, order
from cnnbp_cli.loading import load_data
from cnnbp_cli.train import statistics
from cnnbp_cli.train.event_log import read_events
from cnnbp_cli.train.events import LayersWatched, NonFinite, StepDone, from_dict, to_dict
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.statistics import LayerStatistics, WatchedStep, Watcher

CONFIG = """
name: watched
dtype: float64
data: {source: synthetic, kind: bars, train: 44, test: 0}
model:
  input: [1, 6, 6]
  layers:
    - {type: max_pool2d, name: coarse, pool_size: [1, 2], stride: 1}
    - {type: conv2d, name: conv, filters: 5, kernel_size: 3}
    - {type: batch_norm, name: norm}
    - {type: tanh, name: bent}
    - {type: relu, name: kept, inputs: [norm]}
    - {type: add, name: both, inputs: [bent, kept]}
    - {type: sigmoid, name: squashed}
    - flatten
    - {type: dropout, rate: 0.3}
    - {type: dense, name: last, units: 6}
    - {type: leaky_relu, name: out, slope: 0.1}
    - {type: dense, name: logits, units: 2}
train: {batch_size: 8, epochs: 2, optimizer: {type: sgd, learning_rate: 0.1}, clip_norm: 0.5, workers: 1}
"""

STEPS = 12
LAYERS = (
    "coarse",
    "conv",
    "norm",
    "bent",
    "kept",
    "both",
    "squashed",
    "flatten_1",
    "dropout_1",
    "last",
    "out",
    "logits",
)


def setup(*overrides):
    model = build(parse_config(CONFIG, overrides))
    return model, load_data(model)


def watched(*overrides, every=1, **options):
    events = list(fit(*setup(*overrides), watch_every=every, **options))
    return {event.step: event.layers for event in events if isinstance(event, LayersWatched)}


def passes():
    """Yield step by step the parameters before, all outputs, all flows and the gradients, made by hand."""
    model, data = setup()
    parameters = [before for before, _ in trace()]
    for step, values in enumerate(parameters[:-1]):
        model.set_parameters(values)
        chosen = order(0, step // 6, 44)[step % 6 * 8 : step % 6 * 8 + 8]
        x, labels = make_batch(data.train, chosen, data.normalization, np.float64)
        ctx = Context(training=True, seed=0, step=step)
        outputs, flows = {}, {}
        (z,), tape = model.graph.forward(
            model.params, x, ctx, lambda name, y, out=outputs: out.update({name: y.copy()})
        )
        residuals = model.loss_function.forward(z, labels)[1]
        dz = model.loss_function.backward(residuals) / len(chosen)
        _, grads = model.graph.backward(
            model.params, tape, [dz], ctx, lambda name, dy, out=flows: out.update({name: dy.copy()})
        )
        yield len(chosen), values, parameters[step + 1], outputs, flows, grads


def trace():
    """Yield the parameters before each step, and at last those after it all."""
    model, data = setup("train.epochs=2")
    yield model.parameters(), None
    for event in fit(model, data, watch_every=0):
        if isinstance(event, StepDone):
            yield model.parameters(), event


def l2(values):
    return math.sqrt(math.fsum(value * value for value in values))


def scalars(*arrays):
    return [float(value) for value in chain.from_iterable(array.ravel() for array in arrays)]


def by_hand(every):
    """Return the statistics of every watched step, with plain loops over single numbers."""
    found, seen = {}, {}
    for step, (images, before, after, outputs, flows, grads) in enumerate(passes(), 1):
        for name in ("kept", "out"):
            for unit, values in enumerate(outputs[name]):
                if any(value > 0 for value in scalars(values)):
                    seen.setdefault(name, set()).add(unit)
        if step != 1 and step % every:
            continue
        layers = {}
        for name in LAYERS:
            own = {}
            if keys := list(grads.get(name, {})):
                places = [f"{name}.{key}" for key in keys]
                start = l2(scalars(*(before[place] for place in places)))
                own["gradient"] = l2(scalars(*(grads[name][key] for key in keys)))
                own["weight"] = l2(scalars(*(after[place] for place in places)))
                own["update"] = l2(scalars(*(after[place] - before[place] for place in places)))
                own["ratio"] = own["update"] / start
            values = scalars(outputs[name])
            count = len(values)
            own["mean"] = math.fsum(values) / count
            own["activation"] = l2(values) / math.sqrt(count)
            own["deviation"] = math.sqrt(math.fsum((value - own["mean"]) ** 2 for value in values) / count)
            own["zeros"] = sum(value == 0 for value in values) / count
            if name in ("kept", "out"):
                own["dead"] = 1 - len(seen.get(name, ())) / len(outputs[name])
            if name == "bent":
                own["saturated"] = sum(value < -0.98 or value > 0.98 for value in values) / count
            if name == "squashed":
                own["saturated"] = sum(value < 0.01 or value > 0.99 for value in values) / count
            if name != "coarse":  # nothing can be learnt before it
                own["signal"] = l2(scalars(flows[name])) / math.sqrt(count) * images
            layers[name] = own
        found[step], seen = layers, {}
    return found


@pytest.mark.parametrize("every", [1, 5])
def test_each_statistic_is_what_its_definition_says(every):
    expected, found = by_hand(every), watched(every=every)
    assert list(found) == list(expected)
    for step, layers in expected.items():
        assert list(found[step]) == list(LAYERS)
        for name, own in layers.items():
            assert found[step][name].to_dict() == pytest.approx(own, rel=1e-9, abs=1e-12), (step, name)


def test_the_small_problem_has_dead_units_and_saturation():
    """Else the test above would not say much."""
    found = watched(every=1).values()
    assert {layers["out"].dead for layers in found} - {0.0, 1.0}
    assert any(layers["bent"].saturated > 0 for layers in found)
    assert any(layers["kept"].zeros > 0 for layers in found)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_does_not_matter(workers):
    """The last batch of an epoch has four images, so that a third worker has one."""
    alone, together = (watched(f"train.workers={count}", every=1) for count in (1, workers))
    assert list(alone) == list(together) == list(range(1, STEPS + 1))
    for step, layers in alone.items():
        for name, own in layers.items():
            assert together[step][name].to_dict() == pytest.approx(own.to_dict(), rel=1e-9, abs=1e-12), (step, name)


def test_workers_without_images():
    overrides = ("data.train=9", "train.epochs=1")  # the second batch is a single image
    alone, together = (watched(*overrides, f"train.workers={count}", every=1) for count in (1, 2))
    for name, own in alone[2].items():
        assert together[2][name].to_dict() == pytest.approx(own.to_dict(), rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize(("every", "steps"), [(0, []), (1, [*range(1, 13)]), (5, [1, 5, 10]), (25, [1])])
def test_the_first_step_and_every_kth_are_watched(every, steps):
    assert list(watched(every=every)) == steps


def test_the_default_interval():
    model, data = setup("train.epochs=7")
    assert [event.step for event in fit(model, data) if isinstance(event, LayersWatched)] == [1, 25]


def test_watching_comes_after_its_step_and_does_not_change_it():
    runs = []
    for every in (0, 1, 5):
        model, data = setup()
        events = list(fit(model, data, watch_every=every))
        runs.append(([event.loss for event in events if isinstance(event, StepDone)], model.vector))
        for one, two in pairwise(events):
            if isinstance(two, LayersWatched):
                assert isinstance(one, StepDone)
                assert one.step == two.step
    for losses, vector in runs[1:]:
        assert losses == runs[0][0]
        np.testing.assert_array_equal(vector, runs[0][1])


def one_relu(units=3):
    text = f"""
        data: {{source: synthetic, kind: bars}}
        model: {{input: [1, 6, 6], layers: [flatten, {{type: dense, units: {units}}}, relu, {{type: dense, units: 2}}]}}
    """
    model = build(parse_config(text))
    return model, Watcher(model, _solo(model), 10)


def _solo(model):
    from cnnbp_cli.parallel.solo import SoloWorker

    return SoloWorker(model.layout.size, model.dtype)


def closing(model, watcher, y):
    """End the window with a watched step that has this output of the ReLU; return the share of dead units."""
    step = WatchedStep(watcher)
    for name, shape in model.graph.shapes.items():
        if name != "input":
            step.output(name, y if name == "relu_1" else np.zeros((*shape, y.shape[-1])))
    step.before(model.vector, model.vector)
    return step.statistics(model.vector, y.shape[-1])["relu_1"].dead


def test_a_unit_is_dead_only_if_it_was_never_active_since_the_watched_step_before():
    model, watcher = one_relu()
    nothing = np.zeros((3, 4))
    first, last = nothing.copy(), nothing.copy()
    first[0, 1], last[2, 3] = 1.0, 1e-30
    assert closing(model, watcher, nothing) == 1.0
    assert closing(model, watcher, first) == pytest.approx(2 / 3)
    watcher.track("relu_1", first)
    watcher.track("relu_1", nothing)
    assert closing(model, watcher, last) == pytest.approx(1 / 3)
    assert closing(model, watcher, last) == pytest.approx(2 / 3)  # the window begins anew


def test_a_channel_is_active_where_one_of_its_pixels_is():
    text = """
        data: {source: synthetic, kind: bars}
        model:
          input: [1, 6, 6]
          layers: [{type: conv2d, filters: 4, kernel_size: 3}, relu, flatten, {type: dense, units: 2}]
    """
    model = build(parse_config(text))
    watcher = Watcher(model, _solo(model), 10)
    y = np.zeros((4, 4, 4, 5))
    y[1, 3, 2, 4] = 0.5
    assert closing(model, watcher, y) == 0.75


@pytest.mark.parametrize(
    ("layer", "values", "share"),
    [
        ("sigmoid", [0.0, 0.0099, 0.0101, 0.5, 0.9899, 0.9901, 1.0, 0.3], 0.5),
        ("tanh", [-1.0, -0.981, -0.979, 0.0, 0.979, 0.981, 1.0, 0.3], 0.5),
    ],
)
def test_saturation_is_the_outer_percent_of_the_range(layer, values, share):
    text = (
        "data: {source: synthetic, kind: bars}\nmodel: {input: [1, 6, 6], layers: [flatten, {type: dense, units: 2}, "
    )
    model = build(parse_config(text + f"{layer}, {{type: dense, units: 2}}]}}"))
    step = WatchedStep(Watcher(model, _solo(model), 10))
    for name, shape in model.graph.shapes.items():
        if name != "input":
            step.output(name, np.array(values).reshape(2, 4) if name == f"{layer}_1" else np.zeros((*shape, 4)))
    step.before(model.vector, model.vector)
    found = step.statistics(model.vector, 4)
    assert found[f"{layer}_1"].saturated == share
    assert found[f"{layer}_1"].dead is None
    assert found["dense_1"].saturated is None


def test_blocks_do_not_matter(monkeypatch):
    expected = watched(every=5)
    monkeypatch.setattr(statistics, "STATISTICS_BLOCK", 7)
    for step, layers in watched(every=5).items():
        for name, own in layers.items():
            assert own.to_dict() == pytest.approx(expected[step][name].to_dict(), rel=1e-12, abs=1e-15)


def test_a_constant_far_from_zero_has_no_deviation():
    model, watcher = one_relu()
    step = WatchedStep(watcher)
    for name, shape in model.graph.shapes.items():
        if name != "input":
            step.output(name, np.full((*shape, 50), 1000.25, np.float32))
    step.before(model.vector, model.vector)
    found = step.statistics(model.vector, 50)["relu_1"]
    assert (found.mean, found.activation) == pytest.approx((1000.25, 1000.25), rel=1e-14)
    assert found.deviation < 1e-4


def test_more_units_than_one_sum_over_the_workers_takes():
    overrides = ("model.layers.last.units=70000", "train.max_steps=1")
    alone, together = (watched(*overrides, f"train.workers={count}")[1]["out"] for count in (1, 2))
    assert 0 < alone.dead < 0.5
    assert together.dead == alone.dead


def test_a_run_that_ends_badly_watched_the_steps_before():
    model, data = setup("train.optimizer.learning_rate=1e300", "train.clip_norm=null")
    events = list(fit(model, data, watch_every=1))
    assert isinstance(events[-1], NonFinite)
    good = [event.step for event in events if isinstance(event, StepDone)]
    assert [event.step for event in events if isinstance(event, LayersWatched)] == good


def test_a_run_records_what_was_watched(tmp_path):
    model, data = setup()
    events = [event for event in fit(model, data, run=tmp_path / "run", watch_every=5) if event.event == "watched"]
    recorded = [record for record in read_events(tmp_path / "run") if record["event"] == "watched"]
    assert [from_dict(record) for record in recorded] == events
    assert list(recorded[0]["layers"]["kept"]) == ["activation", "mean", "deviation", "zeros", "dead", "signal"]


def test_a_resumed_run_watches_on(tmp_path, after):
    run = tmp_path / "run"
    model, data = setup()
    list(fit(model, data, run=run, watch_every=5, stop=after(7)))
    list(fit(setup()[0], data, run=run, watch_every=5, resume=True))
    straight = watched(every=5)
    recorded = {record["step"]: from_dict(record).layers for record in read_events(run) if record["event"] == "watched"}
    assert list(recorded) == [1, 5, 10]
    for step, layers in straight.items():
        for name, own in layers.items():
            here = recorded[step][name].to_dict()
            if step == 10 and own.dead is not None:  # its window began at step 8 instead of step 6
                assert here.pop("dead") >= own.dead
            assert here == {key: value for key, value in own.to_dict().items() if key in here}


NUMBERS = {"activation": 1.0, "mean": 0.5, "deviation": 0.25, "zeros": 0.0}
NOTHING = dict.fromkeys(("gradient", "weight", "update", "ratio", "dead", "saturated", "signal"))


def test_an_event_survives_json():
    event = LayersWatched(step=3, layers={"a": LayerStatistics(**NOTHING, **NUMBERS)})
    assert from_dict(json.loads(json.dumps(to_dict(event)))) == event
    bad = LayersWatched(step=3, layers={"a": LayerStatistics(**NOTHING, **NUMBERS | {"mean": math.inf})})
    assert math.isnan(from_dict(json.loads(json.dumps(to_dict(bad)))).layers["a"].mean)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"event": ["step"]},
        {"event": "watched", "step": 1, "layers": []},
        {"event": "watched", "step": 1, "layers": {"a": 5}},
        {"event": "watched", "step": 1, "layers": {"a": {"mean": "much"}}},
        {"event": "watched", "step": True, "layers": {}},
        {"event": "watched", "step": 1.5, "layers": {}},
    ],
)
def test_what_is_no_event(record):
    with pytest.raises(ValueError, match=r"unknown event|expected "):
        from_dict(record)
