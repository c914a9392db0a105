"""`cnnbp data`: what there is to train on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli.help import App, Group
from cnnbp_cli.cli.options import ConfigFile, CustomLayers, Format, OutputFormat, OverrideFiles, Overrides, examples


class DataSet(StrEnum):
    """What `fetch` knows."""

    MNIST = "mnist"
    FASHION_MNIST = "fashion-mnist"
    KMNIST = "kmnist"
    EMNIST = "emnist"
    CIFAR10 = "cifar10"
    SVHN = "svhn"


class EmnistSplit(StrEnum):
    """The sets that EMNIST consists of."""

    BALANCED = "balanced"
    BYCLASS = "byclass"
    BYMERGE = "bymerge"
    LETTERS = "letters"
    DIGITS = "digits"
    MNIST = "mnist"


def add_to(app: typer.Typer) -> None:
    data = App(cls=Group, no_args_is_help=True)
    data.command(epilog=examples("cnnbp data info lenet5.yaml", "cnnbp data info lenet5.yaml --format json"))(info)
    data.command(
        epilog=examples(
            "cnnbp data fetch fashion-mnist",
            "cnnbp data fetch cifar10",
            "cnnbp data fetch emnist letters --split letters",
            "cnnbp data fetch mnist --mirror https://example.org/mnist",
        )
    )(fetch)
    data.command(
        epilog=examples(
            "cnnbp data convert animals.yaml animals.npz", "cnnbp data convert lenet5.yaml digits.npz --format json"
        )
    )(convert)
    app.add_typer(data, name="data")
    data.callback()(group)


def group() -> None:
    """Look at data sets, fetch public ones, and convert others to files that load quickly."""


def info(
    config: ConfigFile,
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Show the splits of a config's data: images, classes, pixel statistics and memory."""
    from cnnbp_cli.config.load import load_config
    from cnnbp_cli.data.info import data_info
    from cnnbp_cli.loading import load_data
    from cnnbp_cli.report.data import render
    from cnnbp_cli.report.live import waiting
    from cnnbp_cli.report.terminal import note

    with waiting("reading the data"):
        data = load_data(load_config(config, overrides or ()))
        found = data_info(data)
    for remark in data.remarks:
        note(remark)
    render(found, format.value)


def convert(
    config: ConfigFile,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Output file, an npz, which is replaced; or, for pictures, a folder, to go on in."
        ),
    ],
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Write a config's data, such as a folder of pictures, as one npz file, and print what to write into a config."""
    from cnnbp_cli.config.load import load_config
    from cnnbp_cli.data.convert import convert as write
    from cnnbp_cli.loading import task_for
    from cnnbp_cli.report.data import render_converted
    from cnnbp_cli.report.terminal import note

    loaded = load_config(config, overrides or ())
    written = write(loaded.data, loaded.model.input, loaded.seed, task_for(loaded), file)
    for remark in written.remarks:
        note(remark)
    render_converted(written.counts, written.section, format.value)


def fetch(
    data_set: Annotated[
        DataSet, typer.Argument(metavar="NAME", case_sensitive=False, help=f"One of {', '.join(DataSet)}.")
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Target folder; by default one with the name of the data set.")
    ] = None,
    split: Annotated[
        EmnistSplit | None,
        typer.Option(
            "--split", metavar="NAME", help="Which EMNIST set: " + ", ".join(EmnistSplit) + "; balanced by default."
        ),
    ] = None,
    mirror: Annotated[
        str | None, typer.Option("--mirror", metavar="URL", help="URL of a folder that has the files.")
    ] = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Download a public data set, verify it, and print what to write into a config."""
    if split and data_set is not DataSet.EMNIST:
        raise typer.BadParameter("only emnist has several sets.", param_hint="--split")
    name = f"{data_set.value}-{(split or EmnistSplit.BALANCED).value}" if data_set is DataSet.EMNIST else data_set.value

    from cnnbp_cli.data.fetch import PUBLISHED_SETS, fetch
    from cnnbp_cli.report.data import FetchProgress, render_fetched

    source, folder = PUBLISHED_SETS[name], folder or Path(name)
    with FetchProgress() as progress:
        ready = [file for event in fetch(source, folder, mirror) if (file := progress(event))]
    render_fetched(source, folder, ready, format.value)
