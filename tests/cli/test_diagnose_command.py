"""`cnnbp diagnose`: options, formats, exit codes, widths, and what is no config and no run."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from io import StringIO
from pathlib import Path

import pytest
from cli.bars import Command

from cnnbp_cli.diagnosis import Diagnosis, Finding
from cnnbp_cli.report.diagnose import FIELDS, render

SYMMETRIC = ("--set", "model.init=zeros")
NAMES = ("symmetric-init", "dead-relu", "data-leak", "overfitting", "absurd-epsilon", "batch-norm-train-eval-gap")


def flat(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


class TestFindings:
    def test_table(self, cnnbp: Command) -> None:
        done = cnnbp("diagnose", "bars.yaml", *SYMMETRIC, "--select", "symmetric-init", columns=120)
        assert (done.code, done.stderr) == (1, "")
        assert done.lines[0] == "error: symmetric-init  edges, step 1"
        assert [line.split()[0] for line in done.lines[1:4]] == ["evidence", "threshold", "why"]
        assert "    remedy  cnnbp train bars.yaml --set model.init=he_normal" in done.lines
        assert "bars.yaml: 1 error, by 1 rule" in done.lines
        assert done.lines[-1] == "      more  cnnbp diagnose --explain symmetric-init"

    def test_json(self, cnnbp: Command) -> None:
        done = cnnbp("diagnose", "bars.yaml", *SYMMETRIC, "--select", "symmetric-init", "--format", "json")
        found = json.loads(done.stdout)
        assert (done.code, found["ok"], found["source"]) == (1, False, "bars.yaml")
        (finding,) = found["findings"]
        assert list(finding) == list(FIELDS)
        assert finding["rule"] == "symmetric-init"
        assert finding["remedy"] == "--set model.init=he_normal"
        assert finding["confirmed"] is None
        assert found["evidence"]["steps"] == 8

    def test_csv(self, cnnbp: Command) -> None:
        done = cnnbp("diagnose", "bars.yaml", *SYMMETRIC, "--select", "symmetric-init", "--format", "csv")
        (row,) = csv.DictReader(StringIO(done.stdout))
        assert list(row) == list(FIELDS)
        assert (row["severity"], row["layer"], row["step"]) == ("error", "edges", "1")

    @pytest.mark.parametrize("columns", [60, 80, 120])
    def test_every_width_shows_every_word(self, cnnbp: Command, columns: int) -> None:
        arguments = ["diagnose", "bars.yaml", *SYMMETRIC, "--ignore", "progress"]
        done = cnnbp(*arguments, columns=columns)
        assert max(map(len, done.lines)) <= columns
        assert "…" not in done.stdout
        words = cnnbp(*arguments, columns=200).stdout.split()
        assert [word for word in done.stdout.split() if word != "\\"] == words

    def test_no_escape_codes_in_a_pipe(self, cnnbp: Command) -> None:
        done = cnnbp("diagnose", "bars.yaml", *SYMMETRIC)
        assert "\x1b" not in done.stdout + done.stderr

    def test_confirm(self, cnnbp: Command) -> None:
        remedy = ("--set", "train.epochs=20")
        arguments = ("diagnose", "bars.yaml", *SYMMETRIC, *remedy, "--select", "symmetric-init", "--confirm")
        done = cnnbp(*arguments)
        assert done.code == 1
        assert " confirmed  yes: with it the symptom goes away" in done.lines
        assert json.loads(cnnbp(*arguments, "--format", "json").stdout)["findings"][0]["confirmed"] is True

    def test_steps(self, cnnbp: Command) -> None:
        found = json.loads(cnnbp("diagnose", "bars.yaml", "--steps", "3", "--format", "json").stdout)
        assert found["evidence"]["steps"] == 3

    def test_a_config_from_standard_input(self, cnnbp: Command) -> None:
        text = Path("bars.yaml").read_text(encoding="utf-8")
        done = cnnbp("diagnose", "-", "--select", "symmetric-init", stdin=text)
        assert (done.code, done.lines[0]) == (0, "-: ok, nothing found by 1 rule")

    def test_nothing_found_says_what_was_looked_at(self, cnnbp: Command) -> None:
        done = cnnbp("diagnose", "bars.yaml", "--select", "symmetric-init,data-leak", "--select", "dead-relu")
        assert (done.code, done.stderr) == (0, "")
        assert done.lines[0] == "bars.yaml: ok, nothing found by 3 rules"
        assert [line[:10].strip() for line in done.lines[1:]] == ["looked at", "loss", "accuracy", "skill"]
        assert done.lines[1] == " looked at  8 of 8 planned steps"

    def test_families_can_be_ignored(self, cnnbp: Command) -> None:
        families = "data,start,network,generalisation,flow"
        still = ("--set", "train.optimizer.learning_rate=0.0")
        done = cnnbp("diagnose", "bars.yaml", *still, "--ignore", families, "--format", "json")
        rules = {finding["rule"] for finding in json.loads(done.stdout)["findings"]}
        assert rules
        assert rules <= {
            *("loss-not-falling", "diverging-loss", "oscillating-loss"),
            *("learning-rate-too-low", "learning-rate-too-high", "absurd-epsilon"),
        }

    @pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warning", 1), ("info", 1)])
    def test_fail_on(self, cnnbp: Command, fail_on: str, code: int) -> None:
        small = ["--set", "model.layers.1=batch_norm", "--set", "train.batch_size=5", "--set", "train.epochs=30"]
        arguments = ["diagnose", "bars.yaml", *small, "--select", "batch-norm-small-batch", "--format", "json"]
        done = cnnbp(*arguments, "--fail-on", fail_on)
        found = json.loads(done.stdout)
        assert [finding["severity"] for finding in found["findings"]] == ["warning"]
        assert (done.code, found["ok"]) == (code, code == 0)


class TestRun:
    def test_a_finished_run(self, cnnbp: Command, bars_run: Path) -> None:
        done = cnnbp("diagnose", bars_run, "--select", "flow", columns=200)
        assert done.code in (0, 1)
        assert done.stderr == ""
        assert " looked at  8 of 8 planned steps" in done.lines

    def test_the_remedy_names_the_config_of_the_run(self, cnnbp: Command) -> None:
        assert cnnbp("train", "bars.yaml", "--quiet", "--out", "bad", *SYMMETRIC).code == 0
        done = cnnbp("diagnose", "bad", "--select", "symmetric-init")
        assert done.code == 1
        (remedy,) = (line.split(maxsplit=1)[1] for line in done.lines if line.startswith("    remedy"))
        assert remedy == f"cnnbp train {Path('bad/config.yaml')} --set model.init=he_normal"
        assert cnnbp(*shlex.split(remedy)[1:], "--quiet", "--out", "mended").code == 0

    def test_a_crashed_run(self, cnnbp: Command) -> None:
        huge = ["--set", "train.optimizer={type: sgd, learning_rate: 1.0e+30}"]
        assert cnnbp("train", "bars.yaml", "--quiet", "--out", "crashed", *huge).code == 1
        done = cnnbp("diagnose", "crashed", "--ignore", "data")  # 48 images are few to find neighbors among
        assert done.code == 1
        assert done.lines[0].startswith("error: learning-rate-too-high")  # the cause comes first
        assert "non-finite" in done.stdout  # and its symptom below

    @pytest.mark.parametrize("option", [("--set", "seed=1"), ("--steps", "3"), ("--confirm",)])
    def test_a_run_is_not_trained(self, cnnbp: Command, bars_run: Path, option: tuple[str, ...]) -> None:
        done = cnnbp("diagnose", bars_run, *option, columns=200)
        assert (done.code, done.stdout) == (2, "")
        assert f"error: {option[0]}: a run is read, not trained: name " in flat(done.stderr)

    def test_damaged_events(self, cnnbp: Command, bars_run: Path) -> None:
        shutil.copytree(bars_run, "damaged")
        events = Path("damaged/events.jsonl")
        events.write_text("no json\n" + events.read_text(encoding="utf-8"), encoding="utf-8")
        done = cnnbp("diagnose", "damaged")
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr == f"error: {events}:1: is not an event of a run\n"

    def test_a_folder_that_is_no_run(self, cnnbp: Command) -> None:
        Path("empty").mkdir()
        done = cnnbp("diagnose", "empty")
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr == "error: empty: is not a run directory; `cnnbp train` makes one from a config\n"


class TestRules:
    def test_list(self, cnnbp: Command) -> None:
        done = cnnbp("diagnose", "--list-rules", columns=80)
        assert done.code == 0
        assert max(map(len, done.lines)) <= 80
        names = {line.split()[0] for line in done.lines[2:] if not line.startswith(" ")}
        assert names.issuperset(NAMES)
        assert {
            rule["name"] for rule in json.loads(cnnbp("diagnose", "--list-rules", "--format", "json").stdout)
        } == names
        rows = csv.DictReader(StringIO(cnnbp("diagnose", "--list-rules", "--format", "csv").stdout))
        assert {row["name"] for row in rows} == names

    def test_explain(self, cnnbp: Command) -> None:
        done = cnnbp("diagnose", "--explain", "dead-relu", columns=80)
        assert (done.code, done.lines[0]) == (0, "dead-relu (flow)")
        assert max(map(len, done.lines)) <= 80
        told = json.loads(cnnbp("diagnose", "--explain", "dead-relu", "--format", "json").stdout)
        for name in ("definition", "formula", "source", "advice"):
            assert flat(told[name]) in flat(done.stdout)
        (row,) = csv.DictReader(StringIO(cnnbp("diagnose", "--explain", "dead-relu", "--format", "csv").stdout))
        assert row == told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "missing CONFIG|RUN"),
        (("bars.yaml", "--select", "dead-rel"), "error: unknown rule or family 'dead-rel', did you mean 'dead-relu'?"),
        (("bars.yaml", "--ignore", "flaw"), "error: unknown rule or family 'flaw', did you mean 'flow'?"),
        (("--explain", "overfiting"), "error: unknown rule 'overfiting', did you mean 'overfitting'?"),
        (("bars.yaml", "--select", "dead-relu", "--ignore", "flow"), "error: --ignore: no rule is left"),
        (("bars.yaml", "--select", ","), "error: --select: names no rule"),
        (("bars.yaml", "--steps", "0"), "error: --steps"),
        (("bars.yaml", "--fail-on", "fatal"), "'fatal' is not one of 'info', 'warning', 'error'"),
        (("none.yaml",), "error: none.yaml: no such file"),
        (("bars.yaml", "--set", "seed=x"), "seed"),
    ],
)
def test_bad_input(cnnbp: Command, arguments: tuple[str, ...], message: str) -> None:
    done = cnnbp("diagnose", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert message in flat(done.stderr)


def finding(**more: object) -> Finding:
    values = {"rule": "overfitting", "severity": "warning", "evidence": "a gap", "threshold": "none", "why": "It is."}
    return Finding(**(values | more))  # type: ignore[arg-type]


SEEN = {
    **{"steps": 1200, "planned_steps": None, "first_loss": 2.3, "last_loss": float("inf"), "uniform_loss": None},
    **{"train_accuracy": None, "held_out_accuracy": None, "skill": 0.0, "expected_skill": 0.5},
}


def test_commands_keep_what_was_given_and_can_be_pasted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    remedy = '--set "model.layers.3={type: relu, name: a}" --set train.batch_size=32'
    report = Diagnosis(source="my net.yaml", findings=(finding(remedy=remedy),), evidence=SEEN)
    render(report, "table", rules=2, overrides=["seed=1", "train.batch_size=1"], layers=["own.py"])
    lines = capsys.readouterr().out.splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("    remedy"))
    command = "\n".join([lines[at].removeprefix("    remedy"), *lines[at + 1 : lines.index("")]])
    assert max(map(len, lines)) <= 60
    assert shlex.split(command.replace("\\\n", " ")) == [
        *("cnnbp", "train", "my net.yaml", "--layers", "own.py", "--set", "seed=1"),
        *("--set", "model.layers.3={type: relu, name: a}", "--set", "train.batch_size=32"),
    ]


def test_all_that_a_report_may_hold(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    findings = (
        finding(severity="error", layer="conv1", step=1500, remedy="Look at it.", confirmed=False),
        *(finding(severity="info"), finding(severity="info")),
    )
    render(Diagnosis(source="run", findings=findings, evidence=SEEN, notes=("no data",)), "table", rules=31)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "error: overfitting  conv1, step 1,500"
    assert lines[4:7] == ["    remedy  Look at it.", " confirmed  no: with it the symptom stays", ""]
    assert lines[-6:-4] == ["note: no data", "run: 1 error, 2 info, by 31 rules"]
    assert lines[-4:-2] == [" looked at  1,200 steps", "      loss  from 2.3000 to inf"]
