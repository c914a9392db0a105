"""The commands and their order in `cnnbp --help`. Each file imports what its command needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnbp_cli import __version__
from cnnbp_cli.cli import (
    compare,
    completion,
    config,
    data,
    diagnose,
    docs,
    evaluate,
    export,
    gradcheck,
    gradnorms,
    import_model,
    init,
    plot,
    predict,
    profile,
    runs,
    schema,
    summary,
    sweep,
    trace,
    train,
    validate,
)
from cnnbp_cli.cli.boundary import Boundary
from cnnbp_cli.cli.help import App

app = App(
    cls=Boundary,
    no_args_is_help=True,
    rich_markup_mode=None,  # a usage error in a box would import half of rich and Markdown: 60 ms
    add_completion=False,  # `cnnbp completion` has scripts that know more
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="cnnbp init lenet5 && cnnbp train lenet5.yaml",
)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cnnbp {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train a convolutional network from one YAML file, watch its gradients, and prove them right."""


COMMANDS = (
    *(train, sweep, evaluate, predict, export, import_model, summary, trace, gradcheck, gradnorms, diagnose),
    *(runs, compare, plot, profile, validate, config, init, schema, docs, completion),
)

for module in COMMANDS:
    module.add_to(app)
data.add_to(app)
