"""`cnnbp diagnose`: what is wrong with a network, its data or its training, and how to fix it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.help import choices
from cnnbp_cli.cli.options import (
    BatchSize,
    CustomLayers,
    Epochs,
    Format,
    LearningRate,
    OutputFormat,
    Overrides,
    Seed,
    as_typed,
    examples,
)


class FailOn(StrEnum):
    """From which severity on a finding makes the verdict negative."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp diagnose lenet5.yaml",
            "cnnbp diagnose lenet5.yaml --set train.schedule.max_learning_rate=3 --confirm",
            "cnnbp diagnose runs/lenet5-1 --select flow,overfitting --fail-on warning",
            "cnnbp diagnose --explain dead-relu",
        )
    )(diagnose)


def diagnose(
    ctx: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG|RUN",
            autocompletion=complete.sources,
            help="A config or a template to train briefly, or a finished or crashed run to read.",
        ),
    ] = None,
    overrides: Overrides = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Report only these rules or families of rules; may be repeated."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Skip these rules or families of rules; may be repeated."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of probe steps for a config; by default a few seconds' worth."),
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Train again with each remedy and report whether it helped.")
    ] = False,
    fail_on: Annotated[
        FailOn, typer.Option(metavar=choices(FailOn), help="Exit with code 1 if a finding has at least this severity.")
    ] = FailOn.ERROR,
    explain: Annotated[str | None, typer.Option(metavar="RULE", help="Explain a rule and exit.")] = None,
    list_rules: Annotated[bool, typer.Option("--list-rules", help="List all rules and exit.")] = False,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Find what is wrong with a network, its data or its training, and name the override that fixes it.

    A config is trained briefly, in memory; a run is read as it is. The likeliest cause comes first.
    """
    if explain is not None or list_rules:
        _about_rules(explain, format)
        return
    if source is None:
        ctx.fail("missing CONFIG|RUN, as in `cnnbp diagnose lenet5`")
    if Path(source).is_dir():
        given = {as_typed(overrides): overrides, "--steps": steps, "--confirm": confirm}
        for option in (option for option, value in given.items() if value):
            config = Path(source) / "config.yaml"
            raise typer.BadParameter(f"a run is read, not trained: name {config} to train anew", param_hint=option)
    from cnnbp_cli.cli.boundary import VERDICT
    from cnnbp_cli.diagnosis import diagnose as judge
    from cnnbp_cli.diagnosis.registry import chosen_rules
    from cnnbp_cli.diagnosis.rules import load_rules
    from cnnbp_cli.report.diagnose import render
    from cnnbp_cli.report.live import waiting

    load_rules()
    if select and not _names(select):
        raise typer.BadParameter("names no rule", param_hint="--select")
    rules = chosen_rules(_names(select), _names(ignore))
    if not rules:
        raise typer.BadParameter("no rule is left", param_hint="--ignore")
    with waiting(f"diagnosing {source}"):
        report = judge(
            source,
            overrides=overrides or (),
            select=[rule.name for rule in rules],
            steps=steps,
            confirm=confirm,
        )
    files = [str(file) for file in layers or ()]
    render(report, format.value, fail_on=fail_on.value, rules=len(rules), overrides=overrides or (), layers=files)
    if report.at_least(fail_on.value):
        raise typer.Exit(VERDICT)


def _about_rules(explain: str | None, format: Format) -> None:
    from cnnbp_cli.diagnosis.registry import RULES, rule_named
    from cnnbp_cli.diagnosis.rules import load_rules
    from cnnbp_cli.report.rules import render_list, render_rule

    load_rules()
    if explain is not None:
        render_rule(rule_named(explain), format.value)
    else:
        render_list(list(RULES.values()), format.value)


def _names(words: list[str] | None) -> list[str]:
    """Return names that were given one by one, or several with commas between them."""
    return [name.strip() for word in words or () for name in word.split(",") if name.strip()]
