"""`cnnbp schema`: the config format for editors."""

from __future__ import annotations

import typer

from cnnbp_cli.cli.options import CustomLayers, examples


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples("cnnbp schema > cnnbp.schema.json"))(schema)


def schema(layers: CustomLayers = None) -> None:
    """Print the JSON Schema of a config, for completion and checks in editors."""
    import json

    from cnnbp_cli.config.jsonschema import json_schema

    print(json.dumps(json_schema(), indent=2))
