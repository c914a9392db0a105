"""The commands that report on a config or a run: every format, the figures, the exit codes."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from cli.bars import BARS, Command

from cnnbp_cli.cli.gradnorms import Quantity
from cnnbp_cli.train.statistics import DEFINITIONS

CONFIGS = Path(__file__).parents[2] / "configs"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


class TestSummary:
    def test_table(self, cnnbp: Command) -> None:
        done = cnnbp("summary", "bars.yaml")
        assert (done.code, done.stderr) == (0, "")
        assert done.stdout == (
            """\
bars: input 1×6×6, float32
layer         type               output  parameters  MACs
─────────────────────────────────────────────────────────
edges         conv2d 3×3         2×4×4       18 + 2   288
relu_1        relu               2×4×4                  0
max_pool2d_1  max_pool2d 2×2 s2  2×2×2                  0
flatten_1     flatten            8                      0
dense_1       dense              2           16 + 2    16
─────────────────────────────────────────────────────────
total                                            38   304
trainable parameters: 38
one image takes 304 multiply-accumulate operations (MACs) forward
"""
        )

    def test_memory(self, cnnbp: Command) -> None:
        done = cnnbp("summary", "bars.yaml", "--memory", columns=80)
        assert (done.code, done.stderr) == (0, "")
        assert done.lines[4].split() == ["edges", "conv2d", "3×3", "2×4×4", "3×3", "128", "B", "80", "B"]
        assert "a batch of 12" in " ".join(done.lines)

    @pytest.mark.parametrize("name", ["resnet-mini", "autoencoder", "vgg-bn", "depthwise", "lenet5"])
    def test_80_columns_hold_it_in_one_table(self, cnnbp: Command, name: str) -> None:
        for options in ([], ["--memory"]):
            done = cnnbp("summary", CONFIGS / f"{name}.yaml", *options, columns=80)
            assert max(map(len, done.lines)) <= 80
            assert sum(line.startswith("layer ") for line in done.lines) == 1
            (total,) = [line for line in done.lines if line.startswith("total")]
            assert len(total.split()) > 1

    def test_inputs_stand_where_the_graph_branches(self, cnnbp: Command) -> None:
        lines = cnnbp("summary", CONFIGS / "resnet-mini.yaml", columns=80).lines
        assert lines[1].split() == ["layer", "type", "inputs", "output", "parameters"]
        by_name = {line.split()[0]: line for line in lines[3:-4]}
        assert "branch1, stem" in by_name["add_1"]
        assert "block1" in by_name["conv2d_6"]
        assert "stem" not in by_name["conv2d_2"]  # the layer above
        assert "inputs" not in cnnbp("summary", "bars.yaml").stdout

    def test_trainable_parameters_come_first(self, cnnbp: Command) -> None:
        lines = cnnbp("summary", CONFIGS / "resnet-mini.yaml", columns=80).lines
        assert lines[-3:-1] == [
            "trainable parameters: 19,706",  # torch: sum(p.numel() for p in model.parameters())
            "non-trainable: 288 (288 running statistics), total: 19,994",
        ]

    def test_frozen_layers(self, cnnbp: Command) -> None:
        lines = cnnbp("summary", "bars.yaml", "--set", "model.layers.edges.trainable=false").lines
        assert lines[3].split()[-5:] == ["18", "+", "2", "frozen", "288"]
        assert lines[-3:-1] == ["trainable parameters: 18", "non-trainable: 20 (20 frozen), total: 38"]

    def test_a_drawing_is_no_report(self, cnnbp: Command) -> None:
        for options in (["--memory"], ["--format", "json"]):
            done = cnnbp("summary", "bars.yaml", "--graph", "svg", *options)
            assert (done.code, done.stdout) == (2, "")
            assert " ".join(options) in done.stderr

    def test_json(self, cnnbp: Command) -> None:
        found = json.loads(cnnbp("summary", "bars.yaml", "--format", "json").stdout)
        assert found["name"] == "bars"
        assert (found["total_parameters"], found["trainable_parameters"], found["total_macs"]) == (38, 38, 304)
        first = found["layers"][0]
        assert {key: first[key] for key in ("name", "type", "inputs", "input_shape", "output_shape")} == {
            "name": "edges",
            "type": "conv2d",
            "inputs": ["input"],
            "input_shape": [1, 6, 6],
            "output_shape": [2, 4, 4],
        }
        assert (first["parameters"], first["macs"], first["receptive_field"]) == (20, 288, [3, 3])
        assert first["activation_bytes"] == 128

    def test_csv(self, cnnbp: Command) -> None:
        found = rows(cnnbp("summary", "bars.yaml", "--format", "csv").stdout)
        assert [row["name"] for row in found] == ["edges", "relu_1", "max_pool2d_1", "flatten_1", "dense_1"]
        assert (found[2]["kernel"], found[2]["stride"], found[1]["kernel"]) == ("2x2", "2x2", "")
        assert found[0]["receptive_field"] == "3x3"

    def test_overrides_and_standard_input(self, cnnbp: Command) -> None:
        done = cnnbp("summary", "-", "--set", "model.layers.edges.filters=3", "--format", "json", stdin=BARS)
        assert json.loads(done.stdout)["layers"][0]["output_shape"] == [3, 4, 4]

    def test_a_network_far_too_large_to_build(self, cnnbp: Command) -> None:
        done = cnnbp("summary", "bars.yaml", "--set", "model.layers.dense_1.units=1000000000000", "--format", "json")
        assert json.loads(done.stdout)["total_parameters"] == 20 + 9 * 10**12


class TestGradcheck:
    def test_table(self, cnnbp: Command) -> None:
        done = cnnbp("gradcheck", "bars.yaml", columns=120)
        assert (done.code, done.stderr) == (0, "")
        names = ["edges.weight", "edges.bias", "dense_1.weight", "dense_1.bias", "input"]
        assert [line.split()[0] for line in done.lines[3:8]] == names
        assert done.lines[-1].startswith("ok: 5 gradients proven by complex steps, 3 directions each, largest ")
        assert done.lines[-1].endswith(", tolerance 1.0e-10")

    @pytest.mark.parametrize("options", [(), ("--method", "central")])
    def test_80_columns_hold_it_in_one_table(self, cnnbp: Command, options: tuple[str, ...]) -> None:
        done = cnnbp("gradcheck", CONFIGS / "lenet5.yaml", "--elements", "3", *options, columns=80)
        assert done.code == 0
        assert sum(line.startswith("gradient to ") for line in done.lines) == 1
        assert max(map(len, done.lines)) <= 80

    def test_json(self, cnnbp: Command) -> None:
        found = json.loads(cnnbp("gradcheck", "bars.yaml", "--elements", "all", "--format", "json").stdout)
        assert found["ok"] is True
        assert found["method"] == "complex"
        assert found["max_relative_error"] < 1e-12
        first = found["parameters"][0]
        assert {"name", "status", "relative_error", "checked", "worst_index"} <= first.keys()
        assert (first["name"], first["status"], first["checked"]) == ("edges.weight", "ok", 18 + 3)
        assert found["parameters"][-1]["name"] == "input"
        assert found["parameters"][-1]["shape"] == [4, 1, 6, 6]

    def test_csv(self, cnnbp: Command) -> None:
        found = rows(cnnbp("gradcheck", "bars.yaml", "--format", "csv", "--batch", "2").stdout)
        assert {row["status"] for row in found} == {"ok"}
        assert found[0]["shape"] == "2x1x3x3"

    def test_a_tolerance_that_nothing_meets_is_a_negative_verdict(self, cnnbp: Command) -> None:
        done = cnnbp("gradcheck", "bars.yaml", "--tolerance", "1e-30", "--elements", "all", "--format", "json")
        found = json.loads(done.stdout)
        assert done.code == (0 if found["ok"] else 1)

    def test_a_wrong_gradient_is_shown_and_leaves_with_code_1(
        self, cnnbp: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from cnnbp_cli.core.layers.dense import Dense

        right = Dense.backward

        def wrong(self, params, residuals, dy, ctx):  # type: ignore[no-untyped-def]
            dx, grads = right(self, params, residuals, dy, ctx)
            return dx, {**grads, "weight": 1.001 * grads["weight"]}

        monkeypatch.setattr(Dense, "backward", wrong)
        done = cnnbp("gradcheck", "bars.yaml")
        assert done.code == 1
        verdict = next(line for line in done.lines if line.startswith("dense_1.weight"))
        assert verdict.split()[1] == "wrong"
        assert float(verdict.split()[2]) == pytest.approx(1e-3, rel=0.02)
        assert done.lines[-2] == "wrong: the gradient is not the derivative of the loss"
        assert done.lines[-1].startswith("WRONG: 1 of 5 gradients, largest relative error ")

    def test_one_layer_or_one_tensor(self, cnnbp: Command) -> None:
        found = json.loads(cnnbp("gradcheck", "bars.yaml", "--layer", "edges", "--format", "json").stdout)
        assert [check["name"] for check in found["parameters"]] == ["edges.weight", "edges.bias"]
        found = json.loads(cnnbp("gradcheck", "bars.yaml", "--parameter", "input", "--format", "json").stdout)
        assert [check["name"] for check in found["parameters"]] == ["input"]

    def test_an_unknown_layer(self, cnnbp: Command) -> None:
        done = cnnbp("gradcheck", "bars.yaml", "--layer", "edge")
        assert done.code == 2
        assert done.stderr.startswith("error: there is no ")

    def test_nothing_to_check(self, cnnbp: Command) -> None:
        done = cnnbp("gradcheck", "bars.yaml", "--directions", "0", "--elements", "0")
        assert done.code == 2
        assert "nothing to check: give --directions or --elements" in done.stderr

    def test_elements_are_a_number_or_all(self, cnnbp: Command) -> None:
        done = cnnbp("gradcheck", "bars.yaml", "--elements", "some")
        assert done.code == 2
        assert "expected a number or all, got 'some'" in done.stderr


class TestGradnorms:
    def test_table(self, cnnbp: Command) -> None:
        done = cnnbp("gradnorms", "bars.yaml", "--steps", "3")
        assert (done.code, done.stderr) == (0, "")
        assert done.lines[0] == (
            "gradient: L2 norm of the loss gradient over all parameters of the layer, before clipping"
        )
        assert done.lines[2] == " step      loss  gradient     edges   dense_1"
        assert [line.split()[0] for line in done.lines[4:7]] == ["1", "2", "3"]
        assert all(re.fullmatch(r" +\d+  +\d\.\d{4}(  +\d\.\d{5}){3}", line) for line in done.lines[4:7])
        assert re.fullmatch(r"trend(  +[▁-█]{3}){4}", done.lines[8])

    def test_json_lines(self, cnnbp: Command) -> None:
        done = cnnbp("gradnorms", "bars.yaml", "--steps", "4", "--every", "2", "--format", "json")
        found = [json.loads(line) for line in done.lines]
        assert [row["step"] for row in found] == [2, 4]
        assert list(found[0]["norms"]) == ["edges", "dense_1"]
        whole = sum(norm**2 for norm in found[0]["norms"].values()) ** 0.5
        assert found[0]["total"] == pytest.approx(whole, rel=1e-6)

    def test_csv(self, cnnbp: Command) -> None:
        done = cnnbp("gradnorms", "bars.yaml", "--steps", "2", "--format", "csv")
        assert done.lines[0] == "step,loss,total,edges,dense_1"
        assert len(done.lines) == 3

    def test_40_columns(self, cnnbp: Command) -> None:
        done = cnnbp("gradnorms", "bars.yaml", "--steps", "2", columns=40)
        assert done.lines[4] == " step  gradient     edges   dense_1"
        assert max(map(len, done.lines)) <= 40

    def test_layers_that_do_not_fit_fold_into_blocks(self, cnnbp: Command) -> None:
        resnet = CONFIGS / "resnet-mini.yaml"
        call = ("gradnorms", resnet, "--steps", "2", "--set", "data.limit.train=128", "--set", "train.workers=1")
        done = cnnbp(*call, columns=80)
        assert done.code == 0
        assert max(map(len, done.lines)) <= 80
        (header,) = [line for line in done.lines if line.startswith(" step")]
        assert header.split() == ["step", "loss", "gradient", "stem", "block1", "block2", "dense_1"]
        assert "  block1: conv2d_2, batch_norm_2, conv2d_3, branch1" in done.lines
        each = [json.loads(line)["norms"] for line in cnnbp(*call, "--format", "json").lines]
        for line, norms in zip(done.lines[-4:-2], each, strict=True):
            block1 = sum(norms[name] ** 2 for name in ("conv2d_2", "batch_norm_2", "conv2d_3", "branch1")) ** 0.5
            assert float(line.split()[4]) == pytest.approx(block1, abs=1e-5)

    @pytest.mark.parametrize("of", ["update", "activation", "weight", "ratio", "mean", "zeros", "dead", "signal"])
    def test_other_quantities(self, cnnbp: Command, of: str) -> None:
        done = cnnbp("gradnorms", "bars.yaml", "--steps", "1", "--of", of)
        assert done.code == 0
        assert done.lines[0].startswith(f"{of}: ")

    def test_every_statistic_can_be_asked_for(self) -> None:
        assert sorted(quantity.value for quantity in Quantity) == sorted(DEFINITIONS)

    def test_a_statistic_that_no_layer_has(self, cnnbp: Command) -> None:
        done = cnnbp("gradnorms", "bars.yaml", "--of", "saturated")
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr == f"error: no layer has this statistic; saturated: {DEFINITIONS['saturated']}\n"

    def test_a_run_shows_what_it_recorded(self, cnnbp: Command, bars_run: Path) -> None:
        found = rows(cnnbp("gradnorms", bars_run, "--format", "csv", "--steps", "3", "--every", "2").stdout)
        assert [row["step"] for row in found] == ["2", "4", "6"]

    def test_a_run_has_every_statistic(self, cnnbp: Command, bars_run: Path) -> None:
        found = rows(cnnbp("gradnorms", bars_run, "--of", "dead", "--format", "csv").stdout)
        assert len(found) == 8
        assert {float(row["relu_1"]) for row in found} <= {0.0, 0.5, 1.0}

    def test_a_run_cannot_be_trained_differently(self, cnnbp: Command, bars_run: Path) -> None:
        done = cnnbp("gradnorms", bars_run, "--set", "seed=1")
        assert done.code == 2
        assert "a run is over: name its config to train it differently" in done.stderr

    def test_any_run_recorded_some(self, cnnbp: Command) -> None:
        assert cnnbp("train", "bars.yaml", "--out", "plain", "--quiet").code == 0
        assert [row["step"] for row in rows(cnnbp("gradnorms", "plain", "--format", "csv").stdout)] == ["1"]

    def test_a_run_that_watched_nothing(self, cnnbp: Command) -> None:
        assert cnnbp("train", "bars.yaml", "--out", "blind", "--quiet", "--watch-every", "0").code == 0
        done = cnnbp("gradnorms", "blind")
        assert done.code == 2
        assert done.stderr == "error: blind: watched no step; train with --watch-every 1 or more\n"

    @pytest.mark.parametrize(
        "line", ["[]", "{}", '{"event": "nonsense"}', '{"event": "step", "step": "three"}', '{"event": "watched"}']
    )
    def test_damaged_events(self, cnnbp: Command, bars_run: Path, line: str) -> None:
        events = (bars_run / "events.jsonl").read_text(encoding="utf-8").splitlines()
        Path("damaged").mkdir()
        Path("damaged/events.jsonl").write_text("\n".join([*events[:5], line, *events[5:]]), encoding="utf-8")
        done = cnnbp("gradnorms", "damaged")
        assert done.code == 2
        assert done.stderr == f"error: {Path('damaged/events.jsonl')}:6: is not an event of a run\n"


class TestEvaluate:
    def test_table(self, cnnbp: Command, bars_run: Path) -> None:
        done = cnnbp("evaluate", bars_run)
        assert done.code == 0
        assert done.stderr == f"checkpoint: {bars_run / 'checkpoints' / 'best.npz'} (the best; step 8, epoch 2)\n"
        assert re.fullmatch(r"loss \d\.\d{4}, accuracy \d+\.\d\d%, 20 images", done.lines[0])
        assert done.lines[2] == "class  precision  recall  images"
        assert "confusion: the true class down, the predicted class across" in done.lines

    def test_json(self, cnnbp: Command, bars_run: Path) -> None:
        found = json.loads(cnnbp("evaluate", bars_run, "--format", "json").stdout)
        assert found.keys() == {"loss", "accuracy", "count", "per_class", "confusion", "checkpoint"}
        assert found["count"] == 20
        assert sum(map(sum, found["confusion"])) == 20
        assert found["accuracy"] == sum(found["confusion"][k][k] for k in range(2)) / 20
        assert found["per_class"][0].keys() == {"label", "precision", "recall", "count", "name"}

    def test_csv(self, cnnbp: Command, bars_run: Path) -> None:
        found = rows(cnnbp("evaluate", bars_run, "--format", "csv").stdout)
        assert [row["label"] for row in found] == ["0", "1"]
        assert sum(int(row["predicted_0"]) + int(row["predicted_1"]) for row in found) == 20

    def test_a_checkpoint_and_other_splits(self, cnnbp: Command, bars_run: Path) -> None:
        best = bars_run / "checkpoints" / "best.npz"
        for split, count in (("train", 48), ("validation", 12), ("test", 20)):
            found = json.loads(cnnbp("evaluate", best, "--split", split, "--format", "json").stdout)
            assert found["count"] == count

    def test_it_agrees_with_the_figures_of_training(self, cnnbp: Command, bars_run: Path) -> None:
        *_, last = (bars_run / "events.jsonl").read_text(encoding="utf-8").splitlines()
        found = json.loads(cnnbp("evaluate", bars_run, "--format", "json").stdout)
        assert found["loss"] == pytest.approx(json.loads(last)["test_loss"], rel=1e-6)
        assert found["accuracy"] == json.loads(last)["test_accuracy"]

    def test_data_of_another_config(self, cnnbp: Command, bars_run: Path) -> None:
        Path("more.yaml").write_text(BARS.replace("test: 20", "test: 30"), encoding="utf-8")
        found = json.loads(cnnbp("evaluate", bars_run, "--data", "more.yaml", "--format", "json").stdout)
        assert found["count"] == 30

    def test_an_accuracy_below_the_limit_is_a_negative_verdict(self, cnnbp: Command) -> None:
        assert cnnbp("train", "bars.yaml", "--out", "poor", "--max-steps", "1", "--quiet").code == 0
        assert cnnbp("evaluate", "poor", "--min-accuracy", "0").code == 0
        found = json.loads(cnnbp("evaluate", "poor", "--format", "json").stdout)
        assert found["accuracy"] < 1
        done = cnnbp("evaluate", "poor", "--min-accuracy", "1")
        assert done.code == 1
        assert (
            done.stderr.splitlines(keepends=True)[-1] == f"accuracy {100 * found['accuracy']:.2f}% is below 100.00%\n"
        )

    def test_a_split_that_the_data_do_not_have(self, cnnbp: Command, bars_run: Path) -> None:
        Path("none.yaml").write_text(BARS.replace("test: 20", "test: 0"), encoding="utf-8")
        done = cnnbp("evaluate", bars_run, "--data", "none.yaml")
        assert (done.code, done.stderr) == (2, "error: synthetic bars: has no test split\n")

    def test_a_config_is_not_trained(self, cnnbp: Command) -> None:
        done = cnnbp("evaluate", "bars.yaml")
        assert (done.code, done.stderr) == (
            2,
            "error: bars.yaml: is not a run directory or a checkpoint; `cnnbp train` makes them from a config, "
            "or give its weights with --weights\n",
        )

    def test_nothing_there(self, cnnbp: Command) -> None:
        done = cnnbp("evaluate", "nowhere")
        assert (done.code, done.stderr) == (
            2,
            "error: nowhere: does not exist; expected a run directory or a checkpoint\n",
        )

    def test_a_regression_has_a_loss_only(self, cnnbp: Command) -> None:
        Path("same.yaml").write_text(
            BARS.replace("train: {", "train: {loss: mse, ")
            .replace("units: 2}", "units: 36}\n  head: none")
            .replace("data: {", "data: {target: image, "),
            encoding="utf-8",
        )
        assert cnnbp("train", "same.yaml", "--out", "same").code == 0
        found = json.loads(cnnbp("evaluate", "same", "--format", "json").stdout)
        assert (found["accuracy"], found["per_class"], found["confusion"]) == (None, None, None)
        assert re.fullmatch(r"loss \d\.\d{4}, 20 images\n", cnnbp("evaluate", "same").stdout)
        assert cnnbp("evaluate", "same", "--format", "csv").lines[0] == "loss,count"
        done = cnnbp("evaluate", "same", "--min-accuracy", "0.5")
        assert (done.code, done.stderr) == (2, "error: same: --min-accuracy is for models that classify\n")
        np.save("one.npy", np.zeros((6, 6)))
        assert cnnbp("predict", "same", "one.npy").lines[0].split() == ["image", "shape", "smallest", "mean", "largest"]
        assert len(cnnbp("predict", "same", "one.npy", "--format", "csv").lines[0].split(",")) == 37


class TestPredict:
    def test_table(self, cnnbp: Command, bars_run: Path) -> None:
        np.save("two.npy", np.zeros((2, 1, 6, 6), np.uint8))
        done = cnnbp("predict", bars_run, "two.npy")
        assert done.code == 0
        assert done.stderr == f"checkpoint: {bars_run / 'checkpoints' / 'best.npz'} (the best; step 8, epoch 2)\n"
        headings = [line.split(": class ")[0] for line in done.lines if ": class " in line]
        assert headings == ["two.npy[0]", "two.npy[1]"]

    def test_json_agrees_with_the_python_api(self, cnnbp: Command, bars_run: Path) -> None:
        import cnnbp_cli

        image = np.arange(36, dtype=np.uint8).reshape(6, 6) * 7
        np.save("one.npy", image)
        found = json.loads(cnnbp("predict", bars_run, "one.npy", "--format", "json").stdout)
        (one,) = found["predictions"]
        expected = cnnbp_cli.load(bars_run).predict(image[None, None])[0]
        assert one["image"] == "one.npy"
        assert one["probabilities"] == pytest.approx(expected.tolist())
        assert one["class"] == expected.argmax()

    def test_csv_and_archives(self, cnnbp: Command, bars_run: Path) -> None:
        np.savez("some.npz", first=np.zeros((6, 6), np.uint8), rest=np.zeros((2, 6, 6), np.uint8))
        found = rows(cnnbp("predict", bars_run, "some.npz", "--format", "csv").stdout)
        assert [row["image"] for row in found] == ["some.npz:first", "some.npz:rest[0]", "some.npz:rest[1]"]
        assert found[0].keys() == {"image", "class", "probability_0", "probability_1"}

    def test_invert_swaps_dark_and_light(self, cnnbp: Command, bars_run: Path) -> None:
        image = np.zeros((6, 6), np.uint8)
        image[:, 2] = 255
        np.save("white.npy", image)
        np.save("black.npy", 255 - image)
        white = json.loads(cnnbp("predict", bars_run, "white.npy", "--format", "json").stdout)["predictions"]
        black = json.loads(cnnbp("predict", bars_run, "black.npy", "--invert", "--format", "json").stdout)
        assert black["predictions"][0]["probabilities"] == white[0]["probabilities"]

    def test_one_sigmoid_unit_gives_two_probabilities(self, cnnbp: Command) -> None:
        Path("one.yaml").write_text(BARS.replace("units: 2}", "units: 1}\n  head: sigmoid"), encoding="utf-8")
        assert cnnbp("train", "one.yaml", "--out", "one").code == 0
        np.save("image.npy", np.zeros((6, 6)))
        (one,) = json.loads(cnnbp("predict", "one", "image.npy", "--format", "json").stdout)["predictions"]
        assert sum(one["probabilities"]) == pytest.approx(1)
        assert one["class"] == int(one["probabilities"][1] > 0.5)

    def test_a_shape_that_does_not_fit(self, cnnbp: Command, bars_run: Path) -> None:
        np.save("large.npy", np.zeros((28, 28)))
        done = cnnbp("predict", bars_run, "large.npy")
        assert (done.code, done.stderr) == (
            2,
            "error: large.npy: has shape [28, 28], but the model takes images [1, 6, 6]\n",
        )

    def test_files_that_are_no_arrays(self, cnnbp: Command, bars_run: Path) -> None:
        Path("text.npy").write_text("hello", encoding="utf-8")
        done = cnnbp("predict", bars_run, "text.npy")
        assert (done.code, done.stderr) == (
            2,
            "error: text.npy: is not a NumPy array; write it again with numpy.save\n",
        )
        done = cnnbp("predict", bars_run, "nowhere.npy")
        assert (done.code, done.stderr) == (2, "error: nowhere.npy: does not exist\n")

    def test_pictures_need_pillow(self, cnnbp: Command, bars_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "PIL", None)
        Path("bar.png").write_bytes(b"\x89PNG")
        done = cnnbp("predict", bars_run, "bar.png")
        assert (done.code, done.stderr) == (
            2,
            "error: bar.png: reading pictures needs Pillow: pip install 'cnnbp[images]'\n",
        )

    def test_pictures_are_converted_and_resized(self, cnnbp: Command, bars_run: Path) -> None:
        image_module = pytest.importorskip("PIL.Image")
        pixels = np.zeros((12, 12, 3), np.uint8)
        image_module.fromarray(pixels).save("bar.png")
        np.save("bar.npy", np.zeros((6, 6), np.uint8))
        found = json.loads(cnnbp("predict", bars_run, "bar.png", "bar.npy", "--format", "json").stdout)
        picture, array = found["predictions"]
        assert picture["probabilities"] == array["probabilities"]
        Path("bad.png").write_bytes(b"\x89PNG nothing")
        done = cnnbp("predict", bars_run, "bad.png")
        assert done.code == 2
        assert done.stderr.startswith("error: bad.png: is not a picture that Pillow can read (")


class TestValidate:
    def test_several_files(self, cnnbp: Command) -> None:
        Path("bad.yaml").write_text(BARS.replace("units: 2", "unit: 2"), encoding="utf-8")
        done = cnnbp("validate", "bars.yaml", "bad.yaml", "nowhere.yaml")
        assert done.code == 2
        assert done.stdout == "bars.yaml: ok, 5 layers, 38 parameters\n"
        assert done.stderr == (
            """\
bad.yaml:10:14: missing key 'units' of dense
  10 |     - {type: dense, unit: 2}
     |              ^^^^^
bad.yaml:10:21: unknown key 'unit' of dense, did you mean 'units'?
  10 |     - {type: dense, unit: 2}
     |                     ^^^^
2 problems
error: nowhere.yaml: no such file
"""
        )

    def test_shapes_are_checked(self, cnnbp: Command) -> None:
        done = cnnbp("validate", "bars.yaml", "--set", "model.layers.edges.kernel_size=9")
        assert done.code == 2
        assert "layer edges" in done.stderr
        assert done.stdout == ""

    def test_json(self, cnnbp: Command) -> None:
        Path("bad.yaml").write_text(BARS.replace("filters: 2", "filters: two"), encoding="utf-8")
        done = cnnbp("validate", "bars.yaml", "bad.yaml", "--format", "json")
        found = json.loads(done.stdout)
        assert (done.code, done.stderr, found["ok"]) == (2, "", False)
        good, bad = found["configs"]
        assert good == {"config": "bars.yaml", "ok": True, "layers": 5, "parameters": 38, "problems": [], "remarks": []}
        (problem,) = bad["problems"]
        assert (problem["file"], problem["line"], problem["column"]) == ("bad.yaml", 6, 44)
        assert problem["message"].startswith("filters: expected ")

    def test_csv(self, cnnbp: Command) -> None:
        done = cnnbp("validate", "bars.yaml", "nowhere.yaml", "--format", "csv")
        assert done.lines == [
            "config,ok,layers,parameters,line,column,message",
            "bars.yaml,true,5,38,,,",
            "nowhere.yaml,false,,,,,nowhere.yaml: no such file",
        ]


class TestInit:
    def test_list(self, cnnbp: Command) -> None:
        done = cnnbp("init", columns=200)
        assert done.lines[0] == "template       parameters  what it is"
        listed = [line.split()[0] for line in done.lines[2:] if line[:1].strip()]
        assert listed[0] == "toy"
        assert {"lenet5", "vgg-bn", "resnet-mini"} <= set(listed)

    def test_write_and_train_further(self, cnnbp: Command) -> None:
        done = cnnbp("init", "toy")
        assert (done.code, done.stdout, done.stderr) == (0, "toy.yaml\n", "next: `cnnbp train toy.yaml`\n")
        assert cnnbp("validate", "toy.yaml").stdout == "toy.yaml: ok, 5 layers, 15 parameters\n"

    def test_another_name_or_standard_output(self, cnnbp: Command) -> None:
        assert cnnbp("init", "toy", "mine.yaml").stdout == "mine.yaml\n"
        assert cnnbp("init", "toy", "-").stdout == Path("mine.yaml").read_text(encoding="utf-8")

    def test_nothing_is_overwritten(self, cnnbp: Command) -> None:
        done = cnnbp("init", "toy", "bars.yaml")
        assert (done.code, done.stderr) == (2, "error: bars.yaml: exists already; name another file\n")
        assert Path("bars.yaml").read_text(encoding="utf-8") == BARS

    def test_an_unknown_template(self, cnnbp: Command) -> None:
        done = cnnbp("init", "lenet")
        assert done.code == 2
        assert done.stderr.startswith("error: unknown template 'lenet', did you mean 'lenet5'?")


def test_schema_is_a_json_schema(cnnbp: Command) -> None:
    found = json.loads(cnnbp("schema").stdout)
    assert found["title"] == "cnnbp config"
    assert {"data", "model", "train"} <= found["properties"].keys()


class TestDataInfo:
    def test_table(self, cnnbp: Command) -> None:
        done = cnnbp("data", "info", "bars.yaml")
        assert (done.code, done.stderr) == (0, "")
        assert done.lines[0] == "synthetic bars: images 1×6×6, 2 classes"
        assert [line.split()[:2] for line in done.lines[3:6]] == [["train", "48"], ["validation", "12"], ["test", "20"]]
        assert done.lines[-1].startswith("normalize standard: (x - ")

    def test_json(self, cnnbp: Command) -> None:
        found = json.loads(cnnbp("data", "info", "bars.yaml", "--format", "json").stdout)
        assert [split["name"] for split in found["splits"]] == ["train", "validation", "test"]
        assert found["splits"][0]["count"] == 48
        assert found["shape"] == [1, 6, 6]

    def test_csv(self, cnnbp: Command) -> None:
        found = rows(cnnbp("data", "info", "bars.yaml", "--format", "csv").stdout)
        assert [row["count"] for row in found] == ["48", "12", "20"]
        assert int(found[0]["class_0"]) + int(found[0]["class_1"]) == 48

    def test_data_that_are_not_there(self, cnnbp: Command) -> None:
        done = cnnbp("data", "info", "bars.yaml", "--set", "data={source: npz, path: gone.npz}")
        assert done.code == 2
        assert done.stderr.startswith("error: ")
        assert "gone.npz: does not exist" in done.stderr
